//! The display suite: one test card and one run of checks, the same for every display.

#![allow(dead_code)] // each user takes the part it needs

use std::time::{Duration, Instant};

use display::{Display, DisplayError};
use overlay::Canvas;

/// Step of the card that the suite shows last, and so the one to compare a screen dump with.
pub const LAST_STEP: u32 = 7;
/// Longest time that one canvas may take to be shown, on an emulated board too.
const LONGEST_PRESENT: Duration = Duration::from_secs(2);
/// Only 0 and 255, so that RGB565 shows the same colours.
const BARS: [u32; 8] =
    [0xFF_FFFF, 0xFF_FF00, 0x00_FFFF, 0x00_FF00, 0xFF_00FF, 0xFF_0000, 0x00_00FF, 0x00_0000];

/// What a run measured.
#[derive(Debug)]
pub struct Report {
    /// Canvases shown.
    pub presents: u32,
    /// Median time to show one.
    pub median: Duration,
    /// Longest time to show one.
    pub longest: Duration,
}

/// Draws the card: colour bars above, a bar that moves down with `step` below, a white frame of one
/// pixel, and corners in red, green, blue and yellow, clockwise from the top left.
pub fn draw_card(canvas: &mut Canvas, step: u32) {
    let (width, height) = (canvas.width(), canvas.height());
    canvas.clear();
    for (number, &colour) in (0..).zip(&BARS) {
        let (left, right) = (number * width / 8, (number + 1) * width / 8);
        fill(canvas, (left, 0), (right, height / 2), colour);
    }
    let thick = (height / 32).max(1);
    let top = height / 2 + (step * thick) % (height - height / 2).max(1);
    fill(canvas, (0, top), (width, top + thick), 0xFF_FFFF);
    frame(canvas);
    let side = (width.min(height) / 10).max(1);
    let (right, bottom) = (width - side, height - side);
    let corners = [
        (0, 0, 0xFF_0000),
        (right, 0, 0x00_FF00),
        (right, bottom, 0x00_00FF),
        (0, bottom, 0xFF_FF00),
    ];
    for (left, top, colour) in corners {
        fill(canvas, (left, top), (left + side, top + side), colour);
    }
}

/// Rows and columns shifted by a wrong stride or offset lose this line.
fn frame(canvas: &mut Canvas) {
    let (width, height) = (canvas.width(), canvas.height());
    fill(canvas, (0, 0), (width, 1), 0xFF_FFFF);
    fill(canvas, (0, height - 1), (width, height), 0xFF_FFFF);
    fill(canvas, (0, 0), (1, height), 0xFF_FFFF);
    fill(canvas, (width - 1, 0), (width, height), 0xFF_FFFF);
}

fn fill(canvas: &mut Canvas, from: (u32, u32), to: (u32, u32), colour: u32) {
    let right = to.0.min(canvas.width()) as usize;
    for y in from.1..to.1.min(canvas.height()) {
        canvas.row_mut(y)[from.0 as usize..right].fill(colour);
    }
}

/// Runs all checks, and leaves the card of [`LAST_STEP`] on the display.
///
/// # Errors
/// What went wrong, in words.
pub fn run(display: &mut dyn Display, presents: u32) -> Result<Report, String> {
    let name = display.name();
    let size = display.size();
    demand(!name.is_empty(), "a display has a name")?;
    demand(size.0 > 0 && size.1 > 0, "a display has pixels")?;
    let mut canvas = Canvas::new(size.0, size.1);
    let mut times = vec![timed(display, &canvas)?];
    for step in 0..presents {
        draw_card(&mut canvas, step);
        times.push(timed(display, &canvas)?);
        demand(display.size() == size, "the size stays")?;
        demand(display.name() == name, "the name stays")?;
    }
    wrong_sizes_are_refused(display, size)?;
    // A refusal must not disturb what follows.
    draw_card(&mut canvas, LAST_STEP);
    for _ in 0..2 {
        times.push(timed(display, &canvas)?);
    }
    demand(!display.closed(), "nobody closed the display")?;
    times.sort();
    let longest = times.last().copied().unwrap_or_default();
    demand(longest < LONGEST_PRESENT, &format!("presenting took {longest:?}"))?;
    Ok(Report { presents: times.len() as u32, median: times[times.len() / 2], longest })
}

fn timed(display: &mut dyn Display, canvas: &Canvas) -> Result<Duration, String> {
    let started = Instant::now();
    display.present(canvas).map_err(|error| error.to_string())?;
    Ok(started.elapsed())
}

fn wrong_sizes_are_refused(display: &mut dyn Display, size: (u32, u32)) -> Result<(), String> {
    for wrong in [(size.0 + 1, size.1), (size.0, size.1 - 1), (0, 0)] {
        let refused = display.present(&Canvas::new(wrong.0, wrong.1));
        match refused {
            Err(error @ DisplayError::Size { given, wanted }) => {
                demand(given == wrong && wanted == size, "the refusal names both sizes")?;
                demand(error.is_transient(), "a refusal leaves the display usable")?;
            }
            other => return Err(format!("a canvas of {wrong:?} pixels gave {other:?}")),
        }
    }
    Ok(())
}

fn demand(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("violated: {what}")) }
}
