//! The preview's part: camera picture and overlay to a JPEG file in memory, while somebody watches.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use overlay::Style;
use overlay::preview::PreviewPainter;

use crate::shared::{Jpeg, Shared};
use crate::view::PreviewInput;

/// Longest wait for a picture before looking whether to stop.
const PATIENCE: Duration = Duration::from_millis(200);

/// What the preview part needs to know.
pub struct Preview {
    /// The mirror's common state.
    pub shared: Arc<Shared>,
    /// How the overlay looks.
    pub style: Style,
    /// JPEG quality, 1 to 100.
    pub quality: u8,
}

impl Preview {
    /// Runs until the mirror stops. Without a watcher it holds no picture, nor while none may be shown.
    ///
    /// # Errors
    /// A picture that cannot be converted or encoded; the supervisor starts it again.
    pub fn run(&self) -> Result<()> {
        let mut studio = Studio::new(self.style, self.quality);
        let mut input = PreviewInput::new();
        while !self.shared.is_stopping() {
            self.go_on(&mut studio, &mut input, PATIENCE)?;
        }
        Ok(())
    }

    /// With the next picture, or after some time without one.
    fn go_on(
        &self,
        studio: &mut Studio,
        input: &mut PreviewInput,
        patience: Duration,
    ) -> Result<()> {
        if self.shared.receive_preview(input, patience) {
            self.shared.publish_jpeg(studio.develop(input)?);
        } else if self.shared.viewers.load(Ordering::Relaxed) == 0 || !self.shared.may_show() {
            self.forget(studio, input);
        }
        Ok(())
    }

    fn forget(&self, studio: &mut Studio, input: &mut PreviewInput) {
        if self.shared.preview_jpeg.borrow().is_some() || !studio.rgb.is_empty() {
            self.shared.preview_jpeg.send_replace(None);
            input.forget();
            *studio = Studio::new(self.style, self.quality);
        }
    }
}

/// Turns pictures with parsings into JPEG files; keeps its memory.
pub struct Studio {
    painter: PreviewPainter,
    quality: u8,
    rgb: Vec<u8>,
    file: Vec<u8>,
}

impl Drop for Studio {
    /// Memory that is freed holds no picture.
    fn drop(&mut self) {
        [&mut self.rgb, &mut self.file].into_iter().for_each(frame::wipe);
    }
}

impl Studio {
    /// With an overlay style and a JPEG quality of 1 to 100.
    pub fn new(style: Style, quality: u8) -> Studio {
        Studio { painter: PreviewPainter::new(style), quality, rgb: Vec::new(), file: Vec::new() }
    }

    /// One JPEG file: the upright picture with its overlay.
    ///
    /// # Errors
    /// A compressed picture, or a parsing that does not fit its grid.
    pub fn develop(&mut self, input: &PreviewInput) -> Result<Jpeg> {
        let frame = input.picture.frame();
        let size = frame::rgb::upright(&frame, input.orientation, &mut self.rgb)
            .context("the preview's picture")?;
        if let Some(mask) = input.view.mask() {
            let blended = self.painter.blend_over(&mut self.rgb, size, &mask);
            blended.context("the preview's overlay")?;
        }
        self.file.clear();
        let mut encoder = Encoder::new(&mut self.file, self.quality);
        encoder.set_sampling_factor(SamplingFactor::F_2_2);
        let (width, height) = (size.0 as u16, size.1 as u16);
        encoder.encode(&self.rgb, width, height, ColorType::Rgb).context("the preview's JPEG")?;
        Ok(Jpeg::from(self.file.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::{CameraState, SwitchedBy};
    use std::time::Instant;

    #[test]
    fn nothing_of_a_picture_is_kept_without_a_watcher_or_with_the_camera_off() {
        let shared = Arc::new(Shared::new(Instant::now(), None));
        let preview = Preview { shared: Arc::clone(&shared), style: Style::default(), quality: 80 };
        let mut studio = Studio::new(preview.style, preview.quality);
        let (mut input, mut given) = (PreviewInput::new(), PreviewInput::new());
        let layout = frame::Layout::new(frame::PixelFormat::Rgb3, 16, 8, 0).expect("small");
        for leave in [&(|| shared.viewers.store(0, Ordering::Relaxed)) as &dyn Fn(), &|| {
            shared.switch_camera(false, SwitchedBy::Page)
        }] {
            shared.viewers.store(1, Ordering::Relaxed);
            shared.update_health(|health| health.camera = CameraState::On);
            let bytes = [90; 16 * 8 * 3];
            given.picture.copy_from(frame::Frame::new(layout, &bytes).expect("whole"));
            shared.publish_preview(&mut given);
            for _ in 0..2 {
                preview.go_on(&mut studio, &mut input, Duration::ZERO).expect("encodes");
            }
            assert!(shared.preview_jpeg.borrow().is_some() && !studio.rgb.is_empty());
            leave();
            preview.go_on(&mut studio, &mut input, Duration::ZERO).expect("nothing to do");
            assert!(shared.preview_jpeg.borrow().is_none());
            assert!(studio.rgb.is_empty() && studio.file.is_empty());
            assert!(input.picture.frame().bytes().iter().all(|&byte| byte == 0));
        }
    }
}
