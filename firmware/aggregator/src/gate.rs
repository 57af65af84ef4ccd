//! The holdout gate: what judges a candidate before any device sees it.

use crate::student::StudentError;

/// Why nothing could be judged.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum GateError {
    #[error(transparent)]
    Student(#[from] Box<StudentError>),
    #[error(
        "no public holdout is configured; set gate.holdout, so that a candidate can be judged before it ships"
    )]
    NoHoldout,
}

/// Judges heads.
pub trait Gate: Send + Sync {
    /// Mean intersection over union, 0 to 1, of each head on the same pictures. A head is a flat parameter vector.
    fn scores(&self, heads: &[&[f32]]) -> Result<Vec<f64>, GateError>;
}

/// The gate of a server without a holdout: nothing passes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoGate;

impl Gate for NoGate {
    fn scores(&self, _heads: &[&[f32]]) -> Result<Vec<f64>, GateError> {
        Err(GateError::NoHoldout)
    }
}

impl From<StudentError> for GateError {
    fn from(error: StudentError) -> GateError {
        GateError::Student(Box::new(error))
    }
}
