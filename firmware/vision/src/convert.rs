//! Camera format to the network's input in one pass over the picture.
//!
//! Every source line is added once, weighted, to a line of sums (the same loop for all formats); when the sums
//! of an output line are complete, they are narrowed, turned into RGB, turned upright and stored. Averaging
//! before the colour matrix is exact, because both are linear.

use frame::yuv::Matrix;
use frame::{Frame, Layout, Orientation, PixelFormat, wipe};

use crate::error::VisionError;
use crate::geometry::{GridSize, Letterbox};

/// Source samples that make up one output sample: `weights` from `start` on.
#[derive(Clone, Debug)]
struct Tap {
    start: usize,
    weights: Vec<f32>,
}

/// Taps that bring `from` samples to `to`: the covered area when shrinking, a triangle when enlarging.
fn taps(from: usize, to: usize) -> Vec<Tap> {
    let ratio = from as f64 / to as f64;
    (0..to)
        .map(|i| if ratio >= 1.0 { box_tap(i, ratio, from) } else { triangle_tap(i, ratio, from) })
        .collect()
}

fn box_tap(index: usize, ratio: f64, from: usize) -> Tap {
    let (low, high) = (index as f64 * ratio, (index + 1) as f64 * ratio);
    let start = low.floor() as usize;
    // 1e-9: 3 * (4/3) must not reach into the sample after the last.
    let end = ((high - 1e-9).ceil() as usize).clamp(start + 1, from);
    let cover = |s: usize| (high.min(s as f64 + 1.0) - low.max(s as f64)) / ratio;
    Tap { start, weights: (start..end).map(|s| cover(s) as f32).collect() }
}

fn triangle_tap(index: usize, ratio: f64, from: usize) -> Tap {
    let centre = ((index as f64 + 0.5) * ratio - 0.5).clamp(0.0, from as f64 - 1.0);
    let start = centre.floor() as usize;
    let share = (centre - start as f64) as f32;
    let weights = if start + 1 < from { vec![1.0 - share, share] } else { vec![1.0] };
    Tap { start, weights }
}

/// Taps on samples that each stand for two neighbours, as chroma does: what the neighbours' taps would weigh together.
fn paired(taps: Vec<Tap>) -> Vec<Tap> {
    taps.into_iter().map(pair).collect()
}

fn pair(tap: Tap) -> Tap {
    let start = tap.start / 2;
    let mut weights = vec![0.0; (tap.start + tap.weights.len() - 1) / 2 - start + 1];
    for (k, weight) in tap.weights.iter().enumerate() {
        weights[(tap.start + k) / 2 - start] += weight;
    }
    Tap { start, weights }
}

/// One plane of bytes: where its lines begin, how long they are, and how they are narrowed.
#[derive(Clone, Debug)]
struct Plane {
    offset: usize,
    stride: usize,
    line: usize,
    rows: Vec<Tap>,
    sums: Vec<f32>,
}

/// Where a colour component is found in the lines of sums.
#[derive(Clone, Debug)]
struct Component {
    plane: usize,
    offset: usize,
    step: usize,
    columns: Vec<Tap>,
}

/// Everything that depends on the picture's layout; made again only when it changes.
#[derive(Clone, Debug)]
struct Plan {
    layout: Layout,
    orientation: Orientation,
    letterbox: Letterbox,
    /// Size of the content as the camera holds it, before turning.
    columns: usize,
    rows: usize,
    planes: Vec<Plane>,
    components: [Component; 3],
    /// How YUV becomes RGB.
    matrix: Option<Matrix>,
}

impl Plan {
    fn new(layout: Layout, orientation: Orientation, grid: GridSize) -> Result<Plan, VisionError> {
        let (w, h) = (layout.width() as usize, layout.height() as usize);
        let (uw, uh) = orientation.upright_size(layout.width(), layout.height());
        let letterbox = Letterbox::new(uw, uh, grid);
        let content = letterbox.content();
        let (cw, ch) = (content.width as usize, content.height as usize);
        let (columns, rows) = if orientation.rotation.swaps_axes() { (ch, cw) } else { (cw, ch) };
        let plane = |offset, line, rows| Plane {
            offset,
            stride: layout.stride(),
            line,
            rows,
            sums: vec![0.0; line],
        };
        let component = |plane, offset, step, columns| Component { plane, offset, step, columns };
        let (luma_rows, luma_columns) = (taps(h, rows), taps(w, columns));
        let chroma_columns = || paired(taps(w, columns));
        let (planes, components) = match layout.format() {
            PixelFormat::Yuyv => (
                vec![plane(0, w * 2, luma_rows)],
                [
                    component(0, 0, 2, luma_columns),
                    component(0, 1, 4, chroma_columns()),
                    component(0, 3, 4, chroma_columns()),
                ],
            ),
            PixelFormat::Nv12 => (
                vec![
                    plane(0, w, luma_rows.clone()),
                    plane(layout.stride() * h, w, paired(luma_rows)),
                ],
                [
                    component(0, 0, 1, luma_columns),
                    component(1, 0, 2, chroma_columns()),
                    component(1, 1, 2, chroma_columns()),
                ],
            ),
            PixelFormat::Rgb3 => (
                vec![plane(0, w * 3, luma_rows)],
                [
                    component(0, 0, 3, luma_columns.clone()),
                    component(0, 1, 3, luma_columns.clone()),
                    component(0, 2, 3, luma_columns),
                ],
            ),
            PixelFormat::Mjpg => return Err(VisionError::Compressed(PixelFormat::Mjpg)),
        };
        let matrix = layout.format().is_yuv().then(|| Matrix::of(layout.full_range()));
        Ok(Plan { layout, orientation, letterbox, columns, rows, planes, components, matrix })
    }
}

/// Turns pictures into the network's input. Keeps its tables while the layout stays the same.
#[derive(Debug)]
pub struct Converter {
    grid: GridSize,
    padding: u8,
    plan: Option<Plan>,
    line: [Vec<f32>; 3],
}

impl Converter {
    /// For an input of `grid` pixels whose border is filled with `padding`.
    pub fn new(grid: GridSize, padding: u8) -> Converter {
        let longest = grid.width.max(grid.height);
        Converter { grid, padding, plan: None, line: std::array::from_fn(|_| vec![0.0; longest]) }
    }

    /// Nothing of earlier pictures stays in memory; the tables do.
    pub fn forget(&mut self) {
        let planes = self.plan.iter_mut().flat_map(|plan| &mut plan.planes);
        planes.map(|plane| &mut plane.sums).chain(&mut self.line).for_each(wipe);
    }

    /// Writes `frame`, upright and letterboxed, to `out`: R, G, B planes of height x width bytes each.
    ///
    /// # Errors
    /// [`VisionError::Compressed`] for JPEG, which must be decoded first.
    ///
    /// # Panics
    /// If `out` is not `3 * height * width` long.
    pub fn convert(
        &mut self,
        frame: &Frame<'_>,
        orientation: Orientation,
        out: &mut [u8],
    ) -> Result<Letterbox, VisionError> {
        assert_eq!(
            out.len(),
            3 * self.grid.area(),
            "the input tensor has three planes of the grid"
        );
        let layout = frame.layout();
        let fits = |plan: &Plan| plan.layout == layout && plan.orientation == orientation;
        if !self.plan.as_ref().is_some_and(fits) {
            self.plan = Some(Plan::new(layout, orientation, self.grid)?);
        }
        let plan = self.plan.as_mut().expect("made above");
        out.fill(self.padding);
        for row in 0..plan.rows {
            for plane in &mut plan.planes {
                sum_lines(plane, row, frame.bytes());
            }
            for (component, line) in plan.components.iter().zip(&mut self.line) {
                narrow(component, &plan.planes[component.plane].sums, line);
            }
            if let Some(matrix) = &plan.matrix {
                colour(&mut self.line, plan.columns, matrix);
            }
            store(plan, row, &self.line, self.grid, out);
        }
        Ok(plan.letterbox)
    }
}

/// Weighted sum of the source lines that make up output line `row`.
fn sum_lines(plane: &mut Plane, row: usize, bytes: &[u8]) {
    let tap = &plane.rows[row];
    for (k, &weight) in tap.weights.iter().enumerate() {
        let begin = plane.offset + (tap.start + k) * plane.stride;
        let source = &bytes[begin..begin + plane.line];
        if k == 0 {
            plane.sums.iter_mut().zip(source).for_each(|(sum, &b)| *sum = weight * f32::from(b));
        } else {
            plane.sums.iter_mut().zip(source).for_each(|(sum, &b)| *sum += weight * f32::from(b));
        }
    }
}

/// Weighted sums along a line.
fn narrow(component: &Component, sums: &[f32], line: &mut [f32]) {
    for (value, tap) in line.iter_mut().zip(&component.columns) {
        let first = component.offset + tap.start * component.step;
        *value = sums[first..]
            .iter()
            .step_by(component.step)
            .zip(&tap.weights)
            .map(|(s, w)| s * w)
            .sum();
    }
}

/// YUV to RGB in place.
fn colour(line: &mut [Vec<f32>; 3], count: usize, matrix: &Matrix) {
    let Matrix { black, luma, red_from_v, green_from_u, green_from_v, blue_from_u } = *matrix;
    let [y, u, v] = line;
    for ((y, u), v) in y[..count].iter_mut().zip(&mut u[..count]).zip(&mut v[..count]) {
        let grey = luma * (*y - black);
        let (cb, cr) = (*u - 128.0, *v - 128.0);
        *y = grey + red_from_v * cr;
        *u = grey + green_from_u * cb + green_from_v * cr;
        *v = grey + blue_from_u * cb;
    }
}

/// Writes a finished line to where it belongs in the upright picture.
fn store(plan: &Plan, row: usize, line: &[Vec<f32>; 3], grid: GridSize, out: &mut [u8]) {
    let content = plan.letterbox.content();
    let (w, h) = (content.width as usize, content.height as usize);
    // The camera pixel (x, row) lands at (ux, uy); both run linearly with x.
    let place = |x: usize| {
        use frame::Rotation::{Clockwise90, Clockwise270, Half, None};
        let (ux, uy) = match plan.orientation.rotation {
            None => (x, row),
            Clockwise90 => (w - 1 - row, x),
            Half => (w - 1 - x, h - 1 - row),
            Clockwise270 => (row, h - 1 - x),
        };
        (if plan.orientation.flip_horizontal { w - 1 - ux } else { ux }, uy)
    };
    let at = |(x, y): (usize, usize)| {
        ((y + content.y as usize) * grid.width + x + content.x as usize) as isize
    };
    let start = at(place(0));
    let step = if plan.columns > 1 { at(place(1)) - start } else { 0 };
    for (plane, line) in out.chunks_exact_mut(grid.area()).zip(line) {
        let mut position = start;
        for &value in &line[..plan.columns] {
            // The conversion saturates: values outside 0..=255 are cut.
            plane[position as usize] = (value + 0.5) as u8;
            position += step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use frame::Rotation;

    const GRID: GridSize = GridSize { height: 64, width: 48 };

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 11) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    /// Share of every one of `from` samples in the `index`-th of `to`, by the definition: the area that it covers when shrinking, and
    /// when enlarging the way between the middles of two.
    fn shares(index: usize, from: usize, to: usize) -> Vec<(usize, f64)> {
        let ratio = from as f64 / to as f64;
        let (low, high) = (index as f64 * ratio, (index + 1) as f64 * ratio);
        let middle = ((low + high) / 2.0 - 0.5).clamp(0.0, from as f64 - 1.0);
        let share = |sample: f64| {
            if to <= from {
                (high.min(sample + 1.0) - low.max(sample)) / ratio
            } else {
                1.0 - (middle - sample).abs()
            }
        };
        let shares = (0..from).map(|sample| (sample, share(sample as f64)));
        shares.filter(|(_, share)| *share > 0.0).collect()
    }

    /// The definition in f64: upright float picture, then areas (or triangles) of it.
    fn reference(frame: &Frame<'_>, orientation: Orientation) -> Vec<f64> {
        let layout = frame.layout();
        let (w, h) = (layout.width() as usize, layout.height() as usize);
        let (uw, uh) = orientation.upright_size(w as u32, h as u32);
        let content = Letterbox::new(uw, uh, GRID).content();
        let mut out = vec![114.0; 3 * GRID.area()];
        let sample = |channel: usize, x: usize, y: usize| -> f64 {
            let b = frame.bytes();
            let s = layout.stride();
            let (cx, cy) = orientation.to_camera(x as u32, y as u32, w as u32, h as u32);
            let (x, y) = (cx as usize, cy as usize);
            if layout.format() == PixelFormat::Rgb3 {
                return f64::from(b[y * s + 3 * x + channel]);
            }
            let (luma, u, v) = match layout.format() {
                PixelFormat::Yuyv => {
                    (b[y * s + 2 * x], b[y * s + x / 2 * 4 + 1], b[y * s + x / 2 * 4 + 3])
                }
                _ => {
                    let uv = s * h + y / 2 * s + x / 2 * 2;
                    (b[y * s + x], b[uv], b[uv + 1])
                }
            };
            let (u, v) = (f64::from(u) - 128.0, f64::from(v) - 128.0);
            if layout.full_range() {
                let l = f64::from(luma);
                return [l + 1.402 * v, l - 0.3441363 * u - 0.7141363 * v, l + 1.772 * u][channel];
            }
            let l = 1.1643836 * (f64::from(luma) - 16.0);
            [l + 1.5960268 * v, l - 0.3917623 * u - 0.8129676 * v, l + 2.0172321 * u][channel]
        };
        let all = |from: u32, to: u32| -> Vec<_> {
            (0..to as usize).map(|index| shares(index, from as usize, to as usize)).collect()
        };
        let (columns, rows) = (all(uw, content.width), all(uh, content.height));
        for channel in 0..3 {
            for (y, row) in rows.iter().enumerate() {
                for (x, column) in columns.iter().enumerate() {
                    let mut sum = 0.0;
                    for (sy, wy) in row {
                        for (sx, wx) in column {
                            sum += wx * wy * sample(channel, *sx, *sy);
                        }
                    }
                    let at = channel * GRID.area()
                        + (y + content.y as usize) * GRID.width
                        + x
                        + content.x as usize;
                    out[at] = sum.clamp(0.0, 255.0);
                }
            }
        }
        out
    }

    #[test]
    fn equals_the_definition_in_every_format_range_and_orientation() {
        let formats = [PixelFormat::Yuyv, PixelFormat::Nv12, PixelFormat::Rgb3];
        for (width, height, extra, full_range) in
            [(150, 110, 0, false), (64, 100, 22, true), (96, 128, 2, false), (40, 30, 2, true)]
        {
            for format in formats {
                let shortest =
                    Layout::new(format, width, height, 0).expect("valid").stride() as u32;
                let layout = Layout::new(format, width, height, shortest + extra).expect("valid");
                let layout = layout.with_full_range(full_range);
                let bytes = noise(layout.byte_len());
                let frame = Frame::new(layout, &bytes).expect("long enough");
                for degrees in [0, 90, 180, 270] {
                    for flip_horizontal in [false, true] {
                        let rotation = Rotation::from_degrees(degrees).expect("a right angle");
                        check(&frame, Orientation { rotation, flip_horizontal });
                    }
                }
            }
        }
    }

    fn check(frame: &Frame<'_>, orientation: Orientation) {
        let mut out = vec![0; 3 * GRID.area()];
        Converter::new(GRID, 114).convert(frame, orientation, &mut out).expect("converts");
        let expect = reference(frame, orientation);
        for (at, (&got, want)) in out.iter().zip(&expect).enumerate() {
            let wrong = (f64::from(got) - want).abs();
            assert!(
                wrong <= 0.51,
                "{:?} {orientation:?} at {at}: {got} for {want}",
                frame.layout()
            );
        }
    }

    #[test]
    fn enlarges_small_pictures_smoothly() {
        let layout = Layout::new(PixelFormat::Rgb3, 3, 4, 0).expect("valid");
        let bytes: Vec<u8> = (0..12).flat_map(|i| [i * 20; 3]).collect();
        let frame = Frame::new(layout, &bytes).expect("long enough");
        let mut out = vec![0; 3 * GRID.area()];
        Converter::new(GRID, 114)
            .convert(&frame, Orientation::default(), &mut out)
            .expect("converts");
        let line = &out[32 * 48..33 * 48];
        assert!(line.windows(2).all(|p| p[1] >= p[0] && p[1] - p[0] <= 2), "{line:?}");
    }

    #[test]
    fn weights_of_a_tap_sum_to_one() {
        for (from, to) in [(640, 192), (480, 144), (192, 192), (7, 192), (1, 5), (4096, 1)] {
            for tap in taps(from, to) {
                let sum: f32 = tap.weights.iter().sum();
                assert!((sum - 1.0).abs() < 1e-4, "{from} to {to}: {tap:?}");
                assert!(tap.start + tap.weights.len() <= from);
            }
        }
    }

    #[test]
    fn refuses_jpeg() {
        let layout = Layout::new(PixelFormat::Mjpg, 8, 8, 0).expect("valid");
        let frame = Frame::new(layout, &[0xFF, 0xD8, 0xFF, 0xD9]).expect("long enough");
        let mut out = vec![0; 3 * GRID.area()];
        let error = Converter::new(GRID, 114).convert(&frame, Orientation::default(), &mut out);
        assert!(matches!(error, Err(VisionError::Compressed(PixelFormat::Mjpg))));
    }
}
