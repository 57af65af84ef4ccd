//! The whole way from a picture to a parsing, with its memory and its clock.

use std::time::Instant;

use frame::{Frame, Orientation, wipe};
use heapless::Vec as Bounded;

use crate::between::Between;
use crate::convert::Converter;
use crate::engine::{Head, RawOutput, Student};
use crate::error::{ModelError, VisionError};
use crate::geometry::{Letterbox, Rect};
use crate::guide::{Colours, Fit, colour};
use crate::parsing::{MAX_PEOPLE, Parsing, StageTimings};
use crate::postprocess::{PostProcessor, score_size};
use crate::scores::{Decider, Scores};
use crate::smooth::Smoother;
use crate::specks::Specks;
use crate::track::Tracker;

/// What a household or a board may choose.
#[derive(Clone, Copy, Debug)]
pub struct ParserOptions {
    /// Whole-human queries below this probability are not people, 0..=1.
    pub person_score: f32,
    /// A small important part wins a pixel when its score is at least this share of the best, 0..=1; 1 switches the
    /// rule off.
    pub priority_margin: f32,
    /// Temporal smoothing; off for pictures that have no past.
    pub smoothing: bool,
}

impl Default for ParserOptions {
    fn default() -> Self {
        ParserOptions { person_score: 0.5, priority_margin: 0.9, smoothing: true }
    }
}

/// Parses pictures one after the other. Outside the network nothing is allocated once a layout has been seen.
pub struct Parser {
    student: Student,
    orientation: Orientation,
    options: ParserOptions,
    converter: Converter,
    pixels: Vec<u8>,
    post: PostProcessor,
    scores: Scores,
    /// Of a picture's mirror image; there from the first one on.
    mirrored: Option<Scores>,
    colours: Colours,
    fit: Fit,
    /// Rows and columns of the last picture's content between those of the fit.
    places: (Vec<Between>, Vec<Between>),
    decider: Decider,
    smoother: Smoother,
    specks: Specks,
    tracker: Tracker,
    parsing: Parsing,
}

impl Parser {
    /// With a loaded network, for a camera that must be turned by `orientation`.
    pub fn new(student: Student, orientation: Orientation, options: &ParserOptions) -> Parser {
        let grid = student.grid();
        let mask = student.output().mask_size;
        let score = score_size(mask);
        Parser {
            converter: Converter::new(grid, student.padding()),
            pixels: vec![0; 3 * grid.area()],
            post: PostProcessor::new(student.queries(), mask, grid),
            scores: Scores::new(score),
            mirrored: None,
            colours: Colours::new(grid),
            fit: Fit::new(score, grid),
            places: (Vec::with_capacity(grid.height), Vec::with_capacity(grid.width)),
            decider: Decider::default(),
            smoother: Smoother::new(score, grid),
            specks: Specks::new(grid),
            tracker: Tracker::default(),
            parsing: Parsing::new(grid),
            orientation,
            options: *options,
            student,
        }
    }

    /// The network.
    pub fn student(&self) -> &Student {
        &self.student
    }

    /// The last picture's parsing.
    pub fn parsing(&self) -> &Parsing {
        &self.parsing
    }

    /// The last picture as the network saw it: R, G, B planes.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Uses another head from the next picture on; see [`Student::swap_head`].
    ///
    /// # Errors
    /// As [`Student::swap_head`].
    pub fn swap_head(&mut self, head: Head) -> Result<(), ModelError> {
        self.smoother.reset();
        self.student.swap_head(head)
    }

    /// Uses a head of these trainable numbers ([`HeadParameters::trainable`](crate::HeadParameters::trainable)) from the next picture
    /// on. It is built meanwhile, for which pictures wait; [`Student::head_builder`] builds on another thread.
    ///
    /// # Errors
    /// [`ModelError::Parameters`] for numbers that are not this head's or not finite, [`ModelError::Load`] where it cannot be built; the
    /// old head stays.
    pub fn use_trainable(&mut self, trainable: &[f32]) -> Result<(), ModelError> {
        let parameters = self.student.head_parameters().with_trainable(trainable)?;
        let head = self.student.head_builder().build(&parameters)?;
        self.swap_head(head)
    }

    /// Forgets earlier pictures and their parsings: after a pause, another source, or where none is to stay in memory. Pixels,
    /// scores and labels are overwritten. What the engine gave back to the system while it ran is not.
    pub fn forget(&mut self) {
        self.student.forget();
        self.converter.forget();
        wipe(&mut self.pixels);
        self.post.forget();
        wipe(&mut self.scores.values);
        self.mirrored.iter_mut().for_each(|scores| wipe(&mut scores.values));
        wipe(&mut self.colours.values);
        self.fit.forget();
        self.decider.forget();
        self.smoother.forget();
        self.specks.forget();
        self.tracker.reset();
        self.parsing.forget();
    }

    /// Parses a picture that is taken just now, or has no past; see [`Parser::parse_taken`].
    ///
    /// # Errors
    /// As [`Parser::parse_taken`].
    pub fn parse(&mut self, frame: &Frame<'_>) -> Result<&Parsing, VisionError> {
        self.parse_taken(frame, Instant::now())
    }

    /// Parses a picture that was taken at `taken`, by which people who are away are forgotten.
    ///
    /// # Errors
    /// A compressed picture, or a network that fails; the last parsing is then not changed.
    pub fn parse_taken(
        &mut self,
        frame: &Frame<'_>,
        taken: Instant,
    ) -> Result<&Parsing, VisionError> {
        let began = Instant::now();
        let letterbox = self.converter.convert(frame, self.orientation, &mut self.pixels)?;
        let converted = Instant::now();
        let raw = self.student.run(&self.pixels)?;
        let inferred = Instant::now();
        if letterbox != self.parsing.letterbox {
            self.smoother.reset();
        }
        self.post.merge(raw, &mut self.scores)?;
        self.colours.take(&self.pixels);
        if self.options.smoothing {
            self.smoother.smooth(&mut self.scores, &mut self.colours);
        }
        Ok(self.conclude(letterbox, taken, [began, converted, inferred]))
    }

    /// Parses a picture that has no past by what the network says of it and of its mirror image, in the mean: twice the work, and
    /// left and right are exchanged less often. People are told apart in the picture itself.
    ///
    /// # Errors
    /// As [`Parser::parse_taken`].
    pub fn parse_both_ways(&mut self, frame: &Frame<'_>) -> Result<&Parsing, VisionError> {
        let began = Instant::now();
        let letterbox = self.converter.convert(frame, self.orientation, &mut self.pixels)?;
        let converted = Instant::now();
        self.smoother.reset();
        self.tracker.reset();
        let mirrored = self.mirrored.get_or_insert_with(|| Scores::new(self.scores.size));
        let width = self.parsing.grid.width;
        turn_round(&mut self.pixels, width);
        let raw = self.student.run(&self.pixels)?;
        self.post.merge(raw, mirrored)?;
        turn_round(&mut self.pixels, width);
        let raw = self.student.run(&self.pixels)?;
        self.post.merge(raw, &mut self.scores)?;
        self.scores.average_mirrored(mirrored);
        let inferred = Instant::now();
        self.colours.take(&self.pixels);
        Ok(self.conclude(letterbox, began, [began, converted, inferred]))
    }

    /// Decides what the scores of the last picture mean: parts, then people. Work on it began, was converted and was inferred at
    /// these moments.
    fn conclude(
        &mut self,
        letterbox: Letterbox,
        taken: Instant,
        [began, converted, inferred]: [Instant; 3],
    ) -> &Parsing {
        self.parsing.letterbox = letterbox;
        self.fit.fit(&self.scores, &self.colours, &letterbox);
        self.decide_grid(letterbox);
        blank_border(&mut self.parsing);
        self.specks.remove(self.parsing.grid, &mut self.parsing.parts);
        let raw: &RawOutput = self.student.output();
        let seen: Bounded<Rect, MAX_PEOPLE> = match self.options.smoothing {
            true => self.tracker.seen().take(MAX_PEOPLE).collect(),
            false => Bounded::new(),
        };
        self.post.people(raw, self.options.person_score, &seen, &mut self.parsing);
        self.tracker.assign(&mut self.parsing.persons, taken);
        self.parsing.timings = StageTimings {
            convert: converted - began,
            infer: inferred - converted,
            parse: inferred.elapsed(),
        };
        &self.parsing
    }

    /// Fills the part map where the grid shows the picture.
    fn decide_grid(&mut self, letterbox: Letterbox) {
        let content = letterbox.content();
        let (left, top) = (content.x as usize, content.y as usize);
        let (width, height) = (content.width as usize, content.height as usize);
        let (rows, columns) = &mut self.places;
        rows.clear();
        rows.extend((top..top + height).map(|y| self.fit.row(y as f32 + 0.5)));
        columns.clear();
        columns.extend((left..left + width).map(|x| self.fit.column(x as f32 + 0.5)));
        let grid_lines = self.parsing.parts.chunks_exact_mut(self.parsing.grid.width);
        self.decider.decide(
            &self.fit,
            rows,
            columns,
            self.options.priority_margin,
            |y, line| {
                for (plane, values) in line.iter_mut().enumerate() {
                    values.copy_from_slice(self.colours.line(plane, top + y, left..left + width));
                }
            },
            grid_lines.skip(top).map(|line| &mut line[left..left + width]),
        );
    }

    /// Part of every pixel of the last picture at its own upright size, `width * height` labels, decided at that size and not
    /// by enlarging the grid's labels. Specks that the grid has lost are not there either. `rgb` is that picture, upright and
    /// packed, as [`frame::rgb::upright`] gives it.
    ///
    /// # Panics
    /// If `rgb` has another number of pixels.
    pub fn part_map(&mut self, rgb: &[u8], labels: &mut Vec<u8>) {
        let letterbox = self.parsing.letterbox;
        let (width, height) = letterbox.picture();
        let area = width as usize * height as usize;
        assert_eq!(rgb.len(), 3 * area, "a picture of {width} x {height}");
        labels.clear();
        labels.resize(area, 0);
        let place = |x: u32, y: u32| letterbox.to_grid(x as f32 + 0.5, y as f32 + 0.5);
        let columns: Vec<Between> = (0..width).map(|x| self.fit.column(place(x, 0).0)).collect();
        let rows: Vec<Between> = (0..height).map(|y| self.fit.row(place(0, y).1)).collect();
        let width = width as usize;
        self.decider.decide(
            &self.fit,
            &rows,
            &columns,
            self.options.priority_margin,
            |y, line| {
                for (plane, values) in line.iter_mut().enumerate() {
                    let bytes = rgb[3 * y * width..][..3 * width].iter().skip(plane).step_by(3);
                    values.iter_mut().zip(bytes).for_each(|(value, &byte)| *value = colour(byte));
                }
            },
            labels.chunks_exact_mut(width),
        );
        self.lose_specks(labels);
    }

    fn lose_specks(&self, labels: &mut [u8]) {
        let grid = self.parsing.grid;
        let width = self.parsing.letterbox.picture().0 as usize;
        for (y, line) in labels.chunks_exact_mut(width).enumerate() {
            for (x, label) in line.iter_mut().enumerate().filter(|(_, label)| **label != 0) {
                let (gx, gy) = self.grid_place(x, y);
                if self.specks.is_gone(grid, &self.parsing.parts, gx, gy) {
                    *label = 0;
                }
            }
        }
    }

    /// Person of every pixel of the last picture at its own upright size: 0 none, else a slot.
    pub fn person_map(&self, labels: &mut Vec<u8>) {
        let (width, height) = self.parsing.letterbox.picture();
        labels.clear();
        for y in 0..height as usize {
            labels.extend((0..width as usize).map(|x| {
                let (gx, gy) = self.grid_place(x, y);
                self.parsing.person[gy * self.parsing.grid.width + gx]
            }));
        }
    }

    /// Column and row of the grid that show the middle of a pixel of the last picture at its own upright size.
    fn grid_place(&self, x: usize, y: usize) -> (usize, usize) {
        let (letterbox, grid) = (self.parsing.letterbox, self.parsing.grid);
        let inside = |v: f32, most: usize| (v.max(0.0) as usize).min(most - 1);
        let (gx, gy) = letterbox.to_grid(x as f32 + 0.5, y as f32 + 0.5);
        (inside(gx, grid.width), inside(gy, grid.height))
    }
}

/// The mirror image of planes of this width, in place.
fn turn_round(planes: &mut [u8], width: usize) {
    planes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
}

/// Nobody stands in the letterbox's border.
fn blank_border(parsing: &mut Parsing) {
    let content = parsing.letterbox.content();
    let (left, right) = (content.x as usize, (content.x + content.width) as usize);
    let (top, bottom) = (content.y as usize, (content.y + content.height) as usize);
    for (y, line) in parsing.parts.chunks_exact_mut(parsing.grid.width).enumerate() {
        if y < top || y >= bottom {
            line.fill(0);
        } else {
            line[..left].fill(0);
            line[right..].fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use frame::{FrameBuffer, Layout, PixelFormat};

    use super::*;
    use crate::engine::{EngineOptions, ModelFiles};

    const SIZE: (u32, u32) = (192, 256);

    fn parser() -> Parser {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/student");
        let files = ModelFiles::read(&folder).expect("the shipped model is readable");
        let student = Student::load(&files, &EngineOptions::default()).expect("it loads");
        Parser::new(student, Orientation::default(), &ParserOptions::default())
    }

    /// A picture of noise, which differs by `seed`.
    fn picture(seed: u32) -> FrameBuffer {
        let (layout, mut state) =
            (Layout::new(PixelFormat::Rgb3, SIZE.0, SIZE.1, 0).expect("small"), seed);
        let mut picture = FrameBuffer::new();
        let filled = picture.fill_with(layout, |bytes| {
            for byte in bytes {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (state >> 24) as u8;
            }
            Ok::<(), ()>(())
        });
        filled.expect("filled");
        picture
    }

    /// Everything that the parser keeps, as text.
    fn kept(parser: &Parser) -> Vec<String> {
        let Parser {
            student,
            orientation: _,
            options: _,
            converter,
            pixels,
            post,
            scores,
            mirrored,
            colours,
            fit,
            places: _,
            decider,
            smoother,
            specks,
            tracker,
            parsing,
        } = parser;
        let whom: Vec<Rect> = tracker.seen().collect();
        let labels = (&parsing.parts, &parsing.person, &parsing.persons);
        let all: [&dyn std::fmt::Debug; 13] = [
            student.output(),
            converter,
            pixels,
            post,
            scores,
            colours,
            fit,
            decider,
            smoother,
            specks,
            &whom,
            &labels,
            mirrored,
        ];
        all.map(|part| format!("{part:?}")).into()
    }

    #[test]
    fn a_head_of_other_numbers_is_used_and_one_that_does_not_fit_is_not() {
        let (mut parser, picture) = (parser(), picture(1));
        let logits = |parser: &mut Parser| {
            parser.parse(&picture.frame()).expect("parses");
            parser.student().output().class_logits.clone()
        };
        let before = logits(&mut parser);
        let own = parser.student().head_parameters().trainable();
        let other: Vec<f32> = own.iter().map(|number| number * 0.9).collect();
        parser.use_trainable(&other).expect("a head");
        assert_eq!(parser.student().head_parameters().trainable(), other);
        assert_ne!(logits(&mut parser), before);
        let error = parser.use_trainable(&own[1..]).expect_err("one is missing").to_string();
        assert!(error.contains("trainable values"), "{error}");
        assert_eq!(parser.student().head_parameters().trainable(), other, "it stays");
    }

    #[test]
    fn what_is_forgotten_leaves_nothing_by_which_pictures_differ() {
        let left = [1, 2].map(|seed| {
            let (mut parser, picture) = (parser(), picture(seed));
            for _ in 0..2 {
                parser.parse(&picture.frame()).expect("parses");
            }
            parser.parse_both_ways(&picture.frame()).expect("parses");
            parser.part_map(picture.frame().bytes(), &mut Vec::new());
            let before = kept(&parser);
            parser.forget();
            (before, kept(&parser))
        });
        let [(first, first_left), (second, second_left)] = left;
        let differ = |k: &usize| first[*k] != second[*k];
        assert!((0..9).filter(differ).count() == 9, "these pictures are told apart by every part");
        for (k, (a, b)) in first_left.iter().zip(&second_left).enumerate() {
            assert!(a == b, "part {k} tells the pictures apart after they were forgotten");
        }
    }
}
