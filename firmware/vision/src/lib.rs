//! Frame to tensor to network to parsing: which pixel is whose face, torso, left lower arm.
//!
//! ```text
//! Frame --convert--> pixels u8 [3, 256, 192] --engine--> queries' classes and masks
//!       --postprocess--> score of every part at every pixel --smooth--> steady scores
//!       --guide--> scores that keep to the picture's edges --decide--> Parsing
//! ```
//!
//! The pixels are 256 x 192, or as many in another shape where the picture's asks for it ([`Manifest::grid_for`]).
//! Only `engine`, `sizes` and `kernels` know `tract`. Nothing here does I/O except [`ModelFiles::read`].

mod between;
mod convert;
mod engine;
mod error;
pub mod evaluate;
mod geometry;
mod guide;
mod kernels;
mod manifest;
mod parser;
mod parsing;
mod postprocess;
mod scores;
mod sizes;
mod smooth;
mod specks;
mod track;

pub use convert::Converter;
pub use engine::{
    EngineOptions, Head, HeadBuilder, HeadParameters, ModelFiles, RawOutput, Student,
};
pub use error::{ModelError, VisionError};
pub use geometry::{GridSize, Letterbox, Rect};
pub use manifest::{Manifest, ParameterInfo};
pub use parser::{Parser, ParserOptions};
pub use parsing::{MAX_PEOPLE, Parsing, Person, StageTimings};
