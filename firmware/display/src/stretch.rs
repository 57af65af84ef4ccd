//! The panel inside a window of another size: nearest pixel, shape kept, black beside it.

use overlay::Canvas;

use crate::Rotation;
use crate::blit::bgrx;

/// Where each window pixel comes from. Built anew only when the window's size changes.
#[derive(Debug, Default)]
pub(crate) struct Stretch {
    window: (u32, u32),
    /// Left, top, width and height of the panel's picture in the window.
    content: (u32, u32, u32, u32),
    /// Canvas pixel number of a picture pixel, split into a share of its column and of its row.
    columns: Vec<isize>,
    rows: Vec<isize>,
}

impl Stretch {
    /// Fits a panel, showing a canvas of `canvas` pixels turned by `rotation`, into `window`.
    pub(crate) fn fit(&mut self, canvas: (u32, u32), rotation: Rotation, window: (u32, u32)) {
        let panel = rotation.turn(canvas);
        let walk = rotation.walk(canvas);
        self.window = window;
        self.content = content(panel, window);
        let (_, _, width, height) = self.content;
        self.columns.clear();
        self.columns.extend((0..width).map(|x| nearest(x, width, panel.0) * walk.step_x));
        self.rows.clear();
        let row = |y| walk.start + nearest(y, height, panel.1) * walk.step_y;
        self.rows.extend((0..height).map(row));
    }

    /// Writes the whole window, four bytes a pixel, rows without gaps.
    pub(crate) fn draw(&self, canvas: &Canvas, memory: &mut [u8]) {
        let (left, top, width, height) = self.content;
        let stride = self.window.0 as usize * 4;
        let inside = left as usize * 4..(left + width) as usize * 4;
        for (y, line) in memory.chunks_exact_mut(stride).enumerate() {
            let Some(&row) = self.rows.get(y.wrapping_sub(top as usize)) else {
                black(line);
                continue;
            };
            black(&mut line[..inside.start]);
            black(&mut line[inside.end..]);
            self.draw_row(canvas, row, &mut line[inside.clone()]);
        }
        debug_assert_eq!(height as usize, self.rows.len());
    }

    fn draw_row(&self, canvas: &Canvas, row: isize, line: &mut [u8]) {
        let pixels = canvas.pixels();
        for (bytes, column) in line.as_chunks_mut::<4>().0.iter_mut().zip(&self.columns) {
            *bytes = bgrx(pixels[(row + column) as usize]);
        }
    }
}

fn black(line: &mut [u8]) {
    line.as_chunks_mut::<4>().0.fill(bgrx(0));
}

/// The middle of pixel `at` of `scaled`, as a pixel number of `original`.
fn nearest(at: u32, scaled: u32, original: u32) -> isize {
    ((2 * u64::from(at) + 1) * u64::from(original) / (2 * u64::from(scaled))) as isize
}

/// The largest rectangle of the panel's shape, centred in the window, at least one pixel.
fn content(panel: (u32, u32), window: (u32, u32)) -> (u32, u32, u32, u32) {
    let (panel_width, panel_height) = (u64::from(panel.0), u64::from(panel.1));
    let (width, height) = (u64::from(window.0), u64::from(window.1));
    let fitted = (height * panel_width / panel_height.max(1)).max(1);
    let (wide, tall) = if fitted <= width {
        (fitted, height)
    } else {
        (width, (width * panel_height / panel_width.max(1)).max(1))
    };
    // Both are at most the window's side, which is a u32.
    let (wide, tall) = (wide as u32, tall as u32);
    ((window.0 - wide) / 2, (window.1 - tall) / 2, wide, tall)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blit::{PixelLayout, Surface, blit};

    fn numbered(width: u32, height: u32) -> Canvas {
        let mut canvas = Canvas::new(width, height);
        for (index, pixel) in canvas.pixels_mut().iter_mut().enumerate() {
            *pixel = index as u32 + 1;
        }
        canvas
    }

    fn drawn(canvas: &Canvas, rotation: Rotation, window: (u32, u32)) -> Vec<u8> {
        let mut stretch = Stretch::default();
        stretch.fit((canvas.width(), canvas.height()), rotation, window);
        let mut memory = vec![0x55; window.0 as usize * window.1 as usize * 4];
        stretch.draw(canvas, &mut memory);
        memory
    }

    #[test]
    fn the_panels_own_size_equals_the_plain_copy() {
        let canvas = numbered(7, 4);
        for rotation in Rotation::ALL {
            let size = rotation.turn((7, 4));
            let mut plain = vec![0; 7 * 4 * 4];
            blit(&canvas, rotation, &Surface::packed(size, PixelLayout::Bgrx), &mut plain);
            assert_eq!(drawn(&canvas, rotation, size), plain, "{rotation:?}");
        }
    }

    #[test]
    fn twice_the_size_repeats_pixels_and_pads_with_black() {
        let canvas = numbered(2, 1);
        let memory = drawn(&canvas, Rotation::None, (4, 4));
        let pixels: Vec<u8> = memory.chunks(4).map(|bytes| bytes[0]).collect();
        assert_eq!(pixels, [0, 0, 0, 0, 1, 1, 2, 2, 1, 1, 2, 2, 0, 0, 0, 0]);
        assert!(memory.chunks(4).all(|bytes| bytes[3] == 255));
    }

    #[test]
    fn any_window_is_filled_without_a_panic() {
        let canvas = numbered(9, 5);
        for rotation in Rotation::ALL {
            for window in [(1, 1), (1, 50), (50, 1), (3, 2), (100, 7), (9, 5)] {
                let memory = drawn(&canvas, rotation, window);
                assert!(memory.chunks(4).all(|bytes| bytes[3] == 255), "{rotation:?} {window:?}");
            }
        }
    }
}
