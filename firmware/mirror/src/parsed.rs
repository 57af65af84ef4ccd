//! One picture with what the network saw in it, for the page: to be corrected, or to be answered with.

use frame::{Frame, Layout, Orientation, PixelFormat, wipe};
use proto::taxonomy::Part;
use vision::{Converter, GridSize, Letterbox, Parser, VisionError};

use crate::found::{FoundPerson, Maps};

/// Stands for "not said" in a corrected mask.
pub const NOT_SAID: u8 = 255;

/// An upright picture, its parsing at its own size, and the network's input that belongs to it.
pub struct Parsed {
    /// Width and height.
    pub size: (u32, u32),
    /// Red, green, blue of every pixel.
    pub rgb: Vec<u8>,
    /// Part of every pixel.
    pub labels: Vec<u8>,
    /// The people, best first.
    pub persons: Vec<FoundPerson>,
    /// What the network was given: R, G, B planes.
    pub pixels: Vec<u8>,
    grid: GridSize,
    letterbox: Letterbox,
}

impl Drop for Parsed {
    /// Memory that is freed holds no picture.
    fn drop(&mut self) {
        let Parsed { rgb, labels, pixels, size: _, persons: _, grid: _, letterbox: _ } = self;
        [rgb, labels, pixels].into_iter().for_each(wipe);
    }
}

impl Parsed {
    /// Of the picture that `parser` parsed last.
    ///
    /// # Errors
    /// A compressed picture.
    pub fn of(
        parser: &mut Parser,
        frame: &Frame<'_>,
        orientation: Orientation,
    ) -> Result<Parsed, frame::FrameError> {
        let mut rgb = Vec::new();
        let size = frame::rgb::upright(frame, orientation, &mut rgb)?;
        Ok(Parsed::of_rgb(parser, size, rgb))
    }

    /// Of the picture that `parser` parsed last, where it is upright and packed RGB already: it is not copied.
    ///
    /// # Panics
    /// If `rgb` has another number of pixels than the picture that was parsed.
    pub fn of_rgb(parser: &mut Parser, size: (u32, u32), rgb: Vec<u8>) -> Parsed {
        let (labels, persons) = Maps::of(parser, &rgb).counted();
        let (grid, letterbox) = (parser.parsing().grid, parser.parsing().letterbox);
        let pixels = parser.pixels().to_vec();
        Parsed { size, rgb, labels, persons, pixels, grid, letterbox }
    }

    /// Makes the picture smaller where it has more pixels than `most`, with its labels. What the network was given stays, and
    /// people keep the places that they had in the picture that was parsed.
    pub fn shrink(&mut self, most: u64) {
        let (width, height) = self.size;
        let area = u64::from(width) * u64::from(height);
        if area <= most {
            return;
        }
        let share = (most as f64 / area as f64).sqrt();
        let side = |length: u32| ((f64::from(length) * share) as u32).max(1);
        let size = (side(width), side(height));
        let rgb = averaged(&self.rgb, self.size, size);
        wipe(&mut std::mem::replace(&mut self.rgb, rgb));
        let labels = sampled(&self.labels, self.size, size);
        wipe(&mut std::mem::replace(&mut self.labels, labels));
        self.size = size;
    }

    /// A black picture of nobody.
    #[cfg(test)]
    pub fn blank(size: (u32, u32)) -> Parsed {
        let (width, height) = size;
        let grid = GridSize { height: height as usize, width: width as usize };
        Parsed {
            size,
            rgb: vec![0; 3 * grid.area()],
            labels: vec![0; grid.area()],
            persons: Vec::new(),
            pixels: vec![0; 3 * grid.area()],
            grid,
            letterbox: Letterbox::new(width, height, grid),
        }
    }

    /// A mask of this picture's size as the network's grid wants it; outside the picture nothing is said.
    ///
    /// `labels` must have a value for every pixel.
    pub fn to_grid(&self, labels: &[u8]) -> Vec<u8> {
        self.mask(labels, self.letterbox, self.grid)
    }

    /// Picture (R, G, B planes) and mask for a network of this input size, which need not be the one that parsed it.
    ///
    /// # Errors
    /// Only for a picture beyond every limit, which would not have been parsed.
    pub fn to_input(
        &self,
        labels: &[u8],
        grid: GridSize,
        padding: u8,
    ) -> Result<(Vec<u8>, Vec<u8>), VisionError> {
        if grid == self.grid {
            return Ok((self.pixels.clone(), self.to_grid(labels)));
        }
        let (width, height) = self.size;
        let layout = Layout::new(PixelFormat::Rgb3, width, height, 0).map_err(refused)?;
        let frame = Frame::new(layout, &self.rgb).map_err(refused)?;
        let mut pixels = vec![0; 3 * grid.area()];
        let mut converter = Converter::new(grid, padding);
        let letterbox = converter.convert(&frame, Orientation::default(), &mut pixels)?;
        Ok((pixels, self.mask(labels, letterbox, grid)))
    }

    fn mask(&self, labels: &[u8], letterbox: Letterbox, grid: GridSize) -> Vec<u8> {
        let (width, height) = (self.size.0 as usize, self.size.1 as usize);
        // The letterbox may be that of the picture before it was made smaller.
        let of = letterbox.picture();
        let (across, down) = (width as f32 / of.0 as f32, height as f32 / of.1 as f32);
        let content = letterbox.content();
        let mut mask = vec![NOT_SAID; grid.area()];
        for y in content.y..content.y + content.height {
            for x in content.x..content.x + content.width {
                let (px, py) = letterbox.to_picture(x as f32 + 0.5, y as f32 + 0.5);
                let (px, py) = ((px * across) as usize, (py * down) as usize);
                let (px, py) = (px.min(width - 1), py.min(height - 1));
                mask[y as usize * grid.width + x as usize] = labels[py * width + px];
            }
        }
        mask
    }
}

/// The samples of one side that each sample of a smaller one stands for.
fn covered(at: usize, from: usize, to: usize) -> std::ops::Range<usize> {
    at * from / to..(at + 1) * from / to
}

/// Red, green and blue of a smaller picture: the means of the pixels that each of its own stands for.
fn averaged(rgb: &[u8], from: (u32, u32), to: (u32, u32)) -> Vec<u8> {
    let [width, height, columns, rows] = [from.0, from.1, to.0, to.1].map(|side| side as usize);
    let mut small = Vec::with_capacity(3 * columns * rows);
    for y in 0..rows {
        for x in 0..columns {
            let (mut sums, mut count) = ([0u32; 3], 0);
            let (ys, xs) = (covered(y, height, rows), covered(x, width, columns));
            for line in ys.map(|y| &rgb[3 * y * width..][..3 * width]) {
                for pixel in line[3 * xs.start..3 * xs.end].chunks_exact(3) {
                    sums.iter_mut().zip(pixel).for_each(|(sum, &byte)| *sum += u32::from(byte));
                    count += 1;
                }
            }
            small.extend(sums.map(|sum| ((sum + count / 2) / count) as u8));
        }
    }
    small
}

/// A smaller mask: the labels in the middle of what each of its own stands for.
fn sampled(labels: &[u8], from: (u32, u32), to: (u32, u32)) -> Vec<u8> {
    let [width, height, columns, rows] = [from.0, from.1, to.0, to.1].map(|side| side as usize);
    let middle = |at, from, to| {
        let range = covered(at, from, to);
        (range.start + range.end) / 2
    };
    let line = |y| (0..columns).map(move |x| labels[y * width + middle(x, width, columns)]);
    (0..rows).flat_map(|y| line(middle(y, height, rows))).collect()
}

fn refused(error: frame::FrameError) -> VisionError {
    VisionError::Network(error.to_string())
}

/// Red, green and blue of every part, in index order, for palette PNG files.
pub fn palette() -> Vec<u8> {
    Part::ALL.into_iter().flat_map(overlay::part_rgb).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_that_is_made_smaller_keeps_what_is_where_and_what_the_network_was_given() {
        let mut parsed = Parsed::blank((9, 6));
        for (at, (pixel, label)) in
            parsed.rgb.chunks_exact_mut(3).zip(&mut parsed.labels).enumerate()
        {
            // Columns in turn dark and light, in three parts.
            let x = at % 9;
            pixel.copy_from_slice(&[100 * (x % 2) as u8, 40, x as u8 / 3]);
            *label = (x / 3) as u8;
        }
        let given = parsed.pixels.clone();
        parsed.shrink(54);
        assert_eq!(parsed.size, (9, 6), "it is small enough");
        parsed.shrink(7);
        assert_eq!(parsed.size, (3, 2));
        assert_eq!(parsed.labels, [0, 1, 2, 0, 1, 2]);
        assert_eq!(parsed.rgb[..9], [33, 40, 0, 67, 40, 1, 33, 40, 2]);
        assert_eq!(parsed.pixels, given);
        let mask = parsed.to_grid(&[1, 2, 3, 4, 5, 6]);
        let wanted = (0..54).map(|at| (1 + at % 9 / 3 + 3 * (at / 9 / 3)) as u8);
        assert_eq!(mask, wanted.collect::<Vec<_>>());
    }
}
