//! How long each stage takes: a window for medians, and a histogram for Prometheus.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use heapless::HistoryBuf;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use serde::{Serialize, Serializer};

use crate::shared::lock;

/// The steps from light to light, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Fetching a picture; from a live camera this includes waiting for it. JPEG decoding is here.
    Capture,
    /// Camera format to the network's input.
    Convert,
    /// The network.
    Infer,
    /// Queries to parts and people.
    Parse,
    /// Overlay to canvas.
    Draw,
    /// Canvas to screen.
    Flip,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Stage; 6] =
        [Stage::Capture, Stage::Convert, Stage::Infer, Stage::Parse, Stage::Draw, Stage::Flip];

    /// Name in JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Capture => "capture",
            Stage::Convert => "convert",
            Stage::Infer => "infer",
            Stage::Parse => "parse",
            Stage::Draw => "draw",
            Stage::Flip => "flip",
        }
    }
}

/// Samples that medians are taken over: some ten seconds of pictures.
const WINDOW: usize = 256;

/// Median and 95th percentile of one stage, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Half of the samples took no longer.
    pub median_ms: f64,
    /// 95 of 100 samples took no longer.
    pub p95_ms: f64,
}

impl Summary {
    /// Of samples in any order; they are sorted in place. Zero without samples.
    pub fn of(samples_ms: &mut [f64]) -> Summary {
        if samples_ms.is_empty() {
            return Summary::default();
        }
        samples_ms.sort_by(f64::total_cmp);
        // The least sample that so many of a hundred do not exceed.
        let at = |percent: usize| samples_ms[(samples_ms.len() * percent).div_ceil(100) - 1];
        Summary { median_ms: at(50), p95_ms: at(95) }
    }
}

/// A summary of every stage; in JSON an object by their names.
#[derive(Clone, Copy, Debug)]
pub struct Stages([Summary; 6]);

impl Stages {
    /// Of each stage what `summary` says.
    pub fn of(summary: impl FnMut(Stage) -> Summary) -> Stages {
        Stages(Stage::ALL.map(summary))
    }

    /// The summary of one stage.
    pub fn get(&self, stage: Stage) -> Summary {
        self.0[stage as usize]
    }
}

impl Serialize for Stages {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Stage::ALL.map(|stage| (stage.name(), self.get(stage))))
    }
}

/// Histograms in seconds, by the label `stage`.
pub type StageHistograms = Family<[(&'static str, &'static str); 1], Histogram>;

/// Timings of all stages and the pace of shown pictures. Recording allocates nothing.
pub struct Timings {
    stages: Mutex<[HistoryBuf<f32, WINDOW>; 6]>,
    shown: Mutex<HistoryBuf<Instant, 64>>,
    family: StageHistograms,
    /// Those of `family`, so that recording needs no look-up.
    histograms: [Histogram; 6],
}

impl Default for Timings {
    fn default() -> Timings {
        Timings::new()
    }
}

impl Timings {
    /// Without samples.
    pub fn new() -> Timings {
        // 0.1 ms to 1.6 s: a fast desktop's drawing up to an emulated board's network.
        let family = StageHistograms::new_with_constructor(|| {
            Histogram::new(exponential_buckets(1e-4, 2.0, 15))
        });
        let histogram = |stage: Stage| family.get_or_create(&[("stage", stage.name())]).clone();
        Timings {
            stages: Mutex::new([const { HistoryBuf::new() }; 6]),
            shown: Mutex::new(HistoryBuf::new()),
            histograms: Stage::ALL.map(histogram),
            family,
        }
    }

    /// Adds a sample.
    pub fn record(&self, stage: Stage, duration: Duration) {
        lock(&self.stages)[stage as usize].write(duration.as_secs_f32() * 1e3);
        self.histograms[stage as usize].observe(duration.as_secs_f64());
    }

    /// Notes that a picture was shown now.
    pub fn record_shown(&self) {
        lock(&self.shown).write(Instant::now());
    }

    /// Pictures shown a second, over the last 64 but at most the last five seconds.
    pub fn fps(&self) -> f32 {
        let shown = lock(&self.shown);
        let now = Instant::now();
        let recent = shown.iter().filter(|at| now.duration_since(**at) < Duration::from_secs(5));
        let (count, first, last) = recent.fold((0u32, now, None), |(count, first, last), at| {
            (count + 1, first.min(*at), last.max(Some(*at)))
        });
        match last {
            Some(last) if count > 1 => (count - 1) as f32 / (last - first).as_secs_f32().max(1e-3),
            _ => 0.0,
        }
    }

    /// Median and 95th percentile of a stage over the window.
    pub fn summary(&self, stage: Stage) -> Summary {
        let mut samples: Vec<f64> =
            lock(&self.stages)[stage as usize].iter().map(|ms| f64::from(*ms)).collect();
        Summary::of(&mut samples)
    }

    /// The histograms, for the registry.
    pub fn histograms(&self) -> StageHistograms {
        self.family.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_ranks_of_the_samples() {
        let mut samples: Vec<f64> = (1..=101).rev().map(f64::from).collect();
        assert_eq!(Summary::of(&mut samples), Summary { median_ms: 51.0, p95_ms: 96.0 });
        let mut window: Vec<f64> = (1..=WINDOW).map(|ms| ms as f64).collect();
        let expected = Summary { median_ms: 128.0, p95_ms: 244.0 };
        assert_eq!(Summary::of(&mut window), expected, "243 of 256 are less than 95 of 100");
        assert_eq!(Summary::of(&mut [7.0]), Summary { median_ms: 7.0, p95_ms: 7.0 });
        assert_eq!(Summary::of(&mut []), Summary::default());
    }

    #[test]
    fn stages_are_kept_apart() {
        let timings = Timings::new();
        timings.record(Stage::Draw, Duration::from_millis(2));
        timings.record(Stage::Draw, Duration::from_millis(4));
        timings.record(Stage::Infer, Duration::from_millis(30));
        assert!((timings.summary(Stage::Infer).median_ms - 30.0).abs() < 0.01);
        assert!(timings.summary(Stage::Draw).p95_ms > 3.9);
        assert_eq!(timings.summary(Stage::Flip), Summary::default());
    }
}
