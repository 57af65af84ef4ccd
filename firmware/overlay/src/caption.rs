//! Words over what is shown: where the page is, a notice, a code, and the frames a second.

use embedded_graphics::pixelcolor::{Rgb888, RgbColor};

use crate::canvas::Canvas;
use crate::font::{CAPITAL_HEIGHT, Font, LINE_HEIGHT, Line};
use crate::palette::{CALM, TEXT, TEXT_FAINT, TEXT_SOFT};
use crate::scale::{BADGE, MARGIN, SMALLEST_FONT, font_size, font_sizes, unit};
use crate::scene::{Scene, Status, write_fps};
use crate::shape::{self, round_box, stroke};

/// Letters as shares of the geometric mean of the screen's sides.
const FPS_TEXT: f32 = 0.03;
/// Share of the screen's width that a line on the lower edge may take.
const WIDEST_TEXT: f32 = 0.94;
const NOTICE_TEXT: f32 = 0.036;
/// A notice of more lines gets smaller letters, down to this, and where they are more than the most even smaller ones; what is longer in
/// the smallest that can be read is cut, with a mark.
const FEW_NOTICE_LINES: usize = 4;
const LEAST_NOTICE_TEXT: f32 = 0.024;
const MOST_NOTICE_LINES: usize = 6;
/// The page's address gets smaller letters where it is long, down to the least; then its label has a line of its own.
const ADDRESS_TEXT: f32 = 0.031;
const LEAST_ADDRESS_TEXT: f32 = 0.022;
const ADDRESS_LABEL: &str = "Mirror's page  ";
const HINT_TEXT: f32 = 0.024;
/// More lines than any address and its hint take, on the smallest screen.
const MOST_SIGN_LINES: usize = 8;
/// A code is read from some way off, and is not to hide who stands there.
const CODE_TEXT: f32 = 0.1;

/// Draws words, and keeps rasterised letters and working memory for the next ones.
#[derive(Debug)]
pub(crate) struct Captions {
    /// Letters, for whatever else is written on the canvas too.
    pub font: Font,
    /// The canvas, in pixels.
    size: (u32, u32),
    text: String,
    /// Lines of what was laid out last.
    address_lines: Vec<Line>,
    hint_lines: Vec<Line>,
    notice_lines: Vec<Line>,
}

impl Captions {
    /// For a canvas of this size.
    pub fn new(size: (u32, u32)) -> Captions {
        Captions {
            font: Font::new(),
            size,
            text: String::new(),
            address_lines: Vec::new(),
            hint_lines: Vec::new(),
            notice_lines: Vec::new(),
        }
    }

    /// Another size of the canvas.
    pub fn resize(&mut self, size: (u32, u32)) {
        self.size = size;
    }

    /// The row at which a status screen must end for nothing of it to be hidden by what is beneath.
    pub fn room_above(&mut self, scene: &Scene<'_>) -> f32 {
        let (unit, height) = (unit(self.size.0, self.size.1), self.size.1 as f32);
        let mut room = height;
        if let Some(sign) = self.lay_out_sign(scene, unit) {
            room = height - unit * MARGIN - sign.height;
        }
        if let Some(notice) = scene.notice {
            let (plate, _) = self.lay_out_notice(notice, unit);
            room = room.min(height - unit * MARGIN) - 2.0 * plate.half.1 - plate.pad;
        }
        room
    }

    /// Draws the texts of a scene; `notice` takes the place of the scene's own.
    pub fn draw(&mut self, scene: &Scene<'_>, notice: Option<&str>, canvas: &mut Canvas) {
        let unit = unit(self.size.0, self.size.1);
        let margin = unit * MARGIN;
        if let Some(fps) = scene.fps {
            self.text.clear();
            write_fps(fps, &mut self.text);
            let size = font_size(unit, FPS_TEXT);
            let baseline = margin + unit * BADGE / 2.0 + size as f32 * CAPITAL_HEIGHT / 2.0;
            self.font.draw(&self.text, (margin, baseline), size, TEXT_SOFT, canvas);
        }
        let mut bottom = self.size.1 as f32 - margin;
        if let Some(sign) = self.lay_out_sign(scene, unit) {
            if scene.status == Status::Running {
                darken_behind(&sign, bottom, canvas);
            }
            self.draw_sign(&sign, bottom, canvas);
            bottom -= sign.height;
        }
        if let Some(notice) = notice {
            bottom = self.draw_notice(notice, bottom, unit, canvas);
        }
        if let Some(code) = scene.code {
            self.draw_code(code, bottom, unit, canvas);
        }
    }

    /// Draws a code in large letters on a dark plate above `bottom`.
    fn draw_code(&mut self, code: &str, bottom: f32, unit: f32, canvas: &mut Canvas) {
        let most = self.size.0 as f32 * WIDEST_TEXT;
        let size = shrink(&mut self.font, &[code], font_size(unit, CODE_TEXT), most);
        let (em, width) = (size as f32, self.font.width(code, size));
        let half = (width / 2.0 + em * 0.3, em * 0.6);
        let middle = (self.size.0 as f32 / 2.0, bottom - half.1 - em * 0.1);
        let plate = |place| round_box(place, (0.0, 0.0), half, em * 0.3);
        shape::fill(canvas, middle, (half.0 + 2.0, half.1 + 2.0), Rgb888::BLACK, plate);
        let at = (middle.0 - width / 2.0, middle.1 + em * CAPITAL_HEIGHT / 2.0);
        self.font.draw(code, at, size, TEXT, canvas);
    }

    /// Where the page is, laid out in lines.
    fn lay_out_sign<'a>(&mut self, scene: &Scene<'a>, unit: f32) -> Option<Sign<'a>> {
        let address = scene.page_address?;
        let (size, one_line) = self.fit_address(address, unit);
        let label = if one_line { ADDRESS_LABEL } else { ADDRESS_LABEL.trim_end() };
        let mut sign = Sign {
            address,
            label,
            size,
            one_line,
            hint: None,
            height: self.lines_of_address(one_line) * size as f32 * LINE_HEIGHT,
            widest: self.widest_of_address(label, address, size, one_line),
        };
        if let Some(hint) = scene.page_hint {
            let most = self.size.0 as f32 * WIDEST_TEXT;
            let size = shrink(&mut self.font, &[hint], font_size(unit, HINT_TEXT), most);
            let widest = self.font.balance(hint, size, most, MOST_SIGN_LINES, &mut self.hint_lines);
            sign.hint = Some((hint, size));
            sign.height += self.hint_lines.len() as f32 * size as f32 * LINE_HEIGHT;
            sign.widest = sign.widest.max(widest);
        }
        Some(sign)
    }

    /// Draws where the page is above `bottom`, in the lines in which it was laid out last.
    fn draw_sign(&mut self, sign: &Sign<'_>, bottom: f32, canvas: &mut Canvas) {
        let width = self.size.0 as f32;
        let under = |top: f32, size: u32| top + size as f32 * (LINE_HEIGHT + CAPITAL_HEIGHT) / 2.0;
        let (Sign { address, label, size, .. }, top) = (*sign, bottom - sign.height);
        let line = size as f32 * LINE_HEIGHT;
        let label_width = self.font.width(label, size);
        let mut baseline = under(top, size);
        if sign.one_line {
            let x = (width - label_width - self.font.width(address, size)) / 2.0;
            self.font.draw(label, (x, baseline), size, TEXT_FAINT, canvas);
            self.font.draw(address, (x + label_width, baseline), size, CALM, canvas);
        } else {
            let x = (width - label_width) / 2.0;
            self.font.draw(label, (x, baseline), size, TEXT_FAINT, canvas);
            for &(start, end) in &self.address_lines {
                baseline += line;
                let x = (width - self.font.width(&address[start..end], size)) / 2.0;
                self.font.draw(&address[start..end], (x, baseline), size, CALM, canvas);
            }
        }
        if let Some((hint, size)) = sign.hint {
            let mut baseline = under(top + self.lines_of_address(sign.one_line) * line, size);
            for &(start, end) in &self.hint_lines {
                let x = (width - self.font.width(&hint[start..end], size)) / 2.0;
                self.font.draw(&hint[start..end], (x, baseline), size, TEXT_FAINT, canvas);
                baseline += size as f32 * LINE_HEIGHT;
            }
        }
    }

    /// Lines of the address that was fitted last, with its label.
    fn lines_of_address(&self, one_line: bool) -> f32 {
        if one_line { 1.0 } else { 1.0 + self.address_lines.len() as f32 }
    }

    /// Width of the widest line of the address that was fitted last, its label among them.
    fn widest_of_address(&mut self, label: &str, address: &str, size: u32, one_line: bool) -> f32 {
        let label_width = self.font.width(label, size);
        if one_line {
            return label_width + self.font.width(address, size);
        }
        let lines = self.address_lines.iter();
        lines.fold(label_width, |widest, &(start, end)| {
            widest.max(self.font.width(&address[start..end], size))
        })
    }

    /// Font size of the page's address, and whether its label fits on the same line. If not, it is in lines: of more than one only
    /// where letters cannot get any smaller.
    fn fit_address(&mut self, address: &str, unit: f32) -> (u32, bool) {
        let most = self.size.0 as f32 * WIDEST_TEXT;
        let least = font_size(unit, LEAST_ADDRESS_TEXT);
        let size = font_size(unit, ADDRESS_TEXT);
        let fitted = shrink(&mut self.font, &[ADDRESS_LABEL, address], size, most);
        let taken = self.font.width(ADDRESS_LABEL, fitted) + self.font.width(address, fitted);
        if fitted >= least && taken <= most {
            return (fitted, true);
        }
        let size = shrink(&mut self.font, &[address], least, most);
        self.font.wrap(address, size, most, MOST_SIGN_LINES, &mut self.address_lines);
        (size, false)
    }

    /// Draws a notice on a dark plate above `bottom`; the plate's upper edge.
    fn draw_notice(&mut self, notice: &str, bottom: f32, unit: f32, canvas: &mut Canvas) -> f32 {
        let width = self.size.0 as f32;
        let (Plate { size, half, pad }, cut) = self.lay_out_notice(notice, unit);
        let em = size as f32;
        let line = em * LINE_HEIGHT;
        let middle = (width / 2.0, bottom - half.1 - pad);
        let corner = half.1.min(line / 2.0 + pad);
        let plate = |place| round_box(place, (0.0, 0.0), half, corner);
        let reach = (half.0 + 2.0, half.1 + 2.0);
        let border = (unit * 0.0012).max(0.6);
        shape::fill(canvas, middle, reach, Rgb888::BLACK, plate);
        shape::fill(canvas, middle, reach, TEXT_FAINT, |place| stroke(plate(place), border));
        let mut baseline = middle.1 - half.1 + pad + em * (LINE_HEIGHT + CAPITAL_HEIGHT) / 2.0;
        for (index, &(start, end)) in self.notice_lines.iter().enumerate() {
            self.text.clear();
            self.text.push_str(&notice[start..end]);
            if cut && index + 1 == MOST_NOTICE_LINES {
                self.text.push('…');
            }
            let x = middle.0 - self.font.width(&self.text, size) / 2.0;
            self.font.draw(&self.text, (x, baseline), size, TEXT, canvas);
            baseline += line;
        }
        middle.1 - half.1
    }

    /// A notice in lines, of which there are only so many, and whether it is cut for that.
    fn lay_out_notice(&mut self, notice: &str, unit: f32) -> (Plate, bool) {
        let (size, widest) = self.fit_notice(notice, unit);
        let cut = self.notice_lines.len() > MOST_NOTICE_LINES;
        self.notice_lines.truncate(MOST_NOTICE_LINES);
        let em = size as f32;
        let pad = em * 0.45;
        let half =
            (widest / 2.0 + em, self.notice_lines.len() as f32 * em * LINE_HEIGHT / 2.0 + pad);
        (Plate { size, half, pad }, cut)
    }

    /// Breaks a notice into lines, with smaller letters where it is long: its end says what to do. Font size and widest line.
    fn fit_notice(&mut self, notice: &str, unit: f32) -> (u32, f32) {
        let whole = self.size.0 as f32 * WIDEST_TEXT;
        let most = |size: u32| whole - 2.0 * size as f32;
        let (font, lines) = (&mut self.font, &mut self.notice_lines);
        let usual = font_sizes(unit, NOTICE_TEXT, LEAST_NOTICE_TEXT);
        let few = (FEW_NOTICE_LINES, MOST_NOTICE_LINES);
        let mut size = font.fit(notice, usual, most, few, lines);
        if lines.len() > MOST_NOTICE_LINES {
            let smaller = font_sizes(unit, LEAST_NOTICE_TEXT, SMALLEST_FONT as f32 / unit);
            size = font.fit(notice, smaller, most, (MOST_NOTICE_LINES, MOST_NOTICE_LINES), lines);
        }
        (size, font.balance(notice, size, most(size), MOST_NOTICE_LINES, lines))
    }
}

/// Where the page is, in lines of these font sizes and widths.
#[derive(Clone, Copy)]
struct Sign<'a> {
    address: &'a str,
    label: &'static str,
    size: u32,
    /// Whether label and address share a line.
    one_line: bool,
    /// With its font size; its lines are those of the captions.
    hint: Option<(&'a str, u32)>,
    height: f32,
    widest: f32,
}

/// Letters over a person's colours could not be read.
fn darken_behind(sign: &Sign<'_>, bottom: f32, canvas: &mut Canvas) {
    let pad = sign.size as f32 * 0.3;
    let half = (sign.widest / 2.0 + 2.0 * pad, sign.height / 2.0 + pad);
    let middle = (canvas.width() as f32 / 2.0, bottom - sign.height / 2.0);
    let reach = (half.0 + 2.0, half.1 + 2.0);
    let plate = |place| round_box(place, (0.0, 0.0), half, 2.0 * pad);
    shape::fill(canvas, middle, reach, Rgb888::BLACK, plate);
}

/// The plate of a notice: its font size, half its width and height, and the free space around its letters.
struct Plate {
    size: u32,
    half: (f32, f32),
    pad: f32,
}

/// The largest font size, of `size` at most, at which a line of these words is `most` pixels wide at most, but none that nobody can
/// read.
fn shrink(font: &mut Font, words: &[&str], size: u32, most: f32) -> u32 {
    let width: f32 = words.iter().map(|word| font.width(word, size)).sum();
    if width <= most {
        return size;
    }
    // A line is as wide as its letters are large.
    ((size as f32 * most / width) as u32).max(SMALLEST_FONT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest notices that there are: their ends say what to do.
    #[test]
    fn a_notice_is_shown_to_its_end() {
        let storage = "The mirror cannot write to /home/somebody/.local/state/mirror (Read-only file system (os error 30)): what is switched \
                       on the page will not be remembered. Make the folder writable, or name another one with data_dir.";
        let sensor = "/sys/class/thermal/thermal_zone0/temp: no such file; nobody watches the heat. Set thermal.sensor to a file under \
                      /sys/class/thermal, or to nothing where there is none.";
        for (width, height) in
            [(1080, 1920), (540, 960), (1280, 720), (480, 1920), (320, 240), (240, 320)]
        {
            let mut captions = Captions::new((width, height));
            for notice in [storage, sensor] {
                captions.fit_notice(notice, unit(width, height));
                let end = captions.notice_lines.last().map(|&(_, end)| end);
                assert!(
                    captions.notice_lines.len() <= MOST_NOTICE_LINES,
                    "{width} x {height}: {:?}",
                    captions.notice_lines
                );
                assert_eq!(end, Some(notice.len()));
            }
        }
    }

    #[test]
    fn the_address_of_the_page_fits_every_screen() {
        let addresses = [
            "http://127.0.0.1:8080/",
            "https://192.168.1.7:8443/",
            "https://[fd12:3456:789a:1234:5678:9abc:def0:1234]:8443/",
            "https://192.168.1.7:8443/ or https://kitchen.local:8443/",
            "on this device only; page.access = \"paired\" lets phones in",
            "out of reach: put this mirror on your network",
        ];
        for (width, height) in [
            (240, 240),
            (320, 240),
            (240, 320),
            (480, 1920),
            (480, 640),
            (540, 960),
            (640, 480),
            (1280, 720),
            (1080, 1920),
        ] {
            let mut captions = Captions::new((width, height));
            for address in addresses {
                let (size, one_line) = captions.fit_address(address, unit(width, height));
                let lines: Vec<String> = match one_line {
                    true => vec![format!("{ADDRESS_LABEL}{address}")],
                    false => {
                        captions.address_lines.iter().map(|&(a, b)| address[a..b].into()).collect()
                    }
                };
                for line in &lines {
                    let taken = captions.font.width(line, size);
                    assert!(taken <= width as f32 * WIDEST_TEXT, "{line} on {width} x {height}");
                }
                let sign = Scene {
                    page_address: Some(address),
                    page_hint: Some(
                        "Your browser warns once: go on, then compare the fingerprint.",
                    ),
                    ..Scene::of_status(Status::Running)
                };
                let sign = captions.lay_out_sign(&sign, unit(width, height)).expect("an address");
                assert!(
                    sign.widest <= width as f32 * WIDEST_TEXT,
                    "{address} on {width} x {height}"
                );
                assert!(sign.height < height as f32 * 0.45, "{address} on {width} x {height}");
                let small = width.min(height) < 480;
                assert!(one_line || small || address.len() > 40, "{address} on {width} x {height}");
                assert!(lines.len() == 1 || small, "{address} on {width} x {height}");
                let whole: usize = lines.iter().map(String::len).sum();
                assert!(whole >= address.len() - lines.len(), "{address} on {width} x {height}");
            }
        }
    }
}
