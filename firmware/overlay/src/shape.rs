//! Antialiased shapes from signed distances: negative inside, in pixels.
//!
//! The formulas are the textbook ones of plane geometry: the distance to a circle is the distance
//! to its middle less its radius, and so on. Shapes combine by `min` (both) and `max` (common part).

use embedded_graphics::pixelcolor::{IntoStorage, Rgb888};

use crate::canvas::{Canvas, mix};

/// A place or a displacement.
pub(crate) type Point = (f32, f32);

/// Fills the pixels around `middle`, at most `reach` away in either direction, where `distance`
/// (of a place relative to `middle`) is negative; the border is a pixel wide ramp.
pub(crate) fn fill(
    canvas: &mut Canvas,
    middle: Point,
    reach: Point,
    colour: Rgb888,
    distance: impl Fn(Point) -> f32,
) {
    let colour = colour.into_storage();
    let (left, right) = span(middle.0, reach.0, canvas.width());
    let (top, bottom) = span(middle.1, reach.1, canvas.height());
    for y in top..bottom {
        let row = &mut canvas.row_mut(y)[left as usize..right as usize];
        for (x, pixel) in (left..right).zip(row) {
            let place = (x as f32 + 0.5 - middle.0, y as f32 + 0.5 - middle.1);
            let covered = (0.5 - distance(place)).clamp(0.0, 1.0);
            if covered > 0.0 {
                *pixel = mix(*pixel, colour, (covered * 256.0) as u32);
            }
        }
    }
}

fn span(middle: f32, reach: f32, side: u32) -> (u32, u32) {
    let limit = |value: f32| value.clamp(0.0, side as f32) as u32;
    let (start, end) = (limit((middle - reach).floor()), limit((middle + reach).ceil()));
    (start, end.max(start))
}

/// Screens are small: no overflow that `hypot` would have to avoid, and a root is exact everywhere.
fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

pub(crate) fn circle((x, y): Point, middle: Point, radius: f32) -> f32 {
    length(x - middle.0, y - middle.1) - radius
}

/// A box with round corners; `half` its half sides.
pub(crate) fn round_box((x, y): Point, middle: Point, half: Point, radius: f32) -> f32 {
    let (dx, dy) = ((x - middle.0).abs() - half.0 + radius, (y - middle.1).abs() - half.1 + radius);
    length(dx.max(0.0), dy.max(0.0)) + dx.max(dy).min(0.0) - radius
}

/// A line with round ends; `radius` half its width.
pub(crate) fn line((x, y): Point, a: Point, b: Point, radius: f32) -> f32 {
    let (px, py) = (x - a.0, y - a.1);
    let (lx, ly) = (b.0 - a.0, b.1 - a.1);
    let along = ((px * lx + py * ly) / (lx * lx + ly * ly)).clamp(0.0, 1.0);
    length(px - lx * along, py - ly * along) - radius
}

/// The outline of a shape; `radius` half its width.
pub(crate) fn stroke(distance: f32, radius: f32) -> f32 {
    distance.abs() - radius
}

/// A triangle; corners clockwise on the screen, round by growing it.
pub(crate) fn triangle(place: Point, corners: [Point; 3]) -> f32 {
    let edge = |i: usize| {
        let (a, b) = (corners[i], corners[(i + 1) % 3]);
        let side = (b.0 - a.0) * (place.1 - a.1) - (b.1 - a.1) * (place.0 - a.0);
        (line(place, a, b, 0.0), side)
    };
    let edges = [edge(0), edge(1), edge(2)];
    let nearest = edges.iter().fold(f32::MAX, |least, edge| least.min(edge.0));
    if edges.iter().all(|edge| edge.1 >= 0.0) { -nearest } else { nearest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_graphics::pixelcolor::RgbColor;

    #[test]
    fn distances_are_negative_inside_and_true_outside() {
        assert_eq!(circle((3.0, 4.0), (0.0, 0.0), 2.0), 3.0);
        assert_eq!(round_box((7.0, 0.0), (0.0, 0.0), (4.0, 2.0), 1.0), 3.0);
        assert_eq!(round_box((0.0, 0.0), (0.0, 0.0), (4.0, 2.0), 1.0), -2.0);
        assert_eq!(line((5.0, 2.0), (0.0, 0.0), (10.0, 0.0), 0.5), 1.5);
        assert_eq!(stroke(-3.0, 1.0), 2.0);
        let corners = [(0.0, 0.0), (10.0, 0.0), (0.0, 10.0)];
        assert!(triangle((2.0, 2.0), corners) < 0.0);
        assert_eq!(triangle((-3.0, 5.0), corners), 3.0);
    }

    #[test]
    fn area_of_a_filled_circle_is_right_and_drawing_is_clipped() {
        let mut canvas = Canvas::new(64, 64);
        fill(&mut canvas, (32.0, 32.0), (25.0, 25.0), Rgb888::WHITE, |place| {
            circle(place, (0.0, 0.0), 20.0)
        });
        let area: f32 = canvas.pixels().iter().map(|&p| (p & 0xFF) as f32 / 255.0).sum();
        assert!((area / (std::f32::consts::PI * 400.0) - 1.0).abs() < 0.01, "{area}");
        for middle in [(-30.0, 5.0), (200.0, 5.0), (5.0, -300.0), (64.0, 64.0)] {
            fill(&mut canvas, middle, (20.0, 20.0), Rgb888::WHITE, |place| {
                circle(place, (0.0, 0.0), 20.0)
            });
        }
    }
}
