//! Records of the fleet in words, a line each.

use anyhow::{Context, Result};
use proto::signing::KeyRing;
use proto::status::JobFault;

use crate::control::Listed;
use crate::date::utc;
use crate::engine::{Failure, ModelStatus, RoundStatus, Status};
use crate::records::{Device, Phase, Rollout, Standing};
use crate::verify::Verified;

/// A round, with its hours while it is open.
pub fn round_line(status: &RoundStatus) -> String {
    let RoundStatus { round, tally, counted_cosine } = status;
    let counted = counted_cosine.map(|cosine| format!(", {cosine:.3} of those counted"));
    let end = match &round.phase {
        Phase::Aborted { reason } => format!(": {reason}"),
        Phase::Published { version } => format!(" as version {version}"),
        _ => String::new(),
    };
    let score = match (round.score_before, round.score_after) {
        (Some(before), Some(after)) => format!(", holdout {before:.4} -> {after:.4}"),
        _ => String::new(),
    };
    let times = match round.phase {
        Phase::Announced => {
            format!(", open from {} to {} UTC", utc(round.opens_at), utc(round.closes_at))
        }
        // An outage puts its opening off as well, so its record does not say when it opened.
        Phase::Collecting => format!(", open until {} UTC", utc(round.closes_at)),
        _ => String::new(),
    };
    format!(
        "round {} on version {}: {}{times}{end}; {} updates, {} bytes, {} refused{score}; expected \
         cosine {:.3} of all devices{}{}",
        round.id,
        round.task.base_version,
        round.phase.name(),
        tally.counted,
        tally.bytes,
        tally.refused.values().sum::<u64>(),
        round.expected_cosine,
        counted.unwrap_or_default(),
        if round.forced { ", forced" } else { "" },
    )
}

/// A version and how it stands.
pub fn model_line(ModelStatus { model, standing }: &ModelStatus) -> String {
    let since = match model.rollout {
        Rollout::Running { since, .. } => format!("; the stage began {} UTC", utc(since)),
        _ => String::new(),
    };
    format!(
        "version {} ({}): {standing}{since}; {} installed, {} failed",
        model.version, model.origin, model.installed, model.failed
    )
}

/// A mirror that a version failed on.
pub fn failure_line(failure: &Failure) -> String {
    let how = match failure.fault {
        Some(JobFault::Content) => "its bytes contradict its manifest",
        Some(JobFault::Base) => "it belongs to another network than the mirror's",
        Some(JobFault::Unusable) => "it cannot be loaded or run",
        Some(JobFault::PublicCheck) => {
            "it is worse on the public check than its predecessor or the shipped model"
        }
        Some(JobFault::Storage) => {
            "the mirror has no room, or its disk or its own network fails; it tries again"
        }
        None => "how was not noted",
    };
    format!("failed on {}: {how}", failure.device)
}

/// A device of the list, with whether it is connected where a server knows.
pub fn listed_line(known: &Listed) -> String {
    device_line(&known.device, &presence_words(known))
}

/// Nothing where no server knows.
fn presence_words(known: &Listed) -> String {
    match (known.online, &known.firmware) {
        (Some(true), Some(firmware)) => format!(", online, firmware {firmware}"),
        (Some(true), None) => ", online".to_owned(),
        (Some(false), _) => ", offline".to_owned(),
        (None, _) => String::new(),
    }
}

/// A device; `there` says whether it is connected.
pub fn device_line(device: &Device, there: &str) -> String {
    let standing = match &device.standing {
        Standing::Enrolled => "enrolled".to_owned(),
        Standing::Revoked { reason } => format!("revoked: {reason}"),
    };
    let group = device.group.as_ref().map(|group| format!(", group {group}")).unwrap_or_default();
    format!("{} {standing}{there}{group}; certificate {}", device.name, device.fingerprint)
}

/// What was verified, over two lines.
pub fn verified_lines(verified: &Verified) -> String {
    format!(
        "{} entries hold; {} rounds with {} updates averaged again; {} models have their digests; of {} rounds the \
         names are forgotten, as the log says\nlast hash {}",
        verified.entries,
        verified.rounds,
        verified.updates,
        verified.models,
        verified.pruned,
        verified.head
    )
}

/// The name of the fleet's key in what mirrors say.
///
/// # Errors
/// A text that is no public key.
pub fn key_line(public_key: &str) -> Result<String> {
    let keys = KeyRing::from_text(public_key).context("the public key")?;
    Ok(format!("signing key: {keys}, as mirrors name it"))
}

/// How a running server does, of which nothing is known where none runs; and whether its database is an old one.
pub fn server_lines(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    if status.workers > 0 {
        let (up, all) = (status.workers_connected, status.workers);
        lines.push(format!("broker: {up} of {all} connections are up"));
    }
    if let Some(end) = status.certificate_end {
        lines.push(format!("certificate: ends {} UTC", utc(end)));
    }
    if status.broker_refused_now > 0 {
        let count = status.broker_refused_now;
        lines.push(format!("broker: {count} subscriptions or messages refused; the log says why"));
    }
    if status.rival_statements > 0 {
        lines.push(
            "another server announces with this fleet's key, and mirrors take only one of the two for newer; stop one of them, and \
             start the other one anew"
                .to_owned(),
        );
    }
    lines.extend(status.lost.map(|lost| lost.to_string()));
    if let Some(reason) = &status.decisions_failing {
        lines.push(format!("a decision fails, and is tried again every second: {reason}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Lost, Numbers};
    use crate::records::{Model, Round, Tally};

    #[test]
    fn the_key_is_named_as_mirrors_name_it() {
        // The first key of RFC 8032, and the beginning of its SHA-256.
        let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let line = key_line(key).unwrap();
        assert!(line.starts_with("signing key: 21fe31dfa154a261,"), "{line}");
    }

    #[test]
    fn a_version_on_its_way_is_listed_with_the_time_at_which_its_stage_began() {
        let model = |rollout| Model {
            version: 2,
            parameters: String::new(),
            origin: "round 1".into(),
            created_at: 0,
            score: None,
            rollout,
            installed: 3,
            failed: 0,
        };
        let line =
            |rollout| model_line(&ModelStatus { model: model(rollout), standing: "S".into() });
        let running = line(Rollout::Running { stage: 0, since: 86_400 });
        let wanted =
            "version 2 (round 1): S; the stage began 1970-01-02 00:00 UTC; 3 installed, 0 failed";
        assert_eq!(running, wanted);
        assert_eq!(line(Rollout::Complete), "version 2 (round 1): S; 3 installed, 0 failed");
    }

    fn status_of_round(phase: Phase) -> RoundStatus {
        let round = Round { phase, ..Round::example() };
        RoundStatus { round, tally: Tally::default(), counted_cosine: None }
    }

    #[test]
    fn a_round_is_listed_with_its_hours_and_one_that_is_open_with_its_end() {
        let line = |phase| round_line(&status_of_round(phase));
        let announced = line(Phase::Announced);
        assert!(
            announced.contains("announced, open from 1970-01-01 00:18 to 1970-01-01 00:20 UTC;"),
            "{announced}"
        );
        let collecting = line(Phase::Collecting);
        assert!(
            collecting.contains("collecting, open until 1970-01-01 00:20 UTC;"),
            "{collecting}"
        );
        assert!(!line(Phase::Closed).contains("UTC"));
    }

    #[test]
    fn what_the_broker_refused_before_it_was_mended_is_no_trouble() {
        let status =
            |now| Status { broker_refused: 7, broker_refused_now: now, ..Status::default() };
        assert!(server_lines(&status(0)).is_empty());
        assert!(server_lines(&status(2))[0].contains("2 subscriptions or messages refused"));
    }

    #[test]
    fn an_old_database_is_told_of_with_the_numbers_to_restore_above() {
        let lost = Some(Lost(Numbers { round: 9, version: 3 }));
        let lines = server_lines(&Status { lost, ..Status::default() });
        assert!(lines[0].contains("restore --rounds-above 9 --versions-above 3"), "{lines:?}");
    }

    #[test]
    fn a_decision_that_fails_is_told_of_with_its_reason_and_not_as_if_nothing_went_on() {
        let status = Status { decisions_failing: Some("why".into()), ..Status::default() };
        let wanted = "a decision fails, and is tried again every second: why";
        assert_eq!(server_lines(&status), [wanted]);
    }

    #[test]
    fn the_end_of_a_certificate_is_said_where_there_is_one() {
        let status = Status { certificate_end: Some(2_111_404_423), ..Status::default() };
        assert_eq!(server_lines(&status), ["certificate: ends 2036-11-27 13:13 UTC"]);
    }
}
