//! The whole way from a picture to a parsing, with its memory and its clock.

use std::time::{Duration, Instant};

use frame::{Frame, Orientation};
use heapless::Vec as Bounded;

use crate::convert::Converter;
use crate::engine::{Head, RawOutput, Student};
use crate::error::{ModelError, VisionError};
use crate::geometry::Rect;
use crate::postprocess::{MAX_PEOPLE, Parsing, PostProcessor, score_size};
use crate::scores::{Between, Decider, Scores};
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

/// Time of each stage of the last picture.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // the names say it
pub struct StageTimings {
    pub convert: Duration,
    pub infer: Duration,
    pub parse: Duration,
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
        let mask = crate::geometry::GridSize { height: grid.height / 4, width: grid.width / 4 };
        Parser {
            converter: Converter::new(grid, student.padding()),
            pixels: vec![0; 3 * grid.area()],
            post: PostProcessor::new(student.queries(), mask, grid),
            scores: Scores::new(score_size(mask)),
            decider: Decider::default(),
            smoother: Smoother::new(score_size(mask)),
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

    /// Forgets earlier pictures: after a pause, or another source.
    pub fn forget(&mut self) {
        self.smoother.reset();
        self.tracker.reset();
    }

    /// Parses a picture.
    ///
    /// # Errors
    /// A compressed picture, or a network that fails; the last parsing is then not changed.
    pub fn parse(&mut self, frame: &Frame<'_>) -> Result<&Parsing, VisionError> {
        let began = Instant::now();
        let letterbox = self.converter.convert(frame, self.orientation, &mut self.pixels)?;
        let converted = Instant::now();
        let raw = self.student.run(&self.pixels)?;
        let inferred = Instant::now();
        if letterbox != self.parsing.letterbox {
            self.smoother.reset();
        }
        self.post.merge(raw, &mut self.scores)?;
        if self.options.smoothing {
            self.smoother.smooth(&mut self.scores);
        }
        let (rows, columns) = self.post.enlargement();
        self.decider.decide(
            &self.scores,
            rows,
            columns,
            self.options.priority_margin,
            &mut self.parsing.parts,
        );
        self.parsing.letterbox = letterbox;
        blank_border(&mut self.parsing);
        self.specks.remove(self.parsing.grid, &mut self.parsing.parts);
        let raw: &RawOutput = self.student.output();
        let seen: Bounded<Rect, MAX_PEOPLE> = match self.options.smoothing {
            true => self.tracker.seen().take(MAX_PEOPLE).collect(),
            false => Bounded::new(),
        };
        self.post.people(raw, self.options.person_score, &seen, &mut self.parsing);
        self.tracker.assign(&mut self.parsing.persons);
        self.parsing.timings = StageTimings {
            convert: converted - began,
            infer: inferred - converted,
            parse: inferred.elapsed(),
        };
        Ok(&self.parsing)
    }

    /// Part of every pixel of the last picture at its own upright size, `width * height` labels, decided from the
    /// scores at that size and not by enlarging the grid's labels. Specks that the grid has lost are not there either.
    pub fn part_map(&mut self, labels: &mut Vec<u8>) {
        let letterbox = self.parsing.letterbox;
        let (width, height) = letterbox.picture();
        labels.clear();
        labels.resize(width as usize * height as usize, 0);
        let size = self.scores.size;
        let share = size.width as f32 / self.parsing.grid.width as f32;
        let column =
            |x: u32| Between::at(letterbox.to_grid(x as f32 + 0.5, 0.0).0 * share, size.width);
        let row =
            |y: u32| Between::at(letterbox.to_grid(0.0, y as f32 + 0.5).1 * share, size.height);
        let columns: Vec<Between> = (0..width).map(column).collect();
        let rows: Vec<Between> = (0..height).map(row).collect();
        self.decider.decide(&self.scores, &rows, &columns, self.options.priority_margin, labels);
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
