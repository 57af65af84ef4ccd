//! The picture with its parts coloured, for the local page. Never for the mirror itself.

use thiserror::Error;

use crate::canvas::Canvas;
use crate::figure::Figure;
use crate::geometry::{PictureFit, Projection};
use crate::glow::{Brush, Light, Place, Ramps};
use crate::scale::unit;
use crate::scene::{MaskView, Style};

/// Share of the picture's brightness that is left under a part at full opacity.
const KEPT: f32 = 0.25;
/// Outline as a share of the geometric mean of the picture's sides.
const OUTLINE: f32 = 0.0036;

/// What does not fit together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PreviewError {
    /// The picture's bytes and its sides disagree.
    #[error("a picture of {width} x {height} has 3 bytes per pixel, not {bytes} bytes in all")]
    Picture {
        /// Given width.
        width: u32,
        /// Given height.
        height: u32,
        /// Given bytes.
        bytes: usize,
    },
    /// The mask is inconsistent, see [`MaskView::is_consistent`].
    #[error("the label map's slices or content do not fit its {width} x {height} grid")]
    Mask {
        /// Grid columns.
        width: u32,
        /// Grid rows.
        height: u32,
    },
}

/// Colours people in pictures; keeps its memory.
#[derive(Debug)]
pub struct PreviewPainter {
    canvas: Canvas,
    figure: Figure,
    brush: Brush,
    ramps: Ramps,
    /// Share of the picture that is left by how much a person covers a pixel, 0 to 256.
    left: [u32; 256],
}

impl PreviewPainter {
    /// With a style's opacity: 0 leaves outlines only.
    pub fn new(style: Style) -> PreviewPainter {
        let opacity = style.opacity.clamp(0.0, 1.0);
        let light =
            Light { rim: opacity * 0.95, core: opacity * 0.74, halo: 0.0, seam: 0.5, mark: true };
        let gone = (1.0 - KEPT) * opacity;
        PreviewPainter {
            canvas: Canvas::new(0, 0),
            figure: Figure::default(),
            brush: Brush::default(),
            ramps: Ramps::new(&light),
            left: std::array::from_fn(|cover| {
                (256.0 * (1.0 - gone * cover as f32 / 255.0)).round() as u32
            }),
        }
    }

    /// Colours the parts of an upright picture in place: `width * height` pixels of red, green and
    /// blue. The mask's content rectangle is the whole picture.
    ///
    /// # Errors
    /// Sides that disagree with the bytes, or an inconsistent mask; the picture is then unchanged.
    pub fn blend_over(
        &mut self,
        picture: &mut [u8],
        (width, height): (u32, u32),
        mask: &MaskView<'_>,
    ) -> Result<(), PreviewError> {
        let bytes = picture.len();
        if width as usize * height as usize * 3 != bytes || bytes == 0 {
            return Err(PreviewError::Picture { width, height, bytes });
        }
        if !mask.is_consistent() {
            return Err(PreviewError::Mask { width: mask.width, height: mask.height });
        }
        self.draw_people((width, height), mask);
        for (rgb, &light) in picture.chunks_exact_mut(3).zip(self.canvas.pixels()) {
            if light == 0 {
                continue;
            }
            let [blue, green, red, cover] = light.to_le_bytes();
            let left = self.left[usize::from(cover)];
            for (value, added) in rgb.iter_mut().zip([red, green, blue]) {
                let under = (u32::from(*value) * left) >> 8;
                *value = (under + u32::from(added)).min(255) as u8;
            }
        }
        Ok(())
    }

    fn draw_people(&mut self, size: (u32, u32), mask: &MaskView<'_>) {
        if (self.canvas.width(), self.canvas.height()) == size {
            self.canvas.clear();
        } else {
            self.canvas = Canvas::new(size.0, size.1);
        }
        let projection = Projection::Picture(PictureFit::stretched(mask.content, size));
        let outline_width = (unit(size.0, size.1) * OUTLINE).max(1.2);
        for person in mask.people {
            if self.figure.read(mask, person) {
                let (content, track) = (mask.content, person.track);
                let place = Place { projection, content, track, outline_width };
                self.brush.paint(&self.figure, &self.ramps, &place, &mut self.canvas);
            }
        }
    }
}
