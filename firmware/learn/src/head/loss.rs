//! The loss on the merged semantic map: per-pixel cross-entropy plus dice, against a corrected mask.
//!
//! The score of part `c` at cell `x` is `S(c, x) = sum_q p_q(c) sigmoid(mask_q(x))`, as the mirror's own parsing has
//! it, so no query has to be matched to anything. `P = (S + e) / sum_c (S + e)` is the distribution that both terms
//! look at.

use super::layout::{CLASSES, HeadShape, PARTS};
use super::network::Prediction;
use super::ops::{softmax, softmax_backward};
use super::real::{Real, View, ViewMut, product};

/// Added to every score, so that a part that no query claims still has a logarithm.
const FLOOR: f64 = 1e-3;

/// Added above and below the dice fraction, in cells: an absent part that is not predicted costs nothing.
const DICE_SMOOTHING: f64 = 1.0;

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
    /// Not a whole multiple of the mask features' grid.
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

/// A corrected mask on the grid of the mask features: the share of each part in each cell.
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
        let (cells_high, cells_wide) = (shape.mask_height, shape.mask_width);
        if !height.is_multiple_of(cells_high) || !width.is_multiple_of(cells_wide) {
            return Err(TargetError::Grid { width, height, cells_wide, cells_high });
        }
        let known = |&value: &u8| usize::from(value) < PARTS || value == IGNORE;
        if let Some(index) = labels.iter().position(|value| !known(value)) {
            return Err(TargetError::Class { index, value: labels[index] });
        }
        let (tall, wide) = (height / cells_high, width / cells_wide);
        let share = R::ONE / R::from_f64((tall * wide) as f64);
        let cells = shape.cells();
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
        let cells = shape.cells();
        if shares.len() != PARTS * cells {
            let (width, height) = (shape.mask_width, PARTS * shape.mask_height);
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

/// Part scores `S`, (parts, cells).
pub fn semantic_scores<R: Real>(shape: &HeadShape, prediction: &Prediction<R>) -> Vec<R> {
    Scores::new(shape, prediction).scores
}

/// The most likely part of each cell.
pub fn semantic_labels<R: Real>(shape: &HeadShape, prediction: &Prediction<R>) -> Vec<u8> {
    let scores = semantic_scores(shape, prediction);
    let cells = shape.cells();
    let best = |cell: usize| {
        let score = |part: usize| scores[part * cells + cell];
        (1..PARTS).fold(0, |best, part| if score(part) > score(best) { part } else { best }) as u8
    };
    (0..cells).map(best).collect()
}

struct Scores<R> {
    /// Class probabilities, (queries, 18).
    classes: Vec<R>,
    /// Sigmoids of the masks, (queries, cells).
    masks: Vec<R>,
    /// (parts, cells).
    scores: Vec<R>,
}

impl<R: Real> Scores<R> {
    fn new(shape: &HeadShape, prediction: &Prediction<R>) -> Scores<R> {
        let mut classes = prediction.class_logits.clone();
        classes.chunks_exact_mut(CLASSES).for_each(|row| softmax(row, None));
        let sigmoid = |&logit: &R| R::ONE / (R::ONE + (-logit).exp());
        let masks: Vec<R> = prediction.mask_logits.iter().map(sigmoid).collect();
        let mut scores = vec![R::ZERO; PARTS * shape.cells()];
        let parts = View::new(&classes, shape.queries, CLASSES).columns(0, PARTS);
        let to = ViewMut::new(&mut scores, PARTS, shape.cells());
        product(R::ONE, parts.t(), View::new(&masks, shape.queries, shape.cells()), R::ZERO, to);
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
    let cells = shape.cells();
    let (likely, totals) = normalise(scores, cells);
    let (loss, mut dscores) = map_loss(&likely, target, cells);

    // P = (S + e) / T with T = sum (S + e): dS_c = (dP_c - sum_k dP_k P_k) / T.
    let mut mean = vec![R::ZERO; cells];
    for (dp, p) in dscores.chunks_exact(cells).zip(likely.chunks_exact(cells)) {
        mean.iter_mut().zip(dp.iter().zip(p)).for_each(|(sum, (&dp, &p))| *sum += dp * p);
    }
    for row in dscores.chunks_exact_mut(cells) {
        let columns = row.iter_mut().zip(mean.iter().zip(&totals));
        columns.for_each(|(d, (&mean, &total))| *d = (*d - mean) / total);
    }

    let dscores = View::new(&dscores, PARTS, cells);
    let mut class_logits = vec![R::ZERO; shape.queries * CLASSES];
    let to = ViewMut::new(&mut class_logits, shape.queries, CLASSES).columns(0, PARTS);
    product(R::ONE, View::new(&masks, shape.queries, cells), dscores.t(), R::ZERO, to);
    softmax_backward(&classes, &mut class_logits, CLASSES);

    let mut mask_logits = vec![R::ZERO; shape.queries * cells];
    let parts = View::new(&classes, shape.queries, CLASSES).columns(0, PARTS);
    product(R::ONE, parts, dscores, R::ZERO, ViewMut::new(&mut mask_logits, shape.queries, cells));
    masks.iter_mut().for_each(|s| *s = *s * (R::ONE - *s));
    mask_logits.iter_mut().zip(&masks).for_each(|(d, &slope)| *d = *d * slope);
    (loss, Prediction { class_logits, mask_logits })
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
