//! Machine-readable answers: states, settings, health, and the camera switch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use proto::taxonomy::Part;
use serde::{Deserialize, Serialize};
use settings::Entry;
use tracing::{info, warn};

use crate::memory;
use crate::page::work::beside;
use crate::page::{Served, Trouble};
use crate::run::switch::StorageError;
use crate::shared::{
    CameraState, DisplayState, Health, ModelState, Shared, SwitchedBy, Topic, lock,
};
use crate::timings::Stages;

/// A state: one word for programs, a sentence for people.
#[derive(Serialize)]
struct Condition {
    state: &'static str,
    text: String,
}

impl Condition {
    fn new(state: &'static str, text: impl Into<String>) -> Condition {
        Condition { state, text: text.into() }
    }
}

/// Answer of `/api/state`.
#[derive(Serialize)]
pub struct StateAnswer {
    version: &'static str,
    uptime_s: u64,
    camera_wanted: bool,
    /// Whether light falls on a sensor that the mirror reads.
    camera_active: bool,
    camera: Condition,
    model: Condition,
    display: Condition,
    source: String,
    too_hot_celsius: Option<f64>,
    notices: Vec<String>,
    people: usize,
    /// Browsers that watch the preview.
    viewers: usize,
    fps: f32,
    first_overlay_ms: Option<f64>,
    rss_mib: Option<f64>,
    peak_rss_mib: Option<f64>,
    stages: Stages,
    counters: CounterValues,
}

#[derive(Serialize)]
struct CounterValues {
    captured: u64,
    broken: u64,
    overtaken: u64,
    parsed: u64,
    overlays: u64,
    restarts: u64,
}

pub async fn state(State(served): State<Arc<Served>>) -> Json<StateAnswer> {
    Json(answer(&served.shared))
}

fn answer(shared: &Shared) -> StateAnswer {
    let health = shared.health();
    let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let counters = &shared.counters;
    StateAnswer {
        version: crate::VERSION,
        uptime_s: shared.uptime().as_secs(),
        camera_wanted: shared.camera_wanted(),
        camera_active: health.sensor_open,
        camera: camera_condition(&health.camera),
        model: model_condition(&health.model),
        display: display_condition(&health.display),
        too_hot_celsius: health.too_hot,
        notices: health.notices.iter().map(str::to_owned).collect(),
        source: health.source,
        people: shared.people.load(Ordering::Relaxed),
        viewers: shared.viewers.load(Ordering::Relaxed),
        fps: shared.timings.fps(),
        first_overlay_ms: shared.first_overlay().map(|time| time.as_secs_f64() * 1e3),
        rss_mib: memory::rss_mib(),
        peak_rss_mib: memory::peak_rss_mib(),
        stages: Stages::of(|stage| shared.timings.summary(stage)),
        counters: CounterValues {
            captured: value(&counters.captured),
            broken: value(&counters.broken),
            overtaken: value(&counters.overtaken),
            parsed: value(&counters.parsed),
            overlays: value(&counters.overlays),
            restarts: value(&counters.restarts),
        },
    }
}

fn camera_condition(camera: &CameraState) -> Condition {
    match camera {
        CameraState::Starting => Condition::new("starting", "Opening the camera"),
        CameraState::On => Condition::new("on", "Delivering pictures"),
        CameraState::Off { by } => Condition::new("off", format!("Switched off {by}")),
        CameraState::Ended => Condition::new("ended", "The file was played to its end"),
        CameraState::Lost { device, reason, retry_at, .. } => {
            let wait = retry_at.saturating_duration_since(Instant::now());
            let again = match wait {
                Duration::ZERO => "trying again now".to_owned(),
                wait => format!("trying again in {} s", wait.as_millis().div_ceil(1000)),
            };
            Condition::new("lost", format!("{device}: {reason} ({again})"))
        }
    }
}

fn model_condition(model: &ModelState) -> Condition {
    match model {
        ModelState::Loading => Condition::new("loading", "Being read and checked"),
        ModelState::Ready { name } => Condition::new("ready", name),
        ModelState::Failed { reason, .. } => Condition::new("failed", reason),
    }
}

fn display_condition(display: &DisplayState) -> Condition {
    match display {
        DisplayState::Opening => Condition::new("opening", "Being opened"),
        DisplayState::Open { name } => Condition::new("open", name),
        DisplayState::Missing { reason } => Condition::new("missing", reason),
    }
}

/// Answer of `/api/settings`: what is in effect and where it comes from, and the parts' colours.
#[derive(Serialize)]
pub struct SettingsAnswer {
    settings: Vec<Entry>,
    parts: Vec<PartColour>,
}

#[derive(Serialize)]
struct PartColour {
    name: &'static str,
    colour: String,
}

pub async fn settings(State(served): State<Arc<Served>>) -> Json<SettingsAnswer> {
    let parts = Part::ALL.into_iter().skip(1).map(|part| {
        let [red, green, blue] = overlay::part_rgb(part);
        let colour = format!("#{red:02x}{green:02x}{blue:02x}");
        PartColour { name: part.name(), colour }
    });
    Json(SettingsAnswer { settings: served.settings.entries(), parts: parts.collect() })
}

/// Body of a POST to `/api/camera`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraChange {
    on: bool,
}

/// Answer of a POST to `/api/camera`.
#[derive(Serialize)]
pub struct CameraAnswer {
    on: bool,
    /// Whether it will still be so after a restart.
    remembered: bool,
}

pub async fn camera(
    State(served): State<Arc<Served>>,
    Json(change): Json<CameraChange>,
) -> Result<Json<CameraAnswer>, Trouble> {
    // First the camera, then the disk: "off" must not wait for anything.
    served.shared.switch_camera(change.on, SwitchedBy::Page);
    let (switched, by) = (if change.on { "on" } else { "off" }, SwitchedBy::Page);
    info!("the camera was switched {switched} {by}");
    beside(move || {
        let stored = keep_switch(&served).inspect_err(|error| warn!("{error}"));
        let kept_on = served.settings.settings.camera.enabled;
        let remembered = stored.is_ok() && (!change.on || kept_on);
        Ok(Json(CameraAnswer { on: change.on, remembered }))
    })
    .await
}

/// Stores the camera's switch, or where nobody used it sees whether it could be stored, and tells on the screen where it cannot.
pub(super) fn keep_switch(served: &Served) -> Result<(), StorageError> {
    let switch = lock(&served.switch);
    // What holds now: whoever switched later may have been written first.
    let stored = match served.shared.camera_switched_by() {
        Some(SwitchedBy::Page) => switch.store(served.shared.camera_wanted()),
        _ => switch.prepare(),
    };
    let notice = stored.as_ref().err().map(|error| error.to_string());
    served.shared.set_notice(Topic::Storage, notice.as_deref());
    stored
}

/// 200 while the mirror does what it is told to (a camera that is switched off is no failure),
/// 503 and the reasons otherwise.
pub async fn healthz(State(served): State<Arc<Served>>) -> (StatusCode, String) {
    let troubles = troubles(&served.shared.health());
    if troubles.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, troubles.join("\n") + "\n")
}

fn troubles(health: &Health) -> Vec<String> {
    let mut troubles = Vec::new();
    if let CameraState::Lost { device, reason, .. } = &health.camera {
        troubles.push(format!("camera: {device}: {reason}"));
    }
    if let ModelState::Failed { reason, .. } = &health.model {
        troubles.push(format!("vision network: {reason}"));
    }
    if let DisplayState::Missing { reason } = &health.display {
        troubles.push(format!("display: {reason}"));
    }
    if let Some(celsius) = health.too_hot {
        troubles.push(format!("temperature: {celsius:.0} °C, the vision network rests"));
    }
    if let Some(text) = health.notices.get(Topic::Program) {
        troubles.push(format!("program: {text}"));
    }
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timings::Stage;

    #[test]
    fn an_unhealthy_mirror_names_every_trouble() {
        let shared = Shared::new(Instant::now(), Some(SwitchedBy::Settings));
        assert!(troubles(&shared.health()).is_empty(), "off is a wish, not a trouble");
        shared.update_health(|health| {
            health.too_hot = Some(91.0);
            health.model = ModelState::Failed { reason: "wrong hash".into(), built_in: true };
        });
        shared.set_notice(Topic::Program, Some("camera fails again and again"));
        shared.set_notice(Topic::Fleet, Some("away"));
        let troubles = troubles(&shared.health());
        let expected = [
            "vision network: wrong hash",
            "temperature: 91 °C, the vision network rests",
            "program: camera fails again and again",
        ];
        assert_eq!(troubles, expected);
    }

    #[test]
    fn the_answer_has_every_stage() {
        let shared = Shared::new(Instant::now(), None);
        let json = serde_json::to_value(answer(&shared)).expect("plain data");
        for stage in Stage::ALL {
            assert!(json["stages"][stage.name()]["median_ms"].is_number(), "{}", stage.name());
        }
        assert_eq!(json["camera"]["state"], "starting");
        assert_eq!((&json["camera_active"], &json["viewers"]), (&false.into(), &0.into()));
        shared.viewers.store(2, Ordering::Relaxed);
        let json = serde_json::to_value(answer(&shared)).expect("plain data");
        assert_eq!(json["viewers"], 2);
    }
}
