//! A broker's absence, as a person should know of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tracing::{info, warn};

/// A broker may restart, and a router too; one that is away for longer is told on the screen.
const AWAY: Duration = Duration::from_secs(600);

/// A connection that ends sooner does not count: two mirrors of one name or certificate throw each other off again and again.
const HOLDS: Duration = Duration::from_secs(60);

/// Reasons that the journal is told at most until a connection holds: some come with a number that is never the same.
const MOST_REASONS: usize = 16;

/// How one broker's connection does.
pub(super) struct Absence {
    /// Whose it is, and where, as notices begin.
    pub broker: String,
    /// When a connection was last known to hold; before that, the start.
    held_at: Instant,
    /// Since when there is one.
    since: Option<Instant>,
    /// Why there was none since one held; each is in the journal once.
    reasons: BTreeSet<String>,
    /// The notice.
    told: Option<String>,
}

impl Absence {
    /// Of `broker`, such as "fleet: broker.example:8883", whose connection begins now.
    pub fn new(broker: String, now: Instant) -> Absence {
        Absence { broker, held_at: now, since: None, reasons: BTreeSet::new(), told: None }
    }

    /// Takes whether there is a connection, or why there is none, as a person should read it. The notice from here on: the reason once
    /// none has held for long, until one holds.
    pub fn look(&mut self, connection: Result<(), String>, now: Instant) -> Option<&str> {
        match connection {
            Ok(()) => self.note_connection(now),
            Err(reason) => self.note_absence(reason, now),
        }
        self.told.as_deref()
    }

    fn note_connection(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) < HOLDS {
            return;
        }
        if !self.reasons.is_empty() {
            info!("{}: the connection holds", self.broker);
        }
        (self.held_at, self.told) = (now, None);
        self.reasons.clear();
    }

    fn note_absence(&mut self, reason: String, now: Instant) {
        self.since = None;
        if self.reasons.len() < MOST_REASONS && self.reasons.insert(reason.clone()) {
            warn!("{reason}");
        }
        if now.saturating_duration_since(self.held_at) >= AWAY {
            self.told = Some(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The notice `seconds` after the start.
    fn look<'a>(
        absence: &'a mut Absence,
        start: Instant,
        seconds: u64,
        connection: Result<(), &str>,
    ) -> Option<&'a str> {
        let now = start + Duration::from_secs(seconds);
        absence.look(connection.map_err(str::to_owned), now)
    }

    #[test]
    fn only_a_long_absence_is_told_and_only_until_a_connection_holds() {
        let start = Instant::now();
        let mut absence = Absence::new("fleet: away".into(), start);
        let mut at =
            |seconds, connection| look(&mut absence, start, seconds, connection).map(str::to_owned);
        assert_eq!([at(5, Ok(())), at(65, Ok(())), at(70, Err("cut"))], [None, None, None]);
        assert_eq!(at(664, Err("cut")), None);
        let told = Some("bad password".to_owned());
        assert_eq!(at(665, Err("bad password")), told);
        assert_eq!([at(700, Ok(())), at(755, Ok(()))], [told.clone(), told], "it may end at once");
        assert_eq!([at(760, Ok(())), at(765, Err("cut"))], [None, None]);
    }

    #[test]
    fn connections_that_end_at_once_are_no_presence_and_in_the_journal_once() {
        let start = Instant::now();
        let mut absence = Absence::new("fleet: away".into(), start);
        for second in (0..700).step_by(5) {
            let connection = if second % 20 < 10 { Ok(()) } else { Err("taken over") };
            look(&mut absence, start, second, connection);
        }
        assert_eq!(absence.told.as_deref(), Some("taken over"));
        assert_eq!(absence.reasons.len(), 1);
        look(&mut absence, start, 700, Ok(()));
        look(&mut absence, start, 760, Ok(()));
        assert!(absence.reasons.is_empty(), "what ends the next one is in the journal again");
    }

    #[test]
    fn reasons_that_are_never_the_same_do_not_fill_the_memory_or_the_journal() {
        let start = Instant::now();
        let mut absence = Absence::new("fleet: away".into(), start);
        for second in 0..1000 {
            look(&mut absence, start, second, Err(&format!("at {second}")));
        }
        assert_eq!(absence.reasons.len(), MOST_REASONS);
        assert_eq!(absence.told.as_deref(), Some("at 999"), "the notice has the newest");
    }
}
