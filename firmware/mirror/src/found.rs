//! The people of a parsed picture, for programs.

use std::collections::BTreeMap;

use proto::taxonomy::{PART_COUNT, Part};
use serde::Serialize;
use vision::{Parser, Person};

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

/// The people of the last picture, best first, with their parts at the picture's own size.
pub fn persons(parser: &Parser, parts: &[u8]) -> Vec<FoundPerson> {
    let mut slots = Vec::new();
    parser.person_map(&mut slots);
    let person = |person: &Person| {
        let own = parts.iter().zip(&slots).filter(|(_, slot)| **slot == person.slot);
        FoundPerson {
            score: person.score,
            bounds: bounds(parser, person),
            pixels: tally(own.map(|(part, _)| *part), |label| {
                Part::from_index(label).map(Part::name)
            }),
        }
    };
    parser.parsing().persons.iter().rev().map(person).collect()
}

fn bounds(parser: &Parser, person: &Person) -> [u32; 4] {
    let letterbox = &parser.parsing().letterbox;
    let (width, height) = letterbox.picture();
    let place = |x: u32, y: u32| {
        let (x, y) = letterbox.to_picture(x as f32, y as f32);
        (x.round().clamp(0.0, width as f32) as u32, y.round().clamp(0.0, height as f32) as u32)
    };
    let grid = person.bounds;
    let (left, top) = place(grid.x, grid.y);
    let (right, bottom) = place(grid.x + grid.width, grid.y + grid.height);
    [left, top, right - left, bottom - top]
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
