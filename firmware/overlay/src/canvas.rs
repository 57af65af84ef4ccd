//! The picture that goes to a display: one `u32` per pixel, black is mirror.

use std::convert::Infallible;
use std::ops::Range;

use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::pixelcolor::raw::RawU24;
use embedded_graphics::pixelcolor::{IntoStorage, Rgb888};
use embedded_graphics::primitives::Rectangle;
use embedded_graphics::{Drawable, Pixel};

use crate::wipe::wipe;

/// A picture of `width` x `height` pixels, row after row from the top, each `0x00RRGGBB`.
///
/// Whatever is drawn outside is clipped. Black (0) lets the mirror through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canvas {
    width: u32,
    height: u32,
    pixels: Vec<u32>,
}

impl Canvas {
    /// A black canvas. A side of 0 gives an empty canvas on which drawing does nothing.
    pub fn new(width: u32, height: u32) -> Canvas {
        let pixels = vec![0; width as usize * height as usize];
        Canvas { width, height, pixels }
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// All pixels, `width * height` of them.
    pub fn pixels(&self) -> &[u32] {
        &self.pixels
    }

    /// All pixels, to be written. The top byte of each must stay 0.
    pub fn pixels_mut(&mut self) -> &mut [u32] {
        &mut self.pixels
    }

    /// One row of `width` pixels; an empty slice from `height` on.
    pub fn row(&self, y: u32) -> &[u32] {
        let (start, width) = (y as usize * self.width as usize, self.width as usize);
        self.pixels.get(start..start + width).unwrap_or_default()
    }

    /// One row of `width` pixels, to be written; an empty slice from `height` on.
    pub fn row_mut(&mut self, y: u32) -> &mut [u32] {
        let (start, width) = (y as usize * self.width as usize, self.width as usize);
        self.pixels.get_mut(start..start + width).unwrap_or_default()
    }

    /// Makes everything black: nothing but mirror.
    pub fn clear(&mut self) {
        self.pixels.fill(0);
    }

    /// Moves everything to the right and down, in pixels; black comes in from the other side.
    pub(crate) fn shift(&mut self, across: i32, down: i32) {
        let (width, all) = (self.width as usize, self.pixels.len());
        let by = i64::from(down) * i64::from(self.width) + i64::from(across);
        let far = (by.unsigned_abs() as usize).min(all);
        if by > 0 {
            self.pixels.copy_within(..all - far, far);
            self.pixels[..far].fill(0);
        } else {
            self.pixels.copy_within(far.., 0);
            self.pixels[all - far..].fill(0);
        }
        // What left a row came in at the other end of the next one.
        let wrapped = (across.unsigned_abs() as usize).min(width);
        for row in self.pixels.chunks_exact_mut(width.max(1)) {
            let end = if across > 0 { &mut row[..wrapped] } else { &mut row[width - wrapped..] };
            end.fill(0);
        }
    }

    /// Columns and rows of the part of `area` that lies on the canvas; `None` when nothing does.
    fn clip(&self, area: &Rectangle) -> Option<(Range<usize>, Range<usize>)> {
        let inside = area.intersection(&Rectangle::new(Point::zero(), self.size()));
        let x = usize::try_from(inside.top_left.x).ok()?;
        let y = usize::try_from(inside.top_left.y).ok()?;
        let (width, height) = (inside.size.width as usize, inside.size.height as usize);
        (width > 0 && height > 0).then(|| (x..x + width, y..y + height))
    }
}

impl Drop for Canvas {
    /// Memory that is freed shows nobody.
    fn drop(&mut self) {
        wipe(&mut self.pixels);
    }
}

/// The whole canvas, black included, from the target's origin on. A target of other colours takes it through `color_converted`.
impl Drawable for Canvas {
    type Color = Rgb888;
    type Output = ();

    fn draw<D: DrawTarget<Color = Rgb888>>(&self, target: &mut D) -> Result<(), D::Error> {
        let colours = self.pixels.iter().map(|&pixel| Rgb888::from(RawU24::new(pixel)));
        target.fill_contiguous(&Rectangle::new(Point::zero(), self.size()), colours)
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = Pixel<Rgb888>>,
    {
        for Pixel(point, colour) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(point.x), u32::try_from(point.y)) else { continue };
            if x < self.width && y < self.height {
                let index = y as usize * self.width as usize + x as usize;
                self.pixels[index] = colour.into_storage();
            }
        }
        Ok(())
    }

    fn fill_contiguous<I>(&mut self, area: &Rectangle, colours: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = Rgb888>,
    {
        let Some((columns, rows)) = self.clip(area) else { return Ok(()) };
        let mut colours = colours.into_iter();
        // `colours` covers the whole area, so what was clipped must be skipped in it.
        let skip_left = (columns.start as i64 - i64::from(area.top_left.x)) as usize;
        let skip_right = area.size.width as usize - skip_left - columns.len();
        let skip_top = (rows.start as i64 - i64::from(area.top_left.y)) as usize;
        let mut skip = skip_top * area.size.width as usize + skip_left;
        for y in rows {
            let row = &mut self.row_mut(y as u32)[columns.clone()];
            for pixel in row {
                let Some(colour) = colours.nth(skip) else { return Ok(()) };
                (*pixel, skip) = (colour.into_storage(), 0);
            }
            skip = skip_right + skip_left;
        }
        Ok(())
    }

    fn fill_solid(&mut self, area: &Rectangle, colour: Rgb888) -> Result<(), Infallible> {
        let Some((columns, rows)) = self.clip(area) else { return Ok(()) };
        for y in rows {
            self.row_mut(y as u32)[columns.clone()].fill(colour.into_storage());
        }
        Ok(())
    }

    fn clear(&mut self, colour: Rgb888) -> Result<(), Infallible> {
        self.pixels.fill(colour.into_storage());
        Ok(())
    }
}

/// `a` and `b` mixed in all four bytes; `share` of `b` 0 to 256.
pub(crate) fn mix(a: u32, b: u32, share: u32) -> u32 {
    let (keep, low) = (256 - share, 0x00FF_00FF);
    let even = ((a & low) * keep + (b & low) * share) >> 8;
    let odd = (a >> 8 & low) * keep + (b >> 8 & low) * share;
    even & low | odd & !low
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_graphics::draw_target::DrawTargetExt;
    use embedded_graphics::mock_display::MockDisplay;
    use embedded_graphics::pixelcolor::{Rgb565, RgbColor};

    #[test]
    fn mixing_ends_at_both_colours_and_keeps_channels_apart() {
        let (a, b) = (0xFF00_80FF, 0x00FF_4001);
        assert_eq!(mix(a, b, 0), a);
        assert_eq!(mix(a, b, 256), b);
        assert_eq!(mix(0, 0xFFFF_FFFF, 128), 0x7F7F_7F7F);
    }

    #[test]
    fn rows_and_order_of_colour_bytes() {
        let mut canvas = Canvas::new(3, 2);
        let colour = Rgb888::new(1, 2, 3);
        canvas.draw_iter([Pixel(Point::new(2, 1), colour)]).expect("infallible");
        assert_eq!(canvas.row(0), &[0, 0, 0]);
        assert_eq!(canvas.row(1), &[0, 0, 0x0001_0203]);
        assert!(canvas.row(2).is_empty());
        canvas.clear();
        assert!(canvas.pixels().iter().all(|&pixel| pixel == 0));
    }

    #[test]
    fn what_is_shifted_leaves_black_behind_and_comes_in_nowhere_else() {
        let picture = |rows: [[u32; 3]; 3]| {
            let mut canvas = Canvas::new(3, 3);
            canvas.pixels_mut().copy_from_slice(rows.as_flattened());
            canvas
        };
        let shifted = |across, down| {
            let mut canvas = picture([[1, 2, 3], [4, 5, 6], [7, 8, 9]]);
            canvas.shift(across, down);
            canvas
        };
        assert_eq!(shifted(0, 0), picture([[1, 2, 3], [4, 5, 6], [7, 8, 9]]));
        assert_eq!(shifted(1, 1), picture([[0, 0, 0], [0, 1, 2], [0, 4, 5]]));
        assert_eq!(shifted(-1, 1), picture([[0, 0, 0], [2, 3, 0], [5, 6, 0]]));
        assert_eq!(shifted(2, -1), picture([[0, 0, 4], [0, 0, 7], [0, 0, 0]]));
        assert_eq!(shifted(-1, -2), picture([[8, 9, 0], [0, 0, 0], [0, 0, 0]]));
        for (across, down) in [(3, 0), (-4, 0), (0, 9), (0, i32::MIN), (i32::MAX, i32::MAX)] {
            assert_eq!(shifted(across, down), Canvas::new(3, 3), "{across} {down}");
        }
        Canvas::new(0, 3).shift(2, 1);
    }

    #[test]
    fn drawing_outside_is_clipped() {
        let mut canvas = Canvas::new(4, 4);
        let outside = [Point::new(-1, 0), Point::new(0, -1), Point::new(4, 0), Point::new(0, 4)];
        let pixels = outside.map(|point| Pixel(point, Rgb888::WHITE));
        canvas.draw_iter(pixels).expect("infallible");
        let far = Rectangle::new(Point::new(10, 10), Size::new(5, 5));
        canvas.fill_solid(&far, Rgb888::WHITE).expect("infallible");
        assert!(canvas.pixels().iter().all(|&pixel| pixel == 0));
        let corner = Rectangle::new(Point::new(-2, -2), Size::new(3, 3));
        canvas.fill_solid(&corner, Rgb888::WHITE).expect("infallible");
        assert_eq!(canvas.pixels().iter().filter(|&&pixel| pixel != 0).count(), 1);
    }

    #[test]
    fn a_canvas_is_drawn_on_any_target() {
        let mut canvas = Canvas::new(3, 2);
        canvas.pixels_mut().copy_from_slice(&[0xFF_0000, 0, 0x00_FF00, 0, 0x00_00FF, 0xFF_FFFF]);
        let mut panel: MockDisplay<Rgb565> = MockDisplay::new();
        canvas.draw(&mut panel.color_converted()).expect("infallible");
        panel.assert_pattern(&["RKG", "KBW"]);
        let mut other = Canvas::new(2, 3);
        canvas.draw(&mut other).expect("infallible");
        assert_eq!(other.pixels(), [0xFF_0000, 0, 0, 0x00_00FF, 0, 0], "clipped");
    }

    /// A clipped contiguous fill must put the same colours on the canvas as one pixel at a time.
    #[test]
    fn clipped_contiguous_fill_equals_single_pixels() {
        for origin in [Point::new(-2, -1), Point::new(3, 2), Point::new(1, 1), Point::new(-9, 0)] {
            let area = Rectangle::new(origin, Size::new(5, 4));
            let colours = (0..20).map(|i| Rgb888::new(i, i + 1, i + 2));
            let (mut fast, mut slow) = (Canvas::new(6, 5), Canvas::new(6, 5));
            fast.fill_contiguous(&area, colours.clone()).expect("infallible");
            use embedded_graphics::primitives::PointsIter;
            slow.draw_iter(area.points().zip(colours).map(|(p, c)| Pixel(p, c))).expect("ok");
            assert_eq!(fast, slow, "{origin:?}");
        }
    }

    #[test]
    fn too_few_colours_leave_the_rest_and_empty_canvas_takes_everything() {
        let area = Rectangle::new(Point::zero(), Size::new(2, 2));
        let mut canvas = Canvas::new(2, 2);
        canvas.fill_contiguous(&area, [Rgb888::WHITE]).expect("infallible");
        assert_eq!(canvas.pixels(), &[0xFF_FFFF, 0, 0, 0]);
        let mut empty = Canvas::new(0, 7);
        empty.fill_solid(&area, Rgb888::WHITE).expect("infallible");
        assert!(empty.pixels().is_empty());
    }
}
