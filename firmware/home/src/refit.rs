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

/// Brings a correction of size `from` to the size `to`: what the household said something about is scaled to fill the
/// input as a picture of the camera would, and around it is padding of which nothing is said.
///
/// `pixels` are R, G, B planes and `labels` one part per pixel, both of size `from`; the mask says something somewhere.
pub(crate) fn refit(
    pixels: &[u8],
    labels: &[u8],
    from: GridSize,
    to: GridSize,
    padding: u8,
) -> Refitted {
    let said = said(labels, from.width);
    let letterbox = Letterbox::new(said.width, said.height, to);
    let mut refitted = Refitted {
        pixels: Zeroizing::new(vec![padding; 3 * to.area()]),
        labels: Zeroizing::new(vec![IGNORE; to.area()]),
    };
    let content = letterbox.content();
    for y in content.y..content.y + content.height {
        for x in content.x..content.x + content.width {
            let at = y as usize * to.width + x as usize;
            let (px, py) = letterbox.to_picture(x as f32 + 0.5, y as f32 + 0.5);
            let (px, py) = (px + said.x as f32, py + said.y as f32);
            let row = (py as usize).min(from.height - 1);
            let column = (px as usize).min(from.width - 1);
            refitted.labels[at] = labels[row * from.width + column];
            for (channel, plane) in pixels.chunks_exact(from.area()).enumerate() {
                refitted.pixels[channel * to.area() + at] = between(plane, from, px, py);
            }
        }
    }
    refitted
}

/// The smallest rectangle around all that is said; the whole mask where nothing is.
fn said(labels: &[u8], width: usize) -> Rect {
    let rows = || labels.chunks_exact(width);
    let height = rows().len();
    let speaks = |row: &[u8]| row.iter().any(|&label| label != IGNORE);
    let spoken = |x: usize| rows().any(|row| row[x] != IGNORE);
    let top = rows().position(speaks).unwrap_or(0);
    let bottom = rows().rposition(speaks).unwrap_or(height - 1);
    let left = (0..width).find(|&x| spoken(x)).unwrap_or(0);
    let right = (0..width).rfind(|&x| spoken(x)).unwrap_or(width - 1);
    Rect {
        x: left as u32,
        y: top as u32,
        width: (right - left + 1) as u32,
        height: (bottom - top + 1) as u32,
    }
}

/// A plane's value at a place, between the four nearest pixels; pixel centres are at halves.
fn between(plane: &[u8], size: GridSize, x: f32, y: f32) -> u8 {
    let place = |at: f32, length: usize| {
        let at = (at - 0.5).clamp(0.0, (length - 1) as f32);
        let low = at as usize;
        (low, (low + 1).min(length - 1), at - low as f32)
    };
    let (left, right, across) = place(x, size.width);
    let (top, bottom, down) = place(y, size.height);
    let value = |row: usize, column: usize| f32::from(plane[row * size.width + column]);
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
    fn the_same_size_changes_nothing_but_the_margins() {
        let labels = vec![3; UPRIGHT.area()];
        let pixels: Vec<u8> = (0..3 * UPRIGHT.area()).map(|value| value as u8).collect();
        let refitted = refit(&pixels, &labels, UPRIGHT, UPRIGHT, 114);
        assert_eq!((&*refitted.pixels, &*refitted.labels), (&pixels, &labels));
    }
}
