//! Who of the people stays exactly where they are: a coat rack that is taken for somebody does, for hours.

use std::time::{Duration, Instant};

use heapless::Vec;
use vision::{MAX_PEOPLE, Person, Rect};

/// Whoever has not moved for so long may be a thing. A person who stands as still as that is not disturbed by training either.
const STILL: Duration = Duration::from_secs(300);

/// Overlap of two rectangles, 0 to 1, below which whoever is in them has moved: a step to the side, or raised arms.
const SAME_PLACE: f32 = 0.7;

/// Where everybody is, and since when.
#[derive(Default)]
pub struct Still(Vec<Place, MAX_PEOPLE>);

struct Place {
    track: u32,
    bounds: Rect,
    since: Instant,
}

impl Still {
    /// Notes the people of a picture that was taken at this moment: whether anybody of them has come or moved within [`STILL`].
    pub fn anybody_moves(&mut self, people: &[Person], at: Instant) -> bool {
        self.0.retain(|place| people.iter().any(|person| person.track == place.track));
        // Of everybody, not of the first one who moves.
        people.iter().filter(|person| self.moves(person, at)).count() > 0
    }

    fn moves(&mut self, person: &Person, at: Instant) -> bool {
        let Person { track, bounds, .. } = *person;
        let here = Place { track, bounds, since: at };
        match self.0.iter_mut().find(|place| place.track == track) {
            Some(place) if place.bounds.iou(bounds) >= SAME_PLACE => {
                at.saturating_duration_since(place.since) < STILL
            }
            Some(place) => {
                *place = here;
                true
            }
            None => {
                // Cannot overflow: a parsing has as much room.
                let _ = self.0.push(here);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(track: u32, x: u32) -> Person {
        let bounds = Rect { x, y: 20, width: 40, height: 160 };
        Person { slot: 1, track, score: 0.9, bounds, pixels: 3000 }
    }

    #[test]
    fn a_coat_rack_counts_for_five_minutes_and_whoever_moves_for_ever() {
        let (mut still, start) = (Still::default(), Instant::now());
        let minute = |minutes: u64| start + Duration::from_secs(60 * minutes);
        // Its edges tremble.
        let rack = |minutes: u64| person(1, 10 + (minutes % 2) as u32);
        for minutes in 0..5 {
            assert!(still.anybody_moves(&[rack(minutes)], minute(minutes)), "{minutes} min");
        }
        for minutes in 5..60 {
            assert!(!still.anybody_moves(&[rack(minutes)], minute(minutes)), "{minutes} min");
        }
        for minutes in 60..90 {
            let walker = person(2, 60 + 30 * (minutes % 3) as u32);
            assert!(still.anybody_moves(&[rack(minutes), walker], minute(minutes)), "somebody");
        }
        assert!(!still.anybody_moves(&[rack(90)], minute(90)), "alone again");
        assert!(still.anybody_moves(&[person(1, 60)], minute(91)), "it was somebody after all");
        assert!(!still.anybody_moves(&[], minute(92)), "nobody");
        assert!(still.anybody_moves(&[rack(93)], minute(93)), "what is gone is not remembered");
    }
}
