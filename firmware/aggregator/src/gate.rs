//! The holdout gate: what judges a candidate before any device sees it.

use crate::student::StudentError;

/// Why nothing could be judged.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum GateError {
    #[error(transparent)]
    Student(#[from] Box<StudentError>),
    #[error(
        "no public holdout is configured, and without one no candidate can be judged; set gate.holdout to a folder of rendered \
         households that no mirror has, and start the server again"
    )]
    NoHoldout,
}

/// Judges heads.
pub trait Gate: Send + Sync {
    /// Whether there is anything to judge by, as far as that can be seen without judging.
    ///
    /// # Errors
    /// What is missing, and what to do.
    fn ready(&self) -> Result<(), GateError> {
        Ok(())
    }

    /// Mean intersection over union, 0 to 1, of each head on the same pictures. A head is a flat parameter vector.
    fn scores(&self, heads: &[&[f32]]) -> Result<Vec<f64>, GateError>;
}

/// The gate of a server without a holdout: nothing passes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoGate;

impl Gate for NoGate {
    fn ready(&self) -> Result<(), GateError> {
        Err(GateError::NoHoldout)
    }

    fn scores(&self, _heads: &[&[f32]]) -> Result<Vec<f64>, GateError> {
        Err(GateError::NoHoldout)
    }
}

impl From<StudentError> for GateError {
    fn from(error: StudentError) -> GateError {
        GateError::Student(Box::new(error))
    }
}
