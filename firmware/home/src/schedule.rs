//! Whether a device may train now, how much work fits, and what starts it. Arithmetic only.

use std::time::Duration;

use serde::Serialize;

use crate::options::{Capability, NightlyWindow};

/// How the device is doing, as its owner's program knows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Conditions {
    /// Somebody is in front of the mirror, or was a moment ago.
    pub person_present: bool,
    /// Hottest sensor in degrees Celsius; `None` where there is none.
    pub celsius: Option<f32>,
    /// Mains and not a battery.
    pub on_power: bool,
    /// Share of the processor that others use, 0 to 1.
    pub busy: f32,
}

impl Conditions {
    /// Nobody there, cool, on power, idle.
    pub const IDLE: Conditions =
        Conditions { person_present: false, celsius: None, on_power: true, busy: 0.0 };
}

/// Tells how the device is doing. Asked before every example.
pub trait Gate: Send + Sync {
    /// Now.
    fn conditions(&self) -> Conditions;
}

/// Why training waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pause {
    /// Somebody is in front of the mirror.
    PersonPresent,
    /// The device is hot.
    Hot,
    /// The device runs on its battery.
    OnBattery,
    /// The processor is needed elsewhere.
    Busy,
}

impl std::fmt::Display for Pause {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Pause::PersonPresent => "somebody is in front of the mirror",
            Pause::Hot => "the mirror is too warm",
            Pause::OnBattery => "the mirror runs on its battery",
            Pause::Busy => "the mirror is busy",
        })
    }
}

/// Degrees below the hottest at which training goes on; without them it would flutter.
const COOLER: f32 = 5.0;

/// What an example is taken to need before one was measured: a careful guess for a slow board.
const UNMEASURED: Duration = Duration::from_secs(1);

/// Part of the busiest share below which training goes on.
const CALMER: f32 = 0.75;

impl Capability {
    /// Why training has to wait, if it has to, where it waited for `before` until then: heat and load have to sink below their limits
    /// before it goes on.
    pub fn pause(&self, now: &Conditions, before: Option<Pause>) -> Option<Pause> {
        let hottest = if before == Some(Pause::Hot) { self.hottest - COOLER } else { self.hottest };
        let busiest =
            if before == Some(Pause::Busy) { self.busiest * CALMER } else { self.busiest };
        let hot = now.celsius.is_some_and(|celsius| celsius >= hottest);
        [
            (now.person_present, Pause::PersonPresent),
            (hot, Pause::Hot),
            (!now.on_power, Pause::OnBattery),
            (now.busy >= busiest, Pause::Busy),
        ]
        .into_iter()
        .find_map(|(holds, pause)| holds.then_some(pause))
    }

    /// Share of the allowed time that the device takes on now, 0 to 1: less when warm or busy, none when it must wait.
    pub fn share(&self, now: &Conditions) -> f32 {
        if self.pause(now, None).is_some() {
            return 0.0;
        }
        let cool = now.celsius.map_or(1.0, |celsius| {
            ((self.hottest - celsius) / self.margin.max(f32::MIN_POSITIVE)).clamp(0.0, 1.0)
        });
        cool * (1.0 - now.busy.clamp(0.0, 1.0))
    }

    /// How many of `available` examples, and how many of `epochs` passes, fit the time allowed now, when one example
    /// takes `per_example`; `None` before one was measured. Examples come before epochs; at least one of each while the device may train
    /// at all.
    pub fn plan(
        &self,
        now: &Conditions,
        per_example: Option<Duration>,
        available: usize,
        epochs: u32,
    ) -> Option<WorkPlan> {
        let share = self.share(now);
        if share <= 0.0 || available == 0 || epochs == 0 {
            return None;
        }
        let allowed = self.time_allowed.as_secs_f64() * f64::from(share);
        let seconds = per_example.unwrap_or(UNMEASURED).as_secs_f64();
        // A clock that stood still while it was measured says nothing: a millisecond is below what any device needs.
        let steps = (allowed / seconds.max(1e-3)).floor() as u64;
        let fitting = (steps / available as u64).clamp(1, u64::from(epochs)) as u32;
        let examples = steps.clamp(1, available as u64) as usize;
        Some(WorkPlan { examples, epochs: fitting })
    }
}

/// What fits into one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WorkPlan {
    /// Corrections, the newest ones.
    pub examples: usize,
    /// Passes over them.
    pub epochs: u32,
}

const DAY_MINUTES: u64 = 1440;

impl NightlyWindow {
    /// Whether the night's moment, drawn as `jitter` in `[0, 1)`, has come: between it and the window's end.
    pub(crate) fn is_due(&self, wall_seconds: u64, jitter: f64) -> bool {
        let minute = wall_seconds / 60 % DAY_MINUTES;
        let into = (minute + DAY_MINUTES - u64::from(self.start)) % DAY_MINUTES;
        let moment = (jitter.clamp(0.0, 1.0) * f64::from(self.length)) as u64;
        // The last minute of the window always counts, so that a late draw is not missed.
        let moment = moment.min(u64::from(self.length) - 1);
        (moment..u64::from(self.length)).contains(&into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPABILITY: Capability = Capability {
        time_allowed: Duration::from_secs(60),
        hottest: 70.0,
        margin: 10.0,
        busiest: 0.8,
    };

    #[test]
    fn every_reason_to_wait_has_its_name() {
        let idle = Conditions::IDLE;
        assert_eq!(CAPABILITY.pause(&idle, None), None);
        let cases = [
            (Conditions { person_present: true, ..idle }, Pause::PersonPresent),
            (Conditions { celsius: Some(70.0), ..idle }, Pause::Hot),
            (Conditions { on_power: false, ..idle }, Pause::OnBattery),
            (Conditions { busy: 0.9, ..idle }, Pause::Busy),
        ];
        for (now, pause) in cases {
            assert_eq!(CAPABILITY.pause(&now, None), Some(pause));
            assert_eq!(CAPABILITY.plan(&now, Some(Duration::from_millis(10)), 5, 3), None);
        }
    }

    #[test]
    fn what_has_become_hot_or_busy_waits_until_it_is_well_below_the_limit() {
        let hot = |celsius| Conditions { celsius: Some(celsius), ..Conditions::IDLE };
        let busy = |busy| Conditions { busy, ..Conditions::IDLE };
        for (pause, still, below) in
            [(Pause::Hot, hot(65.5), hot(64.5)), (Pause::Busy, busy(0.65), busy(0.55))]
        {
            assert_eq!(CAPABILITY.pause(&still, None), None);
            assert_eq!(CAPABILITY.pause(&still, Some(Pause::PersonPresent)), None);
            assert_eq!(CAPABILITY.pause(&still, Some(pause)), Some(pause));
            assert_eq!(CAPABILITY.pause(&below, Some(pause)), None);
        }
    }

    #[test]
    fn slow_warm_and_busy_devices_do_less() {
        let plan = |now: Conditions, ms| {
            let per_example = Some(Duration::from_millis(ms));
            let plan = CAPABILITY.plan(&now, per_example, 100, 3).unwrap();
            (plan.examples, plan.epochs)
        };
        let idle = Conditions::IDLE;
        assert_eq!(plan(idle, 100), (100, 3));
        assert_eq!(plan(idle, 300), (100, 2));
        assert_eq!(plan(idle, 2_000), (30, 1));
        assert_eq!(plan(idle, 1_000_000), (1, 1));
        assert_eq!(plan(Conditions { celsius: Some(65.0), ..idle }, 200), (100, 1));
        assert_eq!(plan(Conditions { busy: 0.5, ..idle }, 600), (50, 1));
        assert_eq!(plan(Conditions { celsius: Some(30.0), ..idle }, 100), (100, 3));
    }

    #[test]
    fn a_first_run_is_planned_with_care() {
        let plan = CAPABILITY.plan(&Conditions::IDLE, None, 25, 12).unwrap();
        assert_eq!((plan.examples, plan.epochs), (25, 2));
        assert_eq!(CAPABILITY.plan(&Conditions::IDLE, None, 1_000, 12).unwrap().examples, 60);
    }

    #[test]
    fn the_night_has_one_moment_that_the_draw_decides() {
        let window = NightlyWindow { start: 1430, length: 60 };
        let at = |minute: u64| 40 * 86_400 + minute * 60;
        assert!(window.is_due(at(1430), 0.0) && window.is_due(at(49), 0.0));
        assert!(!window.is_due(at(1429), 0.0) && !window.is_due(at(50), 0.0));
        assert!(!window.is_due(at(19), 0.5) && window.is_due(at(20), 0.5));
        assert!(window.is_due(at(49), 0.999_999));
    }
}
