//! Scores that keep to the picture's edges.
//!
//! The network's masks have a sixteenth of the picture's pixels, so that an outline between them is a guess of theirs. Within a
//! few pixels, though, a score is nearly a linear function of the picture's colour: that function is fitted where the masks are
//! known, and read where the picture is. It is the fast guided filter (He and Sun 2015, arXiv 1505.00996) with the colour picture
//! as the guide (He, Sun and Tang 2013, eq. 14 to 16).

use frame::wipe;
use proto::taxonomy::PART_COUNT;

use crate::between::Between;
use crate::geometry::{GridSize, Letterbox, Rect};
use crate::scores::Scores;

/// A fit sees the scores up to this far away on every side: 3 x 3 of them, 6 x 6 pixels of the grid. Twice as far gains as much
/// IoU but blurs thin limbs: of the middles of rendered limbs below eight pixels 60 % are right with 1, 56 % with 2.
const RADIUS: usize = 1;
/// Variance of colours, 0..=1 each, from which on a difference counts as an edge: a deviation of 3 %. A third of it gives the same
/// scores.
const FLAT: f32 = 1e-3;
/// Parts below this at all scores near a line cannot win a pixel that matters: the best score of a pixel is at least the
/// mean of 16 that sum to about one.
const NEGLIGIBLE: f32 = 0.03;
/// Values of a fit: one for each colour, and the rest.
pub const TERMS: usize = 4;

/// The picture in the grid as colours in 0..=1, steadied in time like the scores.
#[derive(Clone, Debug)]
pub struct Colours {
    /// Size of one plane.
    pub grid: GridSize,
    /// R, G and B planes.
    pub values: Vec<f32>,
}

impl Colours {
    /// All black.
    pub fn new(grid: GridSize) -> Colours {
        Colours { grid, values: vec![0.0; 3 * grid.area()] }
    }

    /// Takes over a picture's bytes, R, G and B planes.
    pub fn take(&mut self, pixels: &[u8]) {
        self.values.iter_mut().zip(pixels).for_each(|(value, &byte)| *value = colour(byte));
    }

    /// Part of one line of a plane.
    pub fn line(&self, plane: usize, y: usize, columns: std::ops::Range<usize>) -> &[f32] {
        let start = plane * self.grid.area() + y * self.grid.width;
        &self.values[start + columns.start..start + columns.end]
    }
}

/// A byte of a picture as a colour in 0..=1.
pub fn colour(byte: u8) -> f32 {
    f32::from(byte) * (1.0 / 255.0)
}

/// For every part and score, the linear function of the colour that fits the scores around it best.
///
/// It covers the part of the grid that shows the picture: the border's colour says nothing about anybody. Keeps its memory.
#[derive(Debug)]
pub struct Fit {
    /// The scores that show the picture: origin and size.
    origin: (usize, usize),
    size: GridSize,
    /// How many grid pixels one score spans.
    finer: usize,
    /// Planes of `size`: for every part, what R, G and B are multiplied by and what is added.
    terms: Vec<f32>,
    /// Whether a part may matter in a line: `PART_COUNT` for each.
    active: Vec<bool>,
    colours: [Vec<f32>; 3],
    means: [Vec<f32>; 3],
    factors: Factors,
    boxes: Boxes,
    score: Vec<f32>,
    mean: Vec<f32>,
    product: Vec<f32>,
    covariance: [Vec<f32>; 3],
}

/// The covariance of the colours around every score, as L D L^T: it is close to singular in grey pictures, where its inverse
/// written out would lose all digits.
#[derive(Debug, Default)]
struct Factors {
    l10: Vec<f32>,
    l20: Vec<f32>,
    l21: Vec<f32>,
    /// Reciprocals of D.
    d: [Vec<f32>; 3],
}

impl Fit {
    /// For scores of `size`, whose grid is a whole number of times as large.
    pub fn new(size: GridSize, grid: GridSize) -> Fit {
        let plane = || vec![0.0; size.area()];
        let planes = || [plane(), plane(), plane()];
        Fit {
            origin: (0, 0),
            size,
            finer: grid.width / size.width,
            terms: vec![0.0; PART_COUNT * TERMS * size.area()],
            active: vec![false; PART_COUNT * size.height],
            colours: planes(),
            means: planes(),
            factors: Factors { l10: plane(), l20: plane(), l21: plane(), d: planes() },
            boxes: Boxes::new(size),
            score: plane(),
            mean: plane(),
            product: plane(),
            covariance: planes(),
        }
    }

    /// One line of one of a part's [`TERMS`].
    pub fn line(&self, part: usize, term: usize, y: usize) -> &[f32] {
        let start = (part * TERMS + term) * self.size.area() + y * self.size.width;
        &self.terms[start..start + self.size.width]
    }

    /// Whether a part may matter in a line.
    pub fn is_active(&self, part: usize, y: usize) -> bool {
        self.active[y * PART_COUNT + part]
    }

    /// Where columns of the grid, given as continuous coordinates, lie between the columns of the fit.
    pub fn column(&self, x: f32) -> Between {
        Between::at(x / self.finer as f32 - self.origin.0 as f32, self.size.width)
    }

    /// Where rows of the grid, given as continuous coordinates, lie between the rows of the fit.
    pub fn row(&self, y: f32) -> Between {
        Between::at(y / self.finer as f32 - self.origin.1 as f32, self.size.height)
    }

    /// Nothing of earlier pictures stays in memory.
    pub fn forget(&mut self) {
        let Factors { l10, l20, l21, d } = &mut self.factors;
        let planes = [&mut self.terms, &mut self.boxes.line, l10, l20, l21];
        let fitted = [&mut self.score, &mut self.mean, &mut self.product];
        let colours = self.colours.iter_mut().chain(&mut self.means);
        let all = colours.chain(&mut self.covariance).chain(d);
        all.chain(planes).chain(fitted).for_each(wipe);
        wipe(&mut self.active);
    }

    /// Fits the scores to the colours where the grid shows the picture.
    pub fn fit(&mut self, scores: &Scores, colours: &Colours, letterbox: &Letterbox) {
        let content = letterbox.content();
        self.cover(content);
        self.shrink(colours, content);
        self.factorise();
        self.note_active(scores);
        for part in 0..PART_COUNT {
            if (0..self.size.height).any(|y| self.is_active(part, y)) {
                self.fit_part(part, scores);
            }
        }
    }

    /// Sets the size to the scores that show the picture, one that shows a pixel of it included.
    fn cover(&mut self, content: Rect) {
        let span = |start: u32, length: u32| {
            let (start, end) = (start as usize, (start + length) as usize);
            (start / self.finer, end.div_ceil(self.finer))
        };
        let (left, right) = span(content.x, content.width);
        let (top, bottom) = span(content.y, content.height);
        self.origin = (left, top);
        self.size = GridSize { height: bottom - top, width: right - left };
        self.boxes.resize(self.size);
    }

    /// Mean colour of the picture's pixels that each score spans.
    fn shrink(&mut self, colours: &Colours, content: Rect) {
        let (finer, width) = (self.finer, self.size.width);
        let columns = content.x as usize..(content.x + content.width) as usize;
        let rows = content.y as usize..(content.y + content.height) as usize;
        let inside = |first: usize, range: &std::ops::Range<usize>| {
            (first * finer).max(range.start)..((first + 1) * finer).min(range.end)
        };
        for (plane, out) in self.colours.iter_mut().enumerate() {
            for (y, line) in out[..self.size.area()].chunks_exact_mut(width).enumerate() {
                let covered = inside(self.origin.1 + y, &rows);
                let lines =
                    || covered.clone().map(|y| colours.line(plane, y, 0..colours.grid.width));
                for (x, value) in line.iter_mut().enumerate() {
                    let span = inside(self.origin.0 + x, &columns);
                    let count = (span.len() * covered.len()) as f32;
                    *value =
                        lines().map(|l| l[span.clone()].iter().sum::<f32>()).sum::<f32>() / count;
                }
            }
        }
    }

    fn factorise(&mut self) {
        let area = self.size.area();
        for (mean, colour) in self.means.iter_mut().zip(&self.colours) {
            self.boxes.mean(&colour[..area], mean);
        }
        let mut variance = |i: usize, j: usize, out: &mut Vec<f32>| {
            let pair = self.colours[i].iter().zip(&self.colours[j]);
            self.product.iter_mut().zip(pair).for_each(|(p, (a, b))| *p = a * b);
            self.boxes.mean(&self.product[..area], out);
            let means = self.means[i].iter().zip(&self.means[j]);
            out.iter_mut().zip(means).for_each(|(c, (a, b))| *c -= a * b);
        };
        let Factors { l10, l20, l21, d: [d0, d1, d2] } = &mut self.factors;
        variance(0, 0, d0);
        variance(0, 1, l10);
        variance(0, 2, l20);
        variance(1, 1, d1);
        variance(1, 2, l21);
        variance(2, 2, d2);
        for at in 0..area {
            let c00 = d0[at] + FLAT;
            let (c01, c02) = (l10[at], l20[at]);
            (l10[at], l20[at]) = (c01 / c00, c02 / c00);
            let c11 = d1[at] + FLAT - l10[at] * c01;
            let c12 = l21[at] - l10[at] * c02;
            l21[at] = c12 / c11;
            let c22 = d2[at] + FLAT - l20[at] * c02 - l21[at] * c12;
            (d0[at], d1[at], d2[at]) = (1.0 / c00, 1.0 / c11, 1.0 / c22);
        }
    }

    /// A part matters in a line when one of the scores that its fits see does. The background always counts.
    fn note_active(&mut self, scores: &Scores) {
        let (height, (left, top)) = (self.size.height, self.origin);
        self.active.fill(false);
        for part in 0..PART_COUNT {
            let plane = scores.plane(part);
            for y in 0..height {
                let line = &plane[(top + y) * scores.size.width + left..][..self.size.width];
                if part == 0 || line.iter().fold(0.0f32, |most, &v| most.max(v)) >= NEGLIGIBLE {
                    let near = y.saturating_sub(2 * RADIUS)..(y + 2 * RADIUS + 1).min(height);
                    near.for_each(|y| self.active[y * PART_COUNT + part] = true);
                }
            }
        }
    }

    fn fit_part(&mut self, part: usize, scores: &Scores) {
        let (area, width, (left, top)) = (self.size.area(), self.size.width, self.origin);
        let plane = scores.plane(part);
        for (y, line) in self.score[..area].chunks_exact_mut(width).enumerate() {
            line.copy_from_slice(&plane[(top + y) * scores.size.width + left..][..width]);
        }
        self.boxes.mean(&self.score[..area], &mut self.mean);
        for (i, out) in self.covariance.iter_mut().enumerate() {
            let pair = self.score.iter().zip(&self.colours[i]);
            self.product.iter_mut().zip(pair).for_each(|(p, (s, c))| *p = s * c);
            self.boxes.mean(&self.product[..area], out);
            let means = self.mean.iter().zip(&self.means[i]);
            out.iter_mut().zip(means).for_each(|(c, (s, m))| *c -= s * m);
        }
        self.solve(area);
        let own = self.terms[part * TERMS * self.size.area()..].chunks_exact_mut(area);
        let [a0, a1, a2] = &self.covariance;
        for (out, term) in own.zip([a0, a1, a2, &self.mean]) {
            self.boxes.mean(&term[..area], out);
        }
    }

    /// Turns the covariances of score and colours into the linear function, in place: factors in `covariance`, the rest in `mean`.
    fn solve(&mut self, area: usize) {
        let Factors { l10, l20, l21, d: [d0, d1, d2] } = &self.factors;
        let [a0, a1, a2] = &mut self.covariance;
        let [m0, m1, m2] = &self.means;
        for at in 0..area {
            let y0 = a0[at];
            let y1 = a1[at] - l10[at] * y0;
            let y2 = a2[at] - l20[at] * y0 - l21[at] * y1;
            let z2 = y2 * d2[at];
            let z1 = y1 * d1[at] - l21[at] * z2;
            let z0 = y0 * d0[at] - l10[at] * z1 - l20[at] * z2;
            (a0[at], a1[at], a2[at]) = (z0, z1, z2);
            self.mean[at] -= z0 * m0[at] + z1 * m1[at] + z2 * m2[at];
        }
    }
}

/// Means over the `2 * RADIUS + 1` squared values around each of a plane; at its border over those that there are.
#[derive(Debug)]
struct Boxes {
    size: GridSize,
    /// One line of sums of columns, with `RADIUS` zeros on both sides.
    line: Vec<f32>,
    /// Reciprocals of the number of columns and rows summed.
    columns: Vec<f32>,
    rows: Vec<f32>,
}

impl Boxes {
    fn new(size: GridSize) -> Boxes {
        let mut boxes = Boxes {
            size: GridSize { height: 0, width: 0 },
            line: Vec::with_capacity(size.width + 2 * RADIUS),
            columns: Vec::with_capacity(size.width),
            rows: Vec::with_capacity(size.height),
        };
        boxes.resize(size);
        boxes
    }

    fn resize(&mut self, size: GridSize) {
        if size == self.size {
            return;
        }
        self.size = size;
        self.line.clear();
        self.line.resize(size.width + 2 * RADIUS, 0.0);
        for (counts, length) in [(&mut self.columns, size.width), (&mut self.rows, size.height)] {
            counts.clear();
            counts.extend((0..length).map(|at| 1.0 / around(at, length).len() as f32));
        }
    }

    /// Writes the means of `plane` to the beginning of `out`.
    fn mean(&mut self, plane: &[f32], out: &mut [f32]) {
        let GridSize { height, width } = self.size;
        for (y, out) in out.chunks_exact_mut(width).take(height).enumerate() {
            let sums = &mut self.line[RADIUS..RADIUS + width];
            sums.fill(0.0);
            for line in around(y, height).map(|y| &plane[y * width..][..width]) {
                sums.iter_mut().zip(line).for_each(|(sum, value)| *sum += value);
            }
            out.copy_from_slice(&self.line[..width]);
            for shift in 1..=2 * RADIUS {
                let shifted = &self.line[shift..shift + width];
                out.iter_mut().zip(shifted).for_each(|(sum, value)| *sum += value);
            }
            let share = self.rows[y];
            out.iter_mut().zip(&self.columns).for_each(|(sum, column)| *sum *= share * column);
        }
    }
}

/// Indices up to `RADIUS` away.
fn around(at: usize, length: usize) -> std::ops::Range<usize> {
    at.saturating_sub(RADIUS)..(at + RADIUS + 1).min(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: GridSize = GridSize { height: 16, width: 12 };
    const GRID: GridSize = GridSize { height: 32, width: 24 };

    /// Numbers in 0..1 without a pattern.
    fn noise(count: usize) -> Vec<f32> {
        let mut state = 12345u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        (0..count).map(|_| next()).collect()
    }

    fn picture() -> Colours {
        Colours { grid: GRID, values: noise(3 * GRID.area()) }
    }

    fn fitted(scores: &Scores, colours: &Colours, letterbox: Letterbox) -> Fit {
        let mut fit = Fit::new(SIZE, GRID);
        fit.fit(scores, colours, &letterbox);
        fit
    }

    /// Score of a part at a pixel of the grid.
    fn read(fit: &Fit, colours: &Colours, part: usize, x: usize, y: usize) -> f32 {
        let (column, (low, high, share)) =
            (fit.column(x as f32 + 0.5), fit.row(y as f32 + 0.5).parts());
        let term = |k: usize| {
            let (a, b) = (column.of(fit.line(part, k, low)), column.of(fit.line(part, k, high)));
            a + share * (b - a)
        };
        (0..3).map(|k| term(k) * colours.line(k, y, x..x + 1)[0]).sum::<f32>() + term(3)
    }

    /// The paper's equations written out in f64: a linear system for each window, and the mean of the windows.
    struct ByTheBook {
        colours: Vec<[f64; 3]>,
    }

    impl ByTheBook {
        fn new(colours: &Colours) -> ByTheBook {
            let mean = |x: usize, y: usize, plane: usize| {
                let pixels = (0..4).map(|k| {
                    let x = 2 * x + k % 2;
                    f64::from(colours.line(plane, 2 * y + k / 2, x..x + 1)[0])
                });
                pixels.sum::<f64>() / 4.0
            };
            let cells = (0..SIZE.area()).map(|at| (at % SIZE.width, at / SIZE.width));
            ByTheBook { colours: cells.map(|(x, y)| [0, 1, 2].map(|k| mean(x, y, k))).collect() }
        }

        fn window(at: usize) -> impl Iterator<Item = usize> {
            let (x, y) = (at % SIZE.width, at / SIZE.width);
            around(y, SIZE.height)
                .flat_map(move |y| around(x, SIZE.width).map(move |x| y * SIZE.width + x))
        }

        fn mean(at: usize, value: impl Fn(usize) -> f64) -> f64 {
            let count = Self::window(at).count() as f64;
            Self::window(at).map(value).sum::<f64>() / count
        }

        /// R, G, B factors and the rest of one window.
        fn terms(&self, plane: &[f32], at: usize) -> [f64; 4] {
            let (c, s) = (|k: usize, i: usize| self.colours[i][k], |i: usize| f64::from(plane[i]));
            let means = [0, 1, 2].map(|k| Self::mean(at, |i| c(k, i)));
            let score = Self::mean(at, s);
            let mut system: [[f64; 4]; 3] = std::array::from_fn(|j| {
                std::array::from_fn(|k| match k {
                    3 => Self::mean(at, |i| c(j, i) * s(i)) - means[j] * score,
                    k => {
                        let both = Self::mean(at, |i| c(j, i) * c(k, i)) - means[j] * means[k];
                        both + if j == k { f64::from(FLAT) } else { 0.0 }
                    }
                })
            });
            for k in 0..3 {
                let pivot = system[k];
                for (_, row) in system.iter_mut().enumerate().filter(|(j, _)| *j != k) {
                    let share = row[k] / pivot[k];
                    row.iter_mut().zip(pivot).for_each(|(v, p)| *v -= share * p);
                }
            }
            let a = [0, 1, 2].map(|k| system[k][3] / system[k][k]);
            [a[0], a[1], a[2], score - (0..3).map(|k| a[k] * means[k]).sum::<f64>()]
        }
    }

    #[test]
    fn it_is_the_papers_filter() {
        let (colours, mut scores) = (picture(), Scores::new(SIZE));
        scores.values = noise(PART_COUNT * SIZE.area());
        let fit = fitted(&scores, &colours, Letterbox::new(24, 32, GRID));
        let book = ByTheBook::new(&colours);
        for part in [0, 7] {
            let terms: Vec<[f64; 4]> =
                (0..SIZE.area()).map(|at| book.terms(scores.plane(part), at)).collect();
            for at in 0..SIZE.area() {
                for k in 0..TERMS {
                    let want = ByTheBook::mean(at, |i| terms[i][k]);
                    let got = fit.line(part, k, at / SIZE.width)[at % SIZE.width];
                    assert!((f64::from(got) - want).abs() < 2e-5, "{at} {k}: {got} {want}");
                }
            }
        }
    }

    #[test]
    fn an_edge_of_the_picture_between_two_scores_becomes_the_label_s() {
        // The picture's edge lies before column 11; the scores know only that column 10 is half of one part, half of the other.
        let (mut colours, mut scores) = (Colours::new(GRID), Scores::new(SIZE));
        for (at, value) in colours.values.iter_mut().enumerate() {
            *value = if at % GRID.width >= 11 { 0.8 } else { 0.3 };
        }
        for at in 0..SIZE.area() {
            let right = match at % SIZE.width {
                x if x < 5 => 0.0,
                5 => 0.5,
                _ => 1.0,
            };
            (scores.values[at], scores.values[3 * SIZE.area() + at]) = (1.0 - right, right);
        }
        let fit = fitted(&scores, &colours, Letterbox::new(24, 32, GRID));
        for x in 0..GRID.width {
            let [behind, person] = [0, 3].map(|part| read(&fit, &colours, part, x, 16));
            assert_eq!(person > behind, x >= 11, "{x}: {behind} {person}");
            assert!((person - f32::from(u8::from(x >= 11))).abs() < 0.02, "{x}: {person}");
        }
    }

    #[test]
    fn a_flat_picture_leaves_the_scores_smooth() {
        let mut scores = Scores::new(SIZE);
        scores.values[..SIZE.area()].fill(0.7);
        let fit = fitted(&scores, &Colours::new(GRID), Letterbox::new(24, 32, GRID));
        for (x, y) in [(0, 0), (23, 31), (11, 17)] {
            assert!((read(&fit, &Colours::new(GRID), 0, x, y) - 0.7).abs() < 1e-5);
        }
        assert!(fit.is_active(0, 0) && (1..PART_COUNT).all(|part| !fit.is_active(part, 0)));
    }

    #[test]
    fn the_border_s_colour_counts_for_nothing() {
        let mut scores = Scores::new(SIZE);
        scores.values = noise(PART_COUNT * SIZE.area());
        // 24 x 15 pixels in rows 8 to 22: the first and the last score span one row of the picture or two.
        let letterbox = Letterbox::new(48, 30, GRID);
        let content = letterbox.content();
        assert_eq!((content.y, content.height), (8, 15));
        let (plain, mut bright) = (picture(), picture());
        for (at, value) in bright.values.iter_mut().enumerate() {
            let y = at / GRID.width % GRID.height;
            if !(8..23).contains(&y) {
                *value = 5.0;
            }
        }
        let [plain, bright] = [plain, bright].map(|c| fitted(&scores, &c, letterbox));
        assert_eq!(plain.size, GridSize { height: 8, width: 12 });
        for (part, y) in (0..PART_COUNT).flat_map(|part| (0..8).map(move |y| (part, y))) {
            (0..TERMS).for_each(|k| assert_eq!(plain.line(part, k, y), bright.line(part, k, y)));
        }
    }
}
