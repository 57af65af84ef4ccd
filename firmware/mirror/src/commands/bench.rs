//! `mirror bench`: every stage measured, one picture after the other, on one thread.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use camera::{Delivery, Source};
use display::Display;
use frame::FrameBuffer;
use overlay::{Canvas, Painter, Scene, Status};
use serde::Serialize;
use settings::Settings;
use tracing::warn;
use vision::Parser;

use crate::cli::BenchArgs;
use crate::config;
use crate::look::Look;
use crate::memory;
use crate::model::{self, ModelSource};
use crate::progress::Progress;
use crate::report;
use crate::run;
use crate::sources::{Decoder, Sources};
use crate::timings::{Stage, Stages, Summary};
use crate::view::View;

/// Broken pictures in a row after which there is nothing to measure.
const BROKEN_IN_A_ROW: u32 = 30;

/// Pictures before the measured ones: memory grows and caches fill.
const WARM_UP: u64 = 10;

/// What is measured; the shape of `--json`.
#[derive(Serialize)]
struct Report {
    stages: Stages,
    fps: f64,
    peak_rss_mib: Option<f64>,
    first_overlay_ms: f64,
}

/// Measures and prints.
///
/// # Errors
/// Settings, source, network or display that cannot be used; a source without pictures.
pub fn bench(args: &BenchArgs, started: Instant) -> Result<()> {
    let options = [
        ("--source", "camera.source", args.source.as_str()),
        ("--display", "display.kind", args.display.as_str()),
    ];
    let effective = config::load(&args.settings, &options)?;
    let mut bench = Bench::open(&effective.settings)?;
    let report = bench.measure(args.frames, started)?;
    let text = if args.json { serde_json::to_string(&report)? + "\n" } else { table(&report) };
    Ok(report::print(&text)?)
}

/// The whole mirror without threads.
struct Bench {
    sources: Sources,
    source: Box<dyn Source>,
    decoder: Decoder,
    picture: FrameBuffer,
    parser: Parser,
    view: View,
    painter: Painter,
    canvas: Canvas,
    display: Box<dyn Display>,
}

/// Milliseconds of one picture, by stage.
type Sample = [f64; 6];

impl Bench {
    fn open(settings: &Settings) -> Result<Bench> {
        let sources = Sources::new(&settings.camera)?;
        let chosen = sources.choose(None);
        if chosen.is_camera()
            && let Some(by) = run::camera_off_by(settings)
        {
            bail!(
                "the camera is switched off {by}; measure the demo scene instead, `--source demo`"
            );
        }
        // A camera keeps its rate: which of its formats is fast enough depends on it.
        let sources = if chosen.is_camera() { sources } else { sources.free_running() };
        let (spec, request) = run::display_of(&settings.display);
        let display = display::open(&spec, &request)?;
        let (width, height) = display.size();
        let look = Look::new(settings);
        let orientation = sources.orientation;
        let source = ModelSource::new(&settings.vision).for_pictures(sources.size());
        let mut bench = Bench {
            source: sources.open(&chosen)?,
            decoder: sources.decoder(&chosen),
            sources,
            picture: FrameBuffer::new(),
            parser: source.parser(orientation)?,
            view: View::new(),
            painter: Painter::new(width, height, look.style(), look.alignment(chosen.is_demo())),
            canvas: Canvas::new(width, height),
            display,
        };
        // A folder's pictures have a shape that only they tell.
        bench.capture()?;
        let layout = bench.picture.frame().layout();
        let size = orientation.upright_size(layout.width(), layout.height());
        if !model::fits(&bench.parser, size) {
            bench.parser = source.for_pictures(Some(size)).parser(orientation)?;
        }
        Ok(bench)
    }

    fn measure(&mut self, frames: u64, started: Instant) -> Result<Report> {
        let mut progress = Progress::new("pictures", WARM_UP + frames);
        self.once()?;
        let first_overlay = started.elapsed();
        for _ in 1..WARM_UP {
            self.once()?;
            progress.advance();
        }
        let mut samples = Vec::with_capacity(frames as usize);
        let began = Instant::now();
        for _ in 0..frames {
            samples.push(self.once()?);
            progress.advance();
        }
        let fps = frames as f64 / began.elapsed().as_secs_f64();
        let times =
            |stage: Stage| samples.iter().map(|sample| sample[stage as usize]).collect::<Vec<_>>();
        Ok(Report {
            stages: Stages::of(|stage| Summary::of(&mut times(stage))),
            fps,
            peak_rss_mib: memory::peak_rss_mib(),
            first_overlay_ms: milliseconds(first_overlay),
        })
    }

    /// One picture from source to screen.
    fn once(&mut self) -> Result<Sample> {
        let start = Instant::now();
        self.capture()?;
        let captured = Instant::now();
        let parsing = self.parser.parse_taken(&self.picture.frame(), self.picture.captured_at)?;
        let timings = parsing.timings;
        self.view.fill(parsing);
        let parsed = Instant::now();
        let camera_active = self.source.is_live();
        let scene =
            Scene { mask: self.view.mask(), camera_active, ..Scene::of_status(Status::Running) };
        self.painter.draw(&scene, parsed, &mut self.canvas);
        let drawn = Instant::now();
        self.display.present(&self.canvas)?;
        let shown = Instant::now();
        Ok([
            milliseconds(captured - start),
            milliseconds(timings.convert),
            milliseconds(timings.infer),
            milliseconds(timings.parse),
            milliseconds(drawn - parsed),
            milliseconds(shown - drawn),
        ])
    }

    /// The next picture; a file that has ended starts again, and a broken picture is left out.
    fn capture(&mut self) -> Result<()> {
        let timeout = self.sources.timeout;
        let (mut ends, mut broken) = (0, 0);
        while ends < 2 {
            match self.decoder.next(self.source.as_mut(), &mut self.picture, timeout) {
                Ok(Delivery::Frame) => return Ok(()),
                Ok(Delivery::Later) => {}
                Ok(Delivery::End) => {
                    ends += 1;
                    let chosen = self.sources.choose(None);
                    self.source = self.sources.open(&chosen).context("once more from the start")?;
                }
                Err(error) if error.is_frame_only() && broken < BROKEN_IN_A_ROW => {
                    broken += 1;
                    warn!("a picture was left out: {error}");
                }
                Err(error) => return Err(error.into()),
            }
        }
        bail!("{} has no pictures", self.source.describe())
    }
}

fn milliseconds(duration: Duration) -> f64 {
    // Whole microseconds: more digits would be noise.
    duration.as_micros() as f64 / 1e3
}

fn table(report: &Report) -> String {
    let stages = &report.stages;
    let mut text = format!("{:10}{:>12}{:>12}\n", "stage", "median ms", "p95 ms");
    // Writing to a String cannot fail.
    for stage in Stage::ALL {
        let (name, Summary { median_ms, p95_ms }) = (stage.name(), stages.get(stage));
        let _ = writeln!(text, "{name:10}{median_ms:12.3}{p95_ms:12.3}");
    }
    // Capture is left out: with a camera it is mostly waiting.
    let all: f64 = Stage::ALL[1..].iter().map(|stage| stages.get(*stage).median_ms).sum();
    let share = 100.0 * (1.0 - stages.get(Stage::Infer).median_ms / all.max(f64::MIN_POSITIVE));
    let _ = writeln!(text, "\nframes a second        {:8.1}", report.fps);
    let _ = writeln!(text, "outside the network    {share:8.1} %");
    if let Some(mib) = report.peak_rss_mib {
        let _ = writeln!(text, "peak resident memory   {mib:8.1} MiB");
    }
    let _ = writeln!(text, "first overlay after    {:8.1} ms", report.first_overlay_ms);
    text
}
