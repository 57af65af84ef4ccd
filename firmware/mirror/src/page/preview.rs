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
    /// Runs until the mirror stops. Without a watcher, or with the camera off, it holds no picture.
    ///
    /// # Errors
    /// A picture that cannot be converted or encoded; the supervisor starts it again.
    pub fn run(&self) -> Result<()> {
        let mut studio = Studio::new(self.style, self.quality);
        let mut input = PreviewInput::new();
        while !self.shared.is_stopping() {
            if self.shared.receive_preview(&mut input, PATIENCE) {
                self.shared.publish_jpeg(studio.develop(&input)?);
            } else if !self.is_wanted() {
                self.forget(&mut studio, &mut input);
            }
        }
        Ok(())
    }

    /// Whether a picture that is kept may still be of use. Not with the camera off, whoever is connected: nothing of it stays then.
    fn is_wanted(&self) -> bool {
        self.shared.viewers.load(Ordering::Relaxed) > 0 && self.shared.may_show()
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
    use crate::shared::CameraState;
    use std::time::Instant;

    #[test]
    fn with_the_camera_off_no_picture_stays_whoever_watches() {
        let shared = Arc::new(Shared::new(Instant::now(), None));
        shared.update_health(|health| health.camera = CameraState::On);
        shared.viewers.store(1, Ordering::Relaxed);
        let preview = Preview { shared: Arc::clone(&shared), style: Style::default(), quality: 80 };
        assert!(preview.is_wanted());
        let mut studio = Studio::new(preview.style, preview.quality);
        let mut input = PreviewInput::new();
        studio.rgb = vec![90; 12];
        shared.switch_camera(false, "by a test");
        assert!(!preview.is_wanted());
        preview.forget(&mut studio, &mut input);
        assert!(studio.rgb.is_empty() && studio.file.is_empty());
    }
}
