//! `/metrics` in the Prometheus text format (OpenMetrics 1.0).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::memory;
use crate::page::Served;
use crate::shared::{CameraState, ModelState, Shared};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every metric of the mirror.
pub fn registry(shared: &Arc<Shared>) -> Registry {
    let mut registry = Registry::with_prefix("mirror");
    registry.register_with_unit(
        "stage_duration",
        "Duration of each stage from light to light",
        Unit::Seconds,
        shared.timings.histograms(),
    );
    registry.register_collector(Box::new(Facts(Arc::clone(shared))));
    registry
}

pub async fn metrics(State(served): State<Arc<Served>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &served.registry) {
        Ok(()) => ([("content-type", CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Reads the shared facts when asked.
struct Facts(Arc<Shared>);

impl std::fmt::Debug for Facts {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Facts")
    }
}

type Encoded = Result<(), std::fmt::Error>;

impl Collector for Facts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let counters = &self.0.counters;
        let counts = [
            ("frames_captured", "Pictures that the source delivered", &counters.captured),
            ("frames_broken", "Pictures dropped because they were broken", &counters.broken),
            ("frames_overtaken", "Pictures overtaken by a newer one", &counters.overtaken),
            ("frames_parsed", "Pictures that were parsed", &counters.parsed),
            (
                "overlays_shown",
                "Parsings whose overlay the display shows or, without one, is ready for the page",
                &counters.overlays,
            ),
            ("restarts", "Parts that were started again after a failure", &counters.restarts),
        ];
        for (name, help, value) in counts {
            counter(&mut encoder, name, help, value)?;
        }
        self.gauges(&mut encoder)
    }
}

impl Facts {
    fn gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let shared = &self.0;
        let (delivering, sensor_open, ready, too_hot) = shared.with_health(|health| {
            let delivering = health.camera == CameraState::On;
            let ready = matches!(health.model, ModelState::Ready { .. });
            (delivering, health.sensor_open, ready, health.too_hot.is_some())
        });
        let truth = |value: bool| f64::from(u8::from(value));
        let people = shared.people.load(Ordering::Relaxed) as f64;
        let watching = shared.viewers.load(Ordering::Relaxed) as f64;
        let all = [
            ("camera_wanted", "Whether the camera is switched on", truth(shared.camera_wanted())),
            ("camera_active", "Whether a camera is open", truth(sensor_open)),
            ("source_delivering", "Whether pictures arrive", truth(delivering)),
            ("model_ready", "Whether the network is loaded", truth(ready)),
            ("too_hot", "Whether the network rests because of the heat", truth(too_hot)),
            ("people", "People in the newest picture", people),
            ("preview_viewers", "Browsers that watch the preview", watching),
            ("frames_per_second", "Overlays shown a second", f64::from(shared.timings.fps())),
        ];
        for (name, help, value) in all {
            gauge(encoder, name, help, None, value)?;
        }
        let seconds = Some(&Unit::Seconds);
        gauge(encoder, "uptime", "Time since start", seconds, shared.uptime().as_secs_f64())?;
        if let Some(time) = shared.first_overlay() {
            let help = "Time from start to the first overlay";
            gauge(encoder, "first_overlay", help, seconds, time.as_secs_f64())?;
        }
        if let Some(mib) = memory::rss_mib() {
            let bytes = mib * 1_048_576.0;
            gauge(encoder, "resident_memory", "Resident memory", Some(&Unit::Bytes), bytes)?;
        }
        Ok(())
    }
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: &AtomicU64,
) -> Encoded {
    let metric = ConstCounter::new(value.load(Ordering::Relaxed));
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: f64,
) -> Encoded {
    let metric = ConstGauge::new(value);
    metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timings::Stage;
    use std::time::{Duration, Instant};

    #[test]
    fn every_family_is_declared_once() {
        let shared = Arc::new(Shared::new(Instant::now(), None));
        shared.timings.record(Stage::Infer, Duration::from_millis(15));
        let mut text = String::new();
        encode(&mut text, &registry(&shared)).expect("a String takes everything");
        let mut types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let declared = types.len();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), declared);
        assert!(text.contains("mirror_stage_duration_seconds_count{stage=\"infer\"} 1"), "{text}");
        assert!(text.contains("mirror_frames_captured_total 0"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
