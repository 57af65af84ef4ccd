//! What happens again and again, told seldom: a camera that breaks one picture in a hundred, or fails whenever it was opened, must not
//! fill the journal.

use std::fmt::Display;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

/// The first one is told at once, then no more than this often.
const EVERY: Duration = Duration::from_secs(3600);

/// Counts what was not told.
#[derive(Debug, Default)]
pub struct Seldom {
    told: Option<Instant>,
    untold: u64,
    /// The last ones of [`Seldom::note_words`].
    words: String,
}

impl Seldom {
    /// One more picture was dropped by this part or source, for this reason.
    pub fn tell_dropped(&mut self, whose: &str, why: &dyn Display) {
        match self.note(Instant::now()) {
            Some(1) => warn!("{whose}: picture dropped: {why}"),
            Some(more) => warn!("{whose}: {more} pictures dropped lately; the last one: {why}"),
            None => debug!("{whose}: picture dropped: {why}"),
        }
    }

    /// A source was opened once more.
    pub fn tell_opened(&mut self, source: &str) {
        match self.note(Instant::now()) {
            Some(1) => info!("source: {source}"),
            Some(more) => info!("source: {source}; opened {more} times lately"),
            None => debug!("source: {source}"),
        }
    }

    /// A source was lost once more for this reason, and is tried again after a while.
    pub fn tell_lost(&mut self, why: &dyn Display, delay: Duration) {
        let seconds = delay.as_secs_f32();
        match self.note(Instant::now()) {
            Some(1) => warn!("{why}; tried again in {seconds:.1} s, and so on"),
            Some(more) => {
                warn!("{why}; {more} times lately, tried again in {seconds:.1} s, and so on")
            }
            None => debug!("{why}; tried again in {seconds:.1} s"),
        }
    }

    /// One more that is told in these words; how many there were since the last time, if it is to be told now. Other words are told at
    /// once.
    pub fn note_words(&mut self, words: &str, now: Instant) -> Option<u64> {
        if self.words != words {
            *self = Seldom { words: words.to_owned(), ..Seldom::default() };
        }
        self.note(now)
    }

    /// One more; how many there were since the last time that somebody was told, if it is to be told now.
    fn note(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_of_broken_pictures_is_told_once_an_hour() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        let day = (0..86_400).map(|second| start + Duration::from_secs(second));
        let told: Vec<u64> = day.filter_map(|now| seldom.note(now)).collect();
        assert_eq!((told.len(), told[0], told[1]), (24, 1, 3600));
    }

    #[test]
    fn other_words_are_told_at_once() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        let mut told =
            |words: &str, seconds| seldom.note_words(words, start + Duration::from_secs(seconds));
        assert_eq!((told("unplugged", 0), told("unplugged", 9)), (Some(1), None));
        assert_eq!((told("busy", 10), told("busy", 11), told("busy", 3609)), (Some(1), None, None));
        assert_eq!(told("busy", 3610), Some(3));
    }
}
