//! Rendered labels against a screen dump: does the overlay lie where the people are?

use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// A picture as packed RGB, or a label map as one byte a pixel.
pub struct Picture {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes of a pixel.
    pub samples: usize,
    /// Rows from the top.
    pub bytes: Vec<u8>,
}

/// Reads an 8-bit PNG; alpha is dropped, label maps stay as they are.
pub fn read_png(path: &Path) -> Result<Picture> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let mut reader = png::Decoder::new(BufReader::new(file)).read_info()?;
    let mut bytes = vec![0; reader.output_buffer_size().context("too large")?];
    let info = reader.next_frame(&mut bytes)?;
    ensure!(info.bit_depth == png::BitDepth::Eight, "{}: not 8 bits a sample", path.display());
    bytes.truncate(info.buffer_size());
    let samples = info.color_type.samples();
    let (width, height) = (info.width as usize, info.height as usize);
    if samples == 4 {
        bytes = bytes.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
        return Ok(Picture { width, height, samples: 3, bytes });
    }
    Ok(Picture { width, height, samples, bytes })
}

impl Picture {
    /// Whether a pixel is lit; black is the mirror.
    fn lit(&self, x: usize, y: usize) -> bool {
        let at = (y * self.width + x) * self.samples;
        self.bytes[at..at + self.samples].iter().any(|&v| v > 24)
    }
}

/// A rectangle in pixels: left, top, width, height.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

impl Area {
    /// Where a picture of another aspect lies when it is fitted into this rectangle, centred.
    pub fn fit(self, width: f64, height: f64) -> Area {
        let scale = (self.width / width).min(self.height / height);
        let (w, h) = (width * scale, height * scale);
        Area {
            x: self.x + (self.width - w) / 2.0,
            y: self.y + (self.height - h) / 2.0,
            width: w,
            height: h,
        }
    }
}

/// How a screen agrees with labels.
#[derive(Debug)]
pub struct Agreement {
    /// Share of the labelled people's area that is lit.
    pub covered: f64,
    /// Share of the screen well away from everybody that is lit.
    pub stray: f64,
}

/// Compares lit pixels with the label map laid over `area` of the screen, in these rows of it: badge and texts live in the others.
pub fn compare(screen: &Picture, labels: &Picture, area: Area, rows: Range<usize>) -> Agreement {
    let label = |x: f64, y: f64| {
        let lx = ((x - area.x) / area.width * labels.width as f64).floor();
        let ly = ((y - area.y) / area.height * labels.height as f64).floor();
        let inside =
            lx >= 0.0 && ly >= 0.0 && lx < labels.width as f64 && ly < labels.height as f64;
        inside && labels.bytes[ly as usize * labels.width + lx as usize] != 0
    };
    // Outlines glow beyond the body: what is this close to somebody is neither covered nor stray.
    let margin = area.height * 0.06;
    let near = |x: f64, y: f64| {
        [-1.0, -0.5, 0.0, 0.5, 1.0].iter().any(|i| {
            [-1.0, -0.5, 0.0, 0.5, 1.0].iter().any(|j| label(x + i * margin, y + j * margin))
        })
    };
    let (mut people, mut covered, mut empty, mut stray) = (0u64, 0u64, 0u64, 0u64);
    for y in rows {
        for x in 0..screen.width {
            let (cx, cy, lit) = (x as f64 + 0.5, y as f64 + 0.5, screen.lit(x, y));
            if label(cx, cy) {
                people += 1;
                covered += u64::from(lit);
            } else if !near(cx, cy) {
                empty += 1;
                stray += u64::from(lit);
            }
        }
    }
    let share = |a: u64, b: u64| a as f64 / b.max(1) as f64;
    Agreement { covered: share(covered, people), stray: share(stray, empty) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Picture {
        let mut bytes = vec![0; 100];
        for y in 2..8 {
            bytes[y * 10 + 4] = 3;
            bytes[y * 10 + 5] = 3;
        }
        Picture { width: 10, height: 10, samples: 1, bytes }
    }

    fn screen(shift: usize) -> Picture {
        let mut bytes = vec![0; 100 * 100 * 3];
        for y in 20..80 {
            for x in 40 + shift..60 + shift {
                bytes[(y * 100 + x) * 3] = 200;
            }
        }
        Picture { width: 100, height: 100, samples: 3, bytes }
    }

    #[test]
    fn an_overlay_in_place_agrees_and_a_shifted_one_does_not() {
        let area = Area { x: 0.0, y: 0.0, width: 100.0, height: 100.0 };
        let good = compare(&screen(0), &labels(), area, 0..screen(0).height);
        assert!(good.covered > 0.99 && good.stray == 0.0, "{good:?}");
        let bad = compare(&screen(30), &labels(), area, 0..screen(30).height);
        assert!(bad.covered < 0.01 && bad.stray > 0.1, "{bad:?}");
    }

    #[test]
    fn fitting_keeps_the_aspect() {
        let area = Area { x: 0.0, y: 0.0, width: 640.0, height: 480.0 }.fit(3.0, 4.0);
        assert_eq!((area.x, area.y, area.width, area.height), (140.0, 0.0, 360.0, 480.0));
    }
}
