//! Steadies still pictures without delaying moving ones.

use frame::wipe;
use proto::taxonomy::PART_COUNT;

use crate::geometry::GridSize;
use crate::guide::Colours;
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
    colours: Colours,
    /// Share of the new value, for each score.
    change: Vec<f32>,
    fresh: bool,
}

impl Smoother {
    /// For scores of one size, and a grid a whole number of times as large.
    pub fn new(size: GridSize, grid: GridSize) -> Smoother {
        Smoother {
            before: Scores::new(size),
            colours: Colours::new(grid),
            change: vec![0.0; size.area()],
            fresh: true,
        }
    }

    /// Forgets the past, after a gap or when the picture has changed its place in the grid.
    pub fn reset(&mut self) {
        self.fresh = true;
    }

    /// Forgets the past, and leaves nothing of earlier pictures in memory.
    pub fn forget(&mut self) {
        self.reset();
        for values in [&mut self.before.values, &mut self.colours.values, &mut self.change] {
            wipe(values);
        }
    }

    /// Replaces `scores` by their smoothed version, and the colours by theirs: the camera's noise would move the edges that
    /// steady scores follow.
    pub fn smooth(&mut self, scores: &mut Scores, colours: &mut Colours) {
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
            self.steady(colours);
        }
        self.fresh = false;
        self.before.values.copy_from_slice(&scores.values);
        self.colours.values.copy_from_slice(&colours.values);
    }

    fn steady(&self, colours: &mut Colours) {
        let (grid, size) = (colours.grid, self.before.size);
        let finer = grid.width / size.width;
        let lines = colours.values.chunks_exact_mut(grid.width);
        for (y, (new, old)) in lines.zip(self.colours.values.chunks_exact(grid.width)).enumerate() {
            let weights = &self.change[y % grid.height / finer * size.width..][..size.width];
            let spans = new.chunks_exact_mut(finer).zip(old.chunks_exact(finer));
            for ((new, old), w) in spans.zip(weights) {
                new.iter_mut().zip(old).for_each(|(n, &o)| *n = o + w * (*n - o));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: GridSize = GridSize { height: 2, width: 2 };
    const GRID: GridSize = GridSize { height: 4, width: 4 };

    fn smoother() -> Smoother {
        Smoother::new(SIZE, GRID)
    }

    fn step(smoother: &mut Smoother, value: f32) -> f32 {
        let (mut scores, mut colours) = (Scores::new(SIZE), Colours::new(GRID));
        scores.values.fill(value);
        smoother.smooth(&mut scores, &mut colours);
        scores.values[5]
    }

    #[test]
    fn real_change_arrives_at_once() {
        let mut smoother = smoother();
        step(&mut smoother, 0.0);
        assert_eq!(step(&mut smoother, 1.0), 1.0);
        assert_eq!(step(&mut smoother, 0.0), 0.0);
    }

    #[test]
    fn flicker_is_damped() {
        let mut smoother = smoother();
        let outputs: Vec<f32> =
            (0..60).map(|k| step(&mut smoother, if k % 2 == 0 { 0.45 } else { 0.55 })).collect();
        let swing = (outputs[59] - outputs[58]).abs();
        assert!(swing < 0.05, "{swing}");
        assert!((outputs[59] - 0.5).abs() < 0.04);
    }

    #[test]
    fn a_reset_forgets() {
        let mut smoother = smoother();
        step(&mut smoother, 0.5);
        smoother.reset();
        assert_eq!(step(&mut smoother, 0.6), 0.6);
    }

    #[test]
    fn noise_of_the_picture_is_damped_where_the_scores_are_still() {
        let mut smoother = smoother();
        let (mut scores, mut colours) = (Scores::new(SIZE), Colours::new(GRID));
        smoother.smooth(&mut scores, &mut colours);
        // The lower right score changes; it spans the grid's last two rows and columns.
        scores.values[3] = 1.0;
        colours.values.fill(1.0);
        smoother.smooth(&mut scores, &mut colours);
        for plane in colours.values.chunks_exact(GRID.area()) {
            for (at, &value) in plane.iter().enumerate() {
                let moved = at / 4 >= 2 && at % 4 >= 2;
                assert_eq!(value, if moved { 1.0 } else { STILL }, "{at}");
            }
        }
    }
}
