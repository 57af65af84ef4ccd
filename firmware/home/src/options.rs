//! What a household, a board or an operator may set.

use std::time::Duration;

use learn::head::{Subset, TrainingSettings};
use learn::outbox::OutboxLimits;
use learn::privacy::sampler::DiscreteGaussian;
use learn::privacy::{Budget, CLIP_STEPS, Composition, NoiseMultiplier, plan};
use serde::{Deserialize, Serialize};

use crate::error::HomeError;
use crate::retention::GRACE;

/// More releases than this no device makes: a person needs the number only while it is small.
const MOST_RELEASES: u64 = 1000;

/// What people set the noise by.
const NOISE_KEY: &str = "learning.noise_multiplier";
const LIFETIME_KEY: &str = "learning.lifetime_releases";

/// How much may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Corrections at most.
    pub corrections: usize,
    /// Bytes of all corrections at most, sealed.
    pub bytes: u64,
    /// A correction is deleted at this age.
    pub age: Duration,
    /// Bytes of the disk that stay free.
    pub headroom: u64,
}

impl Default for Limits {
    /// 200 corrections (40 MB), half a year, 64 MiB left free.
    fn default() -> Limits {
        Limits {
            corrections: 200,
            bytes: 64 << 20,
            age: Duration::from_secs(180 * 86_400),
            headroom: 64 << 20,
        }
    }
}

/// How much noise a release carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NoisePlan {
    /// This noise multiplier; the budget decides how many releases there are.
    Multiplier(NoiseMultiplier),
    /// So much noise that the budget lasts for this many releases in the device's life.
    Lifetime(u64),
    /// Noise that was asked for and that no ledger can account for: nothing is released.
    Unknown,
}

/// A time of night, and a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NightlyWindow {
    /// Minutes after midnight UTC, below 1440.
    pub start: u32,
    /// Minutes, 1 to 1440. Each night's moment is drawn at random within.
    pub length: u32,
}

/// What starts an update. A run starts only when something is new, and a release only when it fits the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Triggers {
    /// After so many new corrections; `None`: not by number.
    pub corrections: Option<u32>,
    /// Once a night, or at any hour where a correction has waited for longer than until the next night; `None`: not by time.
    pub nightly: Option<NightlyWindow>,
    /// After so many parsed pictures; `None`: not by use.
    pub inferences: Option<u64>,
}

impl Default for Triggers {
    /// Ten new corrections, or a moment between one and four at night.
    fn default() -> Triggers {
        Triggers {
            corrections: Some(10),
            nightly: Some(NightlyWindow { start: 60, length: 180 }),
            inferences: None,
        }
    }
}

/// When a device may train, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Capability {
    /// Computing time that a run's steps are planned for on a cool, idle device on power, by how long steps took before; judging comes on
    /// top.
    pub time_allowed: Duration,
    /// Celsius at which training stops; it goes on 5 degrees below.
    pub hottest: f32,
    /// Celsius below `hottest` at which the share of work begins to sink.
    pub margin: f32,
    /// Share of the processor taken by others (0 to 1) at which training stops; it goes on at three quarters of that.
    pub busiest: f32,
}

impl Default for Capability {
    fn default() -> Capability {
        Capability {
            time_allowed: Duration::from_secs(900),
            hottest: 70.0,
            margin: 15.0,
            busiest: 0.8,
        }
    }
}

/// Everything that can be set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HomeOptions {
    /// Limits of the store.
    pub limits: Limits,
    /// Limits of the outbox.
    pub outbox: OutboxLimits,
    /// Which parameters move, how often and how far in a run whose change may be released; see [`TrainingSettings::SPARSE`] and
    /// [`TrainingSettings::FULL`].
    pub training: TrainingSettings,
    /// What [`HomeOptions::training`] is, for a household that did not agree to contribute: nothing of such a run leaves, so it may move
    /// more.
    pub at_home: TrainingSettings,
    /// Whether the mirror belongs to a fleet: without one no update is made, whatever was agreed to.
    pub member: bool,
    /// The device's privacy target over its life.
    pub budget: Budget,
    /// Noise of a release.
    pub noise: NoisePlan,
    /// What starts an update.
    pub triggers: Triggers,
    /// When and how long.
    pub capability: Capability,
}

impl Default for HomeOptions {
    fn default() -> HomeOptions {
        HomeOptions {
            limits: Limits::default(),
            outbox: OutboxLimits::default(),
            training: TrainingSettings::SPARSE,
            at_home: TrainingSettings::FULL,
            member: true,
            budget: Budget::DEFAULT,
            noise: NoisePlan::Multiplier(NoiseMultiplier::DEFAULT),
            triggers: Triggers::default(),
            capability: Capability::default(),
        }
    }
}

impl HomeOptions {
    /// The noise multiplier of a release.
    ///
    /// # Errors
    /// [`HomeError::Options`] naming the setting where no noise is known, it cannot be sampled, or none makes a lifetime plan fit
    /// the budget.
    pub fn noise_multiplier(&self) -> Result<NoiseMultiplier, HomeError> {
        let refuse = |key, reason| Err(HomeError::Options { key, reason });
        match self.noise {
            NoisePlan::Multiplier(multiplier) => {
                match DiscreteGaussian::for_clip(multiplier, CLIP_STEPS) {
                    Ok(_) => Ok(multiplier),
                    Err(error) => refuse(NOISE_KEY, error.to_string()),
                }
            }
            NoisePlan::Lifetime(releases) if releases > MOST_RELEASES => {
                let reason = "at most 1000 releases in a device's life can be planned";
                refuse(LIFETIME_KEY, reason.to_owned())
            }
            NoisePlan::Lifetime(releases) => plan(&self.budget, releases)
                .or_else(|error| refuse(LIFETIME_KEY, error.to_string())),
            NoisePlan::Unknown => {
                refuse(NOISE_KEY, "it must be a number with at most six decimals".to_owned())
            }
        }
    }

    /// How many releases the device makes in its life at most: what people are told, and what the ledger holds to whatever
    /// noise a fleet asks for. None where [`HomeOptions::check_releases`] says why.
    pub fn most_releases(&self) -> u64 {
        let Ok(z) = self.noise_multiplier() else { return 0 };
        let fits = |count: u64| {
            let mut composition = Composition::new();
            composition.add(z, count);
            composition.fits(&self.budget)
        };
        let fitting = (1..=MOST_RELEASES).take_while(|&count| fits(count)).count() as u64;
        match self.noise {
            // Where the budget is large the least noise that there is lets more fit than were asked for.
            NoisePlan::Lifetime(releases) => fitting.min(releases),
            NoisePlan::Multiplier(_) | NoisePlan::Unknown => fitting,
        }
    }

    /// Whether a release can ever be made with these settings. Where none can, everything else goes on.
    ///
    /// # Errors
    /// [`HomeError::Options`] naming the setting and the next step.
    pub fn check_releases(&self) -> Result<(), HomeError> {
        let z = self.noise_multiplier()?;
        if self.most_releases() > 0 {
            return Ok(());
        }
        let (epsilon, delta) = (self.budget.epsilon(), self.budget.delta());
        let least = plan(&self.budget, 1).map_or_else(
            |_| String::new(),
            |least| format!("{NOISE_KEY} to at least {least}, or "),
        );
        let reason = format!(
            "noise of {z} spends more than epsilon {epsilon} at delta {delta:e} with the first release; set {least}a larger \
             learning.epsilon"
        );
        Err(HomeError::Options { key: NOISE_KEY, reason })
    }

    /// Which parameters move in an update, in a word.
    pub(crate) fn subset_name(&self) -> &'static str {
        match self.training.subset {
            Subset::Sparse => "sparse",
            Subset::Full => "full",
        }
    }

    /// Refuses what cannot work, naming the setting. A budget that no release fits is no such thing; see
    /// [`HomeOptions::check_releases`].
    ///
    /// # Errors
    /// [`HomeError::Options`] naming the setting.
    pub fn check(&self) -> Result<(), HomeError> {
        let refuse = |key, reason: &str| Err(HomeError::Options { key, reason: reason.to_owned() });
        for TrainingSettings { epochs, learning_rate, .. } in [self.training, self.at_home] {
            if epochs == 0 || epochs > 100 {
                return refuse("training.epochs", "between 1 and 100 passes make sense");
            }
            if !(learning_rate.is_finite() && learning_rate > 0.0) {
                return refuse("training.learning_rate", "it must be a positive number");
            }
        }
        let fits =
            |window: NightlyWindow| window.start < 1440 && (1..=1440).contains(&window.length);
        if !self.triggers.nightly.is_none_or(fits) {
            return refuse("triggers.nightly", "start is below 1440 and length 1 to 1440 minutes");
        }
        if self.triggers.corrections == Some(0) || self.triggers.inferences == Some(0) {
            return refuse("triggers", "a number of corrections or inferences is at least 1");
        }
        if self.limits.corrections == 0 || self.limits.corrections > 100_000 {
            return refuse("limits.corrections", "between 1 and 100000 corrections can be kept");
        }
        if self.limits.age < GRACE {
            return refuse(
                "limits.age",
                "at least 7 days: a date deletes nothing before it has held for so long",
            );
        }
        Ok(())
    }
}
