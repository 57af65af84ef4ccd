//! Stable numbers for people: the same person keeps theirs while in view.

use heapless::Vec as Bounded;

use crate::geometry::Rect;
use crate::postprocess::{MAX_PEOPLE, Person};

/// Rectangles that overlap less belong to different people.
const LEAST_OVERLAP: f32 = 0.2;
/// Frames after which somebody who is not seen is forgotten: half a second at 30 a second.
const PATIENCE: u32 = 15;

#[derive(Clone, Copy, Debug)]
struct Known {
    track: u32,
    bounds: Rect,
    unseen: u32,
}

/// Matches people from frame to frame by the overlap of their rectangles, best pairs first.
#[derive(Debug, Default)]
pub struct Tracker {
    known: Bounded<Known, { 2 * MAX_PEOPLE }>,
    last: u32,
}

impl Tracker {
    /// Gives every person of a frame a number.
    pub fn assign(&mut self, people: &mut [Person]) {
        self.known.iter_mut().for_each(|k| k.unseen += 1);
        people.iter_mut().for_each(|p| p.track = 0);
        while let Some((person, known)) = self.best_pair(people) {
            let found = &mut self.known[known];
            people[person].track = found.track;
            (found.bounds, found.unseen) = (people[person].bounds, 0);
        }
        self.known.retain(|k| k.unseen <= PATIENCE);
        for person in people.iter_mut().filter(|p| p.track == 0) {
            self.last = self.last.wrapping_add(1).max(1);
            person.track = self.last;
            if self.known.is_full() {
                self.forget_longest_unseen();
            }
            let _ =
                self.known.push(Known { track: person.track, bounds: person.bounds, unseen: 0 });
        }
    }

    /// Where those are that the last picture showed.
    pub fn seen(&self) -> impl Iterator<Item = Rect> + '_ {
        self.known.iter().filter(|known| known.unseen == 0).map(|known| known.bounds)
    }

    /// Forgets everybody.
    pub fn reset(&mut self) {
        self.known.clear();
    }

    /// Makes room: more people than are known at most stand there for a picture or two, and are none.
    fn forget_longest_unseen(&mut self) {
        let longest = (0..self.known.len()).max_by_key(|&k| self.known[k].unseen);
        if let Some(longest) = longest {
            self.known.remove(longest);
        }
    }

    fn best_pair(&self, people: &[Person]) -> Option<(usize, usize)> {
        let mut best = (LEAST_OVERLAP, None);
        for (p, person) in people.iter().enumerate().filter(|(_, p)| p.track == 0) {
            for (k, known) in self.known.iter().enumerate().filter(|(_, k)| k.unseen > 0) {
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

    fn assign(tracker: &mut Tracker, places: &[u32]) -> Vec<u32> {
        let mut people: Vec<Person> = places.iter().map(|&x| person(x)).collect();
        tracker.assign(&mut people);
        people.iter().map(|p| p.track).collect()
    }

    #[test]
    fn numbers_stay_while_people_move_and_change_order() {
        let mut tracker = Tracker::default();
        assert_eq!(assign(&mut tracker, &[0, 100]), [1, 2]);
        assert_eq!(assign(&mut tracker, &[90, 8]), [2, 1]);
        assert_eq!(assign(&mut tracker, &[16]), [1]);
        assert_eq!(assign(&mut tracker, &[20, 84]), [1, 2], "seen again within half a second");
    }

    #[test]
    fn somebody_who_stays_keeps_the_number_however_many_come_and_go() {
        let mut tracker = Tracker::default();
        for picture in 1..=100 {
            assert_eq!(assign(&mut tracker, &[0, 100 * picture])[0], 1, "picture {picture}");
        }
    }

    #[test]
    fn a_newcomer_gets_a_new_number_and_the_gone_are_forgotten() {
        let mut tracker = Tracker::default();
        assert_eq!(assign(&mut tracker, &[0]), [1]);
        for _ in 0..=PATIENCE {
            assert!(assign(&mut tracker, &[]).is_empty());
        }
        assert_eq!(assign(&mut tracker, &[0]), [2]);
    }
}
