//! Masks enlarged twice, each pixel a learned mixture of its neighbours: convex upsampling (Teed and Deng 2020, RAFT,
//! arXiv:2003.12039). The trunk says for every mask pixel how its four pixels mix the nine around it, once for all masks.

use crate::geometry::GridSize;
use crate::postprocess::exp;

/// A mask pixel becomes `CELL` x `CELL`.
const CELL: usize = 2;
/// Of the 3 x 3 around a mask pixel.
const NEIGHBOURS: usize = 9;
/// Logits for every mask pixel: four pixels row by row, for each its nine neighbours row by row.
pub const CHANNELS: usize = CELL * CELL * NEIGHBOURS;

/// Size of an enlarged mask.
pub fn enlarged(mask: GridSize) -> GridSize {
    GridSize { height: CELL * mask.height, width: CELL * mask.width }
}

/// Enlarges the masks of one picture after the other. Keeps its memory.
#[derive(Debug)]
pub struct ConvexUpsampling {
    mask: GridSize,
    /// 36 planes; the nine of a pixel sum to 1.
    shares: Vec<f32>,
    /// A plane for sums and largest values.
    whole: Vec<f32>,
    /// A mask with its edges repeated.
    padded: Vec<f32>,
    /// A line of left and one of right pixels.
    halves: [Vec<f32>; CELL],
}

impl ConvexUpsampling {
    /// For masks of `mask` pixels.
    pub fn new(mask: GridSize) -> ConvexUpsampling {
        ConvexUpsampling {
            mask,
            shares: vec![0.0; CHANNELS * mask.area()],
            whole: vec![0.0; mask.area()],
            padded: vec![0.0; (mask.height + 2) * (mask.width + 2)],
            halves: std::array::from_fn(|_| vec![0.0; mask.width]),
        }
    }

    /// Takes a picture's logits, 36 x h x w: the shares are their softmax over the neighbours.
    pub fn set(&mut self, logits: &[f32]) {
        let (area, whole) = (self.mask.area(), &mut self.whole);
        let nine = NEIGHBOURS * area;
        for (shares, logits) in self.shares.chunks_exact_mut(nine).zip(logits.chunks_exact(nine)) {
            whole.fill(f32::NEG_INFINITY);
            for plane in logits.chunks_exact(area) {
                whole.iter_mut().zip(plane).for_each(|(most, &logit)| *most = most.max(logit));
            }
            for (plane, logits) in shares.chunks_exact_mut(area).zip(logits.chunks_exact(area)) {
                for ((share, &logit), &most) in plane.iter_mut().zip(logits).zip(&*whole) {
                    *share = exp(logit - most);
                }
            }
            whole.fill(0.0);
            for plane in shares.chunks_exact(area) {
                whole.iter_mut().zip(plane).for_each(|(sum, &share)| *sum += share);
            }
            for plane in shares.chunks_exact_mut(area) {
                plane.iter_mut().zip(&*whole).for_each(|(share, &sum)| *share /= sum);
            }
        }
    }

    /// Writes a mask of h x w values at twice its height and width.
    pub fn enlarge(&mut self, mask: &[f32], out: &mut [f32]) {
        self.pad(mask);
        for (row, wide) in out.chunks_exact_mut(CELL * self.mask.width).enumerate() {
            let [left, right] = &mut self.halves;
            let line = Line { shares: &self.shares, padded: &self.padded, mask: self.mask };
            line.mix(row / CELL, CELL * (row % CELL), left);
            line.mix(row / CELL, CELL * (row % CELL) + 1, right);
            for ((pair, &left), &right) in
                wide.as_chunks_mut::<CELL>().0.iter_mut().zip(&*left).zip(&*right)
            {
                *pair = [left, right];
            }
        }
    }

    fn pad(&mut self, mask: &[f32]) {
        let GridSize { height, width } = self.mask;
        for (row, wide) in self.padded.chunks_exact_mut(width + 2).enumerate() {
            let inner = row.clamp(1, height) - 1;
            let line = &mask[inner * width..][..width];
            wide[1..=width].copy_from_slice(line);
            (wide[0], wide[width + 1]) = (line[0], line[width - 1]);
        }
    }
}

/// What a line of enlarged pixels is mixed from.
struct Line<'a> {
    shares: &'a [f32],
    padded: &'a [f32],
    mask: GridSize,
}

impl Line<'_> {
    /// Number `pixel` of the four of every mask pixel in a row.
    fn mix(&self, row: usize, pixel: usize, out: &mut [f32]) {
        let GridSize { width, .. } = self.mask;
        out.fill(0.0);
        for neighbour in 0..NEIGHBOURS {
            let plane = (pixel * NEIGHBOURS + neighbour) * self.mask.area();
            let shares = &self.shares[plane + row * width..][..width];
            let values =
                &self.padded[(row + neighbour / 3) * (width + 2) + neighbour % 3..][..width];
            for ((mixed, &share), &value) in out.iter_mut().zip(shares).zip(values) {
                *mixed += share * value;
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Logits whose shares are those of bilinear interpolation.
    pub fn bilinear(mask: GridSize) -> Vec<f32> {
        let near = [[0.25f32, 0.75, 0.0], [0.0, 0.75, 0.25]];
        let shares = near.iter().flat_map(|rows| {
            near.iter().flat_map(move |columns| {
                rows.iter().flat_map(move |y| columns.iter().map(move |x| (y * x).max(1e-30).ln()))
            })
        });
        shares.flat_map(|logit| std::iter::repeat_n(logit, mask.area())).collect()
    }

    fn enlarge(mask: GridSize, logits: &[f32], values: &[f32]) -> Vec<f32> {
        let mut upsampling = ConvexUpsampling::new(mask);
        let mut out = vec![0.0; enlarged(mask).area()];
        upsampling.set(logits);
        upsampling.enlarge(values, &mut out);
        out
    }

    /// The fast exponential is never quite zero.
    fn assert_near(got: &[f32], want: &[f32]) {
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?} {want:?}");
    }

    #[test]
    fn shares_of_a_quarter_and_three_are_bilinear() {
        let mask = GridSize { height: 2, width: 3 };
        let out = enlarge(mask, &bilinear(mask), &[0.0, 4.0, 8.0, 8.0, 12.0, 16.0]);
        assert_near(&out[..6], &[0.0, 1.0, 3.0, 5.0, 7.0, 8.0]);
        assert_near(&out[6..12], &[2.0, 3.0, 5.0, 7.0, 9.0, 10.0]);
        assert_near(&out[18..], &[8.0, 9.0, 11.0, 13.0, 15.0, 16.0]);
    }

    /// The same case as in the network's own tests.
    #[test]
    fn the_neighbour_that_is_told_is_taken() {
        let mask = GridSize { height: 3, width: 4 };
        let mut logits = vec![0.0; CHANNELS * mask.area()];
        // Up and left, right, the pixel itself, below.
        for (pixel, neighbour) in [(0, 0), (1, 5), (2, 4), (3, 7)] {
            let plane = (pixel * NEIGHBOURS + neighbour) * mask.area();
            logits[plane..plane + mask.area()].fill(200.0);
        }
        let values: Vec<f32> = (0..12u8).map(f32::from).collect();
        let out = enlarge(mask, &logits, &values);
        let at = |row: usize, column: usize| out[row * 8 + column];
        assert_near(&[at(2, 2), at(2, 3), at(3, 2), at(3, 3)], &[0.0, 6.0, 5.0, 9.0]);
        // Edges are repeated.
        assert_near(&[at(0, 0), at(0, 1), at(1, 0), at(1, 1)], &[0.0, 1.0, 0.0, 4.0]);
        assert_near(&[at(5, 7)], &[11.0]);
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let mask = GridSize { height: 1, width: 2 };
        let mut logits = bilinear(mask);
        logits[0] = f32::NAN;
        assert!(enlarge(mask, &logits, &[1.0, 2.0])[0].is_nan());
    }
}
