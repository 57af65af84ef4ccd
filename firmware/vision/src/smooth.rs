//! Steadies still pictures without delaying moving ones.

use proto::taxonomy::PART_COUNT;

use crate::geometry::GridSize;
use crate::scores::Scores;

/// Share of the new value where nothing changes: noise of a still picture falls to about a third of its deviation.
const STILL: f32 = 0.2;
/// Change of a pixel's scores from which on the new value is taken whole. Flicker stays below, motion is above.
const MOVED: f32 = 0.35;

/// Per-pixel exponential average whose weight rises with the change of the pixel's scores: a recursive filter
/// with a one-frame answer to real change.
#[derive(Debug)]
pub struct Smoother {
    before: Scores,
    change: Vec<f32>,
    fresh: bool,
}

impl Smoother {
    /// For scores of one size.
    pub fn new(size: GridSize) -> Smoother {
        Smoother { before: Scores::new(size), change: vec![0.0; size.area()], fresh: true }
    }

    /// Forgets the past, after a gap or when the picture has changed its place in the grid.
    pub fn reset(&mut self) {
        self.fresh = true;
    }

    /// Replaces `scores` by their smoothed version.
    pub fn smooth(&mut self, scores: &mut Scores) {
        let area = scores.size.area();
        if !self.fresh {
            self.change.fill(0.0);
            for (new, old) in
                scores.values.chunks_exact(area).zip(self.before.values.chunks_exact(area))
            {
                self.change
                    .iter_mut()
                    .zip(new)
                    .zip(old)
                    .for_each(|((c, n), o)| *c = c.max((n - o).abs()));
            }
            self.change.iter_mut().for_each(|c| *c = (STILL + (1.0 - STILL) * *c / MOVED).min(1.0));
            for part in 0..PART_COUNT {
                let range = part * area..(part + 1) * area;
                let (new, old) = (&mut scores.values[range.clone()], &self.before.values[range]);
                new.iter_mut()
                    .zip(old)
                    .zip(&self.change)
                    .for_each(|((n, &o), &w)| *n = o + w * (*n - o));
            }
        }
        self.fresh = false;
        self.before.values.copy_from_slice(&scores.values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: GridSize = GridSize { height: 2, width: 2 };

    fn step(smoother: &mut Smoother, value: f32) -> f32 {
        let mut scores = Scores::new(SIZE);
        scores.values.fill(value);
        smoother.smooth(&mut scores);
        scores.values[5]
    }

    #[test]
    fn real_change_arrives_at_once() {
        let mut smoother = Smoother::new(SIZE);
        step(&mut smoother, 0.0);
        assert_eq!(step(&mut smoother, 1.0), 1.0);
        assert_eq!(step(&mut smoother, 0.0), 0.0);
    }

    #[test]
    fn flicker_is_damped() {
        let mut smoother = Smoother::new(SIZE);
        let outputs: Vec<f32> =
            (0..60).map(|k| step(&mut smoother, if k % 2 == 0 { 0.45 } else { 0.55 })).collect();
        let swing = (outputs[59] - outputs[58]).abs();
        assert!(swing < 0.05, "{swing}");
        assert!((outputs[59] - 0.5).abs() < 0.04);
    }

    #[test]
    fn a_reset_forgets() {
        let mut smoother = Smoother::new(SIZE);
        step(&mut smoother, 0.5);
        smoother.reset();
        assert_eq!(step(&mut smoother, 0.6), 0.6);
    }
}
