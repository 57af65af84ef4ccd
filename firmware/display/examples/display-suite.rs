//! Runs the display suite on a real display, and holds its last picture for a screen dump.
//!
//! `headless:DIR` with the same `--size` and `--rotation` writes the picture to compare with, as
//! `DIR/latest.png`.

#[path = "../tests/suite/mod.rs"]
mod suite;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use display::{Display, DisplayError, DisplayRequest, DisplaySpec, Rotation};
use overlay::Canvas;

const USAGE: &str = "usage: display-suite auto|drm|fbdev|window|headless[:DIR]
    [--drm DEVICE] [--fbdev DEVICE] [--rotation 0|90|180|270] [--size WIDTHxHEIGHT]
    [--presents N] [--hold SECONDS]
Shows the test card N times, checks what every display must keep to, then holds the last picture.
While it holds, errors that may pass are printed and waited out; a screen that comes back is opened again.";

/// What the command line asks for.
struct Task {
    spec: DisplaySpec,
    request: DisplayRequest,
    presents: u32,
    hold: Duration,
}

fn main() -> ExitCode {
    let task = match parse(std::env::args().skip(1)) {
        Ok(task) => task,
        Err(message) => {
            eprintln!("display-suite: {message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&task) {
        Ok(()) => {
            println!("display-suite: PASS");
            ExitCode::SUCCESS
        }
        Err(message) => {
            println!("display-suite: FAIL: {message}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Task, String> {
    let spec = words.next().ok_or("which display?")?;
    let mut task = Task {
        spec: spec.parse().map_err(|error| format!("{error}"))?,
        request: DisplayRequest::default(),
        presents: 60,
        hold: Duration::ZERO,
    };
    while let Some(option) = words.next() {
        let value = words.next().ok_or(format!("{option} lacks its value"))?;
        set(&mut task, &option, &value).ok_or(format!("{option} {value} makes no sense"))?;
    }
    Ok(task)
}

fn set(task: &mut Task, option: &str, value: &str) -> Option<()> {
    let request = &mut task.request;
    match option {
        "--drm" => request.drm_device = value.into(),
        "--fbdev" => request.fbdev_device = value.into(),
        "--rotation" => request.rotation = Rotation::from_degrees(value.parse().ok()?)?,
        "--size" => {
            let (width, height) = value.split_once('x')?;
            let size = (width.parse().ok()?, height.parse().ok()?);
            (request.window_size, request.headless_size) = (size, size);
        }
        "--presents" => task.presents = value.parse().ok()?,
        "--hold" => task.hold = Duration::from_secs(value.parse().ok()?),
        _ => return None,
    }
    Some(())
}

fn run(task: &Task) -> Result<(), String> {
    let mut display =
        display::open(&task.spec, &task.request).map_err(|error| error.to_string())?;
    let (width, height) = display.size();
    println!("display-suite: {}, canvas {width} x {height}", display.name());
    let report = suite::run(display.as_mut(), task.presents)?;
    let suite::Report { presents, median, longest } = report;
    println!("display-suite: {presents} shown, median {median:.1?}, longest {longest:.1?}");
    if task.spec == DisplaySpec::Drm {
        check_exclusive(task)?;
    }
    println!("display-suite: SHOWN");
    hold(display, task)
}

/// A second mirror must be told that the first one owns the screen.
fn check_exclusive(task: &Task) -> Result<(), String> {
    match display::open(&task.spec, &task.request) {
        Err(error @ DisplayError::Busy { .. }) => {
            println!("display-suite: a second one is told: {error}");
            Ok(())
        }
        Err(error) => Err(format!("a second display on the same device fails with: {error}")),
        Ok(_) => Err("a second display on the same device opened".into()),
    }
}

fn hold(mut display: Box<dyn Display>, task: &Task) -> Result<(), String> {
    let mut canvas = last_card(display.as_ref());
    let until = Instant::now() + task.hold;
    let mut failing = false;
    while Instant::now() < until && !display.closed() {
        let shown = display.present(&canvas);
        match &shown {
            Err(DisplayError::Returned { .. }) => {
                drop(display);
                display =
                    display::open(&task.spec, &task.request).map_err(|error| error.to_string())?;
                canvas = last_card(display.as_ref());
            }
            Err(error) if !error.is_transient() => return Err(error.to_string()),
            Err(error) if !failing => println!("display-suite: LOST: {error}"),
            Ok(()) if failing => println!("display-suite: RECOVERED"),
            _ => {}
        }
        failing = shown.is_err();
        thread::sleep(Duration::from_millis(100));
    }
    if display.closed() {
        println!("display-suite: CLOSED");
    }
    Ok(())
}

fn last_card(display: &dyn Display) -> Canvas {
    let (width, height) = display.size();
    let mut canvas = Canvas::new(width, height);
    suite::draw_card(&mut canvas, suite::LAST_STEP);
    canvas
}
