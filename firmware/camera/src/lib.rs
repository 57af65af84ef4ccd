//! Where pictures come from: a V4L2 camera, a folder of pictures, a Y4M or MJPEG file, the built-in demo scene. All
//! of them are a [`Source`]; [`mailbox`] hands their pictures to another thread, newest first.

mod demo;
mod error;
mod exif;
mod files;
mod folder;
pub mod mailbox;
pub mod mjpeg;
mod open;
mod pace;
mod png_file;
mod source;
mod spec;
mod v4l2;
pub mod y4m;

pub use demo::DemoClip;
pub use error::SourceError;
pub use exif::{exif_orientation, jpeg_orientation};
pub use open::open;
pub use png_file::{decode_png, png_reader, png_said};
pub use source::{CaptureRequest, Delivery, Source};
pub use spec::{SourceSpec, UnknownSource};
pub use v4l2::{first_camera, may_be_camera, usb_camera};
