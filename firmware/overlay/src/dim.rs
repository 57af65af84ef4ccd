//! Words on a glass that nobody looks at: little light, and every minute another place.

use crate::canvas::{Canvas, mix};
use crate::scale::unit;

/// Light that is left, in 256 parts: 30 %.
const LIGHT: u32 = 77;
/// Steps from the middle to the farthest place, and the length of one as a share of the unit.
const STEPS: u32 = 8;
const STEP: f32 = 0.0015;

/// Darkens everything, and moves it to its place of this minute. What leaves the canvas is cut off: letters keep more from its edges.
pub(crate) fn dim(minute: u32, canvas: &mut Canvas) {
    let (across, down) = place(minute);
    let step = unit(canvas.width(), canvas.height()) * STEP;
    let pixels = |steps: i32| (steps as f32 * step).round() as i32;
    canvas.shift(pixels(across), pixels(down));
    canvas.pixels_mut().iter_mut().for_each(|pixel| *pixel = mix(0, *pixel, LIGHT));
}

/// Steps from the middle, -[`STEPS`] to [`STEPS`]: a figure eight that begins there and takes half an hour.
fn place(minute: u32) -> (i32, i32) {
    let wave = |at: u32| STEPS as i32 - ((at + STEPS) % (4 * STEPS)).abs_diff(2 * STEPS) as i32;
    let minute = minute % (4 * STEPS);
    (wave(minute), wave(2 * minute))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_move_every_minute_by_little_and_come_back() {
        assert_eq!(place(0), (0, 0));
        assert_eq!(place(u32::MAX), place(4 * STEPS - 1));
        let mut rows = std::collections::BTreeSet::new();
        for minute in 0..4 * STEPS {
            let ((x, y), (next_x, next_y)) = (place(minute), place(minute + 1));
            assert_eq!(((x - next_x).abs(), (y - next_y).abs()), (1, 2), "{minute}");
            assert!(x.abs() <= STEPS as i32 && y.abs() <= STEPS as i32, "{minute}");
            rows.insert(y);
        }
        assert_eq!(rows.len(), STEPS as usize + 1);
    }

    #[test]
    fn what_is_lit_is_darker_and_elsewhere() {
        let mut canvas = Canvas::new(1000, 1000);
        canvas.row_mut(500)[400..600].fill(0xC8_6432);
        dim(1, &mut canvas);
        let lit: Vec<usize> = (0..1000 * 1000).filter(|&at| canvas.pixels()[at] != 0).collect();
        // Steps of one and a half pixels: one across, two down.
        assert_eq!((lit.len(), lit[0]), (200, 503 * 1000 + 402));
        assert_eq!(canvas.pixels()[lit[0]], 0x3C_1E0F);
        dim(0, &mut Canvas::new(0, 5));
    }
}
