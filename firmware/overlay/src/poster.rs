//! A status as a screen: icon, headline, advice, details, in the middle.

use embedded_graphics::pixelcolor::Rgb888;

use crate::canvas::Canvas;
use crate::font::{CAPITAL_HEIGHT, Font, LINE_HEIGHT, Line};
use crate::icon;
use crate::palette::{CALM, TEXT, TEXT_FAINT, TEXT_SOFT};
use crate::scale::{font_size, font_sizes, unit};
use crate::scene::Status;

const ICON_RADIUS: f32 = 0.105;
/// A code is read from across the room and typed at once: larger than any headline.
const CODE: f32 = 0.17;
/// Headline, advice, countdown, detail.
const BLOCKS: [Look; 4] = [
    Look { share: 0.078, colour: TEXT, gap: 0.5 },
    Look { share: 0.043, colour: TEXT_SOFT, gap: 0.3 },
    Look { share: 0.036, colour: CALM, gap: 0.7 },
    Look { share: 0.029, colour: TEXT_FAINT, gap: 0.9 },
];
/// Which of them may be long.
const DETAIL: usize = 3;
/// Free space left and right, as a share of the width.
const SIDE: f32 = 0.06;
/// Share of the height that the whole may take; the rest is for badge, notice and address.
const TALLEST: f32 = 0.74;
/// Share of the height at which the icon begins, where the rest fits below it.
const TOP: f32 = 0.22;
/// Share of the height above which everything stays, in its middle where room is short.
const BOTTOM: f32 = 0.92;
/// Share of the height that stays free above where a notice takes room below: half of it, as the rest is in the middle.
const LEAST_TOP: f32 = 0.04;
/// How often everything gets smaller to fit.
const STEPS: i32 = 12;
/// A detail of more lines gets smaller letters, down to this: its end says what to do. A driver's message can be as long as it
/// likes; what is still longer than the most is cut, with a mark.
const FEW_LINES: usize = 3;
const LEAST_DETAIL: f32 = 0.02;
const MOST_LINES: usize = 5;

/// How a block of text looks.
struct Look {
    /// Font size as a share of the unit.
    share: f32,
    colour: Rgb888,
    /// Free space above, in font sizes.
    gap: f32,
}

/// Text in lines of one size.
#[derive(Debug, Default)]
struct Block {
    text: String,
    lines: Vec<Line>,
    size: u32,
}

impl Block {
    /// Ends the last line with a mark where the text goes on.
    fn mark_cut(&mut self) {
        let Some((_, end)) = self.lines.last_mut() else { return };
        if *end < self.text.trim_end().len() {
            self.text.truncate(*end);
            self.text.push('…');
            *end = self.text.len();
        }
    }
}

/// Draws status screens; keeps its memory.
#[derive(Debug, Default)]
pub(crate) struct Poster {
    blocks: [Block; 4],
    icon_radius: f32,
    height: f32,
}

impl Poster {
    /// Draws the screen of a status other than running, above the row `room`.
    pub fn draw(&mut self, status: &Status<'_>, room: f32, font: &mut Font, canvas: &mut Canvas) {
        let (width, height) = (canvas.width(), canvas.height());
        let bottom = room.min(height as f32 * BOTTOM);
        self.lay_out(status, font, (width, height), bottom);
        let centre = width as f32 / 2.0;
        let mut y = self.top(height as f32, bottom);
        icon::draw(status, (centre, y + self.icon_radius), self.icon_radius, canvas);
        y += 2.0 * self.icon_radius;
        for (block, look) in self.blocks.iter().zip(&BLOCKS) {
            if block.lines.is_empty() {
                continue;
            }
            let size = block.size as f32;
            y += look.gap * size;
            for &(start, end) in &block.lines {
                let text = &block.text[start..end];
                let x = centre - font.width(text, block.size) / 2.0;
                let baseline = y + size * (LINE_HEIGHT + CAPITAL_HEIGHT) / 2.0;
                font.draw(text, (x, baseline), block.size, look.colour, canvas);
                y += size * LINE_HEIGHT;
            }
        }
    }

    /// The same place on all screens where there is room, else in the middle.
    fn top(&self, height: f32, bottom: f32) -> f32 {
        (height * TOP).min((bottom - self.height) / 2.0).max(0.0)
    }

    /// Fills the blocks, a step smaller until all of them fit, and marks what is cut all the same.
    fn lay_out(
        &mut self,
        status: &Status<'_>,
        font: &mut Font,
        (width, height): (u32, u32),
        bottom: f32,
    ) {
        let tallest = (height as f32 * TALLEST).min(bottom - height as f32 * LEAST_TOP);
        let whole = unit(width, height);
        self.write(status);
        let headline = match status {
            Status::Pairing { .. } => CODE,
            _ => BLOCKS[0].share,
        };
        for step in 0..STEPS {
            let unit = whole * 0.92_f32.powi(step);
            self.measure(font, unit, headline, width as f32 * (1.0 - 2.0 * SIDE));
            if self.height <= tallest {
                break;
            }
        }
        self.blocks.iter_mut().for_each(Block::mark_cut);
    }

    fn write(&mut self, status: &Status<'_>) {
        for block in &mut self.blocks {
            block.text.clear();
        }
        let [headline, advice, countdown, detail] = &mut self.blocks;
        headline.text.push_str(status.headline());
        advice.text.push_str(status.advice());
        status.write_countdown(&mut countdown.text);
        status.write_detail(&mut detail.text);
    }

    fn measure(&mut self, font: &mut Font, unit: f32, headline: f32, width: f32) {
        self.icon_radius = unit * ICON_RADIUS;
        self.height = 2.0 * self.icon_radius;
        for (index, (block, look)) in self.blocks.iter_mut().zip(&BLOCKS).enumerate() {
            block.size = match index {
                0 => font_size(unit, headline),
                DETAIL => {
                    let sizes = font_sizes(unit, look.share, LEAST_DETAIL);
                    font.fit(
                        &block.text,
                        sizes,
                        |_| width,
                        (FEW_LINES, MOST_LINES),
                        &mut block.lines,
                    )
                }
                _ => font_size(unit, look.share),
            };
            font.balance(&block.text, block.size, width, MOST_LINES, &mut block.lines);
            block.lines.truncate(MOST_LINES);
            if !block.lines.is_empty() {
                let lines = block.lines.len() as f32 * LINE_HEIGHT;
                self.height += block.size as f32 * (look.gap + lines);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LONG: &str = "/dev/v4l/by-id/usb-046d_HD_Pro_Webcam_C920_ABCDEF01-video-index0";

    /// The longest reasons that there are: their ends say what to do.
    const REASONS: [&str; 3] = [
        "it is not a single-planar streaming camera; name another with camera.device, or bridge this one to one that is (libcamera or \
         rkisp through gstreamer and v4l2loopback)",
        "its USB port has no bandwidth left; put MJPG first in camera.formats, lower camera.width, or use another port",
        "every picture is broken (JPEG frame cannot be decoded: another picture begins inside the picture at byte 123456); put \
         another format first in camera.formats, or try another cable or port",
    ];

    fn lost(reason: &'static str) -> Status<'static> {
        Status::CameraLost {
            device: LONG,
            reason,
            absent: false,
            retry_in: Duration::from_secs(10),
        }
    }

    fn statuses() -> Vec<Status<'static>> {
        let mut statuses = vec![
            Status::Starting { step: "waiting for the first picture" },
            Status::Pairing {
                code: "888 888",
                fingerprint: "A1B2 C3D4 E5F6 A7B8 C9D0 E1F2 A3B4 C5D6 E7F8 A9B0 C1D2 E3F4 A5B6 C7D8 E9F0 A1B2",
                left: Duration::from_secs(120),
            },
            Status::Pairing { code: "888 888", fingerprint: "A1B2", left: Duration::ZERO },
            Status::CameraOff { by: "on the mirror's page", on_page: true },
            Status::CameraOff { by: "in the settings", on_page: false },
            Status::CameraLost {
                device: LONG,
                reason: LONG,
                absent: true,
                retry_in: Duration::from_secs(10),
            },
            Status::NoModel { reason: LONG, built_in: true },
            Status::NoModel { reason: LONG, built_in: false },
            Status::Thermal { celsius: 104.6 },
        ];
        statuses.extend(REASONS.map(lost));
        statuses
    }

    #[test]
    fn every_status_has_a_headline_and_an_advice_that_fit_every_screen() {
        let mut font = Font::new();
        for (width, height) in [
            (320, 240),
            (240, 320),
            (640, 480),
            (540, 960),
            (1280, 720),
            (1920, 1080),
            (1080, 1920),
        ] {
            for status in statuses() {
                let mut poster = Poster::default();
                poster.lay_out(&status, &mut font, (width, height), height as f32 * BOTTOM);
                let context = format!("{status:?} on {width} x {height}");
                assert!(!status.headline().is_empty() && !status.advice().is_empty());
                assert!(poster.blocks[0].lines.len() <= 2, "headline of {context}");
                assert!(poster.blocks[1].lines.len() <= 2, "advice of {context}");
                assert!(poster.height <= height as f32 * TALLEST, "height of {context}");
                let mut detail = String::new();
                status.write_detail(&mut detail);
                // On the smallest screens letters cannot get any smaller.
                let small = width.min(height) < 480;
                assert!(small || poster.blocks[DETAIL].text == detail, "{context} is cut");
                for block in &poster.blocks {
                    let end = block.lines.last().map_or(0, |&(_, end)| end);
                    assert_eq!(end, block.text.trim_end().len(), "last line of {context}");
                    for &(start, end) in &block.lines {
                        let line = block.text[start..end].to_owned();
                        let taken = font.width(&line, block.size);
                        assert!(taken <= width as f32 * (1.0 - 2.0 * SIDE), "{line} {context}");
                    }
                }
                let advice = poster.blocks[1].size as f32 / unit(width, height);
                assert!(advice > BLOCKS[1].share * 0.6, "advice of {context} is small: {advice}");
            }
        }
    }

    #[test]
    fn every_status_fits_above_a_notice() {
        let mut font = Font::new();
        for (width, height) in [(640, 480), (540, 960), (1280, 720), (1920, 1080), (1080, 1920)] {
            for status in statuses() {
                let mut poster = Poster::default();
                let bottom = height as f32 * 0.7;
                poster.lay_out(&status, &mut font, (width, height), bottom);
                let context = format!("{status:?} on {width} x {height}");
                let end = poster.top(height as f32, bottom) + poster.height;
                assert!(end <= bottom, "{context}: {end} of {bottom}");
            }
        }
    }

    #[test]
    fn texts_are_plain_and_short() {
        for status in statuses() {
            let (headline, advice) = (status.headline(), status.advice());
            assert!(headline.len() <= 24, "{headline}");
            assert!(advice.len() <= 50 && advice.ends_with('.'), "{advice}");
        }
        assert!(Status::Running.headline().is_empty() && Status::Running.advice().is_empty());
    }
}
