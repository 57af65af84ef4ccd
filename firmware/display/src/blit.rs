//! The one copy from canvas to panel memory: turned and in the panel's pixel format.
//!
//! Panel memory is often write-combined and slow to read: it is written in order, in runs of whole
//! cache lines, and never read.

use overlay::Canvas;

use crate::Rotation;

/// Side of the square tiles in which quarter turns are done: one cache line of `u32`.
const TILE: usize = 16;

/// How a pixel lies in panel memory, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelLayout {
    /// Four bytes: blue, green, red, 255.
    Bgrx,
    /// Four bytes: red, green, blue, 255.
    Rgbx,
    /// Two bytes: 5 bits of red in the high bits, 6 of green, 5 of blue.
    Rgb565,
}

impl PixelLayout {
    /// Bytes of a pixel.
    pub fn bytes(self) -> usize {
        match self {
            PixelLayout::Bgrx | PixelLayout::Rgbx => 4,
            PixelLayout::Rgb565 => 2,
        }
    }
}

/// Shape of a panel's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surface {
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// Bytes from one row to the next, at least a row's.
    pub stride: usize,
    /// Pixel format.
    pub layout: PixelLayout,
}

impl Surface {
    /// Rows without gaps.
    pub fn packed(size: (u32, u32), layout: PixelLayout) -> Surface {
        Surface { size, stride: size.0 as usize * layout.bytes(), layout }
    }

    /// Bytes of a row's pixels.
    pub(crate) fn row_bytes(&self) -> usize {
        self.size.0 as usize * self.layout.bytes()
    }

    /// Bytes from the first to the last pixel; 0 for a surface without pixels.
    pub fn bytes(&self) -> usize {
        match self.size {
            (0, _) | (_, 0) => 0,
            (_, height) => (height as usize - 1) * self.stride + self.row_bytes(),
        }
    }
}

/// Copies `canvas`, turned by `rotation`, into `memory`. Bytes between the rows are left alone.
///
/// # Panics
/// If the turned canvas is not of the surface's size, or `memory` is shorter than
/// [`Surface::bytes`]: displays check both before.
pub fn blit(canvas: &Canvas, rotation: Rotation, surface: &Surface, memory: &mut [u8]) {
    let size = rotation.turn((canvas.width(), canvas.height()));
    assert_eq!(size, surface.size, "a display presents canvases of its own size only");
    assert!(surface.stride >= surface.row_bytes(), "rows of a surface do not overlap");
    let memory = &mut memory[..surface.bytes()];
    match surface.layout {
        PixelLayout::Bgrx => turn(canvas, rotation, surface, memory, bgrx),
        PixelLayout::Rgbx => turn(canvas, rotation, surface, memory, rgbx),
        PixelLayout::Rgb565 => turn(canvas, rotation, surface, memory, rgb565),
    }
}

pub(crate) fn bgrx(pixel: u32) -> [u8; 4] {
    // Opaque, for panels and visuals that take the fourth byte for alpha.
    (pixel | 0xFF00_0000).to_le_bytes()
}

fn rgbx(pixel: u32) -> [u8; 4] {
    ((pixel << 8) | 0xFF).to_be_bytes()
}

fn rgb565(pixel: u32) -> [u8; 2] {
    let (red, green, blue) = (pixel >> 8 & 0xF800, pixel >> 5 & 0x07E0, pixel >> 3 & 0x001F);
    ((red | green | blue) as u16).to_le_bytes()
}

fn turn<const N: usize>(
    canvas: &Canvas,
    rotation: Rotation,
    surface: &Surface,
    memory: &mut [u8],
    encode: impl Fn(u32) -> [u8; N] + Copy,
) {
    if canvas.pixels().is_empty() {
        return;
    }
    match rotation {
        Rotation::None => {
            for (y, row) in memory.chunks_mut(surface.stride).enumerate() {
                write_row(canvas.row(y as u32).iter().copied(), row, encode);
            }
        }
        Rotation::Half => {
            let last = canvas.height() - 1;
            for (y, row) in memory.chunks_mut(surface.stride).enumerate() {
                write_row(canvas.row(last - y as u32).iter().rev().copied(), row, encode);
            }
        }
        Rotation::Clockwise90 | Rotation::Clockwise270 => {
            let clockwise = rotation == Rotation::Clockwise90;
            quarter_turn(canvas, clockwise, surface, memory, encode);
        }
    }
}

fn write_row<const N: usize>(
    pixels: impl Iterator<Item = u32>,
    row: &mut [u8],
    encode: impl Fn(u32) -> [u8; N],
) {
    for (pixel, bytes) in pixels.zip(row.as_chunks_mut::<N>().0) {
        *bytes = encode(pixel);
    }
}

/// Tile after tile: a tile is read from the canvas row by row, turned in a buffer that stays in
/// the first cache level, and written row by row.
fn quarter_turn<const N: usize>(
    canvas: &Canvas,
    clockwise: bool,
    surface: &Surface,
    memory: &mut [u8],
    encode: impl Fn(u32) -> [u8; N] + Copy,
) {
    let (width, height) = (surface.size.0 as usize, surface.size.1 as usize);
    let mut tile = [[0; TILE]; TILE];
    for (band, rows) in memory.chunks_mut(surface.stride * TILE).enumerate() {
        let top = band * TILE;
        let tall = TILE.min(height - top);
        for left in (0..width).step_by(TILE) {
            let wide = TILE.min(width - left);
            if clockwise {
                read_clockwise(canvas, (left, top), (wide, tall), &mut tile);
            } else {
                read_counter_clockwise(canvas, (left, top), (wide, tall), &mut tile);
            }
            for (pixels, row) in tile.iter().zip(rows.chunks_mut(surface.stride)) {
                let row = &mut row[left * N..(left + wide) * N];
                write_row(pixels.iter().copied(), row, encode);
            }
        }
    }
}

/// Panel pixel `(x, y)` is canvas pixel `(y, height - 1 - x)`.
fn read_clockwise(
    canvas: &Canvas,
    (left, top): (usize, usize),
    (wide, tall): (usize, usize),
    tile: &mut [[u32; TILE]; TILE],
) {
    let last = canvas.height() as usize - 1;
    for x in 0..wide {
        let source = &canvas.row((last - left - x) as u32)[top..top + tall];
        for (row, &pixel) in tile.iter_mut().zip(source) {
            row[x] = pixel;
        }
    }
}

/// Panel pixel `(x, y)` is canvas pixel `(width - 1 - y, x)`.
fn read_counter_clockwise(
    canvas: &Canvas,
    (left, top): (usize, usize),
    (wide, tall): (usize, usize),
    tile: &mut [[u32; TILE]; TILE],
) {
    let end = canvas.width() as usize - top;
    for x in 0..wide {
        let source = &canvas.row((left + x) as u32)[end - tall..end];
        for (row, &pixel) in tile.iter_mut().zip(source.iter().rev()) {
            row[x] = pixel;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(width: u32, height: u32) -> Canvas {
        let mut canvas = Canvas::new(width, height);
        let mut state = 1u32;
        for pixel in canvas.pixels_mut() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *pixel = state >> 8;
        }
        canvas
    }

    /// One pixel at a time, by the rotation's own formula.
    fn slow(canvas: &Canvas, rotation: Rotation, x: u32, y: u32) -> u32 {
        let walk = rotation.walk((canvas.width(), canvas.height()));
        let index = walk.start + x as isize * walk.step_x + y as isize * walk.step_y;
        canvas.pixels()[index as usize]
    }

    fn encoded(pixel: u32, layout: PixelLayout) -> Vec<u8> {
        let [_, red, green, blue] = pixel.to_be_bytes();
        match layout {
            PixelLayout::Bgrx => vec![blue, green, red, 255],
            PixelLayout::Rgbx => vec![red, green, blue, 255],
            PixelLayout::Rgb565 => {
                let wide = [red >> 3, green >> 2, blue >> 3].map(u16::from);
                (wide[0] << 11 | wide[1] << 5 | wide[2]).to_le_bytes().to_vec()
            }
        }
    }

    #[test]
    fn every_turn_layout_and_odd_size_equals_one_pixel_at_a_time() {
        let sizes = [(1, 1), (1, 40), (40, 1), (16, 16), (17, 33), (37, 5), (48, 32)];
        let layouts = [PixelLayout::Bgrx, PixelLayout::Rgbx, PixelLayout::Rgb565];
        for (width, height) in sizes {
            let canvas = noise(width, height);
            for rotation in Rotation::ALL {
                for layout in layouts {
                    check(&canvas, rotation, layout);
                }
            }
        }
    }

    fn check(canvas: &Canvas, rotation: Rotation, layout: PixelLayout) {
        let size = rotation.turn((canvas.width(), canvas.height()));
        let mut surface = Surface::packed(size, layout);
        surface.stride += 6; // rows that do not touch, and do not start on whole pixels
        let mut memory = vec![0xAA; surface.bytes() + 3];
        blit(canvas, rotation, &surface, &mut memory);
        let mut wanted = vec![0xAA; memory.len()];
        for y in 0..size.1 {
            for x in 0..size.0 {
                let at = y as usize * surface.stride + x as usize * layout.bytes();
                let bytes = encoded(slow(canvas, rotation, x, y), layout);
                wanted[at..at + layout.bytes()].copy_from_slice(&bytes);
            }
        }
        assert!(memory == wanted, "{size:?} {rotation:?} {layout:?}");
    }

    #[test]
    fn a_canvas_without_pixels_is_copied_in_no_time() {
        for (width, height) in [(0, 5), (5, 0)] {
            let canvas = Canvas::new(width, height);
            for rotation in Rotation::ALL {
                let size = rotation.turn((width, height));
                blit(&canvas, rotation, &Surface::packed(size, PixelLayout::Bgrx), &mut []);
            }
        }
    }
}
