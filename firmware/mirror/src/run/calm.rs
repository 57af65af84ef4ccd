//! For how long the glass says the same to nobody: bright words that stand in the same place all night light a bedroom, and burn in.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use overlay::Scene;

/// After so long without another word, and without anybody there, the words are dimmed.
pub const QUIET: Duration = Duration::from_secs(600);

/// What the glass says, and since when.
#[derive(Debug, Default)]
pub struct Calm {
    said: u64,
    since: Option<Instant>,
}

impl Calm {
    /// Notes what is said now. Gives the minutes since it was time to dim it, where it is: `is_anybody_seen` means by the camera, within
    /// [`QUIET`].
    pub fn note(&mut self, scene: &Scene<'_>, is_anybody_seen: bool, now: Instant) -> Option<u32> {
        // A film's people, and the demo's, are seen by no camera.
        let is_somebody_drawn = scene.mask.is_some_and(|mask| !mask.people.is_empty());
        let said = fingerprint(scene, is_somebody_drawn);
        if said != self.said {
            (self.said, self.since) = (said, None);
        }
        let same_for = now.saturating_duration_since(*self.since.get_or_insert(now));
        let beyond =
            same_for.checked_sub(QUIET).filter(|_| !is_anybody_seen && !is_somebody_drawn)?;
        Some((beyond.as_secs() / 60) as u32)
    }
}

/// Of everything that may stand there for hours. A count-down, a temperature and the reason of an error change by themselves.
fn fingerprint(scene: &Scene<'_>, is_somebody_drawn: bool) -> u64 {
    let Scene { status, camera_active, watched, code, notice, page_address, .. } = scene;
    let mut hasher = DefaultHasher::new();
    (status.headline(), status.advice(), code, notice, page_address).hash(&mut hasher);
    (camera_active, watched, is_somebody_drawn).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use overlay::{MaskView, PersonView, Rect, Status};

    use super::*;

    fn lost(seconds: u64) -> Scene<'static> {
        let retry_in = Duration::from_secs(seconds);
        let (device, reason) = ("/dev/video0", "no such device");
        Scene::of_status(Status::CameraLost { device, reason, absent: true, retry_in })
    }

    #[test]
    fn words_are_dimmed_once_nobody_has_looked_at_them_for_long_enough() {
        let (mut calm, start) = (Calm::default(), Instant::now());
        let mut told = |scene: &Scene<'_>, seconds: u64, is_anybody_seen| {
            calm.note(scene, is_anybody_seen, start + Duration::from_secs(seconds))
        };
        assert_eq!(told(&lost(3), 0, false), None);
        assert_eq!(told(&lost(1), 599, false), None);
        assert_eq!(told(&lost(7), 600, false), Some(0), "a count-down is no change");
        assert_eq!(told(&lost(7), 600 + 125, false), Some(2));
        assert_eq!(told(&lost(7), 600 + 126, true), None, "somebody came");
        let noticed = Scene { notice: Some("a notice"), ..lost(7) };
        assert_eq!(told(&noticed, 800, false), None, "another word");
        assert_eq!(told(&noticed, 1399, false), None);
        assert_eq!(told(&noticed, 1400, false), Some(0));
        let watched = Scene { watched: true, ..noticed };
        assert_eq!(told(&watched, 1500, false), None);
    }

    fn mask(people: &[PersonView]) -> MaskView<'_> {
        let content = Rect::new(0, 0, 1, 1);
        MaskView { width: 1, height: 1, parts: &[0], person: &[0], content, people }
    }

    #[test]
    fn whoever_is_drawn_is_a_change_and_never_dimmed_also_where_no_camera_sees_them() {
        let (mut calm, now) = (Calm::default(), Instant::now());
        let people = [PersonView::default()];
        let empty = Scene { mask: Some(mask(&[])), ..Scene::of_status(Status::Running) };
        let shown = Scene { mask: Some(mask(&people)), ..empty };
        calm.note(&empty, false, now);
        assert_eq!(calm.note(&empty, false, now + QUIET), Some(0));
        assert_eq!(calm.note(&shown, false, now + QUIET), None);
        assert_eq!(calm.note(&shown, false, now + 3 * QUIET), None);
    }
}
