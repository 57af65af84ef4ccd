//! Whether a trained head is better, judged on corrections that it was not trained on.

use super::layout::PARTS;
use super::loss::IGNORE;

/// Every fifth correction is held back from training.
const HELD_BACK_EVERY: usize = 5;

/// Whether the correction at this position, oldest first, is for judging and not for training.
///
/// A correction keeps its role for life, so that no head is judged on what it has seen in an earlier run.
pub fn is_held_back(position: usize) -> bool {
    position % HELD_BACK_EVERY == HELD_BACK_EVERY - 1
}

/// Counts of true and predicted parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// True part by predicted part.
    counts: [[u64; PARTS]; PARTS],
}

impl Default for Confusion {
    fn default() -> Confusion {
        Confusion { counts: [[0; PARTS]; PARTS] }
    }
}

impl Confusion {
    /// Nothing counted yet.
    pub fn new() -> Confusion {
        Confusion::default()
    }

    /// Counts one picture; both slices have one part per cell. Unlabelled cells (255) are left out.
    pub fn add(&mut self, truth: &[u8], predicted: &[u8]) {
        assert_eq!(truth.len(), predicted.len(), "two maps of one picture");
        for (&truth, &predicted) in
            truth.iter().zip(predicted).filter(|(truth, _)| **truth != IGNORE)
        {
            self.counts[usize::from(truth)][usize::from(predicted)] += 1;
        }
    }

    /// Mean intersection over union of the parts that occur in the truth, 0 to 1; `None` before anything was counted.
    pub fn mean_iou(&self) -> Option<f64> {
        let iou = |part: usize| {
            let truth: u64 = self.counts[part].iter().sum();
            let predicted: u64 = self.counts.iter().map(|row| row[part]).sum();
            let both = self.counts[part][part];
            (truth > 0).then(|| both as f64 / (truth + predicted - both) as f64)
        };
        let scores: Vec<f64> = (0..PARTS).filter_map(iou).collect();
        (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
    }
}

/// Whether the trained head is to be adopted: strictly better on held-back corrections, and there were some.
pub fn should_adopt(before: &Confusion, after: &Confusion) -> bool {
    match (before.mean_iou(), after.mean_iou()) {
        (Some(before), Some(after)) => after > before,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_iou_of_parts_that_occur() {
        let mut confusion = Confusion::new();
        assert_eq!(confusion.mean_iou(), None);
        confusion.add(&[0, 0, 0, 3, 3, IGNORE], &[0, 0, 3, 3, 7, 3]);
        // Background 2 of 3, torso 1 of 3; part 7 is only predicted.
        assert_eq!(confusion.mean_iou(), Some((2.0 / 3.0 + 1.0 / 3.0) / 2.0));
    }

    #[test]
    fn a_head_that_was_not_judged_or_is_no_better_is_not_adopted() {
        let (mut good, mut bad) = (Confusion::new(), Confusion::new());
        assert!(!should_adopt(&good, &good));
        good.add(&[1, 2], &[1, 2]);
        bad.add(&[1, 2], &[1, 1]);
        assert!(
            should_adopt(&bad, &good) && !should_adopt(&good, &bad) && !should_adopt(&good, &good)
        );
    }

    #[test]
    fn one_in_five_is_held_back() {
        assert_eq!((0..20).filter(|&position| is_held_back(position)).count(), 4);
        assert!(!is_held_back(0));
    }
}
