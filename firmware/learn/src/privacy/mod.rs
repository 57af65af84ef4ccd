//! Differential privacy: accounting, exact integer noise, and the only road from a delta to bytes.

mod accountant;
mod gaussian;
mod mechanism;
mod noise;
mod renyi;
pub mod sampler;
mod statement;

pub use accountant::{
    AccountantError, Budget, Composition, check_noise, epsilon, plan, sampled_epsilon,
};
pub use mechanism::{
    CLIP_STEPS, Clipped, Delta, FRACTION_BITS, LARGEST_VALUE, MAX_DIMENSION, MechanismError, Noised,
};
pub use noise::{NoiseMultiplier, NoiseMultiplierError};
pub use statement::{ADJACENCY, Accounting, PrivacyStatement, TRUST, UNIT};
