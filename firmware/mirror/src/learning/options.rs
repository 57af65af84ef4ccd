//! The settings of learning at home, as the engine wants them.

use std::time::Duration;

use anyhow::Result;
use home::{Capability, HomeOptions, Limits, NightlyWindow, NoisePlan, Triggers};
use learn::head::TrainingSettings;
use learn::privacy::Budget;
use settings::{LearningSettings, Parameters};

const MEBIBYTE: u64 = 1 << 20;
const DAY: u64 = 86_400;

/// The settings in effect as learning wants them. A budget that no release fits is no error: it stops releases alone, see
/// [`HomeOptions::check_releases`].
///
/// # Errors
/// A setting that cannot work.
pub fn options(settings: &LearningSettings) -> Result<HomeOptions> {
    let (training, at_home) = match settings.parameters {
        Parameters::Full => (TrainingSettings::FULL, TrainingSettings::FULL),
        Parameters::Sparse => (TrainingSettings::SPARSE, TrainingSettings::SPARSE),
        Parameters::Auto => (TrainingSettings::SPARSE, TrainingSettings::FULL),
    };
    let passes = |training| TrainingSettings { epochs: settings.epochs, ..training };
    let noise = match settings.lifetime_releases {
        0 => {
            let text = settings.noise_multiplier.to_string();
            text.parse().map_or(NoisePlan::Unknown, NoisePlan::Multiplier)
        }
        releases => NoisePlan::Lifetime(releases),
    };
    let some = |count: u32| (count > 0).then_some(count);
    let nightly = some(settings.night_minutes)
        .map(|length| NightlyWindow { start: settings.night_start, length });
    let defaults = HomeOptions::default();
    let options = HomeOptions {
        limits: Limits {
            corrections: settings.corrections,
            bytes: settings.megabytes * MEBIBYTE,
            age: Duration::from_secs(settings.days * DAY),
            headroom: settings.free_megabytes * MEBIBYTE,
        },
        training: passes(training),
        at_home: passes(at_home),
        budget: Budget::new(settings.epsilon, settings.delta)?,
        noise,
        triggers: Triggers {
            corrections: some(settings.after_corrections),
            nightly,
            inferences: (settings.after_pictures > 0).then_some(settings.after_pictures),
        },
        capability: Capability {
            time_allowed: Duration::from_secs(settings.time_allowed_s),
            hottest: settings.hottest_celsius,
            busiest: settings.busiest,
            ..defaults.capability
        },
        ..defaults
    };
    options.check()?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use learn::head::Subset;
    use settings::Layers;

    fn from(text: &str) -> LearningSettings {
        let layers = Layers::defaults().and_then(|layers| layers.file("test", text));
        layers.and_then(Layers::finish).expect("valid settings").settings.learning
    }

    #[test]
    fn the_defaults_are_those_of_the_engine() {
        assert_eq!(options(&from("")).expect("a plan"), HomeOptions::default());
    }

    #[test]
    fn every_setting_of_privacy_and_retention_reaches_the_engine() {
        let budget = |epsilon, delta| Budget::new(epsilon, delta).expect("a target");
        let defaults = HomeOptions::default();
        let limits = defaults.limits;
        let options_with = |limits| HomeOptions { limits, ..defaults };
        let table = [
            ("epsilon = 9.5", HomeOptions { budget: budget(9.5, 1e-5), ..defaults }),
            ("delta = 1e-6", HomeOptions { budget: budget(8.0, 1e-6), ..defaults }),
            (
                "noise_multiplier = 2.5",
                HomeOptions {
                    noise: NoisePlan::Multiplier("2.5".parse().expect("a number")),
                    ..defaults
                },
            ),
            ("noise_multiplier = 1.2345678", HomeOptions { noise: NoisePlan::Unknown, ..defaults }),
            ("lifetime_releases = 5", HomeOptions { noise: NoisePlan::Lifetime(5), ..defaults }),
            ("days = 30", options_with(Limits { age: Duration::from_secs(30 * DAY), ..limits })),
            ("corrections = 12", options_with(Limits { corrections: 12, ..limits })),
            ("megabytes = 3", options_with(Limits { bytes: 3 << 20, ..limits })),
            ("free_megabytes = 5", options_with(Limits { headroom: 5 << 20, ..limits })),
        ];
        for (text, expected) in table {
            let options = options(&from(&format!("[learning]\n{text}"))).expect("usable");
            assert_eq!(options, expected, "{text}");
            assert_ne!(options, defaults, "{text}");
        }
    }

    #[test]
    fn all_of_the_head_is_trained_where_nothing_leaves() {
        let trained = |text: &str| {
            let options = options(&from(text)).expect("a plan");
            [options.training, options.at_home].map(|training| (training.subset, training.epochs))
        };
        let (sparse, full) = ((Subset::Sparse, 3), (Subset::Full, 3));
        assert_eq!(trained(""), [sparse, full]);
        assert_eq!(trained("[learning]\nparameters = \"sparse\""), [sparse, sparse]);
        assert_eq!(trained("[learning]\nparameters = \"full\""), [full, full]);
        assert_eq!(trained("[learning]\nepochs = 5"), [(Subset::Sparse, 5), (Subset::Full, 5)]);
    }

    #[test]
    fn zero_means_not_by_this_trigger() {
        let text = "[learning]\nafter_corrections = 0\nnight_minutes = 0\nafter_pictures = 10";
        let triggers = options(&from(text)).expect("a plan").triggers;
        assert_eq!((triggers.corrections, triggers.nightly), (None, None));
        assert_eq!(triggers.inferences, Some(10));
    }

    #[test]
    fn a_lifetime_plan_raises_the_noise() {
        let options = options(&from("[learning]\nlifetime_releases = 12")).expect("a plan");
        assert_eq!(options.noise_multiplier().expect("a plan").as_f64(), 2.0793);
    }
}
