//! What can go wrong, named so that a person knows the next step.

use std::path::PathBuf;

use frame::PixelFormat;
use thiserror::Error;

/// A model that is not used, and why. Every message ends with what to do.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum ModelError {
    #[error("{path}: {source}; a model folder holds manifest.toml, trunk.onnx and head.onnx")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("manifest.toml: {0}; take the file that came with the model")]
    Manifest(String),
    #[error(
        "{file}: its SHA-256 is {found}, the manifest says {wanted}; the file is damaged or of another model"
    )]
    Digest { file: String, found: String, wanted: String },
    #[error(
        "{file}: operator {op} is not on the list of operators this mirror runs; export the model with models/train"
    )]
    Operator { file: String, op: String },
    #[error("{file}: {what}; export the model with models/train")]
    Shape { file: String, what: String },
    #[error("{file} cannot be loaded: {reason}; the file is damaged or made for another version")]
    Load { file: String, reason: String },
    #[error("head parameters: {0}")]
    Parameters(String),
}

/// A picture that could not be parsed.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum VisionError {
    #[error("{0} must be decoded before it is parsed")]
    Compressed(PixelFormat),
    #[error("the network failed: {0}")]
    Network(String),
    #[error("the network gave a value that is not a number")]
    NotFinite,
}
