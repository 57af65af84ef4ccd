//! The sign that the camera sees, and that somebody looks at what it sees.

use embedded_graphics::pixelcolor::{Rgb888, RgbColor};

use crate::canvas::Canvas;
use crate::font::{CAPITAL_HEIGHT, Font};
use crate::icon;
use crate::palette::{CAMERA_ACTIVE, TEXT, WARNING};
use crate::scale::{BADGE, MARGIN, SMALLEST_FONT, unit};
use crate::scene::Scene;
use crate::shape::{self, circle, round_box, stroke};

/// Beside the eye, where there is room for it.
const WATCHED: &str = "Watched";
/// Share of the screen's width that the badge may take.
const WIDEST: f32 = 0.6;
/// Widths of the camera with its light, and of the eye, in heights of the badge.
const CAMERA: f32 = 2.0;
const EYE: f32 = 1.3;
/// The word's letters and the space behind it, in heights of the badge.
const LETTERS: f32 = 0.52;
const GAP: f32 = 0.3;

/// Draws it on a dark plate in the upper right corner: a film camera and a green light while the camera sees, left of them an eye while
/// somebody watches. Nothing while neither is so.
pub(crate) fn draw(scene: &Scene<'_>, font: &mut Font, canvas: &mut Canvas) {
    let (width, height) = (canvas.width() as f32, canvas.height() as f32);
    let unit = unit(canvas.width(), canvas.height());
    let side = (unit * BADGE).max(16.0);
    let margin = (unit * MARGIN).min(width / 20.0);
    let size = ((side * LETTERS).round() as u32).max(SMALLEST_FONT);
    let camera = if scene.camera_active { side * CAMERA } else { 0.0 };
    let eye = if scene.watched { side * EYE } else { 0.0 };
    if camera + eye == 0.0 {
        return;
    }
    let written = if scene.watched { font.width(WATCHED, size) + side * GAP } else { 0.0 };
    let written = if camera + eye + written <= width * WIDEST { written } else { 0.0 };
    let half = ((camera + eye + written) / 2.0, side / 2.0);
    let (right, line) = (width - margin, (margin + half.1).min(height / 2.0));
    let middle = (right - half.0, line);
    let plate = |place| round_box(place, (0.0, 0.0), half, half.1);
    let reach = (half.0 + 2.0, half.1 + 2.0);
    let border = (side * 0.025).max(0.6);
    let colour = if scene.watched { WARNING } else { CAMERA_ACTIVE };
    shape::fill(canvas, middle, reach, Rgb888::BLACK, plate);
    shape::fill(canvas, middle, reach, colour, |place| stroke(plate(place) + border, border));
    if scene.camera_active {
        icon::film_camera((right - side * 1.3, line), side * 0.36, TEXT, canvas);
        let (light, radius) = ((right - side * 0.52, line), side * 0.17);
        shape::fill(canvas, light, (side, side), CAMERA_ACTIVE, |place| {
            circle(place, (0.0, 0.0), radius)
        });
    }
    if scene.watched {
        let left = right - 2.0 * half.0;
        icon::eye((left + side * 0.75, line), side * 0.4, WARNING, canvas);
        if written > 0.0 {
            let baseline = line + size as f32 * CAPITAL_HEIGHT / 2.0;
            font.draw(WATCHED, (left + eye, baseline), size, WARNING, canvas);
        }
    }
}
