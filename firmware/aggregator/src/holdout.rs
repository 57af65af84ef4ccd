//! placeholder
#[derive(Debug, thiserror::Error)]
#[error("holdout")]
pub struct HoldoutError;
