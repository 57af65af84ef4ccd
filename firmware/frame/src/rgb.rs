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
    let layout = frame.layout();
    let (stride, height) = (layout.stride(), layout.height() as usize);
    let bytes = frame.bytes();
    let colours = yuv::Pixels::of(layout.full_range());
    if layout.format() == PixelFormat::Rgb3 && orientation == Orientation::default() {
        return Ok(copy(frame, rgb));
    }
    let mut turn = Turn { size: (layout.width(), layout.height()), orientation, rgb };
    match layout.format() {
        PixelFormat::Yuyv => Ok(turn.run(|x, y| {
            let pair = y * stride + x / 2 * 4;
            colours.to_rgb(bytes[y * stride + x * 2], bytes[pair + 1], bytes[pair + 3])
        })),
        PixelFormat::Nv12 => Ok(turn.run(|x, y| {
            let pair = (height + y / 2) * stride + x / 2 * 2;
            colours.to_rgb(bytes[y * stride + x], bytes[pair], bytes[pair + 1])
        })),
        PixelFormat::Rgb3 => Ok(turn.run(|x, y| {
            let at = y * stride + x * 3;
            [bytes[at], bytes[at + 1], bytes[at + 2]]
        })),
        PixelFormat::Mjpg => Err(FrameError::Compressed { format: PixelFormat::Mjpg }),
    }
}

/// What is upright and RGB already, without the padding of its lines.
fn copy(frame: &Frame<'_>, rgb: &mut Vec<u8>) -> (u32, u32) {
    let layout = frame.layout();
    let line = 3 * layout.width() as usize;
    rgb.clear();
    // At once: memory that it grew out of would be freed with a part of the picture.
    rgb.reserve(line * layout.height() as usize);
    frame
        .bytes()
        .chunks(layout.stride())
        .take(layout.height() as usize)
        .for_each(|row| rgb.extend_from_slice(&row[..line]));
    (layout.width(), layout.height())
}

/// One conversion; generic over the pixel's source, so that each format has its own inner loop.
struct Turn<'a> {
    /// Size of the camera's picture.
    size: (u32, u32),
    orientation: Orientation,
    rgb: &'a mut Vec<u8>,
}

impl Turn<'_> {
    /// `pixel(x, y)` gives the colour of a pixel of the camera's picture.
    fn run(&mut self, pixel: impl Fn(usize, usize) -> [u8; 3]) -> (u32, u32) {
        let (width, height) = self.orientation.upright_size(self.size.0, self.size.1);
        let line = width as usize * 3;
        self.rgb.resize(line * height as usize, 0);
        for (y, row) in (0..).zip(self.rgb.chunks_exact_mut(line)) {
            for (x, out) in (0..).zip(row.chunks_exact_mut(3)) {
                let (x, y) = self.orientation.to_camera(x, y, self.size.0, self.size.1);
                out.copy_from_slice(&pixel(x as usize, y as usize));
            }
        }
        (width, height)
    }
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
                    bytes[at..at + 3]
                        .copy_from_slice(&yuv::Pixels::of(false).to_rgb(RED[0], RED[1], RED[2]));
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
    fn upright_rgb_loses_the_padding_of_its_lines_alone() {
        let (layout, mut bytes) = frame_of(PixelFormat::Rgb3, 2, 3, 8);
        (0..).zip(&mut bytes).for_each(|(value, byte)| *byte = value);
        let frame = Frame::new(layout, &bytes).expect("long enough");
        let mut rgb = vec![9; 40];
        assert_eq!(upright(&frame, Orientation::default(), &mut rgb), Ok((2, 3)));
        let lines = [0..6, 8..14, 16..22].map(|line| line.collect::<Vec<u8>>());
        assert_eq!(rgb, lines.concat());
    }

    #[test]
    fn the_range_of_the_layout_is_used() {
        for format in [PixelFormat::Yuyv, PixelFormat::Nv12] {
            let (layout, mut bytes) = frame_of(format, 2, 2, 0);
            bytes.fill(128);
            let grey = |layout| {
                let frame = Frame::new(layout, &bytes).expect("long enough");
                let mut rgb = Vec::new();
                upright(&frame, Orientation::default(), &mut rgb).expect("raw");
                rgb[0]
            };
            assert_eq!((grey(layout), grey(layout.with_full_range(true))), (130, 128), "{format}");
        }
    }

    #[test]
    fn jpeg_must_be_decoded_first() {
        let (layout, bytes) = frame_of(PixelFormat::Mjpg, 4, 4, 0);
        let frame = Frame::new(layout, &bytes).expect("long enough");
        let refused = upright(&frame, Orientation::default(), &mut Vec::new());
        assert_eq!(refused, Err(FrameError::Compressed { format: PixelFormat::Mjpg }));
    }
}
