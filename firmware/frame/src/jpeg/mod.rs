//! JPEG pictures: where one ends, how large it is, and its pixels.

mod decoder;
mod mend;
mod scanner;

pub use decoder::{JpegDecoder, size};
pub use scanner::{Broken, Scanner, segment};
