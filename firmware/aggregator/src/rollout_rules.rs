//! How a model version spreads: to more and more devices, and no further once too many devices report trouble.

use proto::ids::is_name;
use serde::{Deserialize, Serialize};

use crate::records::{Model, Rollout};

/// Whom a stage adds to those before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Stage {
    /// So many of a thousand devices; which ones is another draw for every version.
    Permille(u16),
    /// The devices that were enrolled into this group.
    Group(String),
}

/// Whether a group may be called so: 1 to 64 of a-z, 0-9 and '-', as devices are.
pub fn is_group(name: &str) -> bool {
    is_name(name, 64)
}

/// When to go on and when to stop.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutRules {
    /// Who has a version, stage by stage. The last one is everybody.
    pub stages: Vec<Stage>,
    /// Seconds of a stage.
    pub stage_seconds: u64,
    /// Reports before the share of failures stops it within a stage. At a stage's end all that there are count.
    pub minimum_reports: u64,
    /// Failed reports without which it goes on, whatever their share: one mirror of a few may have
    /// a full disk.
    pub minimum_failures: u64,
    /// Share of failed reports, 0 to 1, above which the roll-out stops.
    pub error_threshold: f64,
}

impl RolloutRules {
    /// How many of a thousand devices have a version in stage `stage`, counted from 0.
    pub fn permille(&self, stage: usize) -> u16 {
        let reached = self.stages.iter().take(stage.saturating_add(1));
        let parts = reached.filter_map(|stage| match stage {
            Stage::Permille(permille) => Some(*permille),
            Stage::Group(_) => None,
        });
        if stage >= self.stages.len() { 1000 } else { parts.max().unwrap_or(0) }
    }

    /// The groups that have it then.
    pub fn groups(&self, stage: usize) -> Vec<&str> {
        let reached = self.stages.iter().take(stage.saturating_add(1));
        let named = reached.filter_map(|stage| match stage {
            Stage::Group(name) => Some(name.as_str()),
            Stage::Permille(_) => None,
        });
        named.collect()
    }

    /// The stages of groups in which no report can stop a version, each with the number of devices that it has reached by
    /// then, of a fleet whose enrolled devices are in `groups`: fewer than `minimum_failures`. Of devices in no group as many
    /// are reached as the parts of a thousand say on average.
    pub fn blind_stages(&self, groups: &[Option<String>]) -> Vec<(&str, u64)> {
        let reached = |stage| {
            let names = self.groups(stage);
            let is_in = |group: &&Option<String>| {
                group.as_deref().is_some_and(|group| names.contains(&group))
            };
            let members = groups.iter().filter(is_in).count() as u64;
            members + (groups.len() as u64 - members) * u64::from(self.permille(stage)) / 1000
        };
        let blind = self.stages.iter().enumerate().filter_map(|(number, stage)| match stage {
            Stage::Group(name) => Some((name.as_str(), reached(number))),
            Stage::Permille(_) => None,
        });
        blind.filter(|(_, reached)| *reached < self.minimum_failures).collect()
    }
}

/// What has to happen to a version that is being rolled out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing now.
    None,
    /// The stage's time is over, and no device that it has reached has said that the version works: it waits for a first one.
    Hold,
    /// The next stage begins.
    Advance,
    /// Every device has it and had time to complain.
    Complete,
    /// It stops, for this reason.
    Stop(String),
}

/// Where a roll-out stands, beyond the model's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// Seconds since 1970.
    pub now: u64,
    /// Whether more devices may get it at all.
    pub goes_on: bool,
    /// Whether it has reached any device that may take part. Of no matter before its stage [`is_due`], nor with a report that the
    /// version works.
    pub has_reached_any: bool,
}

/// Whether the stage at hand has had its time.
pub fn is_due(model: &Model, rules: &RolloutRules, now: u64) -> bool {
    let Rollout::Running { since, .. } = model.rollout else { return false };
    now >= since.saturating_add(rules.stage_seconds)
}

/// Decides by the reports so far.
///
/// A stage that has reached devices ends only once one of them has said that the version works. Silent devices may be switched
/// off, or have a version that ends them before they can speak: which of the two, nobody can tell from here.
pub fn decide(model: &Model, rules: &RolloutRules, situation: Situation) -> Change {
    let Situation { now, goes_on, has_reached_any } = situation;
    let Rollout::Running { stage, .. } = model.rollout else { return Change::None };
    let reports = model.installed + model.failed;
    let share = model.failed as f64 / reports.max(1) as f64;
    let is_over = goes_on && is_due(model, rules, now);
    let is_trouble = model.failed >= rules.minimum_failures && share > rules.error_threshold;
    // A group may be smaller than the reports that are wanted; nothing goes on over the trouble of all who did report.
    if is_trouble && (reports >= rules.minimum_reports || is_over) {
        return Change::Stop(format!(
            "{} of {reports} devices reported trouble, a larger share than rollout.error_threshold = {}",
            model.failed, rules.error_threshold
        ));
    }
    if !is_over {
        Change::None
    } else if has_reached_any && model.installed == 0 {
        Change::Hold
    } else if stage + 1 < rules.stages.len() {
        Change::Advance
    } else {
        Change::Complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> RolloutRules {
        RolloutRules {
            stages: vec![Stage::Permille(100), Stage::Permille(1000)],
            stage_seconds: 60,
            minimum_reports: 4,
            minimum_failures: 2,
            error_threshold: 0.25,
        }
    }

    fn model(stage: usize, installed: u64, failed: u64) -> Model {
        Model {
            version: 2,
            parameters: String::new(),
            origin: String::new(),
            created_at: 0,
            score: None,
            rollout: Rollout::Running { stage, since: 100 },
            installed,
            failed,
        }
    }

    /// In a fleet whose devices it has reached.
    fn at(now: u64, goes_on: bool) -> Situation {
        Situation { now, goes_on, has_reached_any: true }
    }

    fn decision(stage: usize, installed: u64, failed: u64, now: u64) -> Change {
        decide(&model(stage, installed, failed), &rules(), at(now, true))
    }

    #[test]
    fn groups_come_beside_the_parts_of_a_thousand() {
        let stages = r#"["pilot", 20, "staff", 1000]"#;
        let rules = RolloutRules { stages: serde_json::from_str(stages).unwrap(), ..rules() };
        let reached = |stage| (rules.permille(stage), rules.groups(stage));
        assert_eq!(reached(0), (0, vec!["pilot"]));
        assert_eq!(reached(1), (20, vec!["pilot"]));
        assert_eq!(reached(2), (20, vec!["pilot", "staff"]));
        assert_eq!((rules.permille(3), rules.permille(9)), (1000, 1000));
    }

    #[test]
    fn stages_follow_each_other_in_time() {
        assert_eq!(decision(0, 3, 0, 159), Change::None);
        assert_eq!(decision(0, 3, 0, 160), Change::Advance);
        assert_eq!(decision(1, 9, 0, 160), Change::Complete);
        assert_eq!(decide(&model(0, 9, 0), &rules(), at(u64::MAX, false)), Change::None);
        assert!(matches!(decide(&model(0, 0, 4), &rules(), at(110, false)), Change::Stop(_)));
    }

    #[test]
    fn silence_is_no_success() {
        for stage in [0, 1] {
            assert_eq!(decision(stage, 0, 0, u64::MAX), Change::Hold, "devices were reached");
        }
        assert_eq!(decision(0, 0, 0, 159), Change::None, "its time is not over");
        assert_eq!(decision(0, 1, 0, 160), Change::Advance, "one has said that it works");
        let nobody = Situation { has_reached_any: false, ..at(160, true) };
        assert_eq!(decide(&model(0, 0, 0), &rules(), nobody), Change::Advance);
        assert_eq!(decide(&model(1, 0, 0), &rules(), nobody), Change::Complete);
    }

    #[test]
    fn trouble_stops_it_at_once_but_not_on_a_single_report() {
        assert_eq!(decision(0, 0, 1, 110), Change::None);
        assert_eq!(decision(0, 6, 2, 110), Change::None, "exactly the threshold is not above it");
        let strict = RolloutRules { error_threshold: 0.1, ..rules() };
        let among_five = |failed| decide(&model(0, 5 - failed, failed), &strict, at(110, true));
        assert_eq!(among_five(1), Change::None, "one of five may be at fault itself");
        assert!(matches!(among_five(2), Change::Stop(_)));
        let Change::Stop(reason) = decision(0, 2, 2, 110) else { panic!("it goes on") };
        assert!(reason.contains("2 of 4 devices"), "{reason}");
        // The setting as it is: rounded to whole percents it could be 0, or the share that was reported.
        let low = RolloutRules { error_threshold: 0.0475, ..rules() };
        let Change::Stop(reason) = decide(&model(0, 38, 2), &low, at(110, true)) else {
            panic!("it goes on")
        };
        assert!(reason.contains("2 of 40 devices") && reason.ends_with(" 0.0475"), "{reason}");
    }

    #[test]
    fn no_stage_goes_on_over_the_trouble_of_a_few() {
        for stage in [0, 1] {
            assert_eq!(decision(stage, 0, 3, 159), Change::None, "others may still report");
            let Change::Stop(reason) = decision(stage, 0, 3, 160) else { panic!("it goes on") };
            assert!(reason.contains("3 of 3 devices"), "{reason}");
        }
        assert_eq!(decision(0, 0, 1, 160), Change::Hold, "one may be at fault itself");
        assert_eq!(decision(0, 1, 1, 160), Change::Advance);
        assert_eq!(decide(&model(0, 0, 3), &rules(), at(u64::MAX, false)), Change::None);
    }

    #[test]
    fn stages_that_no_report_can_stop_are_known() {
        let stages = r#"["pilot", 20, "staff", 1000]"#;
        let rules = RolloutRules { stages: serde_json::from_str(stages).unwrap(), ..rules() };
        let mut groups = vec![Some("pilot".to_owned()), Some("elsewhere".to_owned())];
        assert_eq!(rules.blind_stages(&groups), [("pilot", 1), ("staff", 1)]);
        groups.push(Some("staff".to_owned()));
        assert_eq!(rules.blind_stages(&groups), [("pilot", 1)]);
        groups.push(Some("pilot".to_owned()));
        assert!(rules.blind_stages(&groups).is_empty());
        groups.truncate(1);
        groups.resize(101, None);
        assert_eq!(rules.blind_stages(&groups), [("pilot", 1)], "20 of 1000 are two of these");
    }
}
