//! Sizes, rectangles, and the way from a picture to the network's grid and back.

/// Height and width of a grid, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridSize {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl GridSize {
    /// Number of pixels.
    pub fn area(self) -> usize {
        self.height * self.width
    }
}

/// Room on every side of what was found. On rendered pictures of people with six times the input's pixels 6 to 20 % give the same
/// scores to half a point; with 6 %, people who exercise lose 1.6 points of IoU.
const ROOM: f32 = 0.12;

/// A rectangle in whole pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct Rect {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

impl Rect {
    /// Pixels inside.
    pub fn area(self) -> u32 {
        self.width * self.height
    }

    /// This rectangle with room around it, [`ROOM`] of its longer side, within a picture of this width and height.
    pub fn with_room(self, (width, height): (u32, u32)) -> Rect {
        let room = (ROOM * self.width.max(self.height) as f32).round() as u32;
        let (x, y) = (self.x.saturating_sub(room), self.y.saturating_sub(room));
        let right = (self.x + self.width + room).min(width);
        let bottom = (self.y + self.height + room).min(height);
        Rect { x, y, width: right - x, height: bottom - y }
    }

    /// Intersection over union with another rectangle, in 0..=1.
    pub fn iou(self, other: Rect) -> f32 {
        let overlap =
            |a: u32, al: u32, b: u32, bl: u32| (a + al).min(b + bl).saturating_sub(a.max(b));
        let both = overlap(self.x, self.width, other.x, other.width)
            * overlap(self.y, self.height, other.y, other.height);
        let either = self.area() + other.area() - both;
        if either == 0 { 0.0 } else { both as f32 / either as f32 }
    }
}

/// How an upright picture lies in the grid: aspect kept, centred, the rest padding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Letterbox {
    picture: (u32, u32),
    content: Rect,
}

impl Letterbox {
    /// Fits a picture of `width` x `height` pixels into `grid`.
    pub fn new(width: u32, height: u32, grid: GridSize) -> Letterbox {
        let fit =
            f64::min(grid.width as f64 / f64::from(width), grid.height as f64 / f64::from(height));
        let side = |length: u32, most: usize| {
            ((f64::from(length) * fit).round() as u32).clamp(1, most as u32)
        };
        let (w, h) = (side(width, grid.width), side(height, grid.height));
        let content = Rect {
            x: (grid.width as u32 - w) / 2,
            y: (grid.height as u32 - h) / 2,
            width: w,
            height: h,
        };
        Letterbox { picture: (width, height), content }
    }

    /// The part of the grid that shows the picture.
    pub fn content(&self) -> Rect {
        self.content
    }

    /// Pixels of the grid for one of the picture, along its longer side, which is rounded less.
    pub fn scale(&self) -> f64 {
        let (width, height) = self.picture;
        let (on_grid, own) = if width > height {
            (self.content.width, width)
        } else {
            (self.content.height, height)
        };
        f64::from(on_grid) / f64::from(own)
    }

    /// Width and height of the upright picture in pixels.
    pub fn picture(&self) -> (u32, u32) {
        self.picture
    }

    /// Grid coordinates of a point of the picture; pixel centres are at halves on both sides.
    pub fn to_grid(&self, x: f32, y: f32) -> (f32, f32) {
        let c = self.content;
        (
            c.x as f32 + x * c.width as f32 / self.picture.0 as f32,
            c.y as f32 + y * c.height as f32 / self.picture.1 as f32,
        )
    }

    /// Picture coordinates of a point of the grid; may lie outside the picture.
    pub fn to_picture(&self, x: f32, y: f32) -> (f32, f32) {
        let c = self.content;
        (
            (x - c.x as f32) * self.picture.0 as f32 / c.width as f32,
            (y - c.y as f32) * self.picture.1 as f32 / c.height as f32,
        )
    }

    /// The picture's pixels that a rectangle of the grid shows.
    pub fn rect_to_picture(&self, rect: Rect) -> Rect {
        let (width, height) = self.picture;
        let place = |x: u32, y: u32| {
            let (x, y) = self.to_picture(x as f32, y as f32);
            (x.round().clamp(0.0, width as f32) as u32, y.round().clamp(0.0, height as f32) as u32)
        };
        let (x, y) = place(rect.x, rect.y);
        let (right, bottom) = place(rect.x + rect.width, rect.y + rect.height);
        Rect { x, y, width: right - x, height: bottom - y }
    }
}

/// Smallest rectangle of the values that count, in a plane of this width, and how many there are.
pub fn extent<T>(plane: &[T], width: usize, counts: impl Fn(&T) -> bool) -> Option<(Rect, u32)> {
    let (mut left, mut right, mut top, mut bottom, mut pixels) = (usize::MAX, 0, usize::MAX, 0, 0);
    for (y, line) in plane.chunks_exact(width).enumerate() {
        let Some(first) = line.iter().position(&counts) else { continue };
        let last = line.iter().rposition(&counts).unwrap_or(first);
        (left, right, top, bottom) = (left.min(first), right.max(last), top.min(y), y);
        pixels += line.iter().filter(|value| counts(value)).count() as u32;
    }
    if pixels == 0 {
        return None;
    }
    let rect = Rect {
        x: left as u32,
        y: top as u32,
        width: (right - left + 1) as u32,
        height: (bottom - top + 1) as u32,
    };
    Some((rect, pixels))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: GridSize = GridSize { height: 256, width: 192 };

    #[test]
    fn keeps_the_aspect_and_centres() {
        let wide = Letterbox::new(640, 480, GRID).content();
        assert_eq!(wide, Rect { x: 0, y: 56, width: 192, height: 144 });
        let tall = Letterbox::new(100, 1000, GRID).content();
        assert_eq!(tall, Rect { x: 83, y: 0, width: 26, height: 256 });
        let thin = Letterbox::new(8192, 1, GRID);
        assert_eq!((thin.content().height, thin.scale()), (1, 192.0 / 8192.0));
    }

    #[test]
    fn there_and_back_again() {
        let letterbox = Letterbox::new(333, 777, GRID);
        for point in [(0.0, 0.0), (333.0, 777.0), (12.25, 700.5)] {
            let (x, y) = letterbox.to_grid(point.0, point.1);
            let (x, y) = letterbox.to_picture(x, y);
            assert!((x - point.0).abs() < 1e-3 && (y - point.1).abs() < 1e-3);
        }
    }

    #[test]
    fn iou_of_rectangles() {
        let a = Rect { x: 0, y: 0, width: 4, height: 4 };
        assert_eq!(a.iou(a), 1.0);
        assert_eq!(a.iou(Rect { x: 2, ..a }), 8.0 / 24.0);
        assert_eq!(a.iou(Rect { x: 4, ..a }), 0.0);
    }
}
