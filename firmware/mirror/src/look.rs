//! Settings turned into what the overlay needs.

use overlay::{Alignment, MirrorGeometry, Style};
use settings::Settings;

/// How the overlay looks and lies.
#[derive(Clone, Debug)]
pub struct Look {
    opacity: f32,
    alignment: Alignment,
    /// Whether frames a second are drawn.
    pub show_fps: bool,
}

impl Look {
    /// From the settings in effect.
    pub fn new(settings: &Settings) -> Look {
        let (camera, display) = (&settings.camera.geometry, &settings.display.geometry);
        let alignment = match settings.overlay.alignment {
            settings::Alignment::Picture => {
                Alignment::Picture { mirrored: settings.overlay.mirrored }
            }
            settings::Alignment::Reflection => Alignment::Reflection(MirrorGeometry {
                camera_height_m: camera.height_m,
                camera_offset_m: camera.offset_m,
                pitch_deg: camera.pitch_deg,
                field_of_view_deg: camera.field_of_view_deg,
                screen_width_m: display.width_m,
                screen_height_m: display.height_m,
                screen_bottom_m: display.bottom_m,
            }),
        };
        let (opacity, show_fps) = (settings.overlay.opacity, settings.overlay.show_fps);
        Look { opacity, alignment, show_fps }
    }

    /// The painter's style.
    pub fn style(&self) -> Style {
        Style { opacity: self.opacity }
    }

    /// The painter's alignment.
    pub fn alignment(&self) -> Alignment {
        self.alignment
    }
}
