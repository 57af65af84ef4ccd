//! How far the people before the mirror are.

use std::time::{Duration, Instant};

use crate::scene::PersonView;
use crate::wipe::wipe;

/// Assumed when neither feet nor head tell the distance: where people stand before a mirror.
const USUAL_DISTANCE_M: f64 = 2.0;
/// Share of a newly measured distance in the one that is used: a grid row more or less at the feet
/// is a few centimetres, which must not make the overlay tremble.
const DISTANCE_BLEND: f64 = 0.25;
/// How long a distance is kept for somebody whom no picture shows: they are followed for some pictures more, and come back at the
/// place where they were.
const KEPT: Duration = Duration::from_secs(2);

/// Distances of the people that are being followed, steadied.
#[derive(Debug, Default)]
pub(crate) struct Distances {
    known: Vec<Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    track: u32,
    metres: f64,
    /// When a picture showed them last.
    seen: Option<Instant>,
}

impl Distances {
    /// The steadied distance after a new measurement; without one, the last known one or the usual.
    pub fn update(&mut self, track: u32, measured: Option<f64>) -> f64 {
        let Some(known) = self.known.iter_mut().find(|known| known.track == track) else {
            if let Some(metres) = measured {
                self.known.push(Known { track, metres, seen: None });
            }
            return measured.unwrap_or(USUAL_DISTANCE_M);
        };
        if let Some(measured) = measured {
            known.metres += (measured - known.metres) * DISTANCE_BLEND;
        }
        known.metres
    }

    /// Forgets whoever no picture has shown for [`KEPT`]; these are the people of the one that is drawn `now`.
    pub fn forget_absent(&mut self, people: &[PersonView], now: Instant) {
        for known in &mut self.known {
            if people.iter().any(|person| person.track == known.track) {
                known.seen = Some(now);
            }
        }
        let lately = |at: Instant| now.saturating_duration_since(at) <= KEPT;
        self.known.retain(|known| known.seen.is_some_and(lately));
    }

    /// Whether there is nobody in it.
    #[cfg(test)]
    pub fn is_forgotten(&self) -> bool {
        self.known.is_empty()
    }

    /// Forgets everybody.
    pub fn forget(&mut self) {
        wipe(&mut self.known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_steadied_kept_and_forgotten() {
        let mut distances = Distances::default();
        assert_eq!(distances.update(7, None), USUAL_DISTANCE_M);
        assert_eq!(distances.update(7, Some(3.0)), 3.0);
        assert_eq!(distances.update(7, Some(3.4)), 3.0 + 0.4 * DISTANCE_BLEND);
        let kept = distances.update(7, None);
        assert_eq!(kept, 3.0 + 0.4 * DISTANCE_BLEND);
        let (now, there) = (Instant::now(), PersonView { track: 7, ..PersonView::default() });
        distances.forget_absent(&[there], now);
        distances.forget_absent(&[], now + KEPT);
        assert_eq!(distances.update(7, None), kept, "one picture without them is no leave");
        distances.forget_absent(&[], now + KEPT + Duration::from_millis(1));
        assert_eq!(distances.update(7, None), USUAL_DISTANCE_M);
    }
}
