//! Differential privacy: accounting, exact integer noise, and the only road from a delta to bytes.

mod accountant;
mod gaussian;
mod noise;
mod renyi;
mod statement;

pub use accountant::{AccountantError, Budget, Composition, epsilon, plan, sampled_epsilon};
pub use noise::{NoiseMultiplier, NoiseMultiplierError};
pub use statement::{ADJACENCY, Accounting, PrivacyStatement, TRUST, UNIT};
