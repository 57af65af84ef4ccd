//! A picture's bytes together with a layout that has been checked against them.

use thiserror::Error;

use crate::wipe;

/// Pixel formats the mirror understands, by their V4L2 names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// 4:2:2 packed, 2 bytes a pixel, BT.601.
    Yuyv,
    /// 4:2:0, a full-size Y plane, then interleaved U and V at half size, BT.601.
    Nv12,
    /// 8-bit R, G, B packed, 3 bytes a pixel, sRGB.
    Rgb3,
    /// One JPEG file a frame; decoded to [`PixelFormat::Rgb3`] before anything else looks at it.
    Mjpg,
}

impl PixelFormat {
    /// The four characters that V4L2 uses.
    pub const fn fourcc(self) -> [u8; 4] {
        match self {
            PixelFormat::Yuyv => *b"YUYV",
            PixelFormat::Nv12 => *b"NV12",
            PixelFormat::Rgb3 => *b"RGB3",
            PixelFormat::Mjpg => *b"MJPG",
        }
    }

    /// The format with these four characters, if the mirror understands it.
    pub fn from_fourcc(fourcc: [u8; 4]) -> Option<PixelFormat> {
        [PixelFormat::Yuyv, PixelFormat::Nv12, PixelFormat::Rgb3, PixelFormat::Mjpg]
            .into_iter()
            .find(|format| format.fourcc() == fourcc)
    }

    /// Whether pixels are stored as Y, U and V.
    pub const fn is_yuv(self) -> bool {
        matches!(self, PixelFormat::Yuyv | PixelFormat::Nv12)
    }

    /// The sides along which pixels share their colour, in words; formats of which pixels share none have no such side.
    const fn even_sides(self) -> &'static str {
        match self {
            PixelFormat::Nv12 => "width and height",
            PixelFormat::Yuyv | PixelFormat::Rgb3 | PixelFormat::Mjpg => "width",
        }
    }

    /// Bytes of the shortest possible first-plane line of `width` pixels; 0 for compressed formats.
    const fn line_bytes(self, width: u32) -> usize {
        match self {
            PixelFormat::Yuyv => width as usize * 2,
            PixelFormat::Nv12 => width as usize,
            PixelFormat::Rgb3 => width as usize * 3,
            PixelFormat::Mjpg => 0,
        }
    }
}

impl std::fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::str::from_utf8(&self.fourcc()).unwrap_or("????"))
    }
}

/// Largest width or height accepted, in pixels: beyond any camera a mirror will meet, and small
/// enough that no size computation can overflow.
pub const MAX_SIDE: u32 = 8192;

/// Most bytes of a line.
const LONGEST_LINE: u32 = 4 * MAX_SIDE;

/// What is wrong with a picture's bytes or claimed layout.
#[derive(Debug, Error, PartialEq, Eq)]
#[allow(missing_docs)] // the messages say it
pub enum FrameError {
    #[error("picture of {width} x {height} pixels; sides must be 1 to {MAX_SIDE}")]
    Size { width: u32, height: u32 },
    #[error("{format} needs an even {}, got {width} x {height}", format.even_sides())]
    Odd { format: PixelFormat, width: u32, height: u32 },
    #[error(
        "{format} line of {stride} bytes for {width} pixels; it must have {} to {LONGEST_LINE}",
        format.line_bytes(*width)
    )]
    Stride { format: PixelFormat, width: u32, stride: u32 },
    #[error("{format} frame of {width} x {height} needs {needed} bytes, but has {given}")]
    Truncated { format: PixelFormat, width: u32, height: u32, needed: usize, given: usize },
    #[error("JPEG frame cannot be decoded: {0}")]
    Jpeg(String),
    #[error("PNG file cannot be decoded: {0}")]
    Png(String),
    #[error("JPEG frame is {given_width} x {given_height}, the camera promised {width} x {height}")]
    JpegSize { width: u32, height: u32, given_width: u32, given_height: u32 },
    #[error("{format} frame must be decoded first")]
    Compressed { format: PixelFormat },
}

/// Size, format, line length and range of a picture; checked when built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    width: u32,
    height: u32,
    stride: u32,
    format: PixelFormat,
    full_range: bool,
}

impl Layout {
    /// A layout of `width` x `height` pixels with lines of `stride` bytes (0: as short as possible);
    /// YUV of limited range.
    ///
    /// # Errors
    /// A side of 0 or above [`MAX_SIDE`]; odd sides where the format shares colour between pixels;
    /// a line shorter than its pixels, or longer than four bytes for each of [`MAX_SIDE`].
    pub fn new(
        format: PixelFormat,
        width: u32,
        height: u32,
        stride: u32,
    ) -> Result<Self, FrameError> {
        if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
            return Err(FrameError::Size { width, height });
        }
        let odd = match format {
            PixelFormat::Yuyv => !width.is_multiple_of(2),
            PixelFormat::Nv12 => !width.is_multiple_of(2) || !height.is_multiple_of(2),
            PixelFormat::Rgb3 | PixelFormat::Mjpg => false,
        };
        if odd {
            return Err(FrameError::Odd { format, width, height });
        }
        let shortest = format.line_bytes(width) as u32;
        let stride = if stride == 0 { shortest } else { stride };
        if stride < shortest || stride > LONGEST_LINE {
            return Err(FrameError::Stride { format, width, stride });
        }
        Ok(Layout { width, height, stride, format, full_range: false })
    }

    /// This layout with Y, U and V of full range (0 to 255), or of limited range. Formats that are no
    /// YUV have no such range.
    pub fn with_full_range(self, full_range: bool) -> Layout {
        Layout { full_range: full_range && self.format.is_yuv(), ..self }
    }

    /// Pixels in a line.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Lines.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Bytes from one line of the first plane to the next (NV12's second plane has the same).
    pub fn stride(&self) -> usize {
        self.stride as usize
    }

    /// Whether Y, U and V are of full range; false for formats that are no YUV.
    pub fn full_range(&self) -> bool {
        self.full_range
    }

    /// Pixel format.
    pub fn format(&self) -> PixelFormat {
        self.format
    }

    /// Bytes that a whole picture takes; for JPEG, the least that could be one.
    pub fn byte_len(&self) -> usize {
        let (stride, height) = (self.stride as usize, self.height as usize);
        match self.format {
            PixelFormat::Yuyv | PixelFormat::Rgb3 => {
                stride * (height - 1) + self.format.line_bytes(self.width)
            }
            PixelFormat::Nv12 => stride * height + stride * (height / 2 - 1) + self.width as usize,
            PixelFormat::Mjpg => 4,
        }
    }
}

/// Borrowed bytes of one picture, long enough for their layout.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    layout: Layout,
    bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Checks that `bytes` holds the whole picture.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] when it does not.
    pub fn new(layout: Layout, bytes: &'a [u8]) -> Result<Self, FrameError> {
        if bytes.len() < layout.byte_len() {
            return Err(FrameError::Truncated {
                format: layout.format,
                width: layout.width,
                height: layout.height,
                needed: layout.byte_len(),
                given: bytes.len(),
            });
        }
        Ok(Frame { layout, bytes })
    }

    /// Size and format.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The bytes as the camera gave them.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// A reusable owned picture: the unit that travels from the capture thread to the vision thread.
///
/// Its memory is kept between frames, so that a steady stream allocates nothing.
#[derive(Debug)]
pub struct FrameBuffer {
    layout: Layout,
    bytes: Vec<u8>,
    /// Counts frames of one source, from 0; gaps are frames that were dropped.
    pub sequence: u64,
    /// When the picture was received from its source, on the monotonic clock; the sensor saw it a little earlier.
    pub captured_at: std::time::Instant,
}

impl FrameBuffer {
    /// An empty buffer that will grow to the first picture's size.
    pub fn new() -> Self {
        FrameBuffer {
            layout: Layout {
                width: 1,
                height: 1,
                stride: 3,
                format: PixelFormat::Rgb3,
                full_range: false,
            },
            bytes: vec![0; 3],
            sequence: 0,
            captured_at: std::time::Instant::now(),
        }
    }

    /// Copies a checked picture in.
    pub fn copy_from(&mut self, frame: Frame<'_>) {
        self.layout = frame.layout;
        let bytes = &frame.bytes[..match frame.layout.format {
            PixelFormat::Mjpg => frame.bytes.len(),
            _ => frame.layout.byte_len(),
        }];
        self.make_room(bytes.len());
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
    }

    /// Lets `fill` write a picture of `layout` straight into the buffer.
    ///
    /// `fill` receives exactly [`Layout::byte_len`] bytes, holding whatever was there before.
    /// On error the buffer keeps the layout, with undefined pixels, and must not be handed on.
    pub fn fill_with<E>(
        &mut self,
        layout: Layout,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.layout = layout;
        self.make_room(layout.byte_len());
        self.bytes.resize(layout.byte_len(), 0);
        fill(&mut self.bytes)
    }

    /// A larger picture gets memory of its own, and the old one's is left overwritten.
    fn make_room(&mut self, length: usize) {
        if length > self.bytes.capacity() {
            wipe(&mut self.bytes);
        }
    }

    /// Makes it an empty buffer again. Nothing of the picture stays in memory.
    pub fn forget(&mut self) {
        *self = FrameBuffer::new();
    }

    /// The picture's bytes, in their layout; whoever takes them overwrites them before they are freed.
    pub fn into_bytes(mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// The picture.
    pub fn frame(&self) -> Frame<'_> {
        Frame { layout: self.layout, bytes: &self.bytes }
    }
}

impl Drop for FrameBuffer {
    /// Memory that is freed holds no picture.
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

impl Default for FrameBuffer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_no_camera_may_claim() {
        let layout = |format, width, height, stride| Layout::new(format, width, height, stride);
        assert_eq!(
            layout(PixelFormat::Yuyv, 0, 480, 0),
            Err(FrameError::Size { width: 0, height: 480 })
        );
        assert!(matches!(layout(PixelFormat::Rgb3, 8193, 1, 0), Err(FrameError::Size { .. })));
        assert!(matches!(layout(PixelFormat::Yuyv, 641, 480, 0), Err(FrameError::Odd { .. })));
        assert!(matches!(layout(PixelFormat::Nv12, 640, 481, 0), Err(FrameError::Odd { .. })));
        assert!(matches!(layout(PixelFormat::Rgb3, 640, 480, 640), Err(FrameError::Stride { .. })));
    }

    #[test]
    fn a_refusal_says_what_the_format_needs() {
        let told = |format, width, height, stride| {
            Layout::new(format, width, height, stride).expect_err("refused").to_string()
        };
        let odd = [PixelFormat::Yuyv, PixelFormat::Nv12].map(|format| told(format, 641, 481, 0));
        assert_eq!(odd[0], "YUYV needs an even width, got 641 x 481");
        assert_eq!(odd[1], "NV12 needs an even width and height, got 641 x 481");
        for stride in [1919, 32769] {
            let line = told(PixelFormat::Rgb3, 640, 480, stride);
            let words =
                format!("RGB3 line of {stride} bytes for 640 pixels; it must have 1920 to 32768");
            assert_eq!(line, words);
        }
    }

    #[test]
    fn a_short_frame_names_both_lengths() {
        let layout = Layout::new(PixelFormat::Nv12, 4, 4, 0).expect("valid");
        assert_eq!(layout.byte_len(), 24);
        let error = Frame::new(layout, &[0; 23]).expect_err("one byte short");
        assert_eq!(error.to_string(), "NV12 frame of 4 x 4 needs 24 bytes, but has 23");
        assert!(Frame::new(layout, &[0; 24]).is_ok());
    }

    #[test]
    fn padding_after_the_last_line_is_not_required() {
        let layout = Layout::new(PixelFormat::Yuyv, 2, 2, 16).expect("valid");
        assert_eq!(layout.byte_len(), 20);
    }
}
