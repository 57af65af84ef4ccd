//! The life of a round, as a pure function of its record, what came in, and the time.
//!
//! ```text
//! announced -> collecting -> closed -> averaged -> gated -> published
//!      \           |            \          \
//!       `----------+-------------`----------`----------->  aborted
//! ```
//!
//! Every arrow is one database transaction. Whoever dies between two arrows finds the round where it was: what
//! follows is computed again from stored sums, to the same bits.

use crate::records::{Phase, Round, Tally};

/// What has to happen next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this time, seconds since 1970, unless updates arrive.
    Wait(u64),
    /// Take updates.
    Open,
    /// Take no more.
    Close,
    /// Average what is there.
    Average,
    /// Judge the candidate.
    Gate,
    /// Make the candidate a version.
    Publish,
    /// Give up.
    Abort(String),
    /// It is over.
    Nothing,
}

/// The next step of a round at time `now`. Only the aggregator's clock counts; devices' clocks decide nothing. While the fleet is
/// not `heard` no window ends: the updates that are waited for cannot come.
pub fn next_step(round: &Round, tally: &Tally, now: u64, heard: bool) -> Step {
    let task = &round.task;
    match round.phase {
        Phase::Announced if now < round.opens_at => Step::Wait(round.opens_at),
        Phase::Announced => Step::Open,
        Phase::Collecting if tally.counted >= task.maximum_cohort => Step::Close,
        Phase::Collecting if now < round.closes_at || !heard => Step::Wait(round.closes_at),
        Phase::Collecting if tally.counted >= task.minimum_cohort => Step::Close,
        Phase::Collecting => Step::Abort(format!(
            "{} updates came in and the round needs {}; nothing was averaged",
            tally.counted, task.minimum_cohort
        )),
        Phase::Closed => Step::Average,
        Phase::Averaged => Step::Gate,
        Phase::Gated => Step::Publish,
        Phase::Published { .. } | Phase::Aborted { .. } => Step::Nothing,
    }
}

/// A round as if it were announced so many seconds later.
pub fn put_off(round: Round, seconds: u64) -> Round {
    let later = |time: u64| time.saturating_add(seconds);
    let (announced_at, opens_at) = (later(round.announced_at), later(round.opens_at));
    Round { announced_at, opens_at, closes_at: later(round.closes_at), ..round }
}

/// A round that takes updates, or will, and that was announced by a clock that was ahead: as if it were announced at `now`, since its
/// own hours may be years away. `None` for any other.
pub fn announced_now(round: &Round, now: u64) -> Option<Round> {
    let ahead =
        round.announced_at.checked_sub(now).filter(|ahead| *ahead > 0 && round.is_open())?;
    let earlier = |time: u64| time.saturating_sub(ahead);
    let (opens_at, closes_at) = (earlier(round.opens_at), earlier(round.closes_at));
    Some(Round { announced_at: now, opens_at, closes_at, ..round.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(phase: Phase) -> Round {
        Round { phase, ..Round::example() }
    }

    fn step(phase: Phase, counted: u64, now: u64) -> Step {
        next_step(&round(phase), &Tally { counted, ..Tally::default() }, now, true)
    }

    #[test]
    fn a_round_opens_and_closes_in_its_window() {
        assert_eq!(step(Phase::Announced, 0, 1_099), Step::Wait(1_100));
        assert_eq!(step(Phase::Announced, 0, 1_100), Step::Open);
        assert_eq!(step(Phase::Collecting, 10, 1_199), Step::Wait(1_200));
        assert_eq!(step(Phase::Collecting, 10, 1_200), Step::Close);
    }

    #[test]
    fn a_window_does_not_end_while_nobody_is_heard_unless_everybody_was() {
        let step = |counted, now| {
            let tally = Tally { counted, ..Tally::default() };
            next_step(&round(Phase::Collecting), &tally, now, false)
        };
        assert_eq!((step(9, 9_999), step(99, 9_999)), (Step::Wait(1_200), Step::Wait(1_200)));
        assert_eq!(step(100, 1_101), Step::Close);
    }

    #[test]
    fn a_full_cohort_closes_early_and_a_small_one_is_given_up() {
        assert_eq!(step(Phase::Collecting, 100, 1_101), Step::Close);
        let Step::Abort(reason) = step(Phase::Collecting, 9, 1_200) else { panic!("not aborted") };
        assert!(reason.contains("9 updates came in and the round needs 10"), "{reason}");
    }

    #[test]
    fn a_clock_that_went_back_only_waits() {
        assert_eq!(step(Phase::Announced, 0, 0), Step::Wait(1_100));
        assert_eq!(step(Phase::Collecting, 50, 0), Step::Wait(1_200));
    }

    #[test]
    fn a_round_that_was_announced_by_a_clock_that_was_ahead_begins_anew() {
        for phase in [Phase::Announced, Phase::Collecting] {
            let moved = announced_now(&round(phase.clone()), 400).unwrap();
            assert_eq!((moved.announced_at, moved.opens_at, moved.closes_at), (400, 500, 600));
            assert_eq!(moved.phase, phase);
            assert_eq!(announced_now(&moved, 400), None);
        }
        assert_eq!(announced_now(&round(Phase::Announced), 1_000), None);
        assert_eq!(announced_now(&round(Phase::Closed), 400), None, "its hours are over");
    }

    #[test]
    fn what_follows_needs_no_clock() {
        assert_eq!(step(Phase::Closed, 10, 0), Step::Average);
        assert_eq!(step(Phase::Averaged, 10, 0), Step::Gate);
        assert_eq!(step(Phase::Gated, 10, 0), Step::Publish);
        assert_eq!(step(Phase::Published { version: 2 }, 10, u64::MAX), Step::Nothing);
        assert_eq!(step(Phase::Aborted { reason: String::new() }, 0, u64::MAX), Step::Nothing);
    }
}
