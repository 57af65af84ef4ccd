//! What a person sees on the mirror: scene to any DrawTarget.

mod canvas;
pub mod geometry;
mod palette;
mod scene;

pub use canvas::Canvas;
pub use geometry::{Alignment, MirrorGeometry};
pub use palette::{PALETTE, part_colour, track_colour};
pub use scene::{Fault, MaskView, PersonView, Scene, Status};
