//! What travels from the vision thread to the display and to the preview: plain copies in memory
//! that is used again and again.

use frame::{FrameBuffer, Orientation, wipe};
use overlay::{MaskView, PersonView, Rect};
use vision::{MAX_PEOPLE, Parsing};

/// A parsing, copied so that the network can go on while it is being drawn.
#[derive(Debug, Default)]
pub struct View {
    width: u32,
    height: u32,
    content: Rect,
    parts: Vec<u8>,
    person: Vec<u8>,
    people: heapless::Vec<PersonView, MAX_PEOPLE>,
    /// Whether there is a parsing at all (none before the first picture or with the camera off).
    valid: bool,
}

impl View {
    /// Without a parsing.
    pub fn new() -> View {
        View::default()
    }

    /// Copies a parsing in.
    pub fn fill(&mut self, parsing: &Parsing) {
        self.width = parsing.grid.width as u32;
        self.height = parsing.grid.height as u32;
        self.content = rect(parsing.letterbox.content());
        self.parts.clear();
        self.parts.extend_from_slice(&parsing.parts);
        self.person.clear();
        self.person.extend_from_slice(&parsing.person);
        self.people.clear();
        for person in &parsing.persons {
            let (slot, track, bounds) = (person.slot, person.track, rect(person.bounds));
            // Cannot overflow: a parsing has as much room.
            let _ = self.people.push(PersonView { slot, track, bounds });
        }
        self.valid = true;
    }

    /// Forgets the parsing, labels included.
    pub fn clear(&mut self) {
        wipe(&mut self.parts);
        wipe(&mut self.person);
        self.people.clear();
        self.valid = false;
    }

    /// People in it.
    pub fn people(&self) -> usize {
        self.people.len()
    }

    /// The parsing as the overlay wants it.
    pub fn mask(&self) -> Option<MaskView<'_>> {
        self.valid.then_some(MaskView {
            width: self.width,
            height: self.height,
            parts: &self.parts,
            person: &self.person,
            content: self.content,
            people: &self.people,
        })
    }
}

/// The network's rectangle as the overlay has it.
fn rect(of: vision::Rect) -> Rect {
    Rect::new(of.x, of.y, of.width, of.height)
}

/// A picture and its parsing, for the preview.
#[derive(Debug, Default)]
pub struct PreviewInput {
    /// The camera's picture.
    pub picture: FrameBuffer,
    /// How it must be turned.
    pub orientation: Orientation,
    /// Its parsing.
    pub view: View,
}

impl PreviewInput {
    /// Empty.
    pub fn new() -> PreviewInput {
        PreviewInput::default()
    }

    /// Forgets the picture and its parsing; nothing of them stays in memory.
    pub fn forget(&mut self) {
        self.picture.forget();
        self.view.clear();
    }
}
