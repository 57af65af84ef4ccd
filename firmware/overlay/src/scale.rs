//! Sizes that fit a screen of any shape.

/// Sizes are shares of the geometric mean of the screen's sides: the same screen has the same
/// letters upright and on its side. On a 24-inch panel of 1080 x 1920 pixels the capitals of the
/// advice are 12 mm tall, 14 minutes of arc from three metres; good eyes can just read 5.
pub(crate) fn unit(width: u32, height: u32) -> f32 {
    (width as f32 * height as f32).sqrt()
}

/// Free space along the screen's edges, and the height of the camera's badge, as shares of the unit.
pub(crate) const MARGIN: f32 = 0.028;
pub(crate) const BADGE: f32 = 0.056;

/// In smaller letters nothing can be read.
pub(crate) const SMALLEST_FONT: u32 = 10;

/// A share of the unit as a font size in whole pixels.
pub(crate) fn font_size(unit: f32, share: f32) -> u32 {
    ((unit * share).round() as u32).max(SMALLEST_FONT)
}

/// Font sizes from one share of the unit down to another.
pub(crate) fn font_sizes(unit: f32, from: f32, to: f32) -> impl Iterator<Item = u32> {
    let smaller = move |share: &f32| (*share > to).then(|| (share * 0.92).max(to));
    std::iter::successors(Some(from), smaller).map(move |share| font_size(unit, share))
}
