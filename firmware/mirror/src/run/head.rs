//! Which of the household's heads the network has, and the way to another one.

use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use anyhow::{Result, anyhow};
use tracing::info;
use vision::{Head, ModelError, Parser};

use crate::backoff::Backoff;
use crate::report;

/// The head in use, and the next one while it is made ready on a thread of its own: no picture waits for it.
#[derive(Default)]
pub struct HeadInUse {
    version: u64,
    next: Option<Next>,
    /// The version that failed last, and when it is tried again.
    failed: Option<(u64, Instant)>,
    /// Waits between the attempts at the version that failed last.
    backoff: Backoff,
}

struct Next {
    version: u64,
    thread: JoinHandle<Result<Head, ModelError>>,
}

impl HeadInUse {
    /// Goes a step on the way to the head of this version and these trainable numbers. `None`: it is in use, or comes. Once it is
    /// used that is told; a failure is told every time, and the head before stays until another attempt works.
    pub fn follow(
        &mut self,
        parser: &mut Parser,
        version: u64,
        numbers: impl FnOnce() -> Vec<f32>,
        now: Instant,
    ) -> Option<Result<()>> {
        let is_waiting = |(failed, until): (u64, Instant)| failed == version && now < until;
        if version == self.version || self.failed.is_some_and(is_waiting) {
            return None;
        }
        match self.step(parser, version, numbers) {
            Ok(false) => None,
            Ok(true) => {
                *self = HeadInUse { version, ..HeadInUse::default() };
                Some(Ok(()))
            }
            Err(error) => {
                if self.failed.is_none_or(|(failed, _)| failed != version) {
                    self.backoff.reset();
                }
                self.failed = Some((version, now + self.backoff.next_delay()));
                Some(Err(error))
            }
        }
    }

    /// Whether it is in use.
    fn step(
        &mut self,
        parser: &mut Parser,
        version: u64,
        numbers: impl FnOnce() -> Vec<f32>,
    ) -> Result<bool> {
        // One that is no longer wanted goes, at the latest when its thread ends: it may have been erased meanwhile.
        drop(self.next.take_if(|next| next.version != version));
        if self.next.is_none() {
            return self.begin(parser, version, &numbers());
        }
        let Some(next) = self.next.take_if(|next| next.thread.is_finished()) else {
            return Ok(false);
        };
        let made = next.thread.join().map_err(|_| anyhow!("making it ready panicked"))?;
        parser.swap_head(made?)?;
        info!("the household's head is in use");
        Ok(true)
    }

    /// Builds the head of these values, unless it is in use already: whether it is.
    fn begin(&mut self, parser: &Parser, version: u64, numbers: &[f32]) -> Result<bool> {
        let student = parser.student();
        if student.head_parameters().trainable() == *numbers {
            return Ok(true);
        }
        let builder = student.head_builder();
        let parameters = student.head_parameters().with_trainable(numbers)?;
        let build = move || builder.build(&parameters);
        let thread = Builder::new().name("head".into()).spawn(build);
        let thread = thread.map_err(|error| anyhow!(report::no_thread(&error)))?;
        self.next = Some(Next { version, thread });
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use frame::Orientation;

    use super::*;
    use crate::model::ModelSource;
    use crate::testing::settings;

    fn parser() -> Parser {
        let mut settings = settings();
        settings.vision.threads = 1;
        ModelSource::new(&settings.vision).parser(Orientation::default()).expect("built in")
    }

    fn numbers(parser: &Parser) -> Vec<f32> {
        parser.student().head_parameters().trainable()
    }

    /// Numbers of another head.
    fn other(parser: &Parser) -> Vec<f32> {
        numbers(parser).iter().map(|number| number * 1.5).collect()
    }

    /// Follows until something comes of it.
    fn outcome(
        head: &mut HeadInUse,
        parser: &mut Parser,
        (version, numbers): (u64, &[f32]),
        now: Instant,
    ) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(done) = head.follow(parser, version, || numbers.to_vec(), now) {
                return done;
            }
            assert!(Instant::now() < deadline, "nothing comes of version {version}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_head_that_cannot_be_made_ready_is_tried_again() {
        let (mut parser, mut head, now) = (parser(), HeadInUse::default(), Instant::now());
        let (own, other) = (numbers(&parser), other(&parser));
        for attempt in 0..3 {
            let at = now + Duration::from_secs(60) * attempt;
            let error = outcome(&mut head, &mut parser, (1, &[0.5]), at).expect_err("too few");
            assert!(error.to_string().contains("1 trainable value"), "{error:#}");
            let at_once = head.follow(&mut parser, 1, || panic!("not without a pause"), at);
            assert!(at_once.is_none() && numbers(&parser) == own, "the one before stays");
        }
        let later = now + Duration::from_secs(600);
        outcome(&mut head, &mut parser, (1, &other), later).expect("a head");
        assert_eq!(numbers(&parser), other);
        let steady = head.follow(&mut parser, 1, || panic!("it is in use"), later);
        assert!(steady.is_none());
    }

    #[test]
    fn a_head_does_not_wait_for_the_pause_of_another_one() {
        let (mut parser, mut head, now) = (parser(), HeadInUse::default(), Instant::now());
        let (own, other) = (numbers(&parser), other(&parser));
        outcome(&mut head, &mut parser, (1, &other), now).expect("a head");
        outcome(&mut head, &mut parser, (2, &[0.5]), now).expect_err("too few");
        // Everything was erased meanwhile.
        outcome(&mut head, &mut parser, (3, &own), now).expect("at once");
        assert_eq!(numbers(&parser), own);
    }

    #[test]
    fn a_head_that_is_made_ready_too_late_is_never_used() {
        let (mut parser, mut head, now) = (parser(), HeadInUse::default(), Instant::now());
        let (own, other) = (numbers(&parser), other(&parser));
        assert!(head.follow(&mut parser, 1, || other.clone(), now).is_none(), "it takes a while");
        // Erased meanwhile.
        outcome(&mut head, &mut parser, (2, &own), now).expect("in use as it is");
        assert!(head.next.is_none() && numbers(&parser) == own);
        outcome(&mut head, &mut parser, (3, &other), now).expect("a head");
        assert_eq!(numbers(&parser), other);
    }
}
