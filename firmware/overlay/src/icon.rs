//! Icons, drawn as lines of one weight in a square from -1 to 1.

use embedded_graphics::pixelcolor::Rgb888;

use crate::canvas::Canvas;
use crate::palette::{ALARM, CALM, TEXT, TEXT_SOFT, WARNING};
use crate::scene::Status;
use crate::shape::{self, Point, circle, line, round_box, stroke, triangle};

/// Half the width of lines.
const LINE: f32 = 0.055;

/// Draws the icon of a status in a square of this radius around `middle`.
pub(crate) fn draw(status: &Status<'_>, middle: Point, radius: f32, canvas: &mut Canvas) {
    let mut pen = Pen { canvas, middle, radius };
    match status {
        Status::Running => {}
        Status::Pairing { .. } => phone(&mut pen),
        Status::Starting { .. } => sun(&mut pen),
        Status::CameraOff { .. } => camera_off(&mut pen),
        Status::CameraLost { .. } => camera_lost(&mut pen),
        Status::NoModel { .. } => unknown_person(&mut pen),
        Status::Thermal { .. } => thermometer(&mut pen),
    }
}

/// A film camera, seen from the side, solid: the badge's symbol.
pub(crate) fn film_camera(middle: Point, radius: f32, colour: Rgb888, canvas: &mut Canvas) {
    Pen { canvas, middle, radius }.fill(colour, |p| {
        let body = round_box(p, (-0.27, 0.0), (0.65, 0.55), 0.2);
        let lens = triangle(p, [(0.48, 0.0), (0.86, -0.36), (0.86, 0.36)]) - 0.08;
        body.min(lens)
    });
}

/// An eye, open: somebody watches.
pub(crate) fn eye(middle: Point, radius: f32, colour: Rgb888, canvas: &mut Canvas) {
    Pen { canvas, middle, radius }.fill(colour, |p| {
        // Where two circles overlap: 0.95 to each side, 0.55 up and down.
        let lids = circle(p, (0.0, 0.545), 1.095).max(circle(p, (0.0, -0.545), 1.095));
        stroke(lids, 0.1).min(circle(p, (0.0, 0.0), 0.26))
    });
}

struct Pen<'a> {
    canvas: &'a mut Canvas,
    middle: Point,
    radius: f32,
}

impl Pen<'_> {
    /// Fills where `distance`, in units of the icon, is negative.
    fn fill(&mut self, colour: Rgb888, distance: impl Fn(Point) -> f32) {
        let radius = self.radius;
        let reach = radius * 1.2;
        shape::fill(self.canvas, self.middle, (reach, reach), colour, |(x, y)| {
            distance((x / radius, y / radius)) * radius
        });
    }
}

fn sun(pen: &mut Pen<'_>) {
    pen.fill(WARNING, |p| circle(p, (0.0, 0.0), 0.42));
    pen.fill(WARNING, |(x, y)| {
        // Eight rays: fold the plane into one eighth.
        let turn = std::f32::consts::FRAC_PI_4;
        let angle = y.atan2(x);
        let folded = angle - (angle / turn).round() * turn;
        let away = x.hypot(y);
        let place = (away * folded.cos(), away * folded.sin());
        line(place, (0.66, 0.0), (0.9, 0.0), LINE * 1.2)
    });
}

fn camera_outline(p: Point) -> f32 {
    let body = round_box(p, (0.0, 0.1), (0.9, 0.6), 0.2);
    let hump = round_box(p, (0.0, -0.5), (0.34, 0.2), 0.12);
    stroke(body.min(hump), LINE)
}

fn lens(p: Point) -> f32 {
    stroke(circle(p, (0.0, 0.12), 0.32), LINE)
}

fn camera_off(pen: &mut Pen<'_>) {
    let (from, to) = ((-0.82, -0.82), (0.82, 0.86));
    pen.fill(TEXT_SOFT, |p| {
        let gap = -line(p, from, to, LINE * 3.0);
        camera_outline(p).min(lens(p)).max(gap)
    });
    pen.fill(TEXT, |p| line(p, from, to, LINE * 1.15));
}

fn camera_lost(pen: &mut Pen<'_>) {
    pen.fill(TEXT_SOFT, |p| camera_outline(p).max(-circle(p, (0.78, 0.62), 0.46)));
    pen.fill(TEXT_SOFT, |p| lens(p).max(-circle(p, (0.78, 0.62), 0.46)));
    pen.fill(WARNING, |p| {
        let mark = line(p, (0.78, 0.42), (0.78, 0.64), LINE * 1.2);
        let dot = circle(p, (0.78, 0.83), LINE * 1.4);
        circle(p, (0.78, 0.62), 0.36).max(-mark.min(dot))
    });
}

fn unknown_person(pen: &mut Pen<'_>) {
    pen.fill(TEXT_SOFT, |p| {
        let head = stroke(circle(p, (0.0, -0.26), 0.24), LINE);
        let shoulders = round_box(p, (0.0, 0.62), (0.5, 0.46), 0.36);
        head.min(stroke(shoulders, LINE).max(p.1 - 0.6))
    });
    pen.fill(WARNING, |(x, y)| {
        // Four corners of a view finder: fold the plane into one quarter.
        let p = (x.abs(), y.abs());
        let frame = stroke(round_box(p, (0.0, 0.0), (0.92, 0.92), 0.26), LINE * 1.15);
        frame.max(0.52 - p.0).max(0.52 - p.1)
    });
}

/// A phone with a tick on it.
fn phone(pen: &mut Pen<'_>) {
    pen.fill(TEXT_SOFT, |p| {
        let case = stroke(round_box(p, (0.0, 0.0), (0.52, 0.9), 0.18), LINE);
        case.min(line(p, (-0.1, 0.72), (0.1, 0.72), LINE * 0.9))
    });
    pen.fill(CALM, |p| {
        let down = line(p, (-0.24, -0.06), (-0.06, 0.14), LINE * 1.2);
        down.min(line(p, (-0.06, 0.14), (0.26, -0.26), LINE * 1.2))
    });
}

fn thermometer(pen: &mut Pen<'_>) {
    let bulb = (0.0, 0.56);
    pen.fill(TEXT_SOFT, |p| {
        let tube = line(p, (0.0, -0.66), bulb, 0.22);
        stroke(tube.min(circle(p, bulb, 0.36)), LINE)
    });
    pen.fill(ALARM, |p| circle(p, bulb, 0.21).min(line(p, (0.0, -0.34), bulb, 0.09)));
    pen.fill(TEXT_SOFT, |(x, y)| {
        let mark = |at: f32| line((x, y), (0.42, at), (0.6, at), LINE * 0.9);
        mark(-0.62).min(mark(-0.3)).min(mark(0.02))
    });
}
