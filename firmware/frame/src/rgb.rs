//! Camera pictures as upright packed RGB, for the preview and for files.

use crate::{Frame, FrameError, Orientation, PixelFormat, yuv};

/// Writes the upright picture to `rgb` (3 bytes a pixel, rows from the top) and gives its size.
///
/// The vector is resized to fit and allocates only when it has to grow.
///
/// # Errors
/// [`FrameError::Compressed`] for JPEG, which must be decoded first.
pub fn upright(
    frame: &Frame<'_>,
    orientation: Orientation,
    rgb: &mut Vec<u8>,
) -> Result<(u32, u32), FrameError> {
    upright_within(frame, orientation, u32::MAX, rgb)
}

/// The same, made smaller by a whole factor until no side is longer than `longest` pixels (at
/// least 1). Blocks of pixels are averaged; an incomplete block at the right or lower edge is left
/// out.
///
/// # Errors
/// [`FrameError::Compressed`] for JPEG, which must be decoded first.
pub fn upright_within(
    frame: &Frame<'_>,
    orientation: Orientation,
    longest: u32,
    rgb: &mut Vec<u8>,
) -> Result<(u32, u32), FrameError> {
    let layout = frame.layout();
    let (stride, height) = (layout.stride(), layout.height() as usize);
    let bytes = frame.bytes();
    let size = (layout.width(), layout.height());
    let mut turn = Turn { size, orientation, longest: longest.max(1), rgb };
    match layout.format() {
        PixelFormat::Yuyv => Ok(turn.run(|x, y| {
            let pair = y * stride + x / 2 * 4;
            yuv::to_rgb(bytes[y * stride + x * 2], bytes[pair + 1], bytes[pair + 3])
        })),
        PixelFormat::Nv12 => Ok(turn.run(|x, y| {
            let pair = (height + y / 2) * stride + x / 2 * 2;
            yuv::to_rgb(bytes[y * stride + x], bytes[pair], bytes[pair + 1])
        })),
        PixelFormat::Rgb3 => Ok(turn.run(|x, y| {
            let at = y * stride + x * 3;
            [bytes[at], bytes[at + 1], bytes[at + 2]]
        })),
        PixelFormat::Mjpg => Err(FrameError::Compressed { format: PixelFormat::Mjpg }),
    }
}

/// One conversion; generic over the pixel's source, so that each format has its own inner loop.
struct Turn<'a> {
    /// Size of the camera's picture.
    size: (u32, u32),
    orientation: Orientation,
    longest: u32,
    rgb: &'a mut Vec<u8>,
}

impl Turn<'_> {
    /// `pixel(x, y)` gives the colour of a pixel of the camera's picture.
    fn run(&mut self, pixel: impl Fn(usize, usize) -> [u8; 3]) -> (u32, u32) {
        let (width, height) = self.orientation.upright_size(self.size.0, self.size.1);
        let factor = width.max(height).div_ceil(self.longest);
        let small = ((width / factor).max(1), (height / factor).max(1));
        self.rgb.resize(small.0 as usize * small.1 as usize * 3, 0);
        let rows = self.rgb.chunks_exact_mut(small.0 as usize * 3);
        let upright = |x, y| {
            let (x, y) = self.orientation.to_camera(x, y, self.size.0, self.size.1);
            pixel(x as usize, y as usize)
        };
        for (y, row) in (0..).zip(rows) {
            for (x, out) in (0..).zip(row.chunks_exact_mut(3)) {
                let colour = match factor {
                    1 => upright(x, y),
                    _ => average(factor, (x * factor, y * factor), (width, height), upright),
                };
                out.copy_from_slice(&colour);
            }
        }
        small
    }
}

/// Mean colour of the block of `factor` x `factor` pixels at `from`, cut at the picture's edge.
fn average(
    factor: u32,
    from: (u32, u32),
    size: (u32, u32),
    pixel: impl Fn(u32, u32) -> [u8; 3],
) -> [u8; 3] {
    let (right, bottom) = ((from.0 + factor).min(size.0), (from.1 + factor).min(size.1));
    let mut sum = [0_u32; 3];
    for y in from.1..bottom {
        for x in from.0..right {
            let colour = pixel(x, y);
            sum.iter_mut().zip(colour).for_each(|(sum, value)| *sum += u32::from(value));
        }
    }
    let count = (right - from.0) * (bottom - from.1);
    sum.map(|sum| ((sum + count / 2) / count) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Layout, Rotation};

    const RED: [u8; 3] = [81, 90, 240];

    fn frame_of(format: PixelFormat, width: u32, height: u32, stride: u32) -> (Layout, Vec<u8>) {
        let layout = Layout::new(format, width, height, stride).expect("valid");
        (layout, vec![0; layout.byte_len()])
    }

    /// A red pixel block in the corner at the camera's top left, grey elsewhere.
    fn marked(format: PixelFormat) -> (Layout, Vec<u8>) {
        let (layout, mut bytes) = frame_of(format, 6, 4, 20);
        bytes.fill(128);
        match format {
            PixelFormat::Yuyv => {
                bytes[..4].copy_from_slice(&[RED[0], RED[1], RED[0], RED[2]]);
                bytes[20..24].copy_from_slice(&[RED[0], RED[1], RED[0], RED[2]]);
            }
            PixelFormat::Nv12 => {
                for at in [0, 1, 20, 21] {
                    bytes[at] = RED[0];
                }
                bytes[80..82].copy_from_slice(&RED[1..]);
            }
            _ => {
                for at in [0, 3, 20, 23] {
                    bytes[at..at + 3].copy_from_slice(&yuv::to_rgb(RED[0], RED[1], RED[2]));
                }
            }
        }
        (layout, bytes)
    }

    #[test]
    fn the_marked_corner_turns_with_the_picture_in_every_format() {
        for format in [PixelFormat::Yuyv, PixelFormat::Nv12, PixelFormat::Rgb3] {
            let (layout, bytes) = marked(format);
            let frame = Frame::new(layout, &bytes).expect("long enough");
            let corner = |degrees, flip_horizontal| {
                let rotation = Rotation::from_degrees(degrees).expect("a right angle");
                let mut rgb = Vec::new();
                let orientation = Orientation { rotation, flip_horizontal };
                let (width, height) = upright(&frame, orientation, &mut rgb).expect("raw");
                let at = |x: u32, y: u32| rgb[((y * width + x) * 3) as usize] > 200;
                let (right, bottom) = (width - 1, height - 1);
                [at(0, 0), at(right, 0), at(right, bottom), at(0, bottom)]
            };
            assert_eq!(corner(0, false), [true, false, false, false], "{format}");
            assert_eq!(corner(90, false), [false, true, false, false], "{format}");
            assert_eq!(corner(180, false), [false, false, true, false], "{format}");
            assert_eq!(corner(270, false), [false, false, false, true], "{format}");
            assert_eq!(corner(90, true), [true, false, false, false], "{format}");
        }
    }

    #[test]
    fn shrinking_averages_blocks() {
        let (layout, mut bytes) = frame_of(PixelFormat::Rgb3, 5, 4, 0);
        bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / 3 % 5 * 10) as u8);
        let frame = Frame::new(layout, &bytes).expect("long enough");
        let mut rgb = Vec::new();
        let size = upright_within(&frame, Orientation::default(), 3, &mut rgb).expect("raw");
        assert_eq!(size, (2, 2));
        assert_eq!(rgb, [5, 5, 5, 25, 25, 25, 5, 5, 5, 25, 25, 25]);
    }

    #[test]
    fn a_long_thin_picture_keeps_a_pixel() {
        let (layout, bytes) = frame_of(PixelFormat::Rgb3, 100, 1, 0);
        let frame = Frame::new(layout, &bytes).expect("long enough");
        let mut rgb = Vec::new();
        let size = upright_within(&frame, Orientation::default(), 10, &mut rgb).expect("raw");
        assert_eq!((size, rgb.len()), ((10, 1), 30));
    }

    #[test]
    fn jpeg_must_be_decoded_first() {
        let (layout, bytes) = frame_of(PixelFormat::Mjpg, 4, 4, 0);
        let frame = Frame::new(layout, &bytes).expect("long enough");
        let refused = upright(&frame, Orientation::default(), &mut Vec::new());
        assert_eq!(refused, Err(FrameError::Compressed { format: PixelFormat::Mjpg }));
    }
}
