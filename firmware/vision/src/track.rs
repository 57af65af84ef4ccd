//! Stable numbers for people: the same person keeps theirs while in view.

use std::time::{Duration, Instant};

use heapless::Vec as Bounded;

use crate::geometry::Rect;
use crate::parsing::{MAX_PEOPLE, Person};

/// Rectangles that overlap less belong to different people.
const LEAST_OVERLAP: f32 = 0.2;
/// Somebody who is not seen for longer is forgotten, however many pictures that are: who stands there next is another one.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
struct Known {
    track: u32,
    bounds: Rect,
    /// When the last picture with them was taken.
    seen: Instant,
    /// Whether that is the last picture of all.
    is_seen: bool,
}

/// Matches people from frame to frame by the overlap of their rectangles, best pairs first.
#[derive(Debug, Default)]
pub struct Tracker {
    known: Bounded<Known, { 2 * MAX_PEOPLE }>,
    last: u32,
}

impl Tracker {
    /// Gives every person of a picture that was taken at `now` a number. Whoever the picture before showed may be among them, however long
    /// ago that was; it is for whoever calls to [`Tracker::reset`] after a pause.
    pub fn assign(&mut self, people: &mut [Person], now: Instant) {
        self.known.retain(|k| k.is_seen || now.saturating_duration_since(k.seen) <= PATIENCE);
        self.known.iter_mut().for_each(|k| k.is_seen = false);
        people.iter_mut().for_each(|p| p.track = 0);
        while let Some((person, known)) = self.best_pair(people) {
            let found = &mut self.known[known];
            people[person].track = found.track;
            (found.bounds, found.seen, found.is_seen) = (people[person].bounds, now, true);
        }
        for person in people.iter_mut().filter(|p| p.track == 0) {
            self.last = self.last.wrapping_add(1).max(1);
            person.track = self.last;
            if self.known.is_full() {
                self.forget_longest_unseen();
            }
            let _ = self.known.push(Known {
                track: person.track,
                bounds: person.bounds,
                seen: now,
                is_seen: true,
            });
        }
    }

    /// Where those are that the last picture showed.
    pub fn seen(&self) -> impl Iterator<Item = Rect> + '_ {
        self.known.iter().filter(|known| known.is_seen).map(|known| known.bounds)
    }

    /// Forgets everybody.
    pub fn reset(&mut self) {
        self.known.clear();
    }

    /// Makes room: more people than are known at most stand there for a picture or two, and are none.
    fn forget_longest_unseen(&mut self) {
        let longest =
            (0..self.known.len()).min_by_key(|&k| (self.known[k].is_seen, self.known[k].seen));
        if let Some(longest) = longest {
            self.known.remove(longest);
        }
    }

    fn best_pair(&self, people: &[Person]) -> Option<(usize, usize)> {
        let mut best = (LEAST_OVERLAP, None);
        for (p, person) in people.iter().enumerate().filter(|(_, p)| p.track == 0) {
            for (k, known) in self.known.iter().enumerate().filter(|(_, k)| !k.is_seen) {
                let overlap = person.bounds.iou(known.bounds);
                if overlap > best.0 {
                    best = (overlap, Some((p, k)));
                }
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(x: u32) -> Person {
        Person {
            slot: 1,
            track: 0,
            score: 0.9,
            bounds: Rect { x, y: 10, width: 40, height: 100 },
            pixels: 900,
        }
    }

    /// Pictures that come at some pace.
    struct Pictures {
        tracker: Tracker,
        now: Instant,
        interval: Duration,
    }

    impl Pictures {
        fn every(milliseconds: u64) -> Pictures {
            let interval = Duration::from_millis(milliseconds);
            Pictures { tracker: Tracker::default(), now: Instant::now(), interval }
        }

        /// Tracks of the people at these places in the next picture.
        fn next(&mut self, places: &[u32]) -> Vec<u32> {
            let mut people: Vec<Person> = places.iter().map(|&x| person(x)).collect();
            self.tracker.assign(&mut people, self.now);
            self.now += self.interval;
            people.iter().map(|p| p.track).collect()
        }
    }

    #[test]
    fn numbers_stay_while_people_move_and_change_order() {
        let mut pictures = Pictures::every(33);
        assert_eq!(pictures.next(&[0, 100]), [1, 2]);
        assert_eq!(pictures.next(&[90, 8]), [2, 1]);
        assert_eq!(pictures.next(&[16]), [1]);
        assert_eq!(pictures.next(&[20, 84]), [1, 2], "seen again within half a second");
    }

    #[test]
    fn somebody_who_stays_keeps_the_number_however_many_come_and_go() {
        let mut pictures = Pictures::every(33);
        for picture in 1..=100 {
            assert_eq!(pictures.next(&[0, 100 * picture])[0], 1, "picture {picture}");
        }
    }

    #[test]
    fn the_gone_are_forgotten_after_half_a_second_at_any_pace() {
        for interval in [20, 100, 250] {
            for (pause, track) in [(500, 1), (500 + interval, 2)] {
                let mut pictures = Pictures::every(interval);
                assert_eq!(pictures.next(&[0]), [1]);
                for _ in 1..pause / interval {
                    assert!(pictures.next(&[]).is_empty());
                }
                assert_eq!(
                    pictures.next(&[0]),
                    [track],
                    "{pause} ms later, a picture every {interval} ms"
                );
            }
        }
    }

    #[test]
    fn at_a_slow_pace_the_next_picture_shows_the_same_people() {
        let mut pictures = Pictures::every(2000);
        assert_eq!(
            [pictures.next(&[0]), pictures.next(&[4]), pictures.next(&[])],
            [vec![1], vec![1], vec![]]
        );
        assert_eq!(pictures.next(&[4]), [2], "nobody stood there for a picture of two seconds");
    }
}
