//! The people of a parsed picture, for programs.

use std::collections::BTreeMap;

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

/// The people of the last picture, best first.
pub fn outlines(parser: &Parser) -> Vec<Outline> {
    let parsing = parser.parsing();
    let outline = |person: &Person| Outline {
        slot: person.slot,
        score: person.score,
        bounds: parsing.letterbox.rect_to_picture(person.bounds),
    };
    parsing.persons.iter().rev().map(outline).collect()
}

/// People with their parts. `slots` has a person, and `parts` a part, for every pixel of the picture.
pub fn persons(outlines: &[Outline], slots: &[u8], parts: &[u8]) -> Vec<FoundPerson> {
    let person = |&Outline { slot, score, bounds }: &Outline| {
        let own = parts.iter().zip(slots).filter(|(_, other)| **other == slot);
        let name = |label| Part::from_index(label).map(Part::name);
        FoundPerson {
            score,
            bounds: [bounds.x, bounds.y, bounds.width, bounds.height],
            pixels: tally(own.map(|(part, _)| *part), name),
        }
    };
    outlines.iter().map(person).collect()
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
