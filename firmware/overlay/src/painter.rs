//! A scene drawn on a canvas.

use std::fmt::Write;
use std::time::{Duration, Instant};

use embedded_graphics::pixelcolor::{Rgb888, RgbColor};

use crate::canvas::Canvas;
use crate::figure::Figure;
use crate::font::{CAPITAL_HEIGHT, Font, LINE_HEIGHT, Line};
use crate::geometry::{
    Alignment, Landmarks, MirrorGeometry, PictureFit, Pinhole, Projection, Reflection,
    USUAL_DISTANCE_M,
};
use crate::glow::{Brush, Light, Place, Ramps, mix};
use crate::icon;
use crate::palette::{CALM, CAMERA_ACTIVE, TEXT, TEXT_FAINT, TEXT_SOFT};
use crate::poster::{Poster, SMALLEST_FONT, font_size, unit};
use crate::scene::{MaskView, PersonView, Scene, Status};
use crate::shape::{self, circle, round_box, stroke};

/// More people than this are not drawn; the network tells fewer apart.
const MOST_PEOPLE: usize = 16;
/// Share of a newly measured distance in the one that is used: a grid row more or less at the feet
/// is a few centimetres, which must not make the overlay tremble.
const DISTANCE_BLEND: f64 = 0.25;
/// Shown instead of a mask whose sides do not fit, which only a programming error can produce.
const BAD_MASK: &str = "The overlay got labels of a wrong size. Please report this.";

/// Outline, fading, letters and badge as shares of the geometric mean of the screen's sides.
const OUTLINE: f32 = 0.003;
const FADE: f32 = 0.03;
const MARGIN: f32 = 0.028;
/// Share of the screen's width that a line on the lower edge may take.
const WIDEST_TEXT: f32 = 0.94;
const BADGE: f32 = 0.056;
const FPS_TEXT: f32 = 0.03;
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
/// A code is read from some way off, and is not to hide who stands there.
const CODE_TEXT: f32 = 0.1;

/// What settings may change about the look. The camera badge is not among it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Style {
    /// Brightness of the coloured parts, 0 to 1.
    pub opacity: f32,
}

impl Default for Style {
    fn default() -> Style {
        Style { opacity: 0.75 }
    }
}

/// Draws scenes. Keeps rasterised letters and working memory, so that drawing allocates nothing
/// once every letter has been seen and the people have their size.
#[derive(Debug)]
pub struct Painter {
    size: (u32, u32),
    alignment: Alignment,
    ramps: Ramps,
    font: Font,
    poster: Poster,
    figure: Figure,
    brush: Brush,
    distances: Distances,
    text: String,
    lines: Vec<Line>,
    hint_lines: Vec<Line>,
}

impl Painter {
    /// For a canvas of this size in pixels; another size may be drawn on later all the same.
    pub fn new(width: u32, height: u32, style: Style, alignment: Alignment) -> Painter {
        let opacity = style.opacity.clamp(0.0, 1.0);
        let light = Light {
            rim: (opacity * 1.3).min(1.0),
            core: opacity * 0.88,
            halo: 0.24,
            seam: 0.6,
            mark: false,
        };
        Painter {
            size: (width, height),
            alignment,
            ramps: Ramps::new(&light),
            font: Font::new(),
            poster: Poster::default(),
            figure: Figure::default(),
            brush: Brush::default(),
            distances: Distances::default(),
            text: String::new(),
            lines: Vec::new(),
            hint_lines: Vec::new(),
        }
    }

    /// Lays what is drawn from now on otherwise.
    pub fn align(&mut self, alignment: Alignment) {
        self.alignment = alignment;
    }

    /// Draws everything anew: black, then people or status screen, then texts, and last the camera
    /// badge, which nothing covers.
    pub fn draw(&mut self, scene: &Scene<'_>, canvas: &mut Canvas) {
        self.size = (canvas.width(), canvas.height());
        canvas.clear();
        if self.size.0 == 0 || self.size.1 == 0 {
            return;
        }
        let mut notice = scene.notice;
        let is_shown = |mask: &MaskView<'_>| !mask.people.is_empty();
        if scene.status != Status::Running || !scene.mask.as_ref().is_some_and(is_shown) {
            self.forget_people();
        }
        if scene.status != Status::Running {
            let room = self.room_above(scene);
            self.poster.draw(&scene.status, room, &mut self.font, canvas);
        } else if let Some(mask) = &scene.mask {
            if mask.is_consistent() {
                self.draw_people(mask, canvas);
            } else {
                notice = Some(BAD_MASK);
            }
        }
        self.draw_texts(scene, notice, canvas);
        if scene.camera_active {
            draw_badge(canvas);
        }
    }

    /// Whoever is not shown is not kept either.
    fn forget_people(&mut self) {
        if !self.figure.is_forgotten() {
            self.figure.forget();
            self.brush.forget();
        }
    }

    fn draw_people(&mut self, mask: &MaskView<'_>, canvas: &mut Canvas) {
        match self.alignment {
            Alignment::Picture { mirrored } => {
                let fit = PictureFit::new(mask.content, self.size, mirrored);
                for person in mask.people.iter().take(MOST_PEOPLE) {
                    self.draw_person(mask, person, Projection::Picture(fit), canvas);
                }
                fade_edges(&fit, canvas);
            }
            Alignment::Reflection(geometry) => self.draw_reflections(mask, &geometry, canvas),
        }
    }

    /// Far people first: near ones cover them, as their reflections do.
    fn draw_reflections(
        &mut self,
        mask: &MaskView<'_>,
        geometry: &MirrorGeometry,
        canvas: &mut Canvas,
    ) {
        let camera = Pinhole::new(geometry, mask.content);
        let count = mask.people.len().min(MOST_PEOPLE);
        let mut order = [(0.0, 0, (0.0, 0.0)); MOST_PEOPLE];
        for (index, person) in mask.people[..count].iter().enumerate() {
            let landmarks = Landmarks::find(mask, person);
            let distance = self.distances.update(person.track, landmarks.distance(&camera));
            order[index] = (distance, index, landmarks.eye(&camera, distance));
        }
        self.distances.forget_absent(mask.people, Instant::now());
        order[..count].sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for &(distance, index, eye) in &order[..count] {
            let reflection = Reflection::new(geometry, camera, distance, eye, self.size);
            let projection = Projection::Reflection(reflection);
            self.draw_person(mask, &mask.people[index], projection, canvas);
        }
    }

    fn draw_person(
        &mut self,
        mask: &MaskView<'_>,
        person: &PersonView,
        projection: Projection,
        canvas: &mut Canvas,
    ) {
        if !self.figure.read(mask, person) {
            return;
        }
        let place = Place {
            projection,
            content: mask.content,
            track: person.track,
            outline_width: (unit(self.size.0, self.size.1) * OUTLINE).max(1.2),
        };
        self.brush.paint(&self.figure, &self.ramps, &place, canvas);
    }

    /// The row at which a status screen must end for nothing of it to be hidden by what is beneath.
    fn room_above(&mut self, scene: &Scene<'_>) -> f32 {
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

    fn draw_texts(&mut self, scene: &Scene<'_>, notice: Option<&str>, canvas: &mut Canvas) {
        let unit = unit(self.size.0, self.size.1);
        let margin = unit * MARGIN;
        if let Some(fps) = scene.fps {
            self.text.clear();
            // Writing to a String cannot fail.
            let _ = write!(self.text, "{fps:.1} fps");
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
        let size = shrink(&mut self.font, [code, ""], font_size(unit, CODE_TEXT), most);
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
            height: self.address_lines(one_line) * size as f32 * LINE_HEIGHT,
            widest: self.widest_of_address(label, address, size, one_line),
        };
        if let Some(hint) = scene.page_hint {
            let most = self.size.0 as f32 * WIDEST_TEXT;
            let size = shrink(&mut self.font, [hint, ""], font_size(unit, HINT_TEXT), most);
            let widest = self.font.balance(hint, size, most, &mut self.hint_lines);
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
            for &(start, end) in &self.lines {
                baseline += line;
                let x = (width - self.font.width(&address[start..end], size)) / 2.0;
                self.font.draw(&address[start..end], (x, baseline), size, CALM, canvas);
            }
        }
        if let Some((hint, size)) = sign.hint {
            let mut baseline = under(top + self.address_lines(sign.one_line) * line, size);
            for &(start, end) in &self.hint_lines {
                let x = (width - self.font.width(&hint[start..end], size)) / 2.0;
                self.font.draw(&hint[start..end], (x, baseline), size, TEXT_FAINT, canvas);
                baseline += size as f32 * LINE_HEIGHT;
            }
        }
    }

    /// Lines of the address that was fitted last, with its label.
    fn address_lines(&self, one_line: bool) -> f32 {
        if one_line { 1.0 } else { 1.0 + self.lines.len() as f32 }
    }

    /// Width of the widest line of the address that was fitted last, its label among them.
    fn widest_of_address(&mut self, label: &str, address: &str, size: u32, one_line: bool) -> f32 {
        let label_width = self.font.width(label, size);
        if one_line {
            return label_width + self.font.width(address, size);
        }
        let lines = self.lines.iter();
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
        let fitted = shrink(&mut self.font, [ADDRESS_LABEL, address], size, most);
        let taken = self.font.width(ADDRESS_LABEL, fitted) + self.font.width(address, fitted);
        if fitted >= least && taken <= most {
            return (fitted, true);
        }
        let size = shrink(&mut self.font, [address, ""], least, most);
        self.font.wrap(address, size, most, &mut self.lines);
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
        for (index, &(start, end)) in self.lines.iter().enumerate() {
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
        let cut = self.lines.len() > MOST_NOTICE_LINES;
        self.lines.truncate(MOST_NOTICE_LINES);
        let em = size as f32;
        let pad = em * 0.45;
        let half = (widest / 2.0 + em, self.lines.len() as f32 * em * LINE_HEIGHT / 2.0 + pad);
        (Plate { size, half, pad }, cut)
    }

    /// Breaks a notice into lines, with smaller letters where it is long: its end says what to do. Font size and widest line.
    fn fit_notice(&mut self, notice: &str, unit: f32) -> (u32, f32) {
        let mut share = NOTICE_TEXT;
        loop {
            let size = font_size(unit, share);
            let most = self.size.0 as f32 * WIDEST_TEXT - 2.0 * size as f32;
            let widest = self.font.balance(notice, size, most, &mut self.lines);
            let lines = self.lines.len();
            let is_small = share <= LEAST_NOTICE_TEXT && lines <= MOST_NOTICE_LINES;
            if lines <= FEW_NOTICE_LINES || is_small || size == SMALLEST_FONT {
                return (size, widest);
            }
            share *= 0.92;
        }
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
    /// With its font size; its lines are the painter's.
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
fn shrink(font: &mut Font, words: [&str; 2], size: u32, most: f32) -> u32 {
    let width: f32 = words.iter().map(|word| font.width(word, size)).sum();
    if width <= most {
        return size;
    }
    // A line is as wide as its letters are large.
    ((size as f32 * most / width) as u32).max(SMALLEST_FONT)
}

/// Lets people who are cut off by the picture fade out where black bars begin.
fn fade_edges(fit: &PictureFit, canvas: &mut Canvas) {
    let reach = unit(canvas.width(), canvas.height()) * FADE;
    let (left, top, right, bottom) = fit.area();
    let (width, height) = (canvas.width() as f32, canvas.height() as f32);
    // A picture edge that is the screen's edge needs no fading.
    let inner = |from_start: f32, from_end: f32, start: f32, side: f32| {
        if start < 1.0 { side } else { from_start.min(from_end) }
    };
    let share = |away: f32| ((away / reach).clamp(0.0, 1.0) * 256.0) as u32;
    for y in 0..canvas.height() {
        let middle = y as f32 + 0.5;
        let row_share = share(inner(middle - top, bottom - middle, top, height));
        let row = canvas.row_mut(y);
        if row_share < 256 {
            row.iter_mut().for_each(|pixel| *pixel = mix(0, *pixel, row_share));
        }
        if left < 1.0 {
            continue;
        }
        let (first, last) = (left as usize, (right.ceil() as usize).min(row.len()));
        let count = (reach.ceil() as usize).min((last - first) / 2);
        for x in (first..first + count).chain(last - count..last) {
            let middle = x as f32 + 0.5;
            let share = share(inner(middle - left, right - middle, left, width));
            row[x] = mix(0, row[x], share);
        }
    }
}

/// The sign that the camera sees: a film camera and a green light on a dark plate in the upper
/// right corner.
fn draw_badge(canvas: &mut Canvas) {
    let (width, height) = (canvas.width() as f32, canvas.height() as f32);
    let unit = unit(canvas.width(), canvas.height());
    let side = (unit * BADGE).max(16.0);
    let margin = (unit * MARGIN).min(width / 20.0);
    let half = (side, side / 2.0);
    let middle = (width - margin - half.0, (margin + half.1).min(height / 2.0));
    let plate = |place| round_box(place, (0.0, 0.0), half, half.1);
    let reach = (half.0 + 2.0, half.1 + 2.0);
    let border = (side * 0.025).max(0.6);
    shape::fill(canvas, middle, reach, Rgb888::BLACK, plate);
    shape::fill(canvas, middle, reach, CAMERA_ACTIVE, |place| {
        stroke(plate(place) + border, border)
    });
    let symbol = (middle.0 - side * 0.3, middle.1);
    icon::film_camera(symbol, side * 0.36, TEXT, canvas);
    let light = (middle.0 + side * 0.48, middle.1);
    let radius = side * 0.17;
    shape::fill(canvas, light, (side, side), CAMERA_ACTIVE, |place| {
        circle(place, (0.0, 0.0), radius)
    });
}

/// How long a distance is kept for somebody whom no picture shows: they are followed for some pictures more, and come back at the
/// place where they were.
const KEPT: Duration = Duration::from_secs(2);

/// Distances of the people that are being followed, steadied.
#[derive(Debug, Default)]
struct Distances {
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    track: u32,
    metres: f64,
    /// When a picture showed them last.
    seen: Option<Instant>,
}

impl Distances {
    /// The steadied distance after a new measurement; without one, the last known one or the usual.
    fn update(&mut self, track: u32, measured: Option<f64>) -> f64 {
        let Some(known) = self.known.iter_mut().find(|known| known.track == track) else {
            if let Some(metres) = measured {
                self.known.push(Known { track, metres, seen: None });
            }
            return measured.unwrap_or(USUAL_DISTANCE_M);
        };
        if let Some(measured) = measured {
            known.metres += (measured - known.metres) * DISTANCE_BLEND;
        }
        known.metres
    }

    fn forget_absent(&mut self, people: &[PersonView], now: Instant) {
        for known in &mut self.known {
            if people.iter().any(|person| person.track == known.track) {
                known.seen = Some(now);
            }
        }
        let lately = |at: Instant| now.saturating_duration_since(at) <= KEPT;
        self.known.retain(|known| known.seen.is_some_and(lately));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_graphics::pixelcolor::IntoStorage;
    use std::time::Duration;

    fn badge_pixels(canvas: &Canvas) -> usize {
        let colour = CAMERA_ACTIVE.into_storage();
        canvas.pixels().iter().filter(|&&pixel| pixel == colour).count()
    }

    #[test]
    fn badge_is_there_in_every_state_whenever_the_camera_sees() {
        let reason = "x";
        let statuses = [
            Status::Running,
            Status::Starting { step: reason },
            Status::CameraOff { by: reason, on_page: true },
            Status::CameraLost { device: reason, reason, absent: true, retry_in: Duration::ZERO },
            Status::NoModel { reason },
            Status::Thermal { celsius: 90.0 },
        ];
        for (width, height) in [(320, 240), (48, 48), (1080, 1920)] {
            let style = Style { opacity: 0.0 };
            let mut painter =
                Painter::new(width, height, style, Alignment::Picture { mirrored: true });
            let mut canvas = Canvas::new(width, height);
            for status in statuses {
                let scene = Scene { camera_active: true, ..Scene::of_status(status) };
                painter.draw(&scene, &mut canvas);
                assert!(badge_pixels(&canvas) >= 8, "{status:?} on {width} x {height}");
                painter.draw(&Scene { camera_active: false, ..scene }, &mut canvas);
                assert_eq!(badge_pixels(&canvas), 0, "{status:?}");
            }
        }
    }

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
            let alignment = Alignment::Picture { mirrored: true };
            let mut painter = Painter::new(width, height, Style::default(), alignment);
            for notice in [storage, sensor] {
                painter.fit_notice(notice, unit(width, height));
                let end = painter.lines.last().map(|&(_, end)| end);
                assert!(
                    painter.lines.len() <= MOST_NOTICE_LINES,
                    "{width} x {height}: {:?}",
                    painter.lines
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
            let alignment = Alignment::Picture { mirrored: true };
            let mut painter = Painter::new(width, height, Style::default(), alignment);
            for address in addresses {
                let (size, one_line) = painter.fit_address(address, unit(width, height));
                let lines: Vec<String> = match one_line {
                    true => vec![format!("{ADDRESS_LABEL}{address}")],
                    false => painter.lines.iter().map(|&(a, b)| address[a..b].into()).collect(),
                };
                for line in &lines {
                    let taken = painter.font.width(line, size);
                    assert!(taken <= width as f32 * WIDEST_TEXT, "{line} on {width} x {height}");
                }
                let sign = Scene {
                    page_address: Some(address),
                    page_hint: Some(
                        "Your browser warns once: go on, then compare the fingerprint.",
                    ),
                    ..Scene::of_status(Status::Running)
                };
                let sign = painter.lay_out_sign(&sign, unit(width, height)).expect("an address");
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

    #[test]
    fn whoever_is_not_shown_is_not_kept() {
        let (parts, person) = (vec![1_u8; 64], vec![1_u8; 64]);
        let people = [PersonView { slot: 1, track: 0, bounds: (2, 2, 4, 4) }];
        let content = (0, 0, 8, 8);
        let mask = MaskView {
            width: 8,
            height: 8,
            parts: &parts,
            person: &person,
            content,
            people: &people,
        };
        let shown = Scene { mask: Some(mask), ..Scene::of_status(Status::Running) };
        let nobody = Scene::of_status(Status::Running);
        let off = Scene { status: Status::CameraOff { by: "by a test", on_page: true }, ..shown };
        let alignment = Alignment::Picture { mirrored: true };
        let mut painter = Painter::new(48, 64, Style::default(), alignment);
        let mut canvas = Canvas::new(48, 64);
        let gone = Scene { mask: Some(MaskView { people: &[], ..mask }), ..shown };
        for hidden in [nobody, gone, off] {
            painter.draw(&shown, &mut canvas);
            assert!(!painter.figure.is_forgotten());
            painter.draw(&hidden, &mut canvas);
            assert!(painter.figure.is_forgotten());
        }
    }

    #[test]
    fn every_size_is_drawn_without_a_panic() {
        let long = "a notice that goes on and on and on ".repeat(20);
        let status = Status::CameraLost {
            device: &long,
            reason: &long,
            absent: false,
            retry_in: Duration::MAX,
        };
        let mut painter =
            Painter::new(0, 0, Style::default(), Alignment::Picture { mirrored: true });
        for (width, height) in [(0, 0), (1, 1), (7, 300), (300, 7), (32, 32), (8192, 32)] {
            let mut canvas = Canvas::new(width, height);
            for status in [status, Status::Running] {
                let scene = Scene {
                    camera_active: true,
                    fps: Some(f32::NAN),
                    code: Some(&long),
                    notice: Some(&long),
                    page_address: Some(&long),
                    page_hint: Some(&long),
                    ..Scene::of_status(status)
                };
                painter.draw(&scene, &mut canvas);
            }
        }
    }

    /// Noise for labels and anything for geometry: people may look odd, the mirror goes on.
    #[test]
    fn nothing_a_parser_or_a_setting_can_say_stops_the_drawing() {
        let mut state = 1_u32;
        let mut random = move |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        for _ in 0..300 {
            let (width, height) = (1 + random(40), 1 + random(40));
            let count = (width * height) as usize;
            let coarse = 1 + random(9) as usize;
            let noise: Vec<u8> = (0..count).map(|_| random(20) as u8).collect();
            let parts: Vec<u8> = (0..count).map(|i| noise[i / coarse]).collect();
            let person: Vec<u8> = (0..count).map(|i| noise[i / coarse] % 4).collect();
            let people: Vec<PersonView> = (1..5)
                .map(|slot| PersonView {
                    slot,
                    track: random(9),
                    bounds: (random(50), random(50), random(60), random(60)),
                })
                .collect();
            let (x, y) = (random(width), random(height));
            let content = (x, y, 1 + random(width - x), 1 + random(height - y));
            let mask = MaskView {
                width,
                height,
                parts: &parts,
                person: &person,
                content,
                people: &people,
            };
            let mut length = || f64::from(random(200)) / 50.0 - 0.5;
            let geometry = MirrorGeometry {
                camera_height_m: length(),
                camera_offset_m: length() - 1.0,
                pitch_deg: length() * 40.0 - 60.0,
                field_of_view_deg: length() * 50.0,
                screen_width_m: length(),
                screen_height_m: length(),
                screen_bottom_m: length(),
            };
            let scene = Scene { mask: Some(mask), ..Scene::of_status(Status::Running) };
            let (across, down) = (1 + random(90), 1 + random(90));
            for alignment in
                [Alignment::Picture { mirrored: random(2) == 0 }, Alignment::Reflection(geometry)]
            {
                let mut canvas = Canvas::new(across, down);
                let mut painter = Painter::new(across, down, Style::default(), alignment);
                painter.draw(&scene, &mut canvas);
                assert!(canvas.pixels().iter().all(|&pixel| pixel >> 24 == 0));
            }
        }
    }

    #[test]
    fn a_mask_of_a_wrong_size_is_told() {
        let mask = MaskView {
            width: 8,
            height: 8,
            parts: &[0; 3],
            person: &[0; 64],
            content: (0, 0, 8, 8),
            people: &[],
        };
        let mut painter =
            Painter::new(320, 240, Style::default(), Alignment::Picture { mirrored: true });
        let (mut bad, mut told) = (Canvas::new(320, 240), Canvas::new(320, 240));
        let scene = Scene::of_status(Status::Running);
        painter.draw(&Scene { mask: Some(mask), ..scene }, &mut bad);
        painter.draw(&Scene { notice: Some(BAD_MASK), ..scene }, &mut told);
        assert!(bad == told && bad.pixels().iter().any(|&pixel| pixel != 0));
    }

    #[test]
    fn distances_are_steadied_kept_and_forgotten() {
        let mut distances = Distances::default();
        assert_eq!(distances.update(7, None), USUAL_DISTANCE_M);
        assert_eq!(distances.update(7, Some(3.0)), 3.0);
        assert_eq!(distances.update(7, Some(3.4)), 3.0 + 0.4 * DISTANCE_BLEND);
        let kept = distances.update(7, None);
        assert_eq!(kept, 3.0 + 0.4 * DISTANCE_BLEND);
        let (now, there) = (Instant::now(), PersonView { track: 7, ..PersonView::default() });
        distances.forget_absent(&[there], now);
        distances.forget_absent(&[], now + KEPT);
        assert_eq!(distances.update(7, None), kept, "one picture without them is no leave");
        distances.forget_absent(&[], now + KEPT + Duration::from_millis(1));
        assert_eq!(distances.update(7, None), USUAL_DISTANCE_M);
    }
}
