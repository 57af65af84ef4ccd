//! Training: what starts it, the thread that serves it, a run's steps, and the judgement at its end.

mod judge;
mod run;
mod serve;
mod triggers;

use std::sync::MutexGuard;
use std::time::Duration;

use learn::consent::ConsentError;
use learn::edges::Timestamp;
use serde::{Deserialize, Serialize};

use crate::consents::Contribution;
use crate::error::{HomeError, for_journal};
use crate::hold::hold;
use crate::home::Home;
use crate::household::Household;
use crate::schedule::Pause;
use crate::state::State;

pub(crate) use judge::judge;
pub use run::Outcome;
pub(crate) use run::{CHECKPOINT_NAME, RunPlan};
pub use serve::lowest_priority;
pub(crate) use triggers::Night;

/// Weight of the newest measurement in the running average of an example's time.
const NEWEST_SHARE: f64 = 0.2;

/// What training is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "reason")]
pub enum TrainingState {
    /// Nothing to do.
    #[default]
    Idle,
    /// Working.
    Running,
    /// Held up.
    Waiting(Pause),
    /// Judging the result.
    Judging,
}

/// For the page.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TrainingStatus {
    /// What it is doing.
    #[serde(flatten)]
    pub state: TrainingState,
    /// Steps done of the run under way.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
    /// Corrections saved since the last run ended.
    pub new_corrections: u32,
    /// Measured time of one example.
    pub example_milliseconds: Option<f64>,
    /// The last run that ended.
    pub last: Option<RunReport>,
    /// Why training, or deleting what is too old, failed when it was last tried; it is tried again.
    pub trouble: Option<String>,
}

/// How a run ended. Stays on this device: every number of it depends on the household's data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunReport {
    /// When, by the device's clock.
    pub ended_at: Timestamp,
    /// Corrections trained on.
    pub examples: usize,
    /// Passes over them.
    pub epochs: u32,
    /// Corrections judged on.
    pub judged: usize,
    /// Mean IoU on the judged corrections before the run, 0 to 1; `None` where there were none. Where nobody painted, a correction says
    /// what the head in use said when it was made: the head before is flattered by that.
    pub before: Option<f64>,
    /// Mean IoU on the judged corrections after the run, 0 to 1; `None` where there were none.
    pub after: Option<f64>,
    /// Whether the trained head is in use now.
    pub adopted: bool,
    /// Mean loss of the run's first and last pass; `None` for one that was done before an interruption, or that had none.
    pub loss: [Option<f32>; 2],
}

impl Household {
    /// What training is doing.
    pub fn training(&self) -> TrainingStatus {
        let (new_corrections, example_milliseconds, last) = {
            let shared = self.lock();
            let State { learnt_up_to, example_milliseconds, report, .. } = &shared.state;
            let new = shared.corrections.count_from(*learnt_up_to);
            (new, *example_milliseconds, report.clone())
        };
        let status = self.status().clone();
        let example_milliseconds = status.example_milliseconds.or(example_milliseconds);
        TrainingStatus { new_corrections, example_milliseconds, last, ..status }
    }

    fn status(&self) -> MutexGuard<'_, TrainingStatus> {
        hold(&self.status)
    }
}

impl Home {
    /// Whether an update of a run that ends now may still leave.
    fn contributes(&self) -> bool {
        self.contribution() == Contribution::On
    }

    /// For the page, and for the journal once: what fails is tried again every minute. A withdrawal that is not stored has a
    /// notice of its own, and stops no training.
    fn tell(&self, error: &HomeError) {
        if matches!(error, HomeError::Consent(ConsentError::Unstored(_))) {
            return;
        }
        let trouble = Some(error.to_string());
        let mut status = self.status();
        if status.trouble != trouble {
            tracing::warn!(error = %for_journal(error), "learning at home");
            status.trouble = trouble;
        }
    }

    fn measure(&self, took: Duration) {
        let milliseconds = took.as_secs_f64() * 1e3;
        let mut status = self.status();
        let average = status.example_milliseconds.unwrap_or(milliseconds);
        status.example_milliseconds = Some(average + NEWEST_SHARE * (milliseconds - average));
    }

    fn show(&self, state: TrainingState, done: u64, total: u64) {
        let mut status = self.status();
        (status.state, status.done, status.total) = (state, done, total);
    }

    /// Idle. A trouble stays told until what failed succeeds.
    fn show_nothing(&self) {
        let mut status = self.status();
        let trouble = status.trouble.take();
        *status = TrainingStatus { trouble, ..TrainingStatus::default() };
    }
}
