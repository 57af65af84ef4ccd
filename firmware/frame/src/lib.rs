//! Pictures as cameras deliver them: pixel formats, checked layouts, orientation. No I/O.
//!
//! Invariant: no type here implements `Serialize`; a picture has no wire form.

mod orientation;
mod picture;

pub use orientation::{Orientation, Rotation};
pub use picture::{Frame, FrameBuffer, FrameError, Layout, PixelFormat};
