//! Corrections at another input size than they were made at: a household that turns its camera, or a model that serves
//! more sizes than the one before it, loses none of them.

use learn::head::IGNORE;
use vision::{GridSize, Letterbox, Rect};
use zeroize::Zeroizing;

/// Planes and mask at the network's input size. Wiped when dropped.
pub(crate) struct Refitted {
    pub pixels: Zeroizing<Vec<u8>>,
    pub labels: Zeroizing<Vec<u8>>,
}

/// Brings a correction of size `from` to the size `to`: the picture in it is scaled to fill the input as the camera's own
/// pictures do, and around it is padding of which nothing is said.
///
/// `pixels` are R, G, B planes and `labels` one part per pixel, both of size `from`.
pub(crate) fn refit(
    pixels: &[u8],
    labels: &[u8],
    from: GridSize,
    to: GridSize,
    padding: u8,
) -> Refitted {
    let picture = picture(pixels, labels, from, padding);
    let letterbox = Letterbox::new(picture.width, picture.height, to);
    let mut refitted = Refitted {
        pixels: Zeroizing::new(vec![padding; 3 * to.area()]),
        labels: Zeroizing::new(vec![IGNORE; to.area()]),
    };
    let content = letterbox.content();
    for y in content.y..content.y + content.height {
        for x in content.x..content.x + content.width {
            let at = y as usize * to.width + x as usize;
            let (px, py) = letterbox.to_picture(x as f32 + 0.5, y as f32 + 0.5);
            let (px, py) = (px + picture.x as f32, py + picture.y as f32);
            let row = (py as usize).min(from.height - 1);
            let column = (px as usize).min(from.width - 1);
            refitted.labels[at] = labels[row * from.width + column];
            for (channel, plane) in pixels.chunks_exact(from.area()).enumerate() {
                refitted.pixels[channel * to.area() + at] =
                    between(plane, from.width, picture, px, py);
            }
        }
    }
    refitted
}

/// The smallest rectangle around all that is not padding of which nothing is said; the whole where everything is.
fn picture(pixels: &[u8], labels: &[u8], size: GridSize, padding: u8) -> Rect {
    let shown = |y: usize, x: usize| {
        let at = y * size.width + x;
        labels[at] != IGNORE || (0..3).any(|plane| pixels[plane * size.area() + at] != padding)
    };
    let row = |&y: &usize| (0..size.width).any(|x| shown(y, x));
    let column = |&x: &usize| (0..size.height).any(|y| shown(y, x));
    let top = (0..size.height).find(row).unwrap_or(0);
    let bottom = (0..size.height).rfind(row).unwrap_or(size.height - 1);
    let left = (0..size.width).find(column).unwrap_or(0);
    let right = (0..size.width).rfind(column).unwrap_or(size.width - 1);
    Rect {
        x: left as u32,
        y: top as u32,
        width: (right - left + 1) as u32,
        height: (bottom - top + 1) as u32,
    }
}

/// A plane's value at a place, between the four nearest pixels of the picture in it; pixel centres are at halves.
fn between(plane: &[u8], stride: usize, picture: Rect, x: f32, y: f32) -> u8 {
    let place = |at: f32, start: u32, length: u32| {
        let last = (start + length - 1) as usize;
        let at = (at - 0.5).clamp(start as f32, last as f32);
        let low = at as usize;
        (low, (low + 1).min(last), at - low as f32)
    };
    let (left, right, across) = place(x, picture.x, picture.width);
    let (top, bottom, down) = place(y, picture.y, picture.height);
    let value = |row: usize, column: usize| f32::from(plane[row * stride + column]);
    let mix = |a: f32, b: f32, share: f32| a + (b - a) * share;
    let upper = mix(value(top, left), value(top, right), across);
    let lower = mix(value(bottom, left), value(bottom, right), across);
    mix(upper, lower, down).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPRIGHT: GridSize = GridSize { height: 8, width: 6 };
    const WIDE: GridSize = GridSize { height: 6, width: 8 };

    #[test]
    fn a_wide_picture_fills_a_wide_input_after_it_lay_small_in_an_upright_one() {
        // 6 x 4 pixels of a wide picture in the middle rows; left half part 1 and dark, right half part 2 and bright.
        let mut labels = vec![IGNORE; UPRIGHT.area()];
        let mut pixels = vec![114; 3 * UPRIGHT.area()];
        for (y, x) in (2..6).flat_map(|y| (0..6).map(move |x| (y, x))) {
            let at = y * UPRIGHT.width + x;
            labels[at] = if x < 3 { 1 } else { 2 };
            for channel in 0..3 {
                pixels[channel * UPRIGHT.area() + at] =
                    if x < 3 { 10 } else { 200 + channel as u8 };
            }
        }
        let refitted = refit(&pixels, &labels, UPRIGHT, WIDE, 114);
        // 6 x 4 becomes 8 x 5: one row of the six is padding.
        let count = |part| refitted.labels.iter().filter(|&&label| label == part).count();
        assert_eq!((count(1), count(2), count(IGNORE)), (20, 20, 8));
        let row = 2 * WIDE.width;
        assert_eq!(refitted.pixels[row], 10);
        assert_eq!(refitted.pixels[2 * WIDE.area() + row + 7], 202);
        assert!(refitted.pixels[..WIDE.area()].contains(&114), "padding around it");
    }

    #[test]
    fn what_nothing_is_said_of_stays_part_of_the_picture() {
        // A wide picture in the middle rows, of which one pixel is said something.
        let mut pixels = vec![114; 3 * UPRIGHT.area()];
        let mut labels = vec![IGNORE; UPRIGHT.area()];
        pixels[2 * UPRIGHT.width..6 * UPRIGHT.width].fill(30);
        labels[3 * UPRIGHT.width + 2] = 7;
        let refitted = refit(&pixels, &labels, UPRIGHT, WIDE, 114);
        let shown = refitted.pixels[..WIDE.area()].iter().filter(|&&value| value == 30).count();
        assert_eq!(shown, 40, "8 x 5 pixels of it");
        let said = refitted.labels.iter().filter(|&&label| label == 7).count();
        assert!((1..=4).contains(&said), "a small part of it, not all: {said}");
    }

    #[test]
    fn the_same_size_changes_nothing() {
        let labels = vec![3; UPRIGHT.area()];
        let pixels: Vec<u8> = (0..3 * UPRIGHT.area()).map(|value| value as u8).collect();
        let refitted = refit(&pixels, &labels, UPRIGHT, UPRIGHT, 114);
        assert_eq!((&*refitted.pixels, &*refitted.labels), (&pixels, &labels));
    }
}
