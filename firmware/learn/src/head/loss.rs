//! The loss on the merged semantic map: per-pixel cross-entropy plus dice, against a corrected mask, plus how far the scores of a
//! cell are from one together.
//!
//! The score of part `c` at cell `x` is `S(c, x) = sum_q p_q(c) sigmoid(mask_q(x))`, of masks enlarged twice, as the mirror's own
//! parsing has it, so no query has to be matched to anything. `P = (S + e) / T` with `T = sum_c (S + e)` is the distribution
//! that both terms look at. Neither sees `T`, which is near 1 in a network that was trained with matched queries; where it
//! is not, queries of nothing and whole people have become parts that claim every cell over and over. A third term, the mean of
//! `(ln T)^2`, keeps them from that.

use super::enlarge::{add_back, enlarge};
use super::layout::{CLASSES, HeadShape, PARTS};
use super::network::Prediction;
use super::ops::{softmax, softmax_backward};
use super::real::{Real, View, ViewMut, product};

/// Added to every score, so that a part that no query claims still has a logarithm.
const FLOOR: f64 = 1e-3;

/// Added above and below the dice fraction, in cells: an absent part that is not predicted costs nothing.
const DICE_SMOOTHING: f64 = 1.0;

/// Weight of the third term. With 0.3 heads gained most in rendered households; 3 held them too close to where they began.
const TOTAL_WEIGHT: f64 = 0.3;

/// The value of a mask pixel that nobody labelled.
pub const IGNORE: u8 = 255;

/// Why a mask was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Width and height do not belong to the number of pixels.
    #[error("a mask of {width} x {height} pixels cannot have {actual} values")]
    Size {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
        /// Values given.
        actual: usize,
    },
    /// Not a whole multiple of the scores' grid.
    #[error(
        "a mask of {width} x {height} pixels does not divide into {cells_wide} x {cells_high} cells"
    )]
    Grid {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
        /// Cells in a row.
        cells_wide: usize,
        /// Rows of cells.
        cells_high: usize,
    },
    /// A value that is no part.
    #[error(
        "the mask has the value {value} at pixel {index}; parts are 0 to 15, 255 is unlabelled"
    )]
    Class {
        /// Position.
        index: usize,
        /// Value.
        value: u8,
    },
    /// Nothing is labelled.
    #[error("the mask has no labelled pixel")]
    Empty,
}

/// A corrected mask on the grid of the scores ([`HeadShape::score_cells`]): the share of each part in each cell.
#[derive(Clone, Debug)]
pub struct Target<R> {
    /// (parts, cells); a cell's shares sum to its weight.
    shares: Vec<R>,
    /// Labelled share of each cell, 0 to 1.
    weights: Vec<R>,
    total: R,
}

impl<R: Real> Target<R> {
    /// From a label map of `height` x `width` pixels over the network's whole input.
    pub fn new(
        shape: &HeadShape,
        labels: &[u8],
        height: usize,
        width: usize,
    ) -> Result<Target<R>, TargetError> {
        if width.checked_mul(height) != Some(labels.len()) || labels.is_empty() {
            return Err(TargetError::Size { width, height, actual: labels.len() });
        }
        let (cells_high, cells_wide) = shape.score_size();
        if !height.is_multiple_of(cells_high) || !width.is_multiple_of(cells_wide) {
            return Err(TargetError::Grid { width, height, cells_wide, cells_high });
        }
        let known = |&value: &u8| usize::from(value) < PARTS || value == IGNORE;
        if let Some(index) = labels.iter().position(|value| !known(value)) {
            return Err(TargetError::Class { index, value: labels[index] });
        }
        let (tall, wide) = (height / cells_high, width / cells_wide);
        let share = R::ONE / R::from_f64((tall * wide) as f64);
        let cells = shape.score_cells();
        let mut shares = vec![R::ZERO; PARTS * cells];
        let mut weights = vec![R::ZERO; cells];
        for (index, &value) in labels.iter().enumerate().filter(|(_, value)| **value != IGNORE) {
            let cell = index / width / tall * cells_wide + index % width / wide;
            shares[usize::from(value) * cells + cell] += share;
            weights[cell] += share;
        }
        Target::from_parts(shares, weights)
    }

    /// From shares of the parts in every cell, (parts, cells), each between 0 and 1 and at most 1 in a cell together.
    pub fn from_shares(shape: &HeadShape, shares: Vec<R>) -> Result<Target<R>, TargetError> {
        let cells = shape.score_cells();
        if shares.len() != PARTS * cells {
            let (rows, width) = shape.score_size();
            let height = PARTS * rows;
            return Err(TargetError::Size { width, height, actual: shares.len() });
        }
        let mut weights = vec![R::ZERO; cells];
        for row in shares.chunks_exact(cells) {
            weights.iter_mut().zip(row).for_each(|(weight, &share)| *weight += share);
        }
        Target::from_parts(shares, weights)
    }

    fn from_parts(shares: Vec<R>, weights: Vec<R>) -> Result<Target<R>, TargetError> {
        let total = weights.iter().copied().sum::<R>();
        if total > R::ZERO {
            Ok(Target { shares, weights, total })
        } else {
            Err(TargetError::Empty)
        }
    }

    /// The part that fills most of each cell, [`IGNORE`] where less than half of the cell is labelled.
    pub fn dominant(&self) -> Vec<u8> {
        let cells = self.weights.len();
        let half = R::from_f64(0.5);
        let most = |cell: usize| {
            let share = |part: usize| self.shares[part * cells + cell];
            (1..PARTS).fold(0, |best, part| if share(part) > share(best) { part } else { best })
                as u8
        };
        (0..cells).map(|cell| if self.weights[cell] < half { IGNORE } else { most(cell) }).collect()
    }
}

/// Part scores `S`, (parts, cells of the scores).
pub fn semantic_scores<R: Real>(shape: &HeadShape, prediction: &Prediction<R>) -> Vec<R> {
    Scores::new(shape, prediction).scores
}

/// The most likely part of each cell.
pub fn semantic_labels<R: Real>(shape: &HeadShape, prediction: &Prediction<R>) -> Vec<u8> {
    let scores = semantic_scores(shape, prediction);
    let cells = shape.score_cells();
    let best = |cell: usize| {
        let score = |part: usize| scores[part * cells + cell];
        (1..PARTS).fold(0, |best, part| if score(part) > score(best) { part } else { best }) as u8
    };
    (0..cells).map(best).collect()
}

struct Scores<R> {
    /// Class probabilities, (queries, 18).
    classes: Vec<R>,
    /// Sigmoids of the enlarged masks, (queries, cells of the scores).
    masks: Vec<R>,
    /// (parts, cells of the scores).
    scores: Vec<R>,
}

impl<R: Real> Scores<R> {
    fn new(shape: &HeadShape, prediction: &Prediction<R>) -> Scores<R> {
        let mut classes = prediction.class_logits.clone();
        classes.chunks_exact_mut(CLASSES).for_each(|row| softmax(row, None));
        let cells = shape.score_cells();
        let mut masks = vec![R::ZERO; shape.queries * cells];
        let planes = prediction.mask_logits.chunks_exact(shape.cells());
        planes
            .zip(masks.chunks_exact_mut(cells))
            .for_each(|(plane, to)| enlarge(plane, shape.mask_width, to));
        masks.iter_mut().for_each(|v| *v = R::ONE / (R::ONE + (-*v).exp()));
        let mut scores = vec![R::ZERO; PARTS * cells];
        let parts = View::new(&classes, shape.queries, CLASSES).columns(0, PARTS);
        let to = ViewMut::new(&mut scores, PARTS, cells);
        product(R::ONE, parts.t(), View::new(&masks, shape.queries, cells), R::ZERO, to);
        Scores { classes, masks, scores }
    }
}

/// Loss of one picture, and the gradients of its logits.
pub fn loss_and_gradient<R: Real>(
    shape: &HeadShape,
    prediction: &Prediction<R>,
    target: &Target<R>,
) -> (R, Prediction<R>) {
    let Scores { classes, mut masks, scores } = Scores::new(shape, prediction);
    let cells = shape.score_cells();
    let (likely, totals) = normalise(scores, cells);
    let (map_loss, mut dscores) = map_loss(&likely, target, cells);
    let (total_loss, dtotals) = total_loss(&totals, target);

    // P = (S + e) / T with T = sum (S + e): dS_c = (dP_c - sum_k dP_k P_k) / T + dT.
    let mut mean = vec![R::ZERO; cells];
    for (dp, p) in dscores.chunks_exact(cells).zip(likely.chunks_exact(cells)) {
        mean.iter_mut().zip(dp.iter().zip(p)).for_each(|(sum, (&dp, &p))| *sum += dp * p);
    }
    for row in dscores.chunks_exact_mut(cells) {
        let columns = row.iter_mut().zip(mean.iter().zip(totals.iter().zip(&dtotals)));
        columns.for_each(|(d, (&mean, (&total, &dtotal)))| *d = (*d - mean) / total + dtotal);
    }

    let dscores = View::new(&dscores, PARTS, cells);
    let mut class_logits = vec![R::ZERO; shape.queries * CLASSES];
    let to = ViewMut::new(&mut class_logits, shape.queries, CLASSES).columns(0, PARTS);
    product(R::ONE, View::new(&masks, shape.queries, cells), dscores.t(), R::ZERO, to);
    softmax_backward(&classes, &mut class_logits, CLASSES);

    let mut enlarged = vec![R::ZERO; shape.queries * cells];
    let parts = View::new(&classes, shape.queries, CLASSES).columns(0, PARTS);
    product(R::ONE, parts, dscores, R::ZERO, ViewMut::new(&mut enlarged, shape.queries, cells));
    masks.iter_mut().for_each(|s| *s = *s * (R::ONE - *s));
    enlarged.iter_mut().zip(&masks).for_each(|(d, &slope)| *d = *d * slope);
    let mut mask_logits = vec![R::ZERO; shape.queries * shape.cells()];
    let planes = mask_logits.chunks_exact_mut(shape.cells());
    planes
        .zip(enlarged.chunks_exact(cells))
        .for_each(|(plane, from)| add_back(from, shape.mask_width, plane));
    (map_loss + total_loss, Prediction { class_logits, mask_logits })
}

/// The mean of `(ln T)^2` over what is labelled, and the gradient with respect to every score of a cell.
fn total_loss<R: Real>(totals: &[R], target: &Target<R>) -> (R, Vec<R>) {
    let share = R::from_f64(TOTAL_WEIGHT) / target.total;
    let mut loss = R::ZERO;
    let slope = |(&total, &weight): (&R, &R)| {
        let log = total.ln();
        loss += share * weight * log * log;
        R::from_f64(2.0) * share * weight * log / total
    };
    let gradient = totals.iter().zip(&target.weights).map(slope).collect();
    (loss, gradient)
}

/// `P` in place of `S`, and `T` of every cell.
fn normalise<R: Real>(mut scores: Vec<R>, cells: usize) -> (Vec<R>, Vec<R>) {
    let floor = R::from_f64(FLOOR);
    let mut totals = vec![floor * R::from_f64(PARTS as f64); cells];
    for row in scores.chunks_exact(cells) {
        totals.iter_mut().zip(row).for_each(|(total, &score)| *total += score);
    }
    for row in scores.chunks_exact_mut(cells) {
        row.iter_mut().zip(&totals).for_each(|(score, &total)| *score = (*score + floor) / total);
    }
    (scores, totals)
}

/// Cross-entropy plus dice of `P`, and the gradient with respect to `P`.
fn map_loss<R: Real>(likely: &[R], target: &Target<R>, cells: usize) -> (R, Vec<R>) {
    let (two, smoothing) = (R::from_f64(2.0), R::from_f64(DICE_SMOOTHING));
    let dice_share = R::ONE / R::from_f64(PARTS as f64);
    let entropy_share = R::ONE / target.total;
    let mut loss = R::ZERO;
    let mut gradient = vec![R::ZERO; likely.len()];
    let rows = likely.chunks_exact(cells).zip(target.shares.chunks_exact(cells));
    for ((p, t), d) in rows.zip(gradient.chunks_exact_mut(cells)) {
        let (mut overlap, mut mass) = (R::ZERO, R::ZERO);
        for ((&p, &t), &w) in p.iter().zip(t).zip(&target.weights) {
            overlap += p * t;
            // Unlabelled cells count for nothing.
            mass += p * w + t;
        }
        let (above, below) = (two * overlap + smoothing, mass + smoothing);
        loss += dice_share * (R::ONE - above / below);
        let (gain, cost) = (dice_share * two / below, dice_share * above / (below * below));
        for (((d, &p), &t), &w) in d.iter_mut().zip(p).zip(t).zip(&target.weights) {
            *d = cost * w - gain * t;
            if t > R::ZERO {
                loss -= entropy_share * t * p.ln();
                *d -= entropy_share * t / p;
            }
        }
    }
    (loss, gradient)
}
