//! Int8 products on a PC that has AVX2 and no instruction for them.
//!
//! tract-linalg 0.23.9 brings `avx2_mmm_i32_8x8` for these PCs. It multiplies eight numbers with one instruction and widens them with
//! two more; and it loads in SSE's encoding among AVX2's, over which some processors and virtual machines take a hundred times longer.
//! `vpmaddwd` multiplies sixteen and adds them in pairs. The sums are the same: all of it is exact.

#[allow(
    clippy::wildcard_imports,
    reason = "the processor's instructions are named by their own names"
)]
use std::arch::x86_64::*;
use std::sync::LazyLock;

use tract_core::prelude::Datum;
use tract_linalg::isa::{Arch, Isa, IsaReq, IsaSet};
use tract_linalg::mmm::{DynKernel, FusedKerSpec, OutputStoreKer, RoundingPolicy};
use tract_linalg::mmm_routines::MmmRoutine;
use tract_linalg::mmm_tiers::MmmTier;
use tract_linalg::pack::{PackedI8K4, Packing};
use tract_linalg::{ScaleShiftAndRound, Scaler};

/// Rows of the left-hand operand, output channels of a convolution, that are multiplied at once.
const ROWS: usize = 8;
/// Columns of the right-hand one, pixels: as many as leave four of the sixteen registers for the operands.
const COLUMNS: usize = 6;
/// What is summed up, column after column.
type Tile = [[i32; ROWS]; COLUMNS];

const NAME: &str = "mirror_avx2_i32_8x6";
/// The instruction sets whose kernels are better than this one.
const BETTER: [Isa; 3] = [Isa::X86_64AvxVnni, Isa::X86_64Avx512Vnni, Isa::X86_64AmxInt8];

static KERNEL: LazyLock<DynKernel<ROWS, COLUMNS, i32>> = LazyLock::new(|| {
    let mut kernel = DynKernel::new(NAME, run, i32::packing(ROWS), i32::packing(COLUMNS))
        .with_packing(PackedI8K4::new(ROWS), PackedI8K4::new(COLUMNS))
        .with_store::<i8>()
        .with_isa(IsaReq::ANY.needing(&[Isa::X86_64Avx2]));
    kernel.arch = Some(Arch::X86_64);
    kernel
});

// tract finds kernels, and what is preferred where, by these lists.
inventory::submit! { MmmRoutine { make: || KERNEL.mmm() } }
inventory::submit! {
    MmmTier {
        arch: Some(Arch::X86_64),
        // tract's own tiers end at 8.
        precedence: 9,
        name: NAME,
        applies,
        preferred: |_, accumulator, query, _| (accumulator == i32::datum_type() && query.n != Some(1)).then_some(NAME),
    }
}

fn applies(isa: &IsaSet) -> bool {
    isa.has(Isa::X86_64Avx2) && !BETTER.iter().any(|better| isa.has(*better))
}

/// Does what tract asks for with one tile, step by step; 1 where it asks for something that does not exist here.
///
/// # Safety
/// The processor has AVX2, and every pointer in `steps` is good for what tract says of it.
unsafe fn run(steps: &[FusedKerSpec<i32>]) -> isize {
    let mut tile = [[0; ROWS]; COLUMNS];
    for step in steps {
        if matches!(step, FusedKerSpec::Done) {
            break;
        }
        // SAFETY: as promised by the caller.
        if !unsafe { take(&mut tile, step) } {
            return 1;
        }
    }
    0
}

/// One step: what is done with the tile, or with what it is made of. Sums wrap, as those of tract's kernels do.
///
/// # Safety
/// As [`run`]'s.
#[target_feature(enable = "avx2")]
unsafe fn take(tile: &mut Tile, step: &FusedKerSpec<i32>) -> bool {
    use FusedKerSpec as Step;
    // SAFETY of every block here: tract's pointers reach as far as a tile does, or as far as its `k` says.
    match *step {
        Step::Done => {}
        Step::Clear => *tile = [[0; ROWS]; COLUMNS],
        Step::LoadTile(columns, _) => *tile = unsafe { columns.cast::<Tile>().read_unaligned() },
        Step::ScalarMin(x) => each(tile, |v| v.min(x)),
        Step::ScalarMax(x) => each(tile, |v| v.max(x)),
        Step::ScalarAdd(x) => each(tile, |v| v.wrapping_add(x)),
        Step::ScalarMul(x) => each(tile, |v| v.wrapping_mul(x)),
        Step::ScalarSub(x) => each(tile, |v| x.wrapping_sub(v)),
        Step::ScalarSubF(x) => each(tile, |v| v.wrapping_sub(x)),
        Step::LeakyRelu(x) => each(tile, |v| if v > 0 { v } else { x.wrapping_mul(v) }),
        Step::PerRowMin(rows) => by_row(tile, unsafe { read(rows) }, i32::min),
        Step::PerRowMax(rows) => by_row(tile, unsafe { read(rows) }, i32::max),
        Step::PerRowAdd(rows) => by_row(tile, unsafe { read(rows) }, i32::wrapping_add),
        Step::PerRowMul(rows) => by_row(tile, unsafe { read(rows) }, i32::wrapping_mul),
        Step::PerRowSub(rows) => by_row(tile, unsafe { read(rows) }, i32::wrapping_sub),
        Step::PerRowSubF(rows) => by_row(tile, unsafe { read(rows) }, |x, v| v.wrapping_sub(x)),
        Step::PerColMin(columns) => by_column(tile, unsafe { read(columns) }, i32::min),
        Step::PerColMax(columns) => by_column(tile, unsafe { read(columns) }, i32::max),
        Step::PerColAdd(columns) => by_column(tile, unsafe { read(columns) }, i32::wrapping_add),
        Step::PerColMul(columns) => by_column(tile, unsafe { read(columns) }, i32::wrapping_mul),
        Step::PerColSub(columns) => by_column(tile, unsafe { read(columns) }, i32::wrapping_sub),
        Step::PerColSubF(columns) => {
            by_column(tile, unsafe { read(columns) }, |x, v| v.wrapping_sub(x))
        }
        Step::QScale(shift, RoundingPolicy::Even, factor)
            if factor >= 0 && (1..=62).contains(&(shift + 31)) =>
        {
            scale_to_even(tile, (shift + 31) as i64, factor);
        }
        Step::QScale(shift, rounding, factor) => {
            each(tile, |v| v.q_scale(Scaler::from_fuse_params(shift, rounding, factor)));
        }
        Step::RoundingShiftRight(shift, rounding) => each(tile, |v| v.q_shr(shift, rounding)),
        Step::ShiftLeft(shift) => each(tile, |v| v.q_shl(shift)),
        Step::AddRowColProducts(rows, columns) => unsafe { add_wide(tile, 1, rows, columns) },
        Step::AddUnicast(other) => return unsafe { add(tile, &other) },
        Step::Store(place) => return unsafe { store(tile, &place) },
        Step::AddMatMul { k, pa, pb, packing: 0 } => unsafe {
            add_wide(tile, k, pa.cast(), pb.cast())
        },
        Step::AddMatMul { k, pa, pb, packing: 1 } => unsafe {
            add_products(tile, k.div_ceil(4), pa.cast(), pb.cast())
        },
        Step::AddMatMul { .. } => return false,
    }
    true
}

/// # Safety
/// `N` numbers are there.
unsafe fn read<const N: usize>(numbers: *const i32) -> [i32; N] {
    // SAFETY: as promised by the caller.
    unsafe { numbers.cast::<[i32; N]>().read_unaligned() }
}

#[inline]
fn each(tile: &mut Tile, change: impl Fn(i32) -> i32) {
    tile.as_flattened_mut().iter_mut().for_each(|v| *v = change(*v));
}

#[inline]
fn by_row(tile: &mut Tile, rows: [i32; ROWS], change: impl Fn(i32, i32) -> i32) {
    for line in tile {
        line.iter_mut().zip(rows).for_each(|(v, row)| *v = change(row, *v));
    }
}

#[inline]
fn by_column(tile: &mut Tile, columns: [i32; COLUMNS], change: impl Fn(i32, i32) -> i32) {
    for (line, column) in tile.iter_mut().zip(columns) {
        line.iter_mut().for_each(|v| *v = change(column, *v));
    }
}

/// Adds the products of operands that are packed four along the sum, row after row and column after column: `blocks` times four.
///
/// # Safety
/// `a` has `blocks` times `4 * ROWS` bytes, `b` as many times `4 * COLUMNS`.
#[target_feature(enable = "avx2")]
unsafe fn add_products(tile: &mut Tile, blocks: usize, a: *const i8, b: *const i8) {
    // Every row has two sums in these, of two products out of four each: of the first four rows and of the last four.
    let mut upper = [_mm256_setzero_si256(); COLUMNS];
    let mut lower = [_mm256_setzero_si256(); COLUMNS];
    for block in 0..blocks {
        // SAFETY: as promised by the caller.
        let (first, last, columns) = unsafe {
            let rows = a.add(4 * ROWS * block).cast::<__m128i>();
            (
                _mm_loadu_si128(rows),
                _mm_loadu_si128(rows.add(1)),
                b.add(4 * COLUMNS * block).cast::<i32>(),
            )
        };
        let (first, last) = (_mm256_cvtepi8_epi16(first), _mm256_cvtepi8_epi16(last));
        for column in 0..COLUMNS {
            // SAFETY: as promised by the caller.
            let four = _mm256_cvtepi8_epi16(_mm_set1_epi32(unsafe {
                columns.add(column).read_unaligned()
            }));
            upper[column] = _mm256_add_epi32(upper[column], _mm256_madd_epi16(first, four));
            lower[column] = _mm256_add_epi32(lower[column], _mm256_madd_epi16(last, four));
        }
    }
    for (line, (upper, lower)) in tile.iter_mut().zip(upper.into_iter().zip(lower)) {
        // Rows 0 1 4 5 2 3 6 7 after the sums of neighbours.
        let sums = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(upper, lower));
        let line = line.as_mut_ptr().cast::<__m256i>();
        // SAFETY: a column has eight numbers.
        unsafe { _mm256_storeu_si256(line, _mm256_add_epi32(_mm256_loadu_si256(line), sums)) };
    }
}

/// Adds the products of operands that are 32 bits wide, packed one along the sum; of one row and one column it is what zero points add.
///
/// # Safety
/// `a` has `k` times `ROWS` numbers, `b` as many times `COLUMNS`.
unsafe fn add_wide(tile: &mut Tile, k: usize, a: *const i32, b: *const i32) {
    for index in 0..k {
        // SAFETY: as promised by the caller.
        let (rows, columns) =
            unsafe { (read::<ROWS>(a.add(ROWS * index)), read::<COLUMNS>(b.add(COLUMNS * index))) };
        for (line, column) in tile.iter_mut().zip(columns) {
            line.iter_mut()
                .zip(rows)
                .for_each(|(v, row)| *v = v.wrapping_add(row.wrapping_mul(column)));
        }
    }
}

/// Every number times `factor` over two to the power of `shift`, rounded to the nearest, a half to the even one.
#[target_feature(enable = "avx2")]
fn scale_to_even(tile: &mut Tile, shift: i64, factor: i32) {
    let (factor, count) = (_mm256_set1_epi64x(i64::from(factor)), _mm_cvtsi64_si128(shift));
    let one = _mm256_set1_epi64x(1);
    let below_half = _mm256_set1_epi64x((1 << (shift - 1)) - 1);
    let scaled = |magnitude: __m256i| {
        let product = _mm256_mul_epu32(magnitude, factor);
        let odd = _mm256_and_si256(_mm256_srl_epi64(product, count), one);
        _mm256_srl_epi64(_mm256_add_epi64(product, _mm256_add_epi64(below_half, odd)), count)
    };
    for line in tile {
        let line = line.as_mut_ptr().cast::<__m256i>();
        // SAFETY: a column has eight numbers.
        let values = unsafe { _mm256_loadu_si256(line) };
        let magnitudes = _mm256_abs_epi32(values);
        let even = scaled(magnitudes);
        let odd = _mm256_slli_epi64::<32>(scaled(_mm256_srli_epi64::<32>(magnitudes)));
        let all = _mm256_sign_epi32(_mm256_blend_epi32::<0b1010_1010>(even, odd), values);
        // SAFETY: the same.
        unsafe { _mm256_storeu_si256(line, all) };
    }
}

/// Adds a matrix of one or four bytes a number; whether it is one.
///
/// # Safety
/// `other` has a tile's rows and columns.
unsafe fn add(tile: &mut Tile, other: &OutputStoreKer) -> bool {
    match other.item_size {
        // SAFETY: as promised by the caller.
        1 => with_places(tile, other, |v, at| {
            *v = v.wrapping_add(i32::from(unsafe { at.cast::<i8>().read() }))
        }),
        // SAFETY: the same.
        4 => with_places(tile, other, |v, at| {
            *v = v.wrapping_add(unsafe { at.cast::<i32>().read_unaligned() })
        }),
        _ => return false,
    }
    true
}

/// Writes the tile into a matrix of one or four bytes a number; whether it is one.
///
/// # Safety
/// `to` has a tile's rows and columns.
unsafe fn store(tile: &mut Tile, to: &OutputStoreKer) -> bool {
    match to.item_size {
        // SAFETY: as promised by the caller.
        1 => with_places(tile, to, |v, at| unsafe { at.write(*v as u8) }),
        // SAFETY: the same.
        4 => with_places(tile, to, |v, at| unsafe { at.cast::<i32>().write_unaligned(*v) }),
        _ => return false,
    }
    true
}

/// Every number of the tile with where it lies in a matrix of the caller's.
#[inline]
fn with_places(tile: &mut Tile, matrix: &OutputStoreKer, both: impl Fn(&mut i32, *mut u8)) {
    for (column, line) in (0..).zip(tile) {
        for (row, v) in (0..).zip(line) {
            both(
                v,
                matrix.ptr.wrapping_offset(
                    matrix.row_byte_stride * row + matrix.col_byte_stride * column,
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_core::prelude::Tensor;
    use tract_linalg::mmm::{AsInputValue, FusedSpec, MMMInputFormat, MmmDispatch, Query};

    /// Numbers that look random, the same each time.
    fn numbers() -> impl FnMut() -> i32 {
        let mut state = 1u64;
        move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 32) as i32
        }
    }

    fn has_avx2() -> bool {
        std::arch::is_x86_feature_detected!("avx2")
    }

    /// The kernel's product of `a`, m rows of k, and `b`, k rows of n, with whole frames of tract around it.
    fn product(a: &[i8], b: &[i8], [m, k, n]: [usize; 3]) -> Vec<i32> {
        let a = Tensor::from_shape(&[m, k], a).expect("a matrix");
        let b = Tensor::from_shape(&[k, n], b).expect("a matrix");
        let sums = Tensor::zero::<i32>(&[m, n]).expect("a matrix");
        let packed = |format: PackedI8K4, matrix: &Tensor, k_axis, other| {
            AsInputValue::Owned(format.prepare_one(matrix, k_axis, other).expect("packed"))
        };
        let kernel = KERNEL.mmm();
        let steps = [
            FusedSpec::AddMatMul {
                a: packed(PackedI8K4::new(ROWS), &a, 1, 0),
                b: packed(PackedI8K4::new(COLUMNS), &b, 0, 1),
                packing: 1,
            },
            // SAFETY: the matrix outlives the run.
            FusedSpec::Store(unsafe { kernel.c_view(Some(0), Some(1)).wrap(&sums.view()) }),
        ];
        // SAFETY: the processor has AVX2, and the operands are packed for this kernel.
        unsafe { kernel.run(m, n, &steps) }.expect("a product");
        sums.to_plain_array_view::<i32>().expect("numbers").iter().copied().collect()
    }

    #[test]
    fn products_are_those_of_plain_arithmetic_at_any_size() {
        if !has_avx2() {
            println!("this processor has no AVX2: nothing to test");
            return;
        }
        let mut next = numbers();
        for size in [[8, 4, 6], [1, 1, 2], [9, 5, 7], [16, 27, 48], [33, 288, 13], [7, 1023, 5]] {
            let [m, k, n] = size;
            // A quarter are the least number that there is: sixteen bits hold no two of their products.
            let mut fill = |count| {
                (0..count)
                    .map(|_| if next() & 3 == 0 { -128 } else { next() as i8 })
                    .collect::<Vec<_>>()
            };
            let (a, b) = (fill(m * k), fill(k * n));
            let plain = |row: usize, column: usize| {
                (0..k)
                    .map(|i| i32::from(a[row * k + i]) * i32::from(b[i * n + column]))
                    .sum::<i32>()
            };
            let expected: Vec<i32> = (0..m * n).map(|at| plain(at / n, at % n)).collect();
            assert_eq!(product(&a, &b, size), expected, "{size:?}");
        }
    }

    /// What the steps make of a tile.
    fn after(tile: Tile, steps: &[FusedKerSpec<i32>]) -> Tile {
        let (mut before, mut result) = (tile, tile);
        let store = OutputStoreKer {
            ptr: result.as_mut_ptr().cast(),
            row_byte_stride: 4,
            col_byte_stride: 4 * ROWS as isize,
            item_size: 4,
        };
        let mut all = vec![FusedKerSpec::LoadTile(before.as_mut_ptr().cast(), std::ptr::null())];
        all.extend(steps);
        all.extend([
            FusedKerSpec::Store(store),
            FusedKerSpec::Done,
            FusedKerSpec::AddMatMul {
                k: 1,
                pa: std::ptr::null(),
                pb: std::ptr::null(),
                packing: 9,
            },
        ]);
        // SAFETY: the processor has AVX2, and the tiles are tiles; nothing after `Done` is looked at.
        assert_eq!(unsafe { run(&all) }, 0);
        result
    }

    fn tile(mut next: impl FnMut() -> i32) -> Tile {
        std::array::from_fn(|_| std::array::from_fn(|_| next()))
    }

    fn changed(tile: &Tile, change: impl Fn(usize, usize, i32) -> i32) -> Tile {
        std::array::from_fn(|column| {
            std::array::from_fn(|row| change(row, column, tile[column][row]))
        })
    }

    #[test]
    fn scales_round_as_tract_says() {
        if !has_avx2() {
            println!("this processor has no AVX2: nothing to test");
            return;
        }
        use RoundingPolicy::{Away, Even, MinusInf, Odd, PlusInf, Zero};
        let mut next = numbers();
        let halves = [0, 1, -1, 2, -2, 3, -3, 5, -5, 6, -6, i32::MAX, i32::MIN + 1, i32::MIN];
        for _ in 0..300 {
            let shift = next().rem_euclid(61) as isize - 30;
            let factor = (1 << 30) + next().rem_euclid(1 << 30);
            let values = tile(|| {
                if next() & 1 == 0 {
                    halves[next().rem_euclid(halves.len() as i32) as usize]
                } else {
                    next() >> next().rem_euclid(20)
                }
            });
            // A factor of a half and its powers gives exact halves.
            for (rounding, factor) in [Even, Even, Zero, Away, MinusInf, PlusInf, Odd]
                .into_iter()
                .zip([1 << 30].into_iter().chain([factor; 6]))
            {
                let scaler = || Scaler::from_fuse_params(shift, rounding, factor);
                let expected = changed(&values, |_, _, v| v.q_scale(scaler()));
                assert_eq!(
                    after(values, &[FusedKerSpec::QScale(shift, rounding, factor)]),
                    expected,
                    "{shift} {rounding:?} {factor}"
                );
            }
        }
    }

    #[test]
    fn steps_do_what_their_names_say() {
        if !has_avx2() {
            println!("this processor has no AVX2: nothing to test");
            return;
        }
        use FusedKerSpec as Step;
        let mut next = numbers();
        let small = |next: &mut dyn FnMut() -> i32| next() % 1000 - 500;
        let values = tile(|| small(&mut next));
        let rows: [i32; ROWS] = std::array::from_fn(|_| small(&mut next));
        let columns: [i32; COLUMNS] = std::array::from_fn(|_| small(&mut next));
        let mut other = tile(|| small(&mut next));
        let mut bytes = other.as_flattened().iter().map(|v| *v as i8).collect::<Vec<_>>();
        let matrix = |ptr: *mut u8, item_size: usize| OutputStoreKer {
            ptr,
            row_byte_stride: item_size as isize,
            col_byte_stride: (ROWS * item_size) as isize,
            item_size,
        };
        let (by_rows, by_columns) = (rows.as_ptr(), columns.as_ptr());
        let expectations: [(Step<i32>, &dyn Fn(usize, usize, i32) -> i32); 25] = [
            (Step::Clear, &|_, _, _| 0),
            (Step::ScalarMin(7), &|_, _, v| v.min(7)),
            (Step::ScalarMax(7), &|_, _, v| v.max(7)),
            (Step::ScalarAdd(7), &|_, _, v| v + 7),
            (Step::ScalarMul(7), &|_, _, v| v * 7),
            (Step::ScalarSub(7), &|_, _, v| 7 - v),
            (Step::ScalarSubF(7), &|_, _, v| v - 7),
            (Step::LeakyRelu(7), &|_, _, v| if v > 0 { v } else { 7 * v }),
            (Step::PerRowMin(by_rows), &|row, _, v| v.min(rows[row])),
            (Step::PerRowMax(by_rows), &|row, _, v| v.max(rows[row])),
            (Step::PerRowAdd(by_rows), &|row, _, v| v + rows[row]),
            (Step::PerRowMul(by_rows), &|row, _, v| v * rows[row]),
            (Step::PerRowSub(by_rows), &|row, _, v| rows[row] - v),
            (Step::PerRowSubF(by_rows), &|row, _, v| v - rows[row]),
            (Step::PerColMin(by_columns), &|_, column, v| v.min(columns[column])),
            (Step::PerColMax(by_columns), &|_, column, v| v.max(columns[column])),
            (Step::PerColAdd(by_columns), &|_, column, v| v + columns[column]),
            (Step::PerColMul(by_columns), &|_, column, v| v * columns[column]),
            (Step::PerColSub(by_columns), &|_, column, v| columns[column] - v),
            (Step::PerColSubF(by_columns), &|_, column, v| v - columns[column]),
            (Step::ShiftLeft(3), &|_, _, v| v * 8),
            (Step::RoundingShiftRight(3, RoundingPolicy::Even), &|_, _, v| {
                v.q_shr(3, RoundingPolicy::Even)
            }),
            (Step::AddRowColProducts(by_rows, by_columns), &|row, column, v| {
                v + rows[row] * columns[column]
            }),
            (Step::AddUnicast(matrix(other.as_mut_ptr().cast(), 4)), &|row, column, v| {
                v + other[column][row]
            }),
            (Step::AddUnicast(matrix(bytes.as_mut_ptr().cast(), 1)), &|row, column, v| {
                v + i32::from(other[column][row] as i8)
            }),
        ];
        for (step, expected) in expectations {
            assert_eq!(after(values, &[step]), changed(&values, expected), "{step:?}");
        }
        let mut stored = [0i8; ROWS * COLUMNS];
        after(values, &[Step::Store(matrix(stored.as_mut_ptr().cast(), 1))]);
        assert_eq!(
            stored.to_vec(),
            values.as_flattened().iter().map(|v| *v as i8).collect::<Vec<_>>()
        );
        // SAFETY: what is refused is not touched.
        let refused = unsafe { run(&[Step::Store(matrix(std::ptr::null_mut(), 2)), Step::Done]) };
        assert_eq!(refused, 1, "a matrix of two bytes a number");
    }

    #[test]
    fn it_is_taken_where_there_is_nothing_better() {
        let chosen = |isa: &str, n| {
            let dispatch = MmmDispatch::for_isa(isa.parse().expect("a processor"));
            dispatch
                .pick(&Query::plain(i32::datum_type(), Some(48), Some(288), n))
                .expect("a kernel")
                .0
                .name()
                .to_string()
        };
        assert_eq!(chosen("avx,avx2,fma", Some(3072)), NAME);
        assert_eq!(chosen("avx,avx2,fma", None), NAME);
        assert_eq!(chosen("avx,avx2,fma,avx512f", Some(3072)), NAME);
        let better = [
            "avx,avx2,fma,avxvnni",
            "avx,avx2,fma,avx512f,avx512vnni",
            "avx,avx2,fma,avx512f,amx-int8",
        ];
        for other in better.into_iter().chain(["avx"]) {
            assert_ne!(chosen(other, Some(3072)), NAME, "{other}");
        }
    }
}
