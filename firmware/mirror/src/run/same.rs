//! What the glass shows now: drawing takes time, and carrying it to the screen does, which nobody needs while it stays the same.

use std::time::{Duration, Instant};

use overlay::Scene;

/// What stays the same is shown again this often: that finds a monitor that was unplugged, and mends what another program has drawn
/// over it.
const AGAIN: Duration = Duration::from_secs(1);

/// How a scene looks, but for where its people stand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    fingerprint: u64,
    people: usize,
    /// The demo scene is laid otherwise than what a camera sees.
    is_demo: bool,
}

impl Seen {
    /// Of this scene.
    pub fn of(scene: &Scene<'_>, is_demo: bool) -> Seen {
        let people = scene.mask.map_or(0, |mask| mask.people.len());
        Seen { fingerprint: scene.fingerprint(), people, is_demo }
    }
}

/// What was shown last, and when.
#[derive(Debug, Default)]
pub struct Same(Option<(Seen, Instant)>);

impl Same {
    /// Whether this is to be shown: it is something else, has people whose place is `fresh`, or is to be shown again.
    pub fn is_due(&self, seen: Seen, fresh: bool, now: Instant) -> bool {
        let moves = fresh && seen.people > 0;
        let is_shown = |(shown, at): (Seen, Instant)| {
            shown == seen && now.saturating_duration_since(at) < AGAIN
        };
        moves || !self.0.is_some_and(is_shown)
    }

    /// This is shown from now on.
    pub fn note(&mut self, seen: Seen, now: Instant) {
        self.0 = Some((seen, now));
    }

    /// Nobody knows what is shown.
    pub fn forget(&mut self) {
        self.0 = None;
    }
}
