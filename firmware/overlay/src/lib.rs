//! What a person sees on the mirror. Pure: a [`Scene`] goes in, pixels of a [`Canvas`] come out, and a canvas is drawn on any
//! `DrawTarget` of embedded-graphics:
//!
//! ```
//! use std::time::Instant;
//!
//! use embedded_graphics::draw_target::DrawTargetExt;
//! use embedded_graphics::mock_display::MockDisplay;
//! use embedded_graphics::pixelcolor::Rgb565;
//! use embedded_graphics::Drawable;
//! use overlay::{Alignment, Canvas, Painter, Scene, Status, Style};
//!
//! let mut painter = Painter::new(64, 64, Style::default(), Alignment::Picture { mirrored: true });
//! let mut canvas = Canvas::new(64, 64);
//! let scene = Scene::of_status(Status::Starting { step: "opening the camera" });
//! painter.draw(&scene, Instant::now(), &mut canvas);
//! let mut panel: MockDisplay<Rgb565> = MockDisplay::new();
//! canvas.draw(&mut panel.color_converted()).expect("it takes everything");
//! ```
//!
//! Black is the mirror, light is the overlay. There is no way to put a camera's picture on the
//! mirror: a scene has no place for one. The local page's view of picture plus overlay is made by
//! [`preview`], on the picture's own bytes.

mod badge;
mod blur;
mod canvas;
mod caption;
mod dim;
mod distances;
mod figure;
mod font;
mod geometry;
mod glow;
mod icon;
mod landmarks;
mod painter;
mod palette;
mod poster;
pub mod preview;
mod scale;
mod scene;
mod shape;
mod wipe;

pub use canvas::Canvas;
pub use font::can_write;
pub use geometry::{Alignment, MirrorGeometry};
pub use painter::Painter;
pub use palette::part_rgb;
pub use scene::{MaskView, PersonView, Rect, Scene, Status, Style};
