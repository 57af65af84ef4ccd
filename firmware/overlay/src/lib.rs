//! What a person sees on the mirror. Pure: a [`Scene`] goes in, pixels of a [`Canvas`] come out.
//!
//! Black is the mirror, light is the overlay. There is no way to put a camera's picture on the
//! mirror: a scene has no place for one. The local page's view of picture plus overlay is made by
//! [`preview`], on the picture's own bytes.

mod canvas;
mod figure;
mod font;
pub mod geometry;
mod glow;
mod icon;
mod painter;
mod palette;
mod poster;
pub mod preview;
mod scene;
mod shape;

pub use canvas::Canvas;
pub use geometry::{Alignment, MirrorGeometry};
pub use painter::{Painter, Style};
pub use palette::{PALETTE, part_colour, track_colour};
pub use scene::{MaskView, PersonView, Scene, Status};
