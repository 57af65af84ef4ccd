//! One picture with what the network saw in it, for the page: to be corrected, or to be answered with.

use frame::{Frame, Layout, Orientation, PixelFormat, wipe};
use proto::taxonomy::Part;
use vision::{Converter, GridSize, Letterbox, Parser, VisionError};

use crate::found::{self, FoundPerson};

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
        let mut labels = Vec::new();
        parser.part_map(&rgb, &mut labels);
        let persons = found::persons(parser, &labels);
        let (grid, letterbox) = (parser.parsing().grid, parser.parsing().letterbox);
        let pixels = parser.pixels().to_vec();
        Parsed { size, rgb, labels, persons, pixels, grid, letterbox }
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
        let content = letterbox.content();
        let mut mask = vec![NOT_SAID; grid.area()];
        for y in content.y..content.y + content.height {
            for x in content.x..content.x + content.width {
                let (px, py) = letterbox.to_picture(x as f32 + 0.5, y as f32 + 0.5);
                let (px, py) = ((px as usize).min(width - 1), (py as usize).min(height - 1));
                mask[y as usize * grid.width + x as usize] = labels[py * width + px];
            }
        }
        mask
    }
}

fn refused(error: frame::FrameError) -> VisionError {
    VisionError::Network(error.to_string())
}

/// Red, green and blue of every part, in index order, for palette PNG files.
pub fn palette() -> Vec<u8> {
    Part::ALL.into_iter().flat_map(overlay::part_rgb).collect()
}
