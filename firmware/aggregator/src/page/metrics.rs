//! `/metrics` in the OpenMetrics text format. The alert rules and the dashboard in `ops/` use these names.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::desk::{Office, REFUSALS, STRANGE};
use crate::engine::{EngineError, ModelStatus, Status};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Number = Gauge<f64, std::sync::atomic::AtomicU64>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Phase {
    phase: String,
}

pub async fn metrics(State(office): State<Arc<Office>>) -> Response {
    let text = office.status().map_err(EngineErrorText::from).and_then(|status| {
        let mut text = String::new();
        encode(&mut text, &registry(&office, &status))
            .map_err(|error| EngineErrorText(error.to_string()))?;
        Ok(text)
    });
    match text {
        Ok(text) => ([("content-type", CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.0).into_response(),
    }
}

struct EngineErrorText(String);

impl From<EngineError> for EngineErrorText {
    fn from(error: EngineError) -> EngineErrorText {
        EngineErrorText(error.to_string())
    }
}

/// A counter for each of these reasons, at 0: what a counter has when it first appears is no increase to Prometheus.
fn reasons(known: &[&str]) -> Family<Reason, Counter> {
    let counters = Family::<Reason, Counter>::default();
    for reason in known {
        drop(counters.get_or_create(&Reason { reason: (*reason).to_owned() }));
    }
    counters
}

/// Everything as it stands now; numbers that live in the database are read from there.
fn registry(office: &Office, status: &Status) -> Registry {
    let mut registry = Registry::with_prefix("aggregator");
    let mut number = |name: &str, help: &str, value: f64| {
        let gauge = Number::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    let flag = |truth: bool| f64::from(u8::from(truth));
    number("devices_enrolled", "Devices that may take part", status.enrolled as f64);
    number(
        "devices_online",
        "Enrolled devices that are connected, as far as the first worker hears of them",
        status.online.map_or(f64::NAN, |count| count as f64),
    );
    number("devices_revoked", "Devices that were revoked", status.revoked as f64);
    number("workers", "Connections that should be up", status.workers as f64);
    number("workers_connected", "Connections that are up", status.workers_connected as f64);
    let help = "Subscriptions that the broker refused on the connections at hand";
    number("broker_refused_now", help, status.broker_refused_now as f64);
    let failing = status.decisions_failing.is_some();
    number("decisions_failing", "Whether the last decision failed", flag(failing));
    number(
        "epsilon",
        "Epsilon at delta 1e-5 of a device that was counted in every round",
        status.epsilon.unwrap_or(0.0),
    );
    if let Some(ModelStatus { model, .. }) = status.models.last() {
        number("model_version", "Newest model version", model.version as f64);
        number("model_failed", "Devices that reported trouble with it", model.failed as f64);
        number(
            "model_installed",
            "Devices whose trial of it ended without a fault",
            model.installed as f64,
        );
        let stopped = matches!(model.rollout, crate::records::Rollout::Stopped { .. });
        number("rollout_stopped", "Whether its roll-out was stopped", flag(stopped));
        let help = "Whether a stage is over and no device it has reached has reported that the version works";
        number("rollout_silent", help, flag(status.silent.is_some()));
    }
    if let Some(last) = status.rounds.last() {
        number("round", "Number of the newest round", last.round.id as f64);
        number("round_open", "Whether mirrors may still answer it", flag(last.round.is_open()));
        number("round_refused", "Whether its candidate was refused", flag(last.round.is_refused()));
        number("round_updates", "Updates counted in it", last.tally.counted as f64);
        number("round_minimum", "Updates it needs", last.round.task.minimum_cohort as f64);
        number("round_closes_timestamp_seconds", "When it closes", last.round.closes_at as f64);
        number(
            "round_score_before",
            "Holdout score of its base",
            last.round.score_before.unwrap_or(f64::NAN),
        );
        number(
            "round_score_after",
            "Holdout score of its candidate",
            last.round.score_after.unwrap_or(f64::NAN),
        );
    }
    let phases = Family::<Phase, Number>::default();
    for round in &status.rounds {
        let phase = round.round.phase.name().to_owned();
        phases.get_or_create(&Phase { phase }).inc();
    }
    registry.register("rounds", "Rounds by phase", phases);
    let refused = reasons(&REFUSALS);
    for round in &status.rounds {
        for (reason, count) in &round.tally.refused {
            refused.get_or_create(&Reason { reason: reason.clone() }).inc_by(*count);
        }
    }
    registry.register("refused", "Updates refused, by reason", refused);
    let strange = reasons(&STRANGE);
    for (kind, count) in office.strange.counts() {
        strange.get_or_create(&Reason { reason: kind.to_owned() }).inc_by(count);
    }
    let help = "Messages not understood, or not from whom they claimed, by what was wrong";
    registry.register("strange_messages", help, strange);
    let counters = [
        ("updates", "Updates counted", status.rounds.iter().map(|round| round.tally.counted).sum()),
        ("update_bytes", "Their bytes", status.rounds.iter().map(|round| round.tally.bytes).sum()),
        (
            "dropped_messages",
            "Outgoing messages that found no room",
            office.health.iter().map(|health| health.dropped.load(Ordering::SeqCst)).sum(),
        ),
        (
            "broker_refused",
            "Subscriptions and messages that the broker refused",
            status.broker_refused,
        ),
        (
            "rival_statements",
            "Statements that another server has signed with this one's key and announced",
            status.rival_statements,
        ),
        ("receipts", "Receipts sent", office.receipts.load(Ordering::SeqCst)),
    ];
    for (name, help, value) in counters {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    }
    registry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_reason_is_there_before_it_first_counts() {
        let mut registry = Registry::default();
        registry.register("refused", "A test", reasons(&REFUSALS));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for reason in REFUSALS {
            assert!(text.contains(&format!("refused_total{{reason=\"{reason}\"}} 0\n")), "{text}");
        }
    }
}
