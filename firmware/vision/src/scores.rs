//! Score of every part at every pixel of the enlarged masks, and the decision which part a pixel shows.

use frame::wipe;
use proto::taxonomy::{PART_COUNT, Part};

use crate::between::Between;
use crate::geometry::GridSize;
use crate::guide::{Fit, TERMS};

/// Part scores, 16 planes of h x w, each in 0..=1.
#[derive(Clone, Debug)]
pub struct Scores {
    /// Size of one plane.
    pub size: GridSize,
    /// Planes one after the other.
    pub values: Vec<f32>,
}

impl Scores {
    /// All zero.
    pub fn new(size: GridSize) -> Scores {
        Scores { size, values: vec![0.0; PART_COUNT * size.area()] }
    }

    /// Means of these scores and of those of the picture's mirror image, whose left is this picture's right.
    pub fn average_mirrored(&mut self, other: &Scores) {
        let (area, width) = (self.size.area(), self.size.width);
        for (part, plane) in Part::ALL.into_iter().zip(self.values.chunks_exact_mut(area)) {
            let theirs = other.plane(part.other_side().index().into());
            let lines = plane.chunks_exact_mut(width).zip(theirs.chunks_exact(width));
            for (line, theirs) in lines {
                let pairs = line.iter_mut().zip(theirs.iter().rev());
                pairs.for_each(|(score, their)| *score = 0.5 * (*score + their));
            }
        }
    }

    /// One part's plane.
    pub fn plane(&self, part: usize) -> &[f32] {
        let area = self.size.area();
        &self.values[part * area..(part + 1) * area]
    }
}

/// A line of a fit widened to the output's columns, for every part and term.
#[derive(Debug, Default)]
struct WideLine {
    /// Which line of the fit; none before the first.
    row: Option<usize>,
    /// Parts that may matter in it, as bits; the others' values are zero.
    active: u16,
    values: Vec<[Vec<f32>; TERMS]>,
}

impl WideLine {
    fn load(&mut self, fit: &Fit, row: usize, columns: &[Between]) {
        if self.row == Some(row) {
            return;
        }
        (self.row, self.active) = (Some(row), 0);
        for (part, terms) in self.values.iter_mut().enumerate() {
            if !fit.is_active(part, row) {
                terms.iter_mut().for_each(|values| values.fill(0.0));
                continue;
            }
            self.active |= 1 << part;
            for (term, values) in terms.iter_mut().enumerate() {
                let narrow = fit.line(part, term, row);
                values
                    .iter_mut()
                    .zip(columns)
                    .for_each(|(value, column)| *value = column.of(narrow));
            }
        }
    }
}

/// Reads scores off a fit at the picture's colours and decides, line by line. Keeps its memory.
#[derive(Debug, Default)]
pub struct Decider {
    /// Two neighbouring lines of the fit: widened once, used for every output line between them.
    lines: [WideLine; 2],
    colours: [Vec<f32>; 3],
    wide: Vec<Vec<f32>>,
    best: Vec<f32>,
    /// The score by which a part of the priority at hand holds a pixel.
    held: Vec<f32>,
    /// Labels as wide as the scores, so that comparing and choosing runs on whole vectors.
    chosen: Vec<u32>,
}

impl Decider {
    /// Writes the part of every pixel of `lines`, one for each of `rows` and as long as `columns`.
    ///
    /// `colours` writes the colours, 0..=1, of a line of the output. The part with the highest score there wins, except that
    /// among parts of a person whose score is at least `margin` times the best, the one with the highest priority
    /// ([`Part::priority`]) wins, and among those of one priority the one with the higher score: face before hair before hands,
    /// and so on, left and right alike. The background takes no part in that: it wins
    /// where it is best, and only there.
    pub fn decide<'a>(
        &mut self,
        fit: &Fit,
        rows: &[Between],
        columns: &[Between],
        margin: f32,
        mut colours: impl FnMut(usize, &mut [Vec<f32>; 3]),
        lines: impl Iterator<Item = &'a mut [u8]>,
    ) {
        self.resize(columns.len());
        for (y, (row, out)) in rows.iter().zip(lines).enumerate() {
            colours(y, &mut self.colours);
            let active = self.blend(fit, *row, columns);
            self.decide_line(active, margin, out);
        }
    }

    /// Nothing of earlier pictures stays in memory.
    pub fn forget(&mut self) {
        let Decider { lines, colours, wide, best, held, chosen } = self;
        for line in lines {
            (line.row, line.active) = (None, 0);
            line.values.iter_mut().flatten().for_each(wipe);
        }
        colours.iter_mut().chain(wide).chain([best, held]).for_each(wipe);
        wipe(chosen);
    }

    fn resize(&mut self, width: usize) {
        self.wide.resize_with(PART_COUNT, Vec::new);
        self.wide.iter_mut().for_each(|line| line.resize(width, 0.0));
        self.colours.iter_mut().for_each(|line| line.resize(width, 0.0));
        for line in &mut self.lines {
            line.row = None;
            line.values.resize_with(PART_COUNT, Default::default);
            line.values.iter_mut().flatten().for_each(|values| values.resize(width, 0.0));
        }
        self.best.resize(width, 0.0);
        self.held.resize(width, 0.0);
        self.chosen.resize(width, 0);
    }

    /// Fills `wide` for the parts that matter in an output line; gives them as bits. Background always counts.
    fn blend(&mut self, fit: &Fit, row: Between, columns: &[Between]) -> u16 {
        let (low, high, share) = row.parts();
        // Neighbours differ in their last bit, so neither drives the other out.
        self.lines[low % 2].load(fit, low, columns);
        self.lines[high % 2].load(fit, high, columns);
        let (above, below) = (&self.lines[low % 2], &self.lines[high % 2]);
        let active = above.active | below.active;
        let between = |a: f32, b: f32| a + share * (b - a);
        for part in (0..PART_COUNT).filter(|part| active & (1 << part) != 0) {
            let pairs =
                |term: usize| above.values[part][term].iter().zip(&below.values[part][term]);
            let wide = &mut self.wide[part];
            wide.iter_mut().zip(pairs(TERMS - 1)).for_each(|(v, (&a, &b))| *v = between(a, b));
            for (term, colours) in self.colours.iter().enumerate() {
                wide.iter_mut()
                    .zip(pairs(term))
                    .zip(colours)
                    .for_each(|((v, (&a, &b)), colour)| *v += between(a, b) * colour);
            }
        }
        active
    }

    fn decide_line(&mut self, active: u16, margin: f32, out: &mut [u8]) {
        if active == 1 {
            out.fill(0);
            return;
        }
        self.best.fill(0.0);
        self.chosen.fill(0);
        let counts = |part: usize| active & (1 << part) != 0;
        for part in (1..PART_COUNT).filter(|&p| counts(p)) {
            self.best
                .iter_mut()
                .zip(&self.wide[part])
                .for_each(|(best, &value)| *best = best.max(value));
        }
        // From the lowest priority to the highest, so that the last to claim a pixel keeps it; among equals, left and right,
        // the higher score does.
        let mut priority = None;
        for part in LOWEST_FIRST.into_iter().filter(|&p| counts(p.into())) {
            if priority.replace(PRIORITY[usize::from(part)]) != Some(PRIORITY[usize::from(part)]) {
                self.held.fill(0.0);
            }
            let label = u32::from(part);
            let scored = self.wide[usize::from(part)].iter().zip(&self.best);
            let claims = self.chosen.iter_mut().zip(&mut self.held);
            claims.zip(scored).for_each(|((chosen, held), (&value, &best))| {
                let wins = value >= margin * best && value > *held;
                *chosen = if wins { label } else { *chosen };
                *held = if wins { value } else { *held };
            });
        }
        let scored = self.wide[0].iter().zip(&self.best);
        out.iter_mut().zip(&self.chosen).zip(scored).for_each(
            |((out, &chosen), (&background, &best))| {
                *out = if background >= best { 0 } else { chosen as u8 };
            },
        );
    }
}

/// [`Part::priority`] by index.
const PRIORITY: [u8; PART_COUNT] = {
    let mut priorities = [0; PART_COUNT];
    let mut k = 0;
    while k < PART_COUNT {
        priorities[k] = Part::ALL[k].priority();
        k += 1;
    }
    priorities
};

/// Parts of a person from the lowest priority to the highest.
const LOWEST_FIRST: [u8; PART_COUNT - 1] = lowest_first();

const fn lowest_first() -> [u8; PART_COUNT - 1] {
    let mut order = [0; PART_COUNT - 1];
    let (mut filled, mut priority) = (0, Part::Torso.priority() as i32);
    while priority >= 0 {
        let mut k = 1;
        while k < PART_COUNT {
            if Part::ALL[k].priority() as i32 == priority {
                order[filled] = k as u8;
                filled += 1;
            }
            k += 1;
        }
        priority -= 1;
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Letterbox;
    use crate::guide::Colours;

    const SIZE: GridSize = GridSize { height: 4, width: 4 };

    fn scores(set: &[(Part, f32)]) -> Scores {
        let mut scores = Scores::new(SIZE);
        for &(part, value) in set {
            let area = SIZE.area();
            scores.values[usize::from(part.index()) * area..][..area].fill(value);
        }
        scores
    }

    fn label(set: &[(Part, f32)], margin: f32) -> Part {
        let grid = GridSize { height: 8, width: 8 };
        let letterbox = Letterbox::new(8, 8, grid);
        let (mut fit, colours) = (Fit::new(SIZE, grid), Colours::new(grid));
        fit.fit(&scores(set), &colours, &letterbox);
        let taps: Vec<Between> = (0..8).map(|x| fit.column(x as f32 + 0.5)).collect();
        let mut labels = vec![99; 64];
        let lines = labels.chunks_exact_mut(8);
        Decider::default().decide(&fit, &taps, &taps, margin, |_, _| (), lines);
        assert!(labels.iter().all(|&l| l == labels[0]));
        Part::from_index(labels[0]).expect("a part")
    }

    #[test]
    fn a_small_important_part_is_not_covered() {
        let contest = [(Part::Torso, 0.5), (Part::HandLeft, 0.42), (Part::Background, 0.08)];
        assert_eq!(label(&contest, 0.8), Part::HandLeft);
        assert_eq!(label(&contest, 0.9), Part::Torso);
        assert_eq!(label(&contest, 1.0), Part::Torso);
        assert_eq!(label(&[(Part::Hair, 0.5), (Part::Face, 0.45)], 0.8), Part::Face);
    }

    #[test]
    fn the_better_of_left_and_right_wins() {
        for (left, right, better) in
            [(0.5, 0.48, Part::LowerArmLeft), (0.48, 0.5, Part::LowerArmRight)]
        {
            let contest =
                [(Part::LowerArmLeft, left), (Part::LowerArmRight, right), (Part::Torso, 0.45)];
            assert_eq!(label(&contest, 0.8), better);
        }
    }

    #[test]
    fn priority_never_eats_the_background() {
        assert_eq!(label(&[(Part::Background, 0.5), (Part::Face, 0.45)], 0.5), Part::Background);
        assert_eq!(label(&[], 0.8), Part::Background);
    }

    #[test]
    fn order_has_every_part_once_and_face_last() {
        let mut sorted = LOWEST_FIRST;
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(k, &p)| usize::from(p) == k + 1));
        assert_eq!(LOWEST_FIRST[14], Part::Face.index());
        assert_eq!(LOWEST_FIRST[0], Part::Torso.index());
    }
}
