//! Pictures as cameras deliver them: pixel formats, checked layouts, orientation. No I/O.
//!
//! Invariant: no type here implements `Serialize`; a picture has no wire form.

pub mod jpeg;
mod orientation;
mod picture;
pub mod rgb;
mod wipe;
pub mod yuv;

pub use orientation::{Orientation, Rotation};
pub use picture::{Frame, FrameBuffer, FrameError, Layout, MAX_SIDE, PixelFormat};
pub use wipe::wipe;
