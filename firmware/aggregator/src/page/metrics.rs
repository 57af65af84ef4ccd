//! `/metrics` in the OpenMetrics text format. The alert rules and the dashboard in `ops/` use these names.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use learn::privacy::{ADJACENCY, TRUST, UNIT};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::engine::{DELTA, EngineError, RoundStatus, Status};
use crate::office::Office;
use crate::records::{Model, Rollout};
use crate::refusal_kinds::{RefusalKind, StrangeKind};

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
fn reasons(known: impl Iterator<Item = &'static str>) -> Family<Reason, Counter> {
    let counters = Family::<Reason, Counter>::default();
    for reason in known {
        drop(counters.get_or_create(&Reason { reason: reason.to_owned() }));
    }
    counters
}

/// Everything as it stands now; numbers that live in the database are read from there.
fn registry(office: &Office, status: &Status) -> Registry {
    let mut registry = Registry::with_prefix("aggregator");
    fleet(&mut registry, status);
    if let Some(newest) = status.models.last() {
        model(&mut registry, &newest.model, status.silent.is_some());
    }
    if let Some(newest) = status.rounds.last() {
        round(&mut registry, newest);
    }
    rounds(&mut registry, status);
    counters(&mut registry, office, status);
    registry
}

fn number(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Number::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn flag(truth: bool) -> f64 {
    f64::from(u8::from(truth))
}

fn fleet(registry: &mut Registry, status: &Status) {
    let mut number = |name, help: &str, value| number(registry, name, help, value);
    number("devices_enrolled", "Devices that may take part", status.enrolled as f64);
    let help = "Enrolled devices that are connected, as far as the first worker hears of them";
    number("devices_online", help, status.online.map_or(f64::NAN, |count| count as f64));
    number("devices_revoked", "Devices that were revoked", status.revoked as f64);
    number("database_bytes", "Bytes of the database's file", status.database_bytes as f64);
    number("workers", "Connections that should be up", status.workers as f64);
    number("workers_connected", "Connections that are up", status.workers_connected as f64);
    let help =
        "Subscriptions and messages that the broker's settings rule out on the connections at hand";
    number("broker_refused_now", help, status.broker_refused_now as f64);
    let failing = status.decisions_failing.is_some();
    number("decisions_failing", "Whether the last decision failed", flag(failing));
    if let Some(end) = status.certificate_end {
        let help = "When the certificate ends that the aggregator shows to the broker";
        number("certificate_end_timestamp_seconds", help, end as f64);
    }
    let help = format!(
        "Epsilon at delta {DELTA:e} of a device that was counted in every known round; unit: {UNIT}; adjacency: {ADJACENCY}; trust: \
         {TRUST}"
    );
    number("epsilon", &help, status.epsilon.unwrap_or(0.0));
    let help = "Rounds from before a restore, at most, that are not in the epsilon and may have cost budget as well";
    number("unknown_rounds", help, status.unknown_rounds as f64);
    let help = "Whether the database is older than what was announced with the fleet's key";
    number("database_old", help, flag(status.lost.is_some()));
}

fn model(registry: &mut Registry, model: &Model, is_silent: bool) {
    let mut number = |name, help, value| number(registry, name, help, value);
    number("model_version", "Newest model version", model.version as f64);
    number("model_failed", "Devices that reported trouble with it", model.failed as f64);
    let help = "Devices whose trial of it ended without a fault";
    number("model_installed", help, model.installed as f64);
    let stopped = matches!(model.rollout, Rollout::Stopped { .. });
    number("rollout_stopped", "Whether its roll-out was stopped", flag(stopped));
    let help =
        "Whether a stage is over and no device it has reached has reported that the version works";
    number("rollout_silent", help, flag(is_silent));
}

fn round(registry: &mut Registry, RoundStatus { round, tally, .. }: &RoundStatus) {
    let mut number = |name, help, value| number(registry, name, help, value);
    number("round", "Number of the newest round", round.id as f64);
    number("round_open", "Whether mirrors may still answer it", flag(round.is_open()));
    number("round_refused", "Whether its candidate was refused", flag(round.is_refused()));
    number("round_updates", "Updates counted in it", tally.counted as f64);
    number("round_minimum", "Updates it needs", round.task.minimum_cohort as f64);
    number("round_closes_timestamp_seconds", "When it closes", round.closes_at as f64);
    let score = |score: Option<f64>| score.unwrap_or(f64::NAN);
    number("round_score_before", "Holdout score of its base", score(round.score_before));
    number("round_score_after", "Holdout score of its candidate", score(round.score_after));
}

/// All rounds by phase, and what was refused by reason.
fn rounds(registry: &mut Registry, status: &Status) {
    let phases = Family::<Phase, Number>::default();
    let refused = reasons(RefusalKind::ALL.iter().map(|kind| kind.name()));
    for RoundStatus { round, tally, .. } in &status.rounds {
        phases.get_or_create(&Phase { phase: round.phase.name().to_owned() }).inc();
        for (reason, count) in &tally.refused {
            refused.get_or_create(&Reason { reason: reason.clone() }).inc_by(*count);
        }
    }
    registry.register("rounds", "Rounds by phase", phases);
    registry.register("refused", "Updates refused, by reason", refused);
}

fn counters(registry: &mut Registry, office: &Office, status: &Status) {
    let strange = reasons(StrangeKind::ALL.iter().map(|kind| kind.name()));
    for (kind, count) in office.strange.counts() {
        strange.get_or_create(&Reason { reason: kind.name().to_owned() }).inc_by(count);
    }
    let help = "Messages not understood, or not from whom they claimed, by what was wrong";
    registry.register("strange_messages", help, strange);
    let mut counter = |name: &str, help: &str, value: u64| {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    };
    let tallies = || status.rounds.iter().map(|round| &round.tally);
    counter("updates", "Updates counted", tallies().map(|tally| tally.counted).sum());
    counter("update_bytes", "Their bytes", tallies().map(|tally| tally.bytes).sum());
    let dropped = office.health.iter().map(|health| health.dropped.load(Ordering::SeqCst)).sum();
    counter("dropped_messages", "Outgoing messages that found no room", dropped);
    let help = "Subscriptions and messages that the broker refused";
    counter("broker_refused", help, status.broker_refused);
    let help = "Statements that another server has signed with this one's key and announced";
    counter("rival_statements", help, status.rival_statements);
    counter("receipts", "Receipts sent", office.receipts.load(Ordering::SeqCst));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Lost, Numbers};

    #[test]
    fn an_epsilon_is_told_with_what_it_holds_for_and_with_what_it_leaves_out() {
        let lost = Some(Lost(Numbers { round: 9, version: 3 }));
        let status = Status { epsilon: Some(3.5), unknown_rounds: 6, lost, ..Status::default() };
        let (mut registry, mut text) = (Registry::with_prefix("aggregator"), String::new());
        fleet(&mut registry, &status);
        encode(&mut text, &registry).unwrap();
        let help =
            text.lines().find(|line| line.starts_with("# HELP aggregator_epsilon ")).unwrap();
        let told = ["delta 1e-5", UNIT, ADJACENCY, TRUST];
        assert!(told.iter().all(|part| help.contains(part)), "{help}");
        for line in ["epsilon 3.5", "unknown_rounds 6.0", "database_old 1.0"] {
            assert!(text.contains(&format!("\naggregator_{line}\n")), "{text}");
        }
        let dashboard = include_str!("../../ops/dashboard.json");
        let told = [
            "aggregator_unknown_rounds",
            "household's device, over its lifetime",
            "zero-out",
            TRUST,
        ];
        assert!(told.iter().all(|part| dashboard.contains(part)));
    }

    #[test]
    fn every_known_reason_is_there_before_it_first_counts() {
        let mut registry = Registry::default();
        let known = || RefusalKind::ALL.iter().map(|kind| kind.name());
        registry.register("refused", "A test", reasons(known()));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for reason in known() {
            assert!(text.contains(&format!("refused_total{{reason=\"{reason}\"}} 0\n")), "{text}");
        }
    }
}
