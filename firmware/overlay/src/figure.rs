//! One person on the network's grid, made ready for drawing at any size.
//!
//! The grid is several times coarser than a screen, so drawing its pixels would give stairs. Here
//! every label becomes a field: 1 inside, 0 outside, smoothed with the binomial kernel
//! `[1 4 6 4 1] / 16` both ways. Between grid nodes (pixel middles) fields are interpolated
//! linearly; a part's border is where its field is no longer the largest, the person's outline
//! where the sum of all of them crosses one half. Both curves are smooth at any magnification, and
//! the height of a field above one half tells the distance to the border: antialiasing for free.
//!
//! The square between four nodes is a cell. Most cells see a single label and are filled without a
//! thought; only those near a border carry an [`Edge`] with the fields at their corners.

use proto::taxonomy::PART_COUNT;

use crate::blur::{
    KERNEL, LONG_REACH, LONG_SUM, REACH, box_columns, box_rows, short_columns, short_rows,
    tent_columns, tent_rows,
};
use crate::scene::{MaskView, PersonView, Rect};
use crate::wipe::wipe;

/// Not this person.
pub(crate) const OUTSIDE: u8 = 0;
/// This person, but no part; part `p` has the label `p + 1`.
pub(crate) const BODY: u8 = 1;
/// Number of labels.
pub(crate) const LABELS: usize = PART_COUNT + 1;
/// Most labels that one edge cell tells apart; a fifth one near the same corner cannot be seen.
pub(crate) const EDGE_LABELS: usize = 4;
/// A field's slope per node where it crosses a straight border: the kernel's middle tap.
pub(crate) const FIELD_SLOPE: f32 = 6.0 / 16.0;

/// The outline moves by at most half a node when its stairs are straightened.
const MOST_SHIFT: f32 = 0.5;

/// What the square right of and below a node shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// Nothing.
    Empty,
    /// The glow around the person.
    Halo,
    /// One label, shaded by the distance to the person's outline.
    Flat(u8),
    /// One label so far inside that its shade is constant.
    Deep(u8),
    /// Several labels: an index into [`Figure::edges`].
    Edge(u16),
}

/// Fields at the corners of a cell near a border; corners are top left, top right, bottom left,
/// bottom right; 255 is 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Edge {
    /// Number of labels in use.
    pub count: u8,
    /// Labels other than [`OUTSIDE`].
    pub labels: [u8; EDGE_LABELS],
    /// The labels' fields.
    pub fields: [[u8; 4]; EDGE_LABELS],
    /// The field of the whole person.
    pub person: [u8; 4],
}

/// The field of one label over the nodes where it is not 0.
#[derive(Clone, Copy, Debug, Default)]
struct Plane {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    offset: usize,
}

/// One person's fields; the memory is used again for the next person.
#[derive(Debug, Default)]
pub(crate) struct Figure {
    /// Grid column and row of the first node; may be negative, since fields reach over the edge.
    pub left: i32,
    /// See `left`.
    pub top: i32,
    /// Nodes across.
    pub width: usize,
    /// Nodes down.
    pub height: usize,
    labels: Vec<u8>,
    /// Wide blur of the person, 255 deep inside, 0 far outside; `width * height`.
    pub shade: Vec<u8>,
    /// What lies right of and below every node; the last column and row are unused.
    pub cells: Vec<Cell>,
    /// Cells near borders.
    pub edges: Vec<Edge>,
    planes: [Plane; LABELS],
    fields: Vec<u8>,
    seen: Vec<u32>,
    seen_rows: Vec<u32>,
    sums: [Vec<u16>; 2],
    long: [Vec<u16>; 2],
    line: Vec<u8>,
    weighted: Vec<u8>,
}

impl Drop for Figure {
    /// Memory that is freed shows nobody.
    fn drop(&mut self) {
        self.forget();
    }
}

impl Figure {
    /// Nothing of the last person stays in memory.
    pub fn forget(&mut self) {
        let Figure { labels, shade, cells, edges, fields, seen, seen_rows, .. } = self;
        [labels, shade, fields, &mut self.line, &mut self.weighted].into_iter().for_each(wipe);
        [seen, seen_rows].into_iter().for_each(wipe);
        self.sums.iter_mut().chain(&mut self.long).for_each(wipe);
        wipe(cells);
        wipe(edges);
        self.planes = [Plane::default(); LABELS];
    }

    /// Whether there is nobody in it.
    pub fn is_forgotten(&self) -> bool {
        self.labels.is_empty()
    }

    /// Reads one person out of a consistent mask. `false` when the person's bounds lie outside the
    /// picture: there is nothing to draw.
    pub fn read(&mut self, mask: &MaskView<'_>, person: &PersonView) -> bool {
        let (content, bounds) = (mask.content, person.bounds);
        let (left, right) = (bounds.x.max(content.x), bounds.right().min(content.right()));
        let (top, bottom) = (bounds.y.max(content.y), bounds.bottom().min(content.bottom()));
        if left >= right || top >= bottom {
            return false;
        }
        let radius = shade_radius(bottom - top);
        let margin = 2 * radius + REACH + 1;
        self.left = left as i32 - margin as i32;
        self.top = top as i32 - margin as i32;
        self.width = (right - left) as usize + 2 * margin;
        self.height = (bottom - top) as usize + 2 * margin;
        self.read_labels(mask, person.slot);
        self.find_planes();
        self.fill_planes();
        self.straighten_outline();
        self.blur_shade(radius);
        self.note_labels_seen();
        self.sort_cells();
        true
    }

    /// Labels of all nodes. Beyond the picture its edge goes on, so that a person who is cut off
    /// by the picture gets no outline there.
    fn read_labels(&mut self, mask: &MaskView<'_>, slot: u8) {
        let Rect { x, y, width, height } = mask.content;
        let clamp = |value: i32, start: u32, length: u32| {
            value.clamp(start as i32, (start + length - 1) as i32) as usize
        };
        self.labels.clear();
        for row in 0..self.height {
            let source = clamp(self.top + row as i32, y, height) * mask.width as usize;
            let parts = &mask.parts[source..source + mask.width as usize];
            let person = &mask.person[source..source + mask.width as usize];
            let first = clamp(self.left, x, width);
            let last = clamp(self.left + self.width as i32 - 1, x, width);
            let before = (first as i32 - self.left) as usize;
            let label = |index: usize| {
                // A part index above 15 cannot come from a checked network; it counts as body.
                let part = if parts[index] < PART_COUNT as u8 { parts[index] } else { 0 };
                if person[index] == slot { part + BODY } else { OUTSIDE }
            };
            let start = self.labels.len();
            self.labels.resize(start + before, label(first));
            self.labels.extend((first..=last).map(label));
            self.labels.resize(start + self.width, label(last));
        }
    }

    /// Where each label occurs, grown by the kernel's reach. [`OUTSIDE`] stands for the whole
    /// person: its plane covers everything.
    fn find_planes(&mut self) {
        let mut boxes = [(usize::MAX, usize::MAX, 0, 0); LABELS];
        for (y, row) in self.labels.chunks_exact(self.width).enumerate() {
            let mut x = 0;
            while x < row.len() {
                let label = row[x];
                let run = row[x..].iter().take_while(|&&other| other == label).count();
                let found = &mut boxes[usize::from(label)];
                *found = (found.0.min(x), found.1.min(y), found.2.max(x + run), y + 1);
                x += run;
            }
        }
        boxes[usize::from(OUTSIDE)] = (0, 0, self.width, self.height);
        let mut offset = 0;
        for (plane, (left, top, right, bottom)) in self.planes.iter_mut().zip(boxes) {
            if right == 0 {
                *plane = Plane::default();
                continue;
            }
            let (left, top) = (left.saturating_sub(REACH), top.saturating_sub(REACH));
            let right = (right + REACH).min(self.width);
            let bottom = (bottom + REACH).min(self.height);
            *plane = Plane { left, top, width: right - left, height: bottom - top, offset };
            offset += plane.width * plane.height;
        }
        self.fields.clear();
        self.fields.resize(offset, 0);
    }

    fn fill_planes(&mut self) {
        for label in 0..LABELS {
            let plane = self.planes[label];
            if plane.width > 0 {
                self.weigh_rows(label as u8, &plane);
                self.weigh_columns(&plane);
            }
        }
    }

    /// The kernel across: sums of 0 to 16 into `weighted`.
    fn weigh_rows(&mut self, label: u8, plane: &Plane) {
        self.weighted.clear();
        self.weighted.resize(plane.width * plane.height, 0);
        self.line.clear();
        self.line.resize(plane.width + 2 * REACH, 0);
        for (y, out) in self.weighted.chunks_exact_mut(plane.width).enumerate() {
            let start = (plane.top + y) * self.width + plane.left;
            let row = &self.labels[start..start + plane.width];
            let inner = &mut self.line[REACH..REACH + plane.width];
            if label == OUTSIDE {
                inner.iter_mut().zip(row).for_each(|(to, &from)| *to = u8::from(from != OUTSIDE));
            } else {
                inner.iter_mut().zip(row).for_each(|(to, &from)| *to = u8::from(from == label));
            }
            for (sum, taps) in out.iter_mut().zip(self.line.windows(KERNEL.len())) {
                *sum = taps[0] + taps[4] + 4 * (taps[1] + taps[3]) + 6 * taps[2];
            }
        }
    }

    /// The kernel down: fields of 0 to 255 into the plane.
    fn weigh_columns(&mut self, plane: &Plane) {
        let width = plane.width;
        let out = &mut self.fields[plane.offset..plane.offset + width * plane.height];
        for (y, out) in out.chunks_exact_mut(width).enumerate() {
            // Above and below a plane its label does not occur, or the border row goes on.
            let row = |step: usize| {
                let y = (y + step).saturating_sub(REACH).min(plane.height - 1);
                &self.weighted[y * width..(y + 1) * width]
            };
            let (a, b, c, d, e) = (row(0), row(1), row(2), row(3), row(4));
            for x in 0..width {
                let [a, b, c, d, e] = [a[x], b[x], c[x], d[x], e[x]].map(u16::from);
                out[x] = (a + e + 4 * (b + d) + 6 * c).min(255) as u8;
            }
        }
    }

    /// An almost upright outline is a stair with long steps, which the small kernel cannot
    /// straighten. So the person's field is also smoothed with a long kernel along the outline:
    /// down where the outline is upright, across where it is level. The result may differ from the
    /// small kernel's by half a node, so that fingertips stay where they are.
    fn straighten_outline(&mut self) {
        self.smooth_along();
        let (width, height) = (self.width, self.height);
        let offset = self.planes[usize::from(OUTSIDE)].offset;
        for y in LONG_REACH..height - LONG_REACH {
            for index in y * width + LONG_REACH..(y + 1) * width - LONG_REACH {
                let field = self.fields[offset + index];
                if field != 0 && field != 255 {
                    self.fields[offset + index] = self.straightened(field, index);
                }
            }
        }
    }

    /// The person with the long kernel down and the short one across, and the other way round, into `long`.
    fn smooth_along(&mut self) {
        let (width, nodes) = (self.width, self.width * self.height);
        let [upright, level] = &mut self.long;
        let [a, b] = &mut self.sums;
        a.clear();
        a.extend(self.labels.iter().map(|&label| u16::from(label != OUTSIDE)));
        for sums in [&mut *b, &mut *upright, &mut *level] {
            sums.clear();
            sums.resize(nodes, 0);
        }
        tent_columns(a, b, width, upright);
        short_rows(b, upright, width);
        tent_rows(a, b, width);
        short_columns(b, level, width);
    }

    /// The person's field at a node on the outline, moved towards the one that is smoothed along it.
    fn straightened(&self, field: u8, index: usize) -> u8 {
        let [upright, level] = &self.long;
        let slope = |step: usize| {
            let (one, other) = (index + step, index - step);
            let up = f32::from(upright[one]) - f32::from(upright[other]);
            up + f32::from(level[one]) - f32::from(level[other])
        };
        let (across, down) = (slope(2).powi(2), slope(2 * self.width).powi(2));
        let share = across / (across + down).max(1e-6);
        let share = share * share * (3.0 - 2.0 * share);
        let (u, l) = (f32::from(upright[index]), f32::from(level[index]));
        let along = (u * share + l * (1.0 - share)) / f32::from(16 * LONG_SUM) * 255.0;
        let now = f32::from(field);
        // Towards 0 and 1 less and less: plain cells begin there.
        let most = MOST_SHIFT * FIELD_SLOPE * 4.0 * now * (255.0 - now) / 255.0;
        let moved = now + (along - now).clamp(-most, most);
        (moved + 0.5).clamp(1.0, 254.0) as u8
    }

    /// The wide blur: two box blurs of `2 * radius + 1` nodes each way.
    fn blur_shade(&mut self, radius: usize) {
        let (width, height) = (self.width, self.height);
        let [a, b] = &mut self.sums;
        a.clear();
        a.extend(self.labels.iter().map(|&label| u16::from(label != OUTSIDE)));
        b.clear();
        b.resize(width * height, 0);
        box_rows(a, b, width, radius);
        box_rows(b, a, width, radius);
        box_columns(a, b, width, radius);
        box_columns(b, a, width, radius);
        let whole = (2 * radius as u32 + 1).pow(4);
        self.shade.clear();
        self.shade.extend(a.iter().map(|&sum| (u32::from(sum) * 255 / whole) as u8));
    }

    /// For every node, as bits, the labels that its kernel sees.
    fn note_labels_seen(&mut self) {
        let (width, height) = (self.width, self.height);
        self.seen_rows.clear();
        self.seen_rows.resize(width * height, 0);
        self.seen.clear();
        self.seen.resize(width * height, 0);
        for (row, out) in
            self.labels.chunks_exact(width).zip(self.seen_rows.chunks_exact_mut(width))
        {
            let uniform = row.iter().all(|&label| label == row[0]);
            if uniform {
                out.fill(1 << row[0]);
                continue;
            }
            for (bits, labels) in out[REACH..].iter_mut().zip(row.windows(KERNEL.len())) {
                *bits = labels.iter().fold(0, |bits, &label| bits | 1 << label);
            }
            // The margin is wider than the kernel, so the first and last nodes see only themselves
            // or the picture's edge going on.
            for x in [0, 1, width - 2, width - 1] {
                out[x] = 1 << row[x];
            }
        }
        for y in REACH..height - REACH {
            let rows = &self.seen_rows[(y - REACH) * width..(y + REACH + 1) * width];
            let out = &mut self.seen[y * width..(y + 1) * width];
            for (x, bits) in out.iter_mut().enumerate() {
                *bits = (0..KERNEL.len()).fold(0, |bits, step| bits | rows[step * width + x]);
            }
        }
        for y in [0, 1, height - 2, height - 1] {
            let range = y * width..(y + 1) * width;
            self.seen[range.clone()].copy_from_slice(&self.seen_rows[range]);
        }
    }

    fn sort_cells(&mut self) {
        let width = self.width;
        self.edges.clear();
        self.cells.clear();
        self.cells.resize(width * self.height, Cell::Empty);
        for y in 0..self.height - 1 {
            for x in 0..width - 1 {
                let corners = [0, 1, width, width + 1].map(|step| y * width + x + step);
                let seen = corners.iter().fold(0, |bits, &corner| bits | self.seen[corner]);
                self.cells[y * width + x] = if !seen.is_power_of_two() {
                    self.add_edge(x, y, seen)
                } else {
                    self.plain_cell(seen.trailing_zeros() as u8, corners)
                };
            }
        }
    }

    fn plain_cell(&self, label: u8, corners: [usize; 4]) -> Cell {
        let shades = corners.map(|corner| self.shade[corner]);
        match label {
            OUTSIDE if shades == [0; 4] => Cell::Empty,
            OUTSIDE => Cell::Halo,
            label if shades == [255; 4] => Cell::Deep(label),
            label => Cell::Flat(label),
        }
    }

    fn add_edge(&mut self, x: usize, y: usize, seen: u32) -> Cell {
        let Ok(index) = u16::try_from(self.edges.len()) else {
            // 65 536 edge cells: a mask of noise. The rest of it is left out.
            return Cell::Empty;
        };
        let mut edge = Edge { person: self.corners(OUTSIDE, x, y), ..Edge::default() };
        let mut weights = [0_u32; EDGE_LABELS];
        let mut bits = seen & !(1 << OUTSIDE);
        while bits != 0 {
            let label = bits.trailing_zeros() as u8;
            bits &= bits - 1;
            let fields = self.corners(label, x, y);
            let weight = fields.iter().map(|&field| u32::from(field)).sum();
            let place = if usize::from(edge.count) < EDGE_LABELS {
                edge.count += 1;
                usize::from(edge.count) - 1
            } else {
                let least = (0..EDGE_LABELS).min_by_key(|&i| weights[i]).unwrap_or(0);
                if weights[least] >= weight {
                    continue;
                }
                least
            };
            (edge.labels[place], edge.fields[place], weights[place]) = (label, fields, weight);
        }
        self.edges.push(edge);
        Cell::Edge(index)
    }

    /// A label's field at the corners of a cell.
    fn corners(&self, label: u8, x: usize, y: usize) -> [u8; 4] {
        let plane = &self.planes[usize::from(label)];
        [(x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1)].map(|(x, y)| {
            let (x, y) = (x.wrapping_sub(plane.left), y.wrapping_sub(plane.top));
            if x < plane.width && y < plane.height {
                self.fields[plane.offset + y * plane.width + x]
            } else {
                0
            }
        })
    }
}

/// The glow grows with the person: a 36th of the height, 2 to 6 nodes.
fn shade_radius(height: u32) -> usize {
    (height as usize / 36).clamp(2, 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: u32 = 40;
    const HEIGHT: u32 = 30;

    fn read(label: impl Fn(u32, u32) -> (u8, u8)) -> Figure {
        let all = || (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| (x, y)));
        let parts: Vec<u8> = all().map(|(x, y)| label(x, y).0).collect();
        let person: Vec<u8> = all().map(|(x, y)| label(x, y).1).collect();
        let view = PersonView { slot: 1, track: 0, bounds: Rect::new(0, 0, WIDTH, HEIGHT) };
        let mask = MaskView {
            width: WIDTH,
            height: HEIGHT,
            parts: &parts,
            person: &person,
            content: Rect::new(0, 0, WIDTH, HEIGHT),
            people: &[view],
        };
        let mut figure = Figure::default();
        assert!(figure.read(&mask, &view));
        figure
    }

    fn cell(figure: &Figure, u: i32, v: i32) -> Cell {
        figure.cells[(v - figure.top) as usize * figure.width + (u - figure.left) as usize]
    }

    #[test]
    fn fields_of_all_labels_and_outside_make_up_one() {
        // Three parts, a hole of another person, and a part of no part.
        let figure = read(|x, y| match (x, y) {
            (10..20, 5..12) => (3, 1),
            (20..30, 5..12) => (4, 1),
            (12..28, 12..20) => (x as u8 % 5, if x == 15 { 2 } else { 1 }),
            _ => (0, 0),
        });
        assert!(!figure.edges.is_empty());
        for edge in figure.edges.iter().filter(|edge| usize::from(edge.count) < EDGE_LABELS) {
            for corner in 0..4 {
                let sum: u32 = edge.fields.iter().map(|fields| u32::from(fields[corner])).sum();
                let person = u32::from(edge.person[corner]);
                // The person's own field was straightened: half a node, which is 48, at most.
                assert!(sum.abs_diff(person) <= 49, "{edge:?}");
                assert_eq!(sum == 0, person == 0, "{edge:?}");
            }
        }
    }

    #[test]
    fn inside_is_plain_outside_is_empty_and_borders_are_edges() {
        let figure = read(|x, y| match (x, y) {
            (8..32, 6..24) => (if x < 20 { 3 } else { 4 }, 1),
            _ => (0, 0),
        });
        assert!(matches!(cell(&figure, 14, 14), Cell::Flat(4) | Cell::Deep(4)));
        assert!(matches!(cell(&figure, 26, 14), Cell::Flat(5) | Cell::Deep(5)));
        assert!(matches!(cell(&figure, 19, 14), Cell::Edge(_)));
        assert!(matches!(cell(&figure, 7, 14), Cell::Edge(_)));
        assert_eq!(cell(&figure, 4, 14), Cell::Halo);
        assert_eq!(cell(&figure, 0, 0), Cell::Empty);
        let Cell::Edge(index) = cell(&figure, 7, 14) else { panic!("an edge") };
        let edge = &figure.edges[usize::from(index)];
        // A straight border midway between the nodes: 5/16 and 11/16.
        let expected = [80_u8, 176, 80, 176];
        assert!((0..4).all(|i| edge.person[i].abs_diff(expected[i]) <= 1), "{:?}", edge.person);
    }

    #[test]
    fn a_person_cut_off_by_the_picture_has_no_border_there() {
        let figure = read(|_, _| (3, 1));
        assert!(figure.edges.is_empty());
        for v in 0..HEIGHT as i32 - 1 {
            for u in 0..WIDTH as i32 - 1 {
                assert_eq!(cell(&figure, u, v), Cell::Deep(4), "{u} {v}");
            }
        }
    }

    #[test]
    fn noise_and_bad_bounds_are_survived() {
        let figure = read(|x, y| (((x * 7 + y * 13) % 19) as u8, ((x * 5 + y * 3) % 4) as u8));
        assert!(!figure.edges.is_empty());
        let labels = [0; 6];
        let view = PersonView { slot: 1, track: 0, bounds: Rect::new(9, 9, u32::MAX, 5) };
        let mask = MaskView {
            width: 3,
            height: 2,
            parts: &labels,
            person: &labels,
            content: Rect::new(0, 0, 3, 2),
            people: &[],
        };
        assert!(!Figure::default().read(&mask, &view));
        let tiny = PersonView { bounds: Rect::new(2, 1, u32::MAX, u32::MAX), ..view };
        assert!(Figure::default().read(&mask, &tiny));
    }

    #[test]
    fn wide_blur_is_full_deep_inside_and_half_on_the_border() {
        let figure = read(|x, _| if x < 20 { (3, 1) } else { (0, 0) });
        let at = |u: i32| {
            figure.shade[(15 - figure.top) as usize * figure.width + (u - figure.left) as usize]
        };
        assert_eq!((at(2), at(38)), (255, 0));
        assert!(at(19) > 127 && at(20) < 128);
    }
}
