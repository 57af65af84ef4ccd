//! The people of a parsed picture, for programs.

use std::collections::BTreeMap;

use frame::wipe;
use proto::taxonomy::{PART_COUNT, Part};
use serde::Serialize;
use vision::{Parser, Person, Rect};

/// A person, in pixels of the picture that was parsed.
#[derive(Clone, Debug, Serialize)]
pub struct FoundPerson {
    /// How sure the network is, 0 to 1.
    pub score: f32,
    /// Left, top, width, height.
    #[serde(rename = "box")]
    pub bounds: [u32; 4],
    /// Pixels of every part of this person that there is.
    pub pixels: BTreeMap<&'static str, u64>,
}

/// A person whose parts are still to be counted.
#[derive(Clone, Copy, Debug)]
pub struct Outline {
    /// Value in the person map.
    pub slot: u8,
    /// How sure the network is, 0 to 1.
    pub score: f32,
    /// In pixels of the picture that was parsed.
    pub bounds: Rect,
}

/// Part and person of every pixel of a picture, and who the persons are.
pub struct Maps {
    /// Part of every pixel, row by row.
    pub parts: Vec<u8>,
    /// Person of every pixel: 0 none, else [`Outline::slot`].
    pub slots: Vec<u8>,
    /// The people, best first.
    pub people: Vec<Outline>,
}

impl Maps {
    /// Of the picture that the parser parsed last, which is upright and packed RGB here.
    ///
    /// # Panics
    /// If `rgb` has another number of pixels than that picture.
    pub fn of(parser: &mut Parser, rgb: &[u8]) -> Maps {
        let (mut parts, mut slots) = (Vec::new(), Vec::new());
        parser.part_map(rgb, &mut parts);
        parser.person_map(&mut slots);
        let parsing = parser.parsing();
        let outline = |person: &Person| Outline {
            slot: person.slot,
            score: person.score,
            bounds: parsing.letterbox.rect_to_picture(person.bounds),
        };
        Maps { parts, slots, people: parsing.persons.iter().rev().map(outline).collect() }
    }

    /// The parts, and the people with theirs. Whose they are does not stay in memory.
    pub fn counted(mut self) -> (Vec<u8>, Vec<FoundPerson>) {
        let person = |&Outline { slot, score, bounds }: &Outline| {
            let own = self.parts.iter().zip(&self.slots).filter(|(_, other)| **other == slot);
            let name = |label| Part::from_index(label).map(Part::name);
            FoundPerson {
                score,
                bounds: [bounds.x, bounds.y, bounds.width, bounds.height],
                pixels: tally(own.map(|(part, _)| *part), name),
            }
        };
        let persons = self.people.iter().map(person).collect();
        wipe(&mut self.slots);
        (self.parts, persons)
    }
}

/// How many pixels each class has, by name; classes without any are left out.
pub fn tally(
    labels: impl Iterator<Item = u8>,
    name: impl Fn(u8) -> Option<&'static str>,
) -> BTreeMap<&'static str, u64> {
    let mut counts = [0u64; PART_COUNT];
    for label in labels {
        if let Some(count) = counts.get_mut(usize::from(label)) {
            *count += 1;
        }
    }
    let named = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    named.filter_map(|(label, count)| Some((name(label as u8)?, *count))).collect()
}
