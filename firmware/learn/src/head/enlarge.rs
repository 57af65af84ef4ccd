//! Masks' logits at twice their size, as the mirror makes scores of them, and the way back for their gradients.
//!
//! Bilinear, pixel centres aligned: every value is three quarters of the nearest one and a quarter of the next, in each direction.

use super::real::Real;

/// Enlarges a plane of width `width` into `out`, which is twice as wide and twice as high.
pub fn enlarge<R: Real>(plane: &[R], width: usize, out: &mut [R]) {
    let (most, rest) = weights::<R>();
    let height = plane.len() / width;
    // A value more on each side: the border goes on as it ends.
    let mut line = vec![R::ZERO; width + 2];
    for (y, out) in out.chunks_exact_mut(2 * width).enumerate() {
        let (near, far) = rows(y, height);
        let pairs = plane[near * width..][..width].iter().zip(&plane[far * width..][..width]);
        line[1..=width].iter_mut().zip(pairs).for_each(|(v, (&a, &b))| *v = most * a + rest * b);
        (line[0], line[width + 1]) = (line[1], line[width]);
        for (pair, around) in out.chunks_exact_mut(2).zip(line.windows(3)) {
            pair[0] = rest * around[0] + most * around[1];
            pair[1] = most * around[1] + rest * around[2];
        }
    }
}

/// Adds the gradient of an enlarged plane, `enlarged`, to that of the plane itself.
pub fn add_back<R: Real>(enlarged: &[R], width: usize, plane: &mut [R]) {
    let (most, rest) = weights::<R>();
    let height = plane.len() / width;
    let mut line = vec![R::ZERO; width + 2];
    for (y, enlarged) in enlarged.chunks_exact(2 * width).enumerate() {
        line.fill(R::ZERO);
        for (x, pair) in enlarged.chunks_exact(2).enumerate() {
            line[x] += rest * pair[0];
            line[x + 1] += most * (pair[0] + pair[1]);
            line[x + 2] += rest * pair[1];
        }
        let (left, right) = (line[0], line[width + 1]);
        line[1] += left;
        line[width] += right;
        let (near, far) = rows(y, height);
        for (row, share) in [(near, most), (far, rest)] {
            let row = &mut plane[row * width..][..width];
            row.iter_mut().zip(&line[1..]).for_each(|(d, &v)| *d += share * v);
        }
    }
}

fn weights<R: Real>() -> (R, R) {
    (R::from_f64(0.75), R::from_f64(0.25))
}

/// The nearest and the next row of a plane for a row of the enlarged one.
fn rows(y: usize, height: usize) -> (usize, usize) {
    let near = y / 2;
    let far = if y.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(height - 1) };
    (near, far)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_stays_one_and_the_border_goes_on() {
        let mut out = [0.0; 8 * 4];
        enlarge(&[0.0, 4.0, 8.0, 12.0, 0.0, 4.0, 8.0, 12.0], 4, &mut out);
        for line in out.chunks_exact(8) {
            assert_eq!(line, [0.0, 1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 12.0]);
        }
        let mut tall = [0.0; 16];
        enlarge(&[0.0, 4.0, 8.0, 12.0], 1, &mut tall);
        assert_eq!(
            tall.map(|v: f64| v as i32),
            [0, 0, 1, 1, 3, 3, 5, 5, 7, 7, 9, 9, 11, 11, 12, 12]
        );
    }

    #[test]
    fn the_way_back_is_the_transposed_map() {
        // <enlarge(a), b> = <a, back(b)> for any a and b.
        let a: Vec<f64> = (0..15).map(|i| f64::from(i * i % 7) - 2.5).collect();
        let b: Vec<f64> = (0..60).map(|i| f64::from(i * 5 % 11) - 4.0).collect();
        let (mut large, mut small) = (vec![0.0; 60], vec![0.0; 15]);
        enlarge(&a, 5, &mut large);
        add_back(&b, 5, &mut small);
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        assert!((dot(&large, &b) - dot(&a, &small)).abs() < 1e-9);
    }
}
