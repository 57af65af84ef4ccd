//! Antialiased text. One typeface (Noto Sans Regular, SIL Open Font License), any size; a letter
//! is rasterised the first time it is needed and then only copied.

use std::collections::HashMap;

use ab_glyph::{Font as _, FontRef, ScaleFont};
use embedded_graphics::pixelcolor::{IntoStorage, Rgb888};

use crate::canvas::{Canvas, mix};
use crate::scale::SMALLEST_FONT;

/// More letters than any screen of ours has; texts from outside must not fill the memory.
const MOST_GLYPHS: usize = 1024;

/// Distance of two lines, in font sizes.
pub(crate) const LINE_HEIGHT: f32 = 1.3;
/// Height of capital letters, in font sizes.
pub(crate) const CAPITAL_HEIGHT: f32 = 0.714;

/// A rasterised letter: `width * height` bytes of coverage from `offset` on.
#[derive(Clone, Copy, Debug)]
struct Glyph {
    advance: f32,
    /// From the pen on the baseline to the raster's upper left corner.
    left: i32,
    top: i32,
    width: u32,
    height: u32,
    offset: usize,
}

/// The typeface with the letters used so far.
pub(crate) struct Font {
    face: FontRef<'static>,
    glyphs: HashMap<(char, u32), Glyph>,
    coverage: Vec<u8>,
}

impl std::fmt::Debug for Font {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Font").field("glyphs", &self.glyphs.len()).finish_non_exhaustive()
    }
}

impl Font {
    pub fn new() -> Font {
        let face = FontRef::try_from_slice(notosans::REGULAR_TTF)
            .expect("the font is part of the program and a test loads it");
        Font { face, glyphs: HashMap::with_capacity(256), coverage: Vec::new() }
    }

    /// Width in pixels of one line of text; `size` is the em in pixels.
    pub fn width(&mut self, text: &str, size: u32) -> f32 {
        text.chars().map(|letter| self.glyph(letter, size).advance).sum()
    }

    /// Draws one line from `x` on, standing on `baseline`; what lies outside is clipped.
    pub fn draw(
        &mut self,
        text: &str,
        (x, baseline): (f32, f32),
        size: u32,
        colour: Rgb888,
        canvas: &mut Canvas,
    ) {
        let mut pen = x;
        for letter in text.chars() {
            let glyph = self.glyph(letter, size);
            // Whole pixels: letters stay sharp, and one raster serves every place.
            let corner = (pen.round() as i32 + glyph.left, baseline.round() as i32 + glyph.top);
            self.stamp(&glyph, corner, colour.into_storage(), canvas);
            pen += glyph.advance;
        }
    }

    fn stamp(&self, glyph: &Glyph, (x, y): (i32, i32), colour: u32, canvas: &mut Canvas) {
        let first = (-x).clamp(0, glyph.width as i32) as usize;
        let last = (canvas.width() as i32 - x).clamp(first as i32, glyph.width as i32) as usize;
        for row in 0..glyph.height {
            let Ok(line) = u32::try_from(y + row as i32) else { continue };
            if line >= canvas.height() || first == last {
                continue;
            }
            let start = glyph.offset + (row * glyph.width) as usize;
            let coverage = &self.coverage[start + first..start + last];
            let left = (x + first as i32) as usize;
            let pixels = &mut canvas.row_mut(line)[left..left + coverage.len()];
            for (pixel, &covered) in pixels.iter_mut().zip(coverage) {
                let covered = u32::from(covered);
                *pixel = mix(*pixel, colour, covered + (covered >> 7));
            }
        }
    }

    fn glyph(&mut self, letter: char, size: u32) -> Glyph {
        if let Some(glyph) = self.glyphs.get(&(letter, size)) {
            return *glyph;
        }
        if self.glyphs.len() >= MOST_GLYPHS {
            self.glyphs.clear();
            self.coverage.clear();
        }
        let glyph = self.rasterise(letter, size);
        self.glyphs.insert((letter, size), glyph);
        glyph
    }

    fn rasterise(&mut self, letter: char, size: u32) -> Glyph {
        // Control characters (a line break in an error message) are spaces.
        let letter = if letter.is_control() { ' ' } else { letter };
        let units = self.face.units_per_em().unwrap_or(1000.0);
        // ab_glyph's scale is ascent to descent; a font size is the em.
        let scale = size as f32 * self.face.height_unscaled() / units;
        let scaled = self.face.as_scaled(scale);
        let id = scaled.glyph_id(letter);
        let (advance, offset) = (scaled.h_advance(id), self.coverage.len());
        let empty = Glyph { advance, left: 0, top: 0, width: 0, height: 0, offset };
        let Some(outline) = self.face.outline_glyph(id.with_scale(scale)) else { return empty };
        let bounds = outline.px_bounds();
        let (width, height) = (bounds.width() as u32, bounds.height() as u32);
        self.coverage.resize(offset + (width * height) as usize, 0);
        let raster = &mut self.coverage[offset..];
        outline.draw(|x, y, covered| {
            let value = (covered.clamp(0.0, 1.0) * 255.0 + 0.5) as u8;
            if let Some(place) = raster.get_mut((y * width + x) as usize) {
                *place = value;
            }
        });
        let (left, top) = (bounds.min.x as i32, bounds.min.y as i32);
        Glyph { left, top, width, height, ..empty }
    }

    /// Splits a text into lines of at most `most` pixels, at spaces where there are any, and puts
    /// their byte ranges into `lines`. Returns the widest line's width. Ends with the first line after `limit` others: whatever is
    /// behind it is not shown, and may be as long as it likes.
    pub fn wrap(
        &mut self,
        text: &str,
        size: u32,
        most: f32,
        limit: usize,
        lines: &mut Vec<Line>,
    ) -> f32 {
        lines.clear();
        let (mut start, mut width, mut widest) = (0, 0.0, 0.0_f32);
        // Where the line's last word ended: its place, and the width up to there.
        let mut word: Option<(usize, f32)> = None;
        for (index, letter) in text.char_indices() {
            let advance = self.glyph(letter, size).advance;
            if letter == ' ' {
                if index == start {
                    start += 1;
                    continue;
                }
                if !text[..index].ends_with(' ') {
                    word = Some((index, width));
                }
            } else if width + advance > most && index > start {
                let (end, before) = word.take().unwrap_or((index, width));
                lines.push((start, end));
                widest = widest.max(before);
                if lines.len() > limit {
                    return widest;
                }
                start = end + text[end..index].len() - text[end..index].trim_start().len();
                width = self.width(&text[start..index], size);
            }
            width += advance;
        }
        let end = start + text[start..].trim_end().len();
        if start < end {
            lines.push((start, end));
            widest = widest.max(self.width(&text[start..end], size));
        }
        widest
    }

    /// The first of these font sizes, from large to small, at which a text has no more than `few` lines; else the last one. A line of a
    /// size has at most `most` of that size pixels. Leaves the text's lines in `lines`, to the first one after `limit` others.
    pub fn fit(
        &mut self,
        text: &str,
        sizes: impl Iterator<Item = u32>,
        most: impl Fn(u32) -> f32,
        (few, limit): (usize, usize),
        lines: &mut Vec<Line>,
    ) -> u32 {
        let mut fitted = SMALLEST_FONT;
        for size in sizes {
            fitted = size;
            self.wrap(text, size, most(size), limit, lines);
            if lines.len() <= few {
                break;
            }
        }
        fitted
    }

    /// [`Font::wrap`] with lines of about the same length: as narrow as the least number of lines
    /// allows. A text of more than `limit` lines fills them.
    pub fn balance(
        &mut self,
        text: &str,
        size: u32,
        most: f32,
        limit: usize,
        lines: &mut Vec<Line>,
    ) -> f32 {
        let widest = self.wrap(text, size, most, limit, lines);
        let (count, mut low, mut high) = (lines.len(), 0.0, widest);
        if count < 2 || count > limit {
            return widest;
        }
        while high - low > size as f32 * 0.25 {
            let middle = (low + high) / 2.0;
            // A word cut in two is no better balance.
            let widest = self.wrap(text, size, middle, limit, lines);
            let whole = lines
                .iter()
                .all(|&(_, end)| text[end..].is_empty() || text[end..].starts_with(' '));
            if lines.len() <= count && whole && widest <= middle {
                high = middle;
            } else {
                low = middle;
            }
        }
        self.wrap(text, size, high, limit, lines)
    }
}

/// Whether the typeface has every letter of this text; what it lacks is drawn as an empty box.
pub fn can_write(text: &str) -> bool {
    let face = Font::new().face;
    text.chars().all(|letter| face.glyph_id(letter).0 != 0)
}

/// A line of a text: start and end in bytes.
pub(crate) type Line = (usize, usize);

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_graphics::pixelcolor::RgbColor;

    #[test]
    fn letters_are_drawn_clipped_and_cached() {
        let mut font = Font::new();
        let mut canvas = Canvas::new(60, 40);
        font.draw("Äg°…", (2.0, 28.0), 20, Rgb888::WHITE, &mut canvas);
        assert!(canvas.pixels().contains(&0xFF_FFFF));
        assert_eq!(font.glyphs.len(), 4);
        for place in [(-30.0, 10.0), (50.0, 3.0), (10.0, 60.0), (-1e6, -1e6), (1e6, 1e6)] {
            font.draw("Wide g", place, 30, Rgb888::WHITE, &mut canvas);
        }
        font.draw("x", (0.0, 0.0), 20, Rgb888::WHITE, &mut Canvas::new(0, 0));
    }

    #[test]
    fn lines_break_at_spaces_and_long_words_anywhere() {
        let mut font = Font::new();
        let mut lines = Vec::new();
        let text = "one two  three";
        let most = font.width("one two", 20) + 1.0;
        let widest = font.wrap(text, 20, most, 9, &mut lines);
        let found: Vec<&str> = lines.iter().map(|&(a, b)| text[a..b].trim()).collect();
        assert_eq!(found, ["one two", "three"]);
        assert!(widest <= most);
        let long = "äöüäöüäöüäöü/äöüäöüäöü";
        assert!(font.wrap(long, 20, 50.0, 99, &mut lines) <= 50.0);
        let joined: String = lines.iter().map(|&(a, b)| &long[a..b]).collect();
        assert_eq!(joined, long);
        font.wrap("", 20, 50.0, 9, &mut lines);
        assert!(lines.is_empty());
        let text = "Free some space or change the card.";
        let wide = font.width("Free some space or change the", 20) + 1.0;
        assert!(font.balance(text, 20, wide, 9, &mut lines) < 0.8 * wide);
        assert_eq!(lines.len(), 2);
        // Narrower than a letter: one letter a line, and an end.
        font.wrap("abc", 20, 1.0, 9, &mut lines);
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn of_a_text_without_end_no_more_is_laid_out_than_is_shown() {
        let mut font = Font::new();
        let (mut lines, mut shown) = (Vec::new(), Vec::new());
        let text: String = ('\u{4E00}'..).take(20_000).collect();
        let fitted = font.fit(&text, [40, 20].into_iter(), |_| 300.0, (2, 4), &mut lines);
        assert_eq!((fitted, lines.len()), (20, 5), "the fifth says that there are more");
        let widest = font.balance(&text, 20, 300.0, 4, &mut shown);
        assert!(shown == lines && widest <= 300.0, "{shown:?}");
        let letters = text[..lines[4].1].chars().count();
        assert!(letters < 200, "{letters}");
        // Of the letters behind these none was rasterised.
        assert!(font.glyphs.len() < 2 * letters + 20, "{} glyphs", font.glyphs.len());
    }

    #[test]
    fn what_the_typeface_lacks_cannot_be_written() {
        assert!(can_write("“Ädas Ψ-Телефон”, 2 °C"));
        for text in ["艾达", "أدا", "Ada 📱"] {
            assert!(!can_write(text), "{text:?}");
        }
    }

    #[test]
    fn memory_stays_bounded_whatever_is_written() {
        let mut font = Font::new();
        for code in 0x20..0x3000 {
            if let Some(letter) = char::from_u32(code) {
                font.width(letter.encode_utf8(&mut [0; 4]), 12);
            }
        }
        assert!(font.glyphs.len() <= MOST_GLYPHS);
    }
}
