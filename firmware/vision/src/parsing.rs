//! What a picture shows: parts and people.

use std::time::Duration;

use frame::wipe;
use heapless::Vec as Bounded;

use crate::geometry::{GridSize, Letterbox, Rect, extent};

/// Most people in one picture; the rest are parsed but not told apart.
pub const MAX_PEOPLE: usize = 8;

/// One person of a parsing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Person {
    /// Value in [`Parsing::person`], from 1.
    pub slot: u8,
    /// Stays the same while the person stays in view; never 0.
    pub track: u32,
    /// Probability of the whole-human query, 0..=1.
    pub score: f32,
    /// Smallest rectangle that holds the person's pixels, in the grid.
    pub bounds: Rect,
    /// Number of grid pixels.
    pub pixels: u32,
}

/// Which grid pixel shows which part of which person.
#[derive(Clone, Debug)]
pub struct Parsing {
    /// Size of the two maps.
    pub grid: GridSize,
    /// Part index of every pixel, `0..16`, row by row.
    pub parts: Vec<u8>,
    /// Person of every pixel: 0 none, else [`Person::slot`].
    pub person: Vec<u8>,
    /// The people, best score last.
    pub persons: Bounded<Person, MAX_PEOPLE>,
    /// How the picture lies in the grid.
    pub letterbox: Letterbox,
    /// Time of each stage.
    pub timings: StageTimings,
}

impl Parsing {
    /// Without anybody.
    pub fn new(grid: GridSize) -> Parsing {
        Parsing {
            grid,
            parts: vec![0; grid.area()],
            person: vec![0; grid.area()],
            persons: Bounded::new(),
            letterbox: Letterbox::new(grid.width as u32, grid.height as u32, grid),
            timings: StageTimings::default(),
        }
    }

    /// The rectangle of the picture, in its own pixels, that shows every part that was found, with room around them; none where
    /// nothing was.
    pub fn around_people(&self) -> Option<Rect> {
        let (found, _) = extent(&self.parts, self.grid.width, |&part| part != 0)?;
        let found = self.letterbox.rect_to_picture(found);
        (found.area() > 0).then(|| found.with_room(self.letterbox.picture()))
    }

    /// Nobody stays in memory.
    pub(crate) fn forget(&mut self) {
        wipe(&mut self.parts);
        wipe(&mut self.person);
        self.persons.clear();
    }
}

/// Time of each stage of the last picture.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // the names say it
pub struct StageTimings {
    pub convert: Duration,
    pub infer: Duration,
    pub parse: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_around_people_lies_in_the_picture_and_has_room() {
        // A wide picture: 100 x 75 pixels of the grid show 400 x 300 below a border of 25 lines.
        let mut parsing = Parsing::new(GridSize { height: 125, width: 100 });
        parsing.letterbox = Letterbox::new(400, 300, parsing.grid);
        assert_eq!(parsing.around_people(), None);
        for y in 50..100 {
            parsing.parts[y * 100 + 10..y * 100 + 30].fill(1);
        }
        // 50 lines of the grid are 200 of the picture, the room around them 24; above them are 100, below none.
        let around = Rect { x: 16, y: 76, width: 128, height: 224 };
        assert_eq!(parsing.around_people(), Some(around));
        parsing.parts[60 * 100 + 99] = 2;
        let around = parsing.around_people().expect("somebody");
        assert_eq!((around.x, around.x + around.width), (0, 400));
    }
}
