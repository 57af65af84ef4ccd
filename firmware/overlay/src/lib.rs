//! What a person sees on the mirror: scene to any DrawTarget.

mod canvas;

pub use canvas::Canvas;
