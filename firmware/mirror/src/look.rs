//! Settings turned into what the overlay needs.

use overlay::{Alignment, MirrorGeometry, Style};
use settings::Settings;

/// Pixels may be this much wider than high, or higher than wide; beyond it the screen is another one, or lies on its side.
const MOST_STRETCHED: f64 = 1.2;

/// How the overlay looks and lies.
#[derive(Clone, Debug)]
pub struct Look {
    opacity: f32,
    alignment: Alignment,
    mirrored: bool,
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
        let settings::OverlaySettings { opacity, show_fps, mirrored, .. } = settings.overlay;
        Look { opacity, alignment, mirrored, show_fps }
    }

    /// What is wrong with a screen of this size in pixels: to lie on reflections, the overlay needs a screen of the settings' shape.
    pub fn misfit(&self, (width, height): (u32, u32)) -> Option<String> {
        let Alignment::Reflection(geometry) = self.alignment else { return None };
        let (across, up) = (geometry.screen_width_m, geometry.screen_height_m);
        let shape = f64::from(width) / f64::from(height) * up / across;
        (shape.max(1.0 / shape) > MOST_STRETCHED).then(|| {
            format!(
                "The screen has {width} x {height} pixels, its settings say {across} x {up} m: turn it with display.rotation or correct display.geometry."
            )
        })
    }

    /// The painter's style.
    pub fn style(&self) -> Style {
        Style { opacity: self.opacity }
    }

    /// The painter's alignment; the demo scene is shown as the picture that it is, since nobody stands where its people do.
    pub fn alignment(&self, demo: bool) -> Alignment {
        if demo { Alignment::Picture { mirrored: self.mirrored } } else { self.alignment }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::settings;

    #[test]
    fn every_setting_of_the_overlay_arrives_where_it_belongs() {
        let mut settings = settings();
        settings.overlay.opacity = 0.125;
        let camera = &mut settings.camera.geometry;
        (camera.height_m, camera.offset_m) = (1.5, 0.25);
        (camera.pitch_deg, camera.field_of_view_deg) = (7.0, 61.0);
        let display = &mut settings.display.geometry;
        (display.width_m, display.height_m, display.bottom_m) = (0.5, 0.875, 0.75);
        let reflection = Alignment::Reflection(MirrorGeometry {
            camera_height_m: 1.5,
            camera_offset_m: 0.25,
            pitch_deg: 7.0,
            field_of_view_deg: 61.0,
            screen_width_m: 0.5,
            screen_height_m: 0.875,
            screen_bottom_m: 0.75,
        });
        for mirrored in [true, false] {
            for show_fps in [true, false] {
                (settings.overlay.mirrored, settings.overlay.show_fps) = (mirrored, show_fps);
                let picture = Alignment::Picture { mirrored };
                settings.overlay.alignment = settings::Alignment::Picture;
                let look = Look::new(&settings);
                assert_eq!((look.alignment(false), look.alignment(true)), (picture, picture));
                settings.overlay.alignment = settings::Alignment::Reflection;
                let look = Look::new(&settings);
                assert_eq!((look.alignment(false), look.alignment(true)), (reflection, picture));
                assert_eq!((look.style(), look.show_fps), (Style { opacity: 0.125 }, show_fps));
            }
        }
    }

    #[test]
    fn a_screen_on_its_side_is_told() {
        let board = settings::Board::named("rpi5").expect("built in");
        let layers = settings::Layers::defaults().and_then(|layers| layers.board(&board));
        let look = Look::new(&layers.and_then(settings::Layers::finish).expect("valid").settings);
        assert_eq!(look.misfit((1080, 1920)), None);
        let told = look.misfit((1920, 1080)).expect("too wide");
        assert!(told.contains("1920 x 1080") && told.contains("display.rotation"), "{told}");
        assert!(matches!(look.alignment(false), Alignment::Reflection(_)));
        assert!(matches!(look.alignment(true), Alignment::Picture { .. }));
        let picture = Look { alignment: Alignment::Picture { mirrored: true }, ..look };
        assert_eq!(picture.misfit((1920, 1080)), None);
    }
}
