//! Draws a [`Figure`] row by row: parts as light that is brightest along the person's edge, a
//! bright outline in the person's colour, and a faint glow around it.

use embedded_graphics::pixelcolor::Rgb888;

use crate::canvas::{Canvas, mix};
use crate::figure::{BODY, Cell, EDGE_LABELS, Edge, FIELD_SLOPE, Figure, LABELS};
use crate::geometry::Projection;
use crate::palette::{PALETTE, TRACK_COLOURS, dimmed, track_colour};
use crate::scene::Rect;
use crate::wipe::wipe;

/// Colour by shade (0 far outside, 128 on the outline, 255 deep inside).
type Ramp = [u32; 256];

/// What the top byte of a drawn pixel is; the preview needs to know where the person is.
const COVERED: u32 = 0xFF00_0000;

/// How bright things are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Light {
    /// Brightness of parts along the person's edge, 0 to 1.
    pub rim: f32,
    /// Brightness of parts deep inside, 0 to 1.
    pub core: f32,
    /// Brightness of the glow around a person, 0 to 1.
    pub halo: f32,
    /// Darkness of the seam between parts, 0 to 1.
    pub seam: f32,
    /// Sets the top byte of pixels that a person covers to 255 instead of 0.
    pub mark: bool,
}

/// Colour ramps of parts and people, computed once.
#[derive(Debug)]
pub(crate) struct Ramps {
    parts: Vec<Ramp>,
    tracks: Vec<TrackRamps>,
    seam: f32,
}

#[derive(Debug)]
struct TrackRamps {
    body: Ramp,
    halo: Ramp,
    outline: u32,
}

impl Ramps {
    pub fn new(light: &Light) -> Ramps {
        let mark = if light.mark { COVERED } else { 0 };
        let inside = |colour: Rgb888| -> Ramp {
            std::array::from_fn(|shade| {
                let depth = ((shade as f32 - 120.0) / 135.0).clamp(0.0, 1.0);
                let fall = (1.0 - depth) * (1.0 - depth);
                mark | dimmed(colour, light.core + (light.rim - light.core) * fall)
            })
        };
        let around = |colour: Rgb888| -> Ramp {
            std::array::from_fn(|shade| {
                let shade = shade as f32 / 128.0;
                // Hollows, as under an arm, are above one half: no brighter there.
                let near = shade.min(2.0 - shade);
                dimmed(colour, light.halo * near * near)
            })
        };
        let track = |index| {
            let colour = track_colour(index);
            TrackRamps {
                body: inside(colour),
                halo: around(colour),
                outline: mark | dimmed(colour, 1.0),
            }
        };
        Ramps {
            parts: PALETTE.into_iter().map(inside).collect(),
            tracks: (0..TRACK_COLOURS as u32).map(track).collect(),
            seam: light.seam,
        }
    }

    fn of_track(&self, track: u32) -> &TrackRamps {
        &self.tracks[track as usize % self.tracks.len()]
    }

    /// The ramp of a label other than outside.
    fn of_label<'a>(&'a self, label: u8, track: &'a TrackRamps) -> &'a Ramp {
        if label == BODY { &track.body } else { &self.parts[usize::from(label - BODY)] }
    }
}

/// Where and for whom a figure is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub projection: Projection,
    /// The picture's rectangle in the grid, beyond which nothing is known.
    pub content: Rect,
    /// The person's number.
    pub track: u32,
    /// In pixels, 0 for none.
    pub outline_width: f32,
}

/// Draws people; holds one row of memory.
#[derive(Debug, Default)]
pub(crate) struct Brush {
    /// The shade at the nodes of the current row, and its step to the next node.
    shade: Vec<[i32; 2]>,
}

/// What does not change within a figure.
struct Job<'a> {
    figure: &'a Figure,
    ramps: &'a Ramps,
    track: &'a TrackRamps,
    outline_width: f32,
}

/// What does not change within a run of pixels: the place in the patch, 16 fractional bits.
#[derive(Clone, Copy)]
struct Walk {
    place: i32,
    step: i32,
}

impl Drop for Brush {
    /// Memory that is freed shows nobody.
    fn drop(&mut self) {
        self.forget();
    }
}

impl Brush {
    /// Nothing of the last figure stays in memory.
    pub fn forget(&mut self) {
        wipe(&mut self.shade);
    }

    /// Draws a figure.
    pub fn paint(&mut self, figure: &Figure, ramps: &Ramps, place: &Place, canvas: &mut Canvas) {
        let track = ramps.of_track(place.track);
        let job = Job { figure, ramps, track, outline_width: place.outline_width };
        let Place { projection, content, .. } = *place;
        let bounds = Bounds::new(figure, content);
        for y in 0..canvas.height() {
            let Some(row) = projection.row(f64::from(y) + 0.5) else { continue };
            if !(bounds.top..bounds.bottom).contains(&row.v) {
                continue;
            }
            let down = row.v - 0.5 - f64::from(figure.top);
            let Some((start, end)) = bounds.columns(row.u0, row.du, canvas.width()) else {
                continue;
            };
            let first = row.u0 + row.du * (start as f64 + 0.5) - 0.5 - f64::from(figure.left);
            let limit = f64::from(MOST_STEP);
            let step = (row.du * 65536.0).clamp(-limit, limit) as i32;
            let walk = Walk { place: (first * 65536.0) as i32, step };
            let pixels = &mut canvas.row_mut(y)[start..end];
            let scale = (1.0 / row.du.abs()) as f32;
            self.paint_row(&job, down, walk, scale, pixels);
        }
    }

    /// Draws the pixels of one screen row that lie `down` nodes below the patch's first.
    fn paint_row(&mut self, job: &Job<'_>, down: f64, walk: Walk, scale: f32, row: &mut [u32]) {
        let (figure, width) = (job.figure, job.figure.width);
        let above = (down as usize).min(figure.height - 2);
        let part = (down - above as f64).clamp(0.0, 1.0) as f32;
        self.blend_shade(figure, above, (part * 256.0) as i32);
        let cells = &figure.cells[above * width..above * width + width - 1];
        let (mut x, mut place) = (0, walk.place);
        while x < row.len() {
            let column = ((place >> 16).max(0) as usize).min(cells.len() - 1);
            let cell = cells[column];
            let left = pixels_until_other(cells, column, place, walk.step);
            let count = left.min(row.len() - x);
            let run = &mut row[x..x + count];
            let here = Walk { place, step: walk.step };
            match cell {
                Cell::Empty => {}
                Cell::Halo => shade_lighter(run, here, &self.shade, &job.track.halo),
                Cell::Deep(label) => run.fill(job.ramps.of_label(label, job.track)[255]),
                Cell::Flat(label) => {
                    shade_over(run, here, &self.shade, job.ramps.of_label(label, job.track));
                }
                Cell::Edge(index) => {
                    let edge = &figure.edges[usize::from(index)];
                    Border::new(job, edge, part, scale, self.shade[column]).paint(here, run);
                }
            }
            x += count;
            place += walk.step * count as i32;
        }
    }

    fn blend_shade(&mut self, figure: &Figure, above: usize, part: i32) {
        let width = figure.width;
        let rows = &figure.shade[above * width..(above + 2) * width];
        let (upper, lower) = rows.split_at(width);
        self.shade.clear();
        let blended =
            |(&a, &b): (&u8, &u8)| [(i32::from(a) * (256 - part) + i32::from(b) * part) >> 8, 0];
        self.shade.extend(upper.iter().zip(lower).map(blended));
        for index in 0..width - 1 {
            self.shade[index][1] = self.shade[index + 1][0] - self.shade[index][0];
        }
    }
}

/// The part of the grid that a figure may draw.
struct Bounds {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Bounds {
    /// The figure's nodes or the picture, whichever is smaller.
    fn new(figure: &Figure, content: Rect) -> Bounds {
        let node = |start: i32, index: usize| f64::from(start) + index as f64 + 0.5;
        Bounds {
            left: node(figure.left, 0).max(f64::from(content.x)),
            right: node(figure.left, figure.width - 1).min(f64::from(content.right())),
            top: node(figure.top, 0).max(f64::from(content.y)),
            bottom: node(figure.top, figure.height - 1).min(f64::from(content.bottom())),
        }
    }

    /// Screen columns `start..end` whose middles lie inside; `None` when there are none.
    fn columns(&self, u0: f64, du: f64, screen: u32) -> Option<(usize, usize)> {
        let (a, b) = ((self.left - u0) / du, (self.right - u0) / du);
        if !a.is_finite() || !b.is_finite() {
            return None;
        }
        let limit = |value: f64| (value - 0.5).ceil().clamp(0.0, f64::from(screen)) as usize;
        let (start, end) = (limit(a.min(b)), limit(a.max(b)));
        (start < end).then_some((start, end))
    }
}

/// Pixels until a cell of another kind begins, at least 1.
fn pixels_until_other(cells: &[Cell], column: usize, place: i32, step: i32) -> usize {
    let kind = cells[column];
    if step > 0 {
        let run = cells[column..].iter().take_while(|&&cell| cell == kind).count();
        let end = ((column + run) as i32) << 16;
        ((end - place + step - 1) / step).max(1) as usize
    } else if step < 0 {
        let run = cells[..=column].iter().rev().take_while(|&&cell| cell == kind).count();
        let start = ((column + 1 - run) as i32) << 16;
        ((place - start) / -step + 1).max(1) as usize
    } else {
        usize::MAX
    }
}

/// The shade at a place of the row, 0 to 255.
fn shade_at(shade: &[[i32; 2]], place: i32) -> usize {
    let node = shade.get((place >> 16) as usize).copied().unwrap_or([0, 0]);
    ((node[0] + ((node[1] * ((place >> 8) & 0xFF)) >> 8)) & 0xFF) as usize
}

fn shade_over(row: &mut [u32], walk: Walk, shade: &[[i32; 2]], ramp: &Ramp) {
    let mut place = walk.place;
    for pixel in row {
        *pixel = ramp[shade_at(shade, place)];
        place += walk.step;
    }
}

/// Light adds up: where another person is already drawn the brighter one wins, channel by channel.
fn shade_lighter(row: &mut [u32], walk: Walk, shade: &[[i32; 2]], ramp: &Ramp) {
    let mut place = walk.place;
    for pixel in row {
        let light = ramp[shade_at(shade, place)];
        *pixel = lighter(*pixel, light);
        place += walk.step;
    }
}

fn lighter(a: u32, b: u32) -> u32 {
    if a == 0 {
        return b;
    }
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    u32::from_le_bytes(std::array::from_fn(|i| a[i].max(b[i])))
}

fn share(value: f32) -> u32 {
    (value.clamp(0.0, 1.0) * 256.0) as u32
}

/// An edge cell cut by one screen row: fields at its left side, and their steps to the right side.
struct Border<'a> {
    job: &'a Job<'a>,
    person: Slope,
    fields: [Slope; EDGE_LABELS],
    ramps: [&'a Ramp; EDGE_LABELS],
    count: usize,
    shade: [i32; 2],
    /// Pixels per unit of a field: how far a border is away, from how far a field is from it.
    distance: f32,
    /// In pixels.
    outline: f32,
    /// Half width in pixels.
    seam: f32,
}

/// A value at a cell's left side and its step to the right side.
#[derive(Clone, Copy, Default)]
struct Slope {
    start: f32,
    step: f32,
}

impl Slope {
    fn at(self, across: f32) -> f32 {
        self.start + self.step * across
    }
}

/// The strongest two labels at a place, and how many pixels away their border is.
struct Contest {
    first: usize,
    second: usize,
    away: f32,
}

impl<'a> Border<'a> {
    /// `part` is the place of the row between the upper corners (0) and the lower ones (1);
    /// `scale` is in pixels per node.
    fn new(job: &'a Job<'a>, edge: &Edge, part: f32, scale: f32, shade: [i32; 2]) -> Border<'a> {
        let cut = |corners: [u8; 4]| {
            let [a, b, c, d] = corners.map(f32::from);
            let (start, end) = (a + (c - a) * part, b + (d - b) * part);
            Slope { start, step: end - start }
        };
        let count = usize::from(edge.count);
        let mut fields = [Slope::default(); EDGE_LABELS];
        let mut ramps = [&job.track.body; EDGE_LABELS];
        for index in 0..count {
            fields[index] = cut(edge.fields[index]);
            ramps[index] = job.ramps.of_label(edge.labels[index], job.track);
        }
        let distance = scale / (FIELD_SLOPE * 255.0);
        let outline = job.outline_width.min(FIELD_NODES * scale - 0.5).max(0.0);
        let seam = SEAM_PIXELS.min(SEAM_NODES * scale);
        let person = cut(edge.person);
        Border { job, person, fields, ramps, count, shade, distance, outline, seam }
    }

    /// Everything is linear across the cell, so what holds at both ends of a run holds between.
    fn paint(&self, walk: Walk, row: &mut [u32]) {
        let last = walk.place + walk.step * (row.len() as i32 - 1);
        let ends = [walk.place, last].map(across);
        let inside = ends.map(|across| self.inside(across));
        if inside[0] <= -0.5 && inside[1] <= -0.5 {
            self.paint_halo(walk, row);
            return;
        }
        let contests = ends.map(|across| self.contest(across));
        let certain = contests[0].first == contests[1].first
            && contests.iter().all(|contest| contest.away >= self.seam);
        let plain = certain.then(|| self.ramps[contests[0].first]);
        let inner = self.outline + 0.5;
        match plain {
            Some(ramp) if inside[0] >= inner && inside[1] >= inner => {
                self.each(walk, row, |_, shade, pixel| *pixel = ramp[shade]);
            }
            Some(ramp) => self.paint_outline(walk, row, |_, shade| ramp[shade]),
            None => self.paint_outline(walk, row, |across, shade| self.colour(across, shade)),
        }
    }

    fn paint_halo(&self, walk: Walk, row: &mut [u32]) {
        let halo = &self.job.track.halo;
        self.each(walk, row, |_, shade, pixel| *pixel = lighter(*pixel, halo[shade]));
    }

    fn paint_outline(&self, walk: Walk, row: &mut [u32], colour: impl Fn(f32, usize) -> u32) {
        let (track, width) = (self.job.track, self.outline);
        self.each(walk, row, |across, shade, pixel| {
            let inside = self.inside(across);
            let line = share(width + 0.5 - inside);
            let lit = match line {
                0 => colour(across, shade),
                256 => track.outline,
                _ => mix(colour(across, shade), track.outline, line),
            };
            if inside >= 0.5 {
                *pixel = lit;
            } else {
                *pixel = mix(lighter(*pixel, track.halo[shade]), lit, share(inside + 0.5));
            }
        });
    }

    /// Calls `paint` with the place across the cell, the shade and the pixel.
    fn each(&self, walk: Walk, row: &mut [u32], paint: impl Fn(f32, usize, &mut u32)) {
        let mut place = walk.place;
        for pixel in row {
            let shade = self.shade[0] + ((self.shade[1] * ((place >> 8) & 0xFF)) >> 8);
            paint(across(place), (shade & 0xFF) as usize, pixel);
            place += walk.step;
        }
    }

    /// Pixels to the person's outline, negative outside.
    fn inside(&self, across: f32) -> f32 {
        (self.person.at(across) - 127.5) * self.distance
    }

    fn contest(&self, across: f32) -> Contest {
        let (mut first, mut second) = ((self.fields[0].at(across), 0), (f32::MIN, 0));
        for index in 1..self.count {
            let value = self.fields[index].at(across);
            if value > first.0 {
                (first, second) = ((value, index), first);
            } else if value > second.0 {
                second = (value, index);
            }
        }
        let away = (first.0 - second.0) * 0.5 * self.distance;
        Contest { first: first.1, second: second.1, away }
    }

    /// The colour inside: the strongest label's, mixed with the second's within a pixel of the
    /// border between them, darker along it.
    fn colour(&self, across: f32, shade: usize) -> u32 {
        let Contest { first, second, away } = self.contest(across);
        let first = self.ramps[first][shade];
        if away >= self.seam {
            return first;
        }
        let colour = mix(first, self.ramps[second][shade], share(0.5 - away));
        let seam = self.job.ramps.seam * (1.0 - away / self.seam);
        mix(colour, colour & COVERED, share(seam))
    }
}

/// A place within its cell, 0 to 1.
fn across(place: i32) -> f32 {
    (place & 0xFFFF) as f32 * (1.0 / 65536.0)
}

/// Steps between pixels are kept below this, 4096 nodes, so that sums cannot overflow; a patch is
/// far smaller.
const MOST_STEP: i32 = 1 << 28;
/// Half width of the seam between parts: pixels, and nodes where those are smaller.
const SEAM_PIXELS: f32 = 3.0;
const SEAM_NODES: f32 = 0.5;
/// A field tells distances up to this many nodes; an outline must be narrower.
const FIELD_NODES: f32 = 0.5 / FIELD_SLOPE;

// A label must find its ramp.
const _: () = assert!(LABELS == PALETTE.len() + 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brighter_light_wins_channel_by_channel() {
        assert_eq!(lighter(0x0010_2030, 0x0030_1020), 0x0030_2030);
    }

    #[test]
    fn runs_end_where_the_next_kind_begins_in_both_directions() {
        let cells = [Cell::Empty, Cell::Halo, Cell::Halo, Cell::Flat(3)];
        let quarter = 1 << 14;
        assert_eq!(pixels_until_other(&cells, 1, 1 << 16, quarter), 8);
        assert_eq!(pixels_until_other(&cells, 1, (1 << 16) + 1, quarter), 8);
        assert_eq!(pixels_until_other(&cells, 2, (3 << 16) - 1, -quarter), 8);
        assert_eq!(pixels_until_other(&cells, 0, 5, -quarter), 1);
        assert_eq!(pixels_until_other(&cells, 3, 3 << 16, 0), usize::MAX);
    }
}
