//! How much privacy has been spent, and how much noise a plan needs.
//!
//! The device's own releases are whole-data Gaussian releases (sampling rate 1), for which [`Composition`] is exact:
//! it keeps `1/z²` of every release as fractions and turns them into `epsilon` with all rounding upwards. The integer
//! noise that the device really adds is the discrete Gaussian; at the deviations in use (a thousand steps and more) its
//! curve differs from the continuous one by less than a hundred-thousandth of delta, which is taken off ([`DISCRETE`]); a test shows it.

use std::collections::BTreeMap;

use super::sampler::DiscreteGaussian;
use super::{
    Accounting, CLIP_STEPS, NoiseMultiplier, NoiseMultiplierError, PrivacyStatement, gaussian,
    renyi,
};

/// Noise multipliers are planned on this grid, rounded up.
const PLAN_STEPS_PER_UNIT: u64 = 10_000;

/// The largest noise multiplier that a plan may ask for.
const PLAN_LARGEST: u64 = 10_000;

/// The least noise multiplier that a plan asks for, on that grid, and that a mirror may be set to: 0.5. There the discrete
/// curve is well within [`DISCRETE`] of the continuous one; at 0.2 it no longer is.
const PLAN_LEAST: u64 = 5_000;

/// A planned noise multiplier that is a multiple of this, on that grid, makes sigma a whole number of steps.
const WHOLE_SIGMA: u64 = 625;

/// Share of delta that is left when the difference of the discrete Gaussian's curve is taken off.
const DISCRETE: f64 = 1.0 - 1e-5;

/// A question that the accountant cannot answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AccountantError {
    /// `delta` is no probability strictly between 0 and 1.
    #[error("delta {0} is not strictly between 0 and 1; a usual value is 1e-5")]
    Delta(f64),
    /// `epsilon` is not a positive finite number.
    #[error("epsilon {0} is not a positive number; a usual target is 8")]
    Epsilon(f64),
    /// So little noise that the curve of the continuous Gaussian says too little of the integer noise that is added.
    #[error(
        "noise multiplier {0} is below 0.5, the least that a mirror adds; the figures do not hold there"
    )]
    Noise(NoiseMultiplier),
    /// The sampling rate is not in `(0, 1]`.
    #[error("sampling rate {0} is outside (0, 1]; leave it out when every release uses all data")]
    SamplingRate(f64),
    /// The number of releases is zero or astronomic.
    #[error("{0} releases cannot be accounted; give between 1 and 1000000000")]
    Releases(u64),
    /// No noise multiplier within reach meets the target.
    #[error(
        "no noise multiplier up to 10000 keeps {releases} releases within epsilon {epsilon} at delta {delta}; \
         plan fewer releases or a larger epsilon"
    )]
    NoPlan {
        /// Target epsilon.
        epsilon: f64,
        /// Target delta.
        delta: f64,
        /// Planned releases.
        releases: u64,
    },
    /// The planned noise multiplier is not representable.
    #[error(transparent)]
    NoiseMultiplier(#[from] NoiseMultiplierError),
}

/// A privacy target: at most `epsilon` at `delta`, over the lifetime of a unit.
///
/// Cannot hold a zero, negative or non-finite value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    epsilon: f64,
    delta: f64,
}

impl Budget {
    /// Epsilon 8 at delta 1e-5: three lifetime releases at noise multiplier 1.2.
    pub const DEFAULT: Budget = Budget { epsilon: 8.0, delta: 1e-5 };

    /// Checks and keeps a target.
    ///
    /// # Errors
    /// [`AccountantError::Epsilon`] or [`AccountantError::Delta`] for what no target can be.
    pub fn new(epsilon: f64, delta: f64) -> Result<Budget, AccountantError> {
        if !(epsilon.is_finite() && epsilon > 0.0) {
            return Err(AccountantError::Epsilon(epsilon));
        }
        Ok(Budget { epsilon, delta: check_delta(delta)? })
    }

    /// The target `epsilon`.
    pub fn epsilon(&self) -> f64 {
        self.epsilon
    }

    /// The target `delta`.
    pub fn delta(&self) -> f64 {
        self.delta
    }
}

/// Gaussian releases of one unit, composed exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Composition {
    /// Releases by noise multiplier, as (numerator, denominator).
    releases: BTreeMap<(u64, u64), u64>,
}

impl Composition {
    /// Nothing released yet.
    pub fn new() -> Composition {
        Composition::default()
    }

    /// Adds `count` releases with noise multiplier `z`.
    pub fn add(&mut self, z: NoiseMultiplier, count: u64) {
        let entry = self.releases.entry((z.numerator(), z.denominator())).or_insert(0);
        *entry = entry.saturating_add(count);
    }

    /// This composition with one more release.
    pub fn with(&self, z: NoiseMultiplier) -> Composition {
        let mut next = self.clone();
        next.add(z, 1);
        next
    }

    /// Every release so many times.
    pub fn times(&self, count: u64) -> Composition {
        let releases = self.releases.iter();
        let releases = releases.map(|(z, releases)| (*z, releases.saturating_mul(count))).collect();
        Composition { releases }
    }

    /// Releases in all.
    pub fn release_count(&self) -> u64 {
        self.releases.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The noise multiplier, where all releases share one.
    pub fn common_noise_multiplier(&self) -> Option<NoiseMultiplier> {
        let mut keys = self.releases.keys();
        let &(numerator, denominator) = keys.next()?;
        if keys.next().is_some() {
            return None;
        }
        NoiseMultiplier::from_fraction(numerator, denominator).ok()
    }

    /// `mu²` as an `f64` that is never too small.
    fn mu_squared_upper_bound(&self) -> f64 {
        self.releases.iter().fold(0.0, |sum, (&(numerator, denominator), &count)| {
            let inverse = (denominator as f64).next_up() / (numerator as f64).next_down();
            let term = (inverse.next_up() * inverse.next_up()).next_up() * (count as f64).next_up();
            (sum + term.next_up()).next_up()
        })
    }

    /// The privacy spent at `delta`: exact, rounded up.
    ///
    /// # Errors
    /// [`AccountantError::Delta`] outside (0, 1).
    pub fn statement(&self, delta: f64) -> Result<PrivacyStatement, AccountantError> {
        let delta = check_delta(delta)?;
        let epsilon = self.epsilon_upper_bound(delta);
        Ok(PrivacyStatement::new(
            epsilon,
            delta,
            self.common_noise_multiplier(),
            self.release_count(),
            Accounting::ExactGaussian,
        ))
    }

    /// Whether the composition certainly stays within `budget`.
    pub fn fits(&self, budget: &Budget) -> bool {
        self.epsilon_upper_bound(budget.delta) <= budget.epsilon
    }

    fn epsilon_upper_bound(&self, delta: f64) -> f64 {
        gaussian::epsilon_upper_bound(self.mu_squared_upper_bound(), delta * DISCRETE)
    }
}

/// Whether statements about this noise hold to the last digit: the continuous curve stands for that of the discrete noise, which is
/// far enough from it below 0.5 to show.
///
/// # Errors
/// [`AccountantError::Noise`] where it is less.
pub fn check_noise(z: NoiseMultiplier) -> Result<(), AccountantError> {
    let is_enough = z.as_f64() >= PLAN_LEAST as f64 / PLAN_STEPS_PER_UNIT as f64;
    if is_enough { Ok(()) } else { Err(AccountantError::Noise(z)) }
}

/// The privacy cost of `releases` equal releases, each using all data. For noise that [`check_noise`] accepts it holds to the last
/// digit.
///
/// # Errors
/// [`AccountantError::Releases`] for none or an astronomic number, [`AccountantError::Delta`] outside (0, 1).
pub fn epsilon(
    z: NoiseMultiplier,
    releases: u64,
    delta: f64,
) -> Result<PrivacyStatement, AccountantError> {
    let mut composition = Composition::new();
    composition.add(z, check_releases(releases)?);
    composition.statement(delta)
}

/// The privacy cost of `releases` equal releases, each over a Poisson sample of the units at `sampling_rate`.
///
/// Sampling rate 1 is accounted exactly, anything below by Rényi divergences (an upper bound).
///
/// # Errors
/// [`AccountantError::SamplingRate`] outside (0, 1], and those of [`epsilon`].
pub fn sampled_epsilon(
    z: NoiseMultiplier,
    sampling_rate: f64,
    releases: u64,
    delta: f64,
) -> Result<PrivacyStatement, AccountantError> {
    if !(sampling_rate > 0.0 && sampling_rate <= 1.0) {
        return Err(AccountantError::SamplingRate(sampling_rate));
    }
    if sampling_rate == 1.0 {
        return epsilon(z, releases, delta);
    }
    let releases = check_releases(releases)?;
    let delta = check_delta(delta)?;
    let sampled = renyi::epsilon_upper_bound(z.as_f64(), sampling_rate, releases, delta);
    // Sampling never costs more than using everything; at high rates the exact curve may be the tighter bound.
    let whole = epsilon(z, releases, delta)?.epsilon();
    let accounting = Accounting::RenyiPoisson { sampling_rate };
    Ok(PrivacyStatement::new(sampled.min(whole), delta, Some(z), releases, accounting))
}

/// The smallest noise multiplier (four decimals, rounded up) from 0.5 on for `releases` lifetime releases within `budget`; a little larger
/// where the sampler cannot carry that many decimals.
///
/// # Errors
/// [`AccountantError::Releases`] for none or an astronomic number, [`AccountantError::NoPlan`] where no noise multiplier up to 10000 is enough.
pub fn plan(budget: &Budget, releases: u64) -> Result<NoiseMultiplier, AccountantError> {
    let releases = check_releases(releases)?;
    let fits = |steps: u64| -> Result<bool, AccountantError> {
        let mut composition = Composition::new();
        composition.add(NoiseMultiplier::from_fraction(steps, PLAN_STEPS_PER_UNIT)?, releases);
        Ok(composition.fits(budget))
    };
    let mut low = PLAN_LEAST - 1;
    let mut high = PLAN_LARGEST * PLAN_STEPS_PER_UNIT;
    if !fits(high)? {
        let Budget { epsilon, delta } = *budget;
        return Err(AccountantError::NoPlan { epsilon, delta, releases });
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle)? {
            high = middle;
        } else {
            low = middle;
        }
    }
    let planned = NoiseMultiplier::from_fraction(high, PLAN_STEPS_PER_UNIT)?;
    if DiscreteGaussian::for_clip(planned, CLIP_STEPS).is_ok() {
        return Ok(planned);
    }
    Ok(NoiseMultiplier::from_fraction(high.next_multiple_of(WHOLE_SIGMA), PLAN_STEPS_PER_UNIT)?)
}

fn check_delta(delta: f64) -> Result<f64, AccountantError> {
    if delta > 0.0 && delta < 1.0 { Ok(delta) } else { Err(AccountantError::Delta(delta)) }
}

fn check_releases(releases: u64) -> Result<u64, AccountantError> {
    if (1..=1_000_000_000).contains(&releases) {
        Ok(releases)
    } else {
        Err(AccountantError::Releases(releases))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_multipliers_without_a_common_denominator_are_accounted() {
        let mut composition = Composition::new();
        for step in 0..40 {
            composition.add(NoiseMultiplier::from_fraction(1_000_003 + step, 999_983).unwrap(), 1);
        }
        assert!(composition.statement(1e-5).unwrap().epsilon() > 20.0);
    }

    #[test]
    fn the_default_budget_holds_exactly_three_releases() {
        let mut composition = Composition::new();
        for _ in 0..3 {
            composition = composition.with(NoiseMultiplier::DEFAULT);
            assert!(composition.fits(&Budget::DEFAULT));
        }
        assert!(!composition.with(NoiseMultiplier::DEFAULT).fits(&Budget::DEFAULT));
    }

    #[test]
    fn bad_questions_are_refused() {
        let z = NoiseMultiplier::DEFAULT;
        for delta in [0.0, -1e-5, 1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(epsilon(z, 1, delta), Err(AccountantError::Delta(_))));
        }
        for target in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(Budget::new(target, 1e-5), Err(AccountantError::Epsilon(_))));
        }
        for rate in [0.0, -0.1, 1.1, f64::NAN] {
            let error = sampled_epsilon(z, rate, 1, 1e-5).unwrap_err();
            assert!(matches!(error, AccountantError::SamplingRate(_)));
        }
        assert!(matches!(epsilon(z, 0, 1e-5), Err(AccountantError::Releases(0))));
        let tiny = Budget::new(1e-9, 1e-12).unwrap();
        assert!(matches!(plan(&tiny, 1_000_000), Err(AccountantError::NoPlan { .. })));
    }
}
