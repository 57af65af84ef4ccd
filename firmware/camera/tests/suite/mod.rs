//! What every source must keep to, whether it is a file or a camera.

use std::time::Duration;

use camera::{Delivery, Source};
use frame::jpeg::JpegDecoder;
use frame::{FrameBuffer, PixelFormat};

/// What the suite saw.
#[derive(Debug)]
pub struct Seen {
    /// Pictures delivered.
    pub pictures: u32,
    /// Whether the source came to its end.
    pub ended: bool,
    /// Size of the last picture.
    pub size: (u32, u32),
}

/// Takes up to `most` pictures and checks each; the error says what was wrong.
pub fn run(source: &mut dyn Source, most: u32, timeout: Duration) -> Result<Seen, String> {
    let mut buffer = FrameBuffer::new();
    let mut seen = Seen { pictures: 0, ended: false, size: (0, 0) };
    let mut last = None;
    if source.describe().trim().is_empty() {
        return Err("the source does not say what it is".into());
    }
    while seen.pictures < most {
        match source.next(&mut buffer, timeout).map_err(|e| e.to_string())? {
            Delivery::End => {
                seen.ended = true;
                break;
            }
            Delivery::Later => continue,
            Delivery::Frame => {}
        }
        seen.pictures += 1;
        if last.is_some_and(|last| buffer.sequence <= last) {
            return Err(format!("picture {} comes after picture {last:?}", buffer.sequence));
        }
        last = Some(buffer.sequence);
        seen.size = check_picture(&buffer)?;
    }
    if seen.pictures == 0 { Err("no picture came".into()) } else { Ok(seen) }
}

fn check_picture(buffer: &FrameBuffer) -> Result<(u32, u32), String> {
    let layout = buffer.frame().layout();
    let size = (layout.width(), layout.height());
    if buffer.frame().bytes().len() < layout.byte_len() {
        return Err(format!("picture {} is shorter than its layout", buffer.sequence));
    }
    if layout.format() == PixelFormat::Mjpg {
        let mut decoded = FrameBuffer::new();
        JpegDecoder::new()
            .decode(buffer.frame().bytes(), Some(size), &mut decoded)
            .map_err(|e| e.to_string())?;
    }
    Ok(size)
}
