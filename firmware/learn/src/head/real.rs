//! The number types that the head runs in, and matrix products over strided views.

use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub, SubAssign};

/// `f32` on devices, `f64` in the tests that check gradients.
pub trait Real:
    Copy
    + Debug
    + Default
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + Sum
{
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// The nearest value.
    fn from_f64(value: f64) -> Self;
    /// `e^self`.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// The larger of the two.
    fn max(self, other: Self) -> Self;
    /// `c = alpha a b + beta c` over raw strided memory.
    ///
    /// # Safety
    /// `sizes` is (m, k, n). Every element `pointer + i rows + j columns` of the m x k, k x n and m x n matrices must
    /// be valid, and those of `c` must not alias anything else.
    unsafe fn product_raw(
        sizes: (usize, usize, usize),
        alpha: Self,
        a: (*const Self, isize, isize),
        b: (*const Self, isize, isize),
        beta: Self,
        c: (*mut Self, isize, isize),
    );
}

macro_rules! real {
    ($type:ty, $product:path) => {
        impl Real for $type {
            const ZERO: $type = 0.0;
            const ONE: $type = 1.0;

            fn from_f64(value: f64) -> $type {
                value as $type
            }

            fn exp(self) -> $type {
                <$type>::exp(self)
            }

            fn ln(self) -> $type {
                <$type>::ln(self)
            }

            fn sqrt(self) -> $type {
                <$type>::sqrt(self)
            }

            fn max(self, other: $type) -> $type {
                <$type>::max(self, other)
            }

            unsafe fn product_raw(
                (m, k, n): (usize, usize, usize),
                alpha: $type,
                a: (*const $type, isize, isize),
                b: (*const $type, isize, isize),
                beta: $type,
                c: (*mut $type, isize, isize),
            ) {
                // SAFETY: the caller's promise is this function's own.
                unsafe {
                    $product(m, k, n, alpha, a.0, a.1, a.2, b.0, b.1, b.2, beta, c.0, c.1, c.2)
                }
            }
        }
    };
}

real!(f32, matrixmultiply::sgemm);
real!(f64, matrixmultiply::dgemm);

/// Where the elements of a matrix lie within a slice.
#[derive(Clone, Copy, Debug)]
struct Strides {
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
    offset: usize,
}

impl Strides {
    fn row_major(rows: usize, columns: usize) -> Strides {
        Strides { rows, columns, row_stride: columns, column_stride: 1, offset: 0 }
    }

    fn columns(self, start: usize, count: usize) -> Strides {
        assert!(start + count <= self.columns, "columns {start}+{count} of {}", self.columns);
        Strides { columns: count, offset: self.offset + start * self.column_stride, ..self }
    }

    fn transposed(self) -> Strides {
        Strides {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Elements that a slice must have for every index to be inside.
    fn extent(self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return self.offset;
        }
        self.offset
            + (self.rows - 1) * self.row_stride
            + (self.columns - 1) * self.column_stride
            + 1
    }
}

/// A matrix to read from.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, R> {
    data: &'a [R],
    at: Strides,
}

impl<'a, R: Real> View<'a, R> {
    /// A row-major matrix; the slice may be longer.
    pub fn new(data: &'a [R], rows: usize, columns: usize) -> View<'a, R> {
        assert!(data.len() >= rows * columns, "{} values for {rows} x {columns}", data.len());
        View { data, at: Strides::row_major(rows, columns) }
    }

    /// `count` columns from `start`.
    pub fn columns(self, start: usize, count: usize) -> View<'a, R> {
        View { at: self.at.columns(start, count), ..self }
    }

    /// The transposed matrix.
    pub fn t(self) -> View<'a, R> {
        View { at: self.at.transposed(), ..self }
    }
}

/// A matrix to write to.
#[derive(Debug)]
pub struct ViewMut<'a, R> {
    data: &'a mut [R],
    at: Strides,
}

impl<'a, R: Real> ViewMut<'a, R> {
    /// A row-major matrix; the slice may be longer.
    pub fn new(data: &'a mut [R], rows: usize, columns: usize) -> ViewMut<'a, R> {
        assert!(data.len() >= rows * columns, "{} values for {rows} x {columns}", data.len());
        ViewMut { data, at: Strides::row_major(rows, columns) }
    }

    /// `count` columns from `start`.
    pub fn columns(self, start: usize, count: usize) -> ViewMut<'a, R> {
        ViewMut { at: self.at.columns(start, count), data: self.data }
    }
}

/// `c = alpha a b + beta c`.
pub fn product<R: Real>(alpha: R, a: View<'_, R>, b: View<'_, R>, beta: R, c: ViewMut<'_, R>) {
    let sizes = (a.at.rows, a.at.columns, b.at.columns);
    let fits = a.at.columns == b.at.rows && c.at.rows == a.at.rows && c.at.columns == b.at.columns;
    assert!(fits, "{sizes:?} into {} x {}", c.at.rows, c.at.columns);
    let inside = a.at.extent() <= a.data.len()
        && b.at.extent() <= b.data.len()
        && c.at.extent() <= c.data.len();
    assert!(inside, "a matrix reaches beyond its slice");
    let strides = |at: Strides| (at.row_stride as isize, at.column_stride as isize);
    let (a_rows, a_columns) = strides(a.at);
    let (b_rows, b_columns) = strides(b.at);
    let (c_rows, c_columns) = strides(c.at);
    // SAFETY: the extents were checked against the slices just above, `c` is borrowed mutably and so aliases nothing,
    // and distinct indices of `c` are distinct elements, because its strides are those of a matrix or a part of one.
    unsafe {
        R::product_raw(
            sizes,
            alpha,
            (a.data[a.at.offset..].as_ptr(), a_rows, a_columns),
            (b.data[b.at.offset..].as_ptr(), b_rows, b_columns),
            beta,
            (c.data[c.at.offset..].as_mut_ptr(), c_rows, c_columns),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_parts_and_transposes() {
        let a: Vec<f64> = (0..12).map(f64::from).collect();
        let b: Vec<f64> = (0..20).map(|v| f64::from(v) * 0.5 - 3.0).collect();
        let mut c = vec![1.0; 3 * 6];
        // Columns 1..3 of a 3 x 4, times columns 2..4 of a 5 x 4 transposed and cut to 2 x 5.
        let left = View::new(&a, 3, 4).columns(1, 2);
        let right = View::new(&b, 5, 4).columns(2, 2).t();
        product(2.0, left, right, 1.0, ViewMut::new(&mut c, 3, 6).columns(1, 5));
        for i in 0..3 {
            assert_eq!(c[6 * i], 1.0, "untouched");
            for j in 0..5 {
                let dot: f64 = (0..2).map(|k| a[4 * i + 1 + k] * b[4 * j + 2 + k]).sum();
                assert_eq!(c[6 * i + 1 + j], 1.0 + 2.0 * dot);
            }
        }
    }

    #[test]
    #[should_panic(expected = "into")]
    fn sizes_that_do_not_fit_panic() {
        let a = [0.0; 6];
        let mut c = [0.0; 4];
        product(1.0, View::new(&a, 2, 3), View::new(&a, 2, 3), 0.0, ViewMut::new(&mut c, 2, 2));
    }
}
