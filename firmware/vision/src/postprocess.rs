//! From queries to people: M2FP's merge of class probability and mask probability, and whole-human masks.

use std::cmp::Ordering;

use frame::wipe;
use heapless::Vec as Bounded;
use proto::taxonomy::{CLASS_COUNT, PART_COUNT, PERSON_CLASS};

use crate::between::Between;
use crate::engine::RawOutput;
use crate::error::VisionError;
use crate::geometry::{GridSize, Rect, extent};
use crate::parsing::{MAX_PEOPLE, Parsing, Person};
use crate::scores::Scores;
use crate::specks::LEAST_ISLAND;

/// Queries below this share change no pixel by more than rounding.
const NEGLIGIBLE: f32 = 1e-3;
/// Two whole-human masks that overlap more than this are one person seen by two queries.
const SAME_PERSON: f32 = 0.6;
/// Share of the least score that is enough for somebody who was there in the picture before: a score that lies near the least
/// one would make them come and go.
const HELD: f32 = 0.6;
/// A query is somebody of before when its mask's rectangle overlaps theirs at least this much.
const HELD_OVERLAP: f32 = 0.5;
/// Below this logit, a probability of 2 %, a mask says that a pixel is not theirs.
const RULED_OUT: f32 = -4.0;

/// How many times the masks' logits are enlarged before they become scores. Interpolated logits keep an edge where it is,
/// interpolated scores move it towards whoever is surer. Four times gives no more.
const FINER: usize = 2;

/// Size of the scores that masks of `mask` pixels give.
pub fn score_size(mask: GridSize) -> GridSize {
    GridSize { height: FINER * mask.height, width: FINER * mask.width }
}

/// Turns raw outputs into part scores and people. Keeps its memory.
#[derive(Debug)]
pub struct PostProcessor {
    shares: Vec<f32>,
    /// One query's mask at the size of the scores.
    mask: Vec<f32>,
    /// From masks to scores.
    finer: Enlargement,
    /// From masks to grid.
    whole: Enlargement,
    line: Vec<f32>,
    wide: Vec<f32>,
    strongest: Vec<f32>,
}

impl PostProcessor {
    /// For masks of `mask` pixels and a grid of `grid` pixels.
    pub fn new(queries: usize, mask: GridSize, grid: GridSize) -> PostProcessor {
        let score = score_size(mask);
        PostProcessor {
            shares: vec![0.0; queries * CLASS_COUNT],
            mask: vec![0.0; score.area()],
            finer: Enlargement::new(mask, score),
            whole: Enlargement::new(mask, grid),
            line: vec![0.0; mask.width],
            wide: vec![0.0; grid.width],
            strongest: vec![0.0; grid.area()],
        }
    }

    /// Nothing of earlier pictures stays in memory.
    pub fn forget(&mut self) {
        let Self { shares, mask, line, wide, strongest, finer: _, whole: _ } = self;
        [shares, mask, line, wide, strongest].into_iter().for_each(wipe);
    }

    /// Semantic merge: score of part c at a pixel = sum over queries of p(c) * sigmoid(mask), as M2FP does. `scores` is of
    /// [`score_size`].
    ///
    /// # Errors
    /// [`VisionError::NotFinite`] if the network's output is.
    pub fn merge(&mut self, raw: &RawOutput, scores: &mut Scores) -> Result<(), VisionError> {
        // All masks, also those that no part's score needs: people are told apart by theirs.
        if !raw.class_logits.iter().chain(&raw.mask_logits).all(|v| v.is_finite()) {
            return Err(VisionError::NotFinite);
        }
        for (share, logits) in self
            .shares
            .chunks_exact_mut(CLASS_COUNT)
            .zip(raw.class_logits.chunks_exact(CLASS_COUNT))
        {
            softmax(logits, share);
        }
        scores.values.fill(0.0);
        let (narrow, area) = (raw.mask_size.width, scores.size.area());
        let masks = raw.mask_logits.chunks_exact(raw.mask_size.area());
        for (share, logits) in self.shares.chunks_exact(CLASS_COUNT).zip(masks) {
            if share[..PART_COUNT].iter().all(|&p| p < NEGLIGIBLE) {
                continue;
            }
            self.finer.enlarge(logits, narrow, &mut self.line, &mut self.mask);
            self.mask.iter_mut().for_each(|m| *m = sigmoid(*m));
            for (plane, &p) in scores.values.chunks_exact_mut(area).zip(share) {
                if p >= NEGLIGIBLE {
                    plane.iter_mut().zip(&self.mask).for_each(|(s, &m)| *s += p * m);
                }
            }
        }
        if scores.values.iter().all(|v| v.is_finite()) {
            Ok(())
        } else {
            Err(VisionError::NotFinite)
        }
    }

    /// Whole-human masks of [`PostProcessor::merge`]'s picture, pasted in ascending score order over the part map. `held` are the
    /// rectangles, in the grid, of those who were there in the picture before.
    pub fn people(
        &mut self,
        raw: &RawOutput,
        least_score: f32,
        held: &[Rect],
        parsing: &mut Parsing,
    ) {
        parsing.person.fill(0);
        parsing.persons.clear();
        let chosen = self.choose(raw, least_score, held);
        if chosen.is_empty() {
            return;
        }
        self.strongest.fill(f32::NEG_INFINITY);
        for (k, &(query, _)) in chosen.iter().enumerate() {
            self.paste(raw, query, k as u8 + 1, parsing);
        }
        for (k, &(_, score)) in chosen.iter().enumerate() {
            let slot = k as u8 + 1;
            let (bounds, pixels) =
                extent(&parsing.person, parsing.grid.width, |&p| p == slot).unwrap_or_default();
            if pixels as usize >= LEAST_ISLAND {
                // No more are chosen than there is room for.
                let _ = parsing.persons.push(Person { slot, track: 0, score, bounds, pixels });
            } else {
                parsing.person.iter_mut().filter(|p| **p == slot).for_each(|p| *p = 0);
            }
        }
    }

    /// Queries that are people, in ascending score order, without doubles.
    fn choose(
        &self,
        raw: &RawOutput,
        least_score: f32,
        held: &[Rect],
    ) -> Bounded<(usize, f32), MAX_PEOPLE> {
        let mut found: Bounded<(usize, f32), MAX_PEOPLE> = Bounded::new();
        // Of before, and not found again yet: somebody who was is no reason to believe a weak query beside theirs.
        let mut held: Bounded<Rect, MAX_PEOPLE> = held.iter().copied().take(MAX_PEOPLE).collect();
        let scores =
            || self.shares.chunks_exact(CLASS_COUNT).map(|share| share[PERSON_CLASS]).enumerate();
        let mut ceiling = (f32::INFINITY, usize::MAX);
        // Best first: the next is the largest below the last one taken. Q is a few dozen.
        while !found.is_full() {
            let is_there = |q: usize, s: f32| {
                s >= least_score || (s >= HELD * least_score && self.held(raw, q, &held).is_some())
            };
            let next = |&(q, s): &(usize, f32)| (s, q) < ceiling && is_there(q, s);
            let Some((query, score)) = scores()
                .filter(next)
                .max_by(|a, b| (a.1, a.0).partial_cmp(&(b.1, b.0)).unwrap_or(Ordering::Equal))
            else {
                break;
            };
            ceiling = (score, query);
            if found.iter().all(|&(other, _)| overlap(raw, query, other) < SAME_PERSON) {
                let _ = found.push((query, score));
                if let Some(index) = self.held(raw, query, &held) {
                    held.swap_remove(index);
                }
            }
        }
        found.reverse();
        found
    }

    /// Which of these rectangles, of people in the picture before, a query's mask overlaps most, if it does enough.
    fn held(&self, raw: &RawOutput, query: usize, held: &[Rect]) -> Option<usize> {
        if held.is_empty() {
            return None;
        }
        let (width, area) = (raw.mask_size.width, raw.mask_size.area());
        let mask = &raw.mask_logits[query * area..][..area];
        let (inside, _) = extent(mask, width, |&logit| logit > 0.0)?;
        let share = (self.whole.columns.len() / width) as u32;
        let [x, y, width, height] =
            [inside.x, inside.y, inside.width, inside.height].map(|v| v * share);
        let inside = Rect { x, y, width, height };
        let overlaps = held.iter().map(|rect| rect.iou(inside)).enumerate();
        let most = overlaps.max_by(|a, b| a.1.partial_cmp(&b.1).unwrap_or(Ordering::Equal))?;
        (most.1 >= HELD_OVERLAP).then_some(most.0)
    }

    /// A person takes the pixels inside their mask, over those pasted before, and pixels of no mask at all where
    /// theirs is the strongest and does not rule them out: what is left is part of nobody, such as a patch of curtain.
    fn paste(&mut self, raw: &RawOutput, query: usize, slot: u8, parsing: &mut Parsing) {
        let (w, area) = (raw.mask_size.width, raw.mask_size.area());
        let mask = &raw.mask_logits[query * area..][..area];
        let width = parsing.grid.width;
        let lines = parsing.parts.chunks_exact(width).zip(parsing.person.chunks_exact_mut(width));
        for ((row, (parts, person)), strongest) in
            self.whole.rows.iter().zip(lines).zip(self.strongest.chunks_exact_mut(width))
        {
            if parts.iter().all(|&p| p == 0) {
                continue;
            }
            self.whole.widen(*row, mask, w, &mut self.line, &mut self.wide);
            for (((owner, strongest), &part), &logit) in
                person.iter_mut().zip(strongest).zip(parts).zip(&self.wide)
            {
                let of_no_mask = *strongest <= 0.0 && logit > strongest.max(RULED_OUT);
                if part != 0 && (logit > 0.0 || of_no_mask) {
                    *owner = slot;
                    *strongest = logit;
                }
            }
        }
    }
}

/// A bilinear enlargement of planes from one size to another.
#[derive(Debug)]
struct Enlargement {
    rows: Vec<Between>,
    columns: Vec<Between>,
}

impl Enlargement {
    fn new(from: GridSize, to: GridSize) -> Enlargement {
        Enlargement {
            rows: Between::enlargement(from.height, to.height),
            columns: Between::enlargement(from.width, to.width),
        }
    }

    /// Enlarges a plane of width `w` into `out`; `line` has room for one of its lines.
    fn enlarge(&self, plane: &[f32], w: usize, line: &mut [f32], out: &mut [f32]) {
        for (row, wide) in self.rows.iter().zip(out.chunks_exact_mut(self.columns.len())) {
            self.widen(*row, plane, w, line, wide);
        }
    }

    /// One line of the enlarged plane.
    fn widen(&self, row: Between, plane: &[f32], w: usize, line: &mut [f32], wide: &mut [f32]) {
        for (x, value) in line.iter_mut().enumerate() {
            *value = row.of_column(plane, w, x);
        }
        wide.iter_mut().zip(&self.columns).for_each(|(value, column)| *value = column.of(line));
    }
}

fn overlap(raw: &RawOutput, a: usize, b: usize) -> f32 {
    let area = raw.mask_size.area();
    let inside = |query: usize| raw.mask_logits[query * area..][..area].iter().map(|&l| l > 0.0);
    let (mut both, mut either) = (0u32, 0u32);
    for (p, q) in inside(a).zip(inside(b)) {
        both += u32::from(p && q);
        either += u32::from(p || q);
    }
    if either == 0 { 0.0 } else { both as f32 / either as f32 }
}

fn softmax(logits: &[f32], out: &mut [f32]) {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    out.iter_mut().zip(logits).for_each(|(o, &l)| *o = (l - most).exp());
    let sum: f32 = out.iter().sum();
    out.iter_mut().for_each(|o| *o /= sum);
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// e^x to 2e-7 relative, branch-free so that it vectorises: 2^n times a polynomial on [-0.5, 0.5] (degree 6 Taylor of
/// 2^f, error below one unit in the last place of f32).
fn exp(x: f32) -> f32 {
    let t = (x * std::f32::consts::LOG2_E).clamp(-126.0, 126.0);
    // Adding and taking away 1.5 * 2^23 rounds to a whole number with two additions, which every machine vectorises.
    let n = (t + 12_582_912.0) - 12_582_912.0;
    let f = (t - n) * std::f32::consts::LN_2;
    let series = 1.0
        + f * (1.0
            + f * (0.5 + f * (1.0 / 6.0 + f * (1.0 / 24.0 + f * (1.0 / 120.0 + f / 720.0)))));
    series * f32::from_bits(((n as i32 + 127) << 23) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guide::{Colours, Fit};
    use crate::scores::Decider;

    const MASK: GridSize = GridSize { height: 8, width: 6 };
    const GRID: GridSize = GridSize { height: 32, width: 24 };

    /// Queries given as (class, rectangle rows, rectangle columns, mask logit inside).
    fn raw(queries: &[(usize, std::ops::Range<usize>, std::ops::Range<usize>, f32)]) -> RawOutput {
        let mut raw = RawOutput {
            queries: queries.len(),
            mask_size: MASK,
            class_logits: vec![0.0; queries.len() * CLASS_COUNT],
            mask_logits: vec![-8.0; queries.len() * MASK.area()],
        };
        for (q, (class, rows, columns, inside)) in queries.iter().enumerate() {
            raw.class_logits[q * CLASS_COUNT + class] = 9.0 - q as f32 * 0.5;
            for y in rows.clone() {
                for x in columns.clone() {
                    raw.mask_logits[q * MASK.area() + y * MASK.width + x] = *inside;
                }
            }
        }
        raw
    }

    fn run(raw: &RawOutput) -> Parsing {
        let mut post = PostProcessor::new(raw.queries, MASK, GRID);
        let mut scores = Scores::new(score_size(MASK));
        let mut parsing = Parsing::new(GRID);
        post.merge(raw, &mut scores).expect("finite");
        let (mut fit, mut colours) = (Fit::new(scores.size, GRID), Colours::new(GRID));
        // Where nobody's rectangles reach, the picture is darker.
        let bright = |at: usize| (4..28).contains(&(at / GRID.width % GRID.height));
        colours
            .values
            .iter_mut()
            .enumerate()
            .for_each(|(at, v)| *v = f32::from(u8::from(bright(at))));
        fit.fit(&scores, &colours, &parsing.letterbox);
        let rows: Vec<Between> = (0..GRID.height).map(|y| fit.row(y as f32 + 0.5)).collect();
        let columns: Vec<Between> = (0..GRID.width).map(|x| fit.column(x as f32 + 0.5)).collect();
        let lines = parsing.parts.chunks_exact_mut(GRID.width);
        Decider::default().decide(
            &fit,
            &rows,
            &columns,
            0.8,
            |y, line| {
                let plane = |k: usize| colours.line(k, y, 0..GRID.width);
                line.iter_mut()
                    .enumerate()
                    .for_each(|(k, values)| values.copy_from_slice(plane(k)));
            },
            lines,
        );
        post.people(raw, 0.5, &[], &mut parsing);
        parsing
    }

    /// People found in one picture at this least score, where these were before.
    fn people_of(raw: &RawOutput, least_score: f32, held: &[Rect]) -> usize {
        let mut post = PostProcessor::new(raw.queries, MASK, GRID);
        let mut parsing = Parsing::new(GRID);
        post.merge(raw, &mut Scores::new(score_size(MASK))).expect("finite");
        parsing.parts.fill(3);
        post.people(raw, least_score, held, &mut parsing);
        parsing.persons.len()
    }

    #[test]
    fn somebody_who_was_there_stays_at_a_somewhat_lower_score() {
        let mut one = raw(&[(PERSON_CLASS, 1..7, 1..5, 8.0)]);
        // A probability of 0.4: 17 other classes share the rest.
        one.class_logits[PERSON_CLASS] = (0.4f32 / 0.6 * 17.0).ln();
        let there = Rect { x: 4, y: 4, width: 16, height: 24 };
        let elsewhere = Rect { x: 0, y: 0, width: 6, height: 6 };
        assert_eq!(people_of(&one, 0.5, &[]), 0);
        assert_eq!(people_of(&one, 0.5, &[elsewhere]), 0);
        assert_eq!(people_of(&one, 0.5, &[elsewhere, there]), 1);
        assert_eq!(people_of(&one, 0.7, &[there]), 0, "0.4 is less than 0.6 of 0.7");
    }

    #[test]
    fn somebody_who_is_found_again_vouches_for_no_second_query() {
        // The second mask lies partly beside the first.
        let mut two = raw(&[(PERSON_CLASS, 1..7, 1..5, 8.0), (PERSON_CLASS, 1..7, 0..3, 8.0)]);
        two.class_logits[CLASS_COUNT + PERSON_CLASS] = (0.4f32 / 0.6 * 17.0).ln();
        let (there, left) = (
            Rect { x: 4, y: 4, width: 16, height: 24 },
            Rect { x: 0, y: 4, width: 12, height: 24 },
        );
        let wide = Rect { x: 0, y: 4, width: 18, height: 24 };
        assert_eq!(people_of(&two, 0.5, &[]), 1);
        assert_eq!(people_of(&two, 0.5, &[wide]), 1, "one was there, and is found");
        assert_eq!(people_of(&two, 0.5, &[there, left]), 2, "both were there");
    }

    #[test]
    fn what_every_mask_rules_out_is_nobody_s() {
        // Torso everywhere, a person on the left only, whose mask is sure of that.
        let parsing = run(&raw(&[(3, 0..8, 0..6, 8.0), (PERSON_CLASS, 0..8, 0..3, 8.0)]));
        let at = |x: usize| (parsing.parts[16 * 24 + x], parsing.person[16 * 24 + x]);
        assert_eq!((at(2), at(22)), ((3, 1), (3, 0)));
        assert!(parsing.persons[0].bounds.width <= 14, "{:?}", parsing.persons);
    }

    #[test]
    fn two_people_side_by_side_are_told_apart() {
        let parsing = run(&raw(&[
            (0, 0..8, 0..6, 0.0),
            (3, 1..7, 0..6, 8.0),
            (PERSON_CLASS, 0..8, 0..3, 8.0),
            (PERSON_CLASS, 0..8, 3..6, 8.0),
        ]));
        assert_eq!(parsing.persons.len(), 2);
        let at = |x: usize| parsing.person[16 * 24 + x];
        assert_ne!(at(2), at(21));
        assert!(parsing.parts[16 * 24 + 2] == 3 && parsing.parts[0] == 0 && parsing.person[0] == 0);
        for person in &parsing.persons {
            assert_eq!(
                parsing.person.iter().filter(|&&p| p == person.slot).count(),
                person.pixels as usize
            );
            assert!(person.bounds.width <= 13 && person.score > 0.9);
        }
    }

    #[test]
    fn two_queries_on_one_person_are_one_person() {
        let twice = run(&raw(&[
            (3, 1..7, 1..5, 8.0),
            (PERSON_CLASS, 0..8, 0..6, 8.0),
            (PERSON_CLASS, 0..8, 0..5, 8.0),
        ]));
        assert_eq!(twice.persons.len(), 1);
        assert!(
            twice
                .parts
                .iter()
                .zip(&twice.person)
                .all(|(&part, &person)| (part > 0) == (person > 0))
        );
    }

    #[test]
    fn nobody_is_nobody() {
        let parsing = run(&raw(&[(0, 0..8, 0..6, 8.0), (17, 0..8, 0..6, 8.0)]));
        assert!(parsing.persons.is_empty() && parsing.parts.iter().all(|&p| p == 0));
    }

    /// Background goes from logit 2 to -8, the torso from -2 to 8: equal after a fifth of the way between two mask pixels,
    /// whose centres are 5 and 7 among the scores. Interpolated scores would be equal after 0.43 of it, beyond the next score.
    #[test]
    fn an_edge_stays_where_the_logits_put_it() {
        let mut edge = raw(&[(0, 0..8, 0..3, 2.0), (3, 0..8, 3..6, 8.0)]);
        let torso = &mut edge.mask_logits[MASK.area()..];
        torso.iter_mut().filter(|logit| **logit < 0.0).for_each(|logit| *logit = -2.0);
        let mut scores = Scores::new(score_size(MASK));
        PostProcessor::new(2, MASK, GRID).merge(&edge, &mut scores).expect("finite");
        let line = |part: usize| &scores.plane(part)[8 * 12..9 * 12];
        let torso: Vec<bool> = line(0).iter().zip(line(3)).map(|(b, t)| t > b).collect();
        assert_eq!(torso.iter().position(|&t| t), Some(5), "{torso:?}");
        assert!(torso[5..].iter().all(|&t| t), "{torso:?}");
    }

    #[test]
    fn not_a_number_is_refused() {
        let mut bad = raw(&[(3, 0..8, 0..6, 8.0)]);
        bad.mask_logits[7] = f32::NAN;
        let mut post = PostProcessor::new(1, MASK, GRID);
        let mut scores = Scores::new(score_size(MASK));
        assert!(matches!(post.merge(&bad, &mut scores), Err(VisionError::NotFinite)));
        // A query that is surely a person has no share of any part.
        let mut bad = raw(&[(3, 0..8, 0..6, 8.0), (PERSON_CLASS, 0..8, 0..6, 8.0)]);
        bad.class_logits[CLASS_COUNT + PERSON_CLASS] = 20.0;
        bad.mask_logits[MASK.area() + 7] = f32::NAN;
        let mut post = PostProcessor::new(2, MASK, GRID);
        assert!(matches!(post.merge(&bad, &mut scores), Err(VisionError::NotFinite)));
    }

    #[test]
    fn fast_exponential_is_accurate() {
        for k in -800..=800 {
            let x = k as f32 * 0.1;
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(
                (got - want).abs() <= 4e-7 * want * (1.0 + f64::from(x.abs())),
                "{x}: {got} {want}"
            );
        }
        assert_eq!(sigmoid(1e30), 1.0);
        assert!(sigmoid(-1e30) < 1e-30);
    }
}
