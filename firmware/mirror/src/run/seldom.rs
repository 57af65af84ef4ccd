//! What happens again and again, told seldom: a camera that breaks one picture in a hundred, or fails whenever it was opened, must not
//! fill the journal.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

/// The first one is told at once, then no more than this often.
const EVERY: Duration = Duration::from_secs(3600);
/// Texts of one kind that are told apart. Beyond them, as where each has another number in it, they are one.
const MOST_TEXTS: usize = 16;

/// Counts what was not told.
#[derive(Debug, Default)]
pub struct Seldom {
    told: Option<Instant>,
    untold: u64,
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

/// What happens again and again with several texts, such as reasons that come in turn: each is told at once, then seldom.
#[derive(Debug, Default)]
pub struct SeldomEach {
    texts: HashMap<String, Seldom>,
}

impl SeldomEach {
    /// A source or a display, as `what` says, was opened once more.
    pub fn tell_opened(&mut self, what: &str, name: &str) {
        match self.note(name, Instant::now()) {
            Some(1) => info!("{what}: {name}"),
            Some(more) => info!("{what}: {name}; opened {more} times lately"),
            None => debug!("{what}: {name}"),
        }
    }

    /// A source or a display was lost, or was not to be had, once more for this reason. `delay` is when it is tried again, where that is to
    /// be told.
    pub fn tell_lost(&mut self, why: &dyn Display, delay: Option<Duration>) {
        let again = |comma: &str| match delay {
            Some(delay) => format!("{comma} tried again in {:.1} s", delay.as_secs_f32()),
            None => String::new(),
        };
        let on = if delay.is_some() { "; the mirror keeps trying" } else { "" };
        match self.note(&why.to_string(), Instant::now()) {
            Some(1) => warn!("{why}{}{on}", again(";")),
            Some(more) => warn!("{why}; {more} times lately{}{on}", again(",")),
            None => debug!("{why}{}", again(";")),
        }
    }

    #[cfg(test)]
    pub fn is_new(&self) -> bool {
        self.texts.is_empty()
    }

    /// One more with this text; how many there were with it since somebody was told, if it is to be told now.
    fn note(&mut self, text: &str, now: Instant) -> Option<u64> {
        let is_apart = self.texts.contains_key(text) || self.texts.len() < MOST_TEXTS;
        let key = if is_apart { text } else { "" };
        self.texts.entry(key.to_owned()).or_default().note(now)
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
    fn another_text_is_told_at_once_and_one_that_comes_back_is_not() {
        let (mut each, start) = (SeldomEach::default(), Instant::now());
        let mut told = |text: &str, seconds| each.note(text, start + Duration::from_secs(seconds));
        assert_eq!((told("unplugged", 0), told("unplugged", 9)), (Some(1), None));
        assert_eq!(
            (told("back", 10), told("unplugged", 11), told("back", 12)),
            (Some(1), None, None)
        );
        assert_eq!((told("unplugged", 3600), told("back", 3610)), (Some(3), Some(2)));
    }

    #[test]
    fn texts_that_never_repeat_are_one() {
        let (mut each, now) = (SeldomEach::default(), Instant::now());
        let told =
            (0..1000).filter(|number| each.note(&format!("after {number} ms"), now).is_some());
        assert_eq!(told.count(), MOST_TEXTS + 1);
    }
}
