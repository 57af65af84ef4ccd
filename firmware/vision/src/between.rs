//! Linear interpolation between samples.

/// Where an output sample lies between two input samples: `low + share * (high - low)`.
#[derive(Clone, Copy, Debug)]
pub struct Between {
    low: u32,
    high: u32,
    share: f32,
}

impl Between {
    /// At continuous input coordinate `position` (sample centres at halves), clamped to `count` samples.
    pub fn at(position: f32, count: usize) -> Between {
        let p = (position - 0.5).clamp(0.0, count as f32 - 1.0);
        let low = p.floor();
        let high = (low as u32 + 1).min(count as u32 - 1);
        Between { low: low as u32, high, share: p - low }
    }

    /// For an enlargement of `count` samples to `to`, pixel centres aligned.
    pub fn enlargement(count: usize, to: usize) -> Vec<Between> {
        let ratio = count as f32 / to as f32;
        (0..to).map(|i| Between::at((i as f32 + 0.5) * ratio, count)).collect()
    }

    /// Low index, high index, share of the high one.
    pub fn parts(self) -> (usize, usize, f32) {
        (self.low as usize, self.high as usize, self.share)
    }

    /// The interpolated value.
    pub fn of(self, values: &[f32]) -> f32 {
        let low = values[self.low as usize];
        low + self.share * (values[self.high as usize] - low)
    }

    /// Interpolates between two lines of a plane of width `w`, at column `x`.
    pub fn of_column(self, plane: &[f32], w: usize, x: usize) -> f32 {
        let (low, high, share) = self.parts();
        let (a, b) = (plane[low * w + x], plane[high * w + x]);
        a + share * (b - a)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enlargement_is_bilinear_with_aligned_centres() {
        let taps = Between::enlargement(2, 4);
        let line: Vec<f32> = taps.iter().map(|t| t.of(&[0.0, 1.0])).collect();
        assert_eq!(line, [0.0, 0.25, 0.75, 1.0]);
    }
}
