//! Whether the camera sees anything: of a closed cover no camera tells, and a black glass without a word helps nobody.

use std::time::{Duration, Instant};

use vision::{GridSize, Rect};

/// What people are told.
pub const NOTICE: &str =
    "the camera sees only black: open its cover, or switch a light on in the room";

/// A byte of a colour that is light and no sensor's noise.
const LIGHT: u8 = 40;

/// Bytes in a thousand that are light wherever anything can be seen.
const LEAST: usize = 1;

/// How long it must last before it is told.
const PATIENCE: Duration = Duration::from_secs(5);

/// Since when it is dark, if it is.
#[derive(Debug, Default)]
pub struct Dark(Option<Instant>);

impl Dark {
    /// Notes a picture that was taken at `at`. Gives whether it has been dark for so long that people should be told.
    pub fn note(&mut self, is_black: bool, at: Instant) -> bool {
        if !is_black {
            self.0 = None;
            return false;
        }
        at.saturating_duration_since(*self.0.get_or_insert(at)) >= PATIENCE
    }
}

/// Whether nothing can be seen. `pixels` are R, G and B planes of `grid`, of which `content` shows the picture.
pub fn is_black(pixels: &[u8], grid: GridSize, content: Rect) -> bool {
    let (left, top) = (content.x as usize, content.y as usize);
    let (width, height) = (content.width as usize, content.height as usize);
    let lines = pixels
        .chunks_exact(grid.area())
        .flat_map(|plane| plane.chunks_exact(grid.width).skip(top).take(height))
        .map(|line| &line[left..left + width]);
    let light: usize = lines.map(|line| line.iter().filter(|&&byte| byte >= LIGHT).count()).sum();
    1000 * light < LEAST * 3 * width * height
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: GridSize = GridSize { height: 40, width: 30 };
    /// The picture fills the middle rows, below and above lies the border.
    const CONTENT: Rect = Rect { x: 0, y: 10, width: 30, height: 20 };

    /// Planes with a grey border and this value where the picture is.
    fn picture(value: u8) -> Vec<u8> {
        let row = |y: usize| if (10..30).contains(&y) { value } else { 114 };
        (0..3 * 40 * 30).map(|at| row(at / 30 % 40)).collect()
    }

    #[test]
    fn a_cover_is_black_and_a_dim_room_with_a_lamp_is_not() {
        assert!(is_black(&picture(0), GRID, CONTENT), "the border is no light");
        assert!(is_black(&picture(LIGHT - 1), GRID, CONTENT), "noise is none either");
        assert!(!is_black(&picture(LIGHT), GRID, CONTENT));
        let mut lamp = picture(3);
        lamp[15 * 30 + 7..15 * 30 + 9].fill(255);
        assert!(!is_black(&lamp, GRID, CONTENT));
    }

    #[test]
    fn only_a_lasting_dark_is_told_and_the_first_light_ends_it() {
        let start = Instant::now();
        let mut dark = Dark::default();
        let mut at = |seconds, is_black| dark.note(is_black, start + Duration::from_secs(seconds));
        assert_eq!([at(0, true), at(4, true), at(5, true)], [false, false, true]);
        assert_eq!(
            [at(6, false), at(7, true), at(11, true), at(12, true)],
            [false, false, false, true]
        );
    }
}
