//! The noise multiplier as an exact fraction.

use std::fmt;
use std::str::FromStr;

/// Decimals that a noise multiplier may carry.
const MAX_DECIMALS: usize = 6;

/// Noise multipliers above this would drown any update and overflow the sampler.
const MAX_MULTIPLIER: u64 = 10_000;

/// Standard deviation of the noise divided by the clipping norm (`z`), as a reduced fraction.
///
/// Exact, because the ledger adds up `1/z²` over a device's lifetime and must not drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NoiseMultiplier {
    numerator: u64,
    denominator: u64,
}

/// Why a noise multiplier was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoiseMultiplierError {
    /// Not a plain decimal number such as `1.2`.
    #[error(
        "noise multiplier \"{0}\" is not a plain decimal number with at most six decimals; write it as 1.2"
    )]
    Syntax(String),
    /// Zero, negative, or beyond what the sampler can carry.
    #[error("noise multiplier {0} is outside (0, 10000]; the default is 1.2")]
    Range(String),
}

impl NoiseMultiplier {
    /// `z = 1.2`, the default of the first release plan.
    pub const DEFAULT: NoiseMultiplier = NoiseMultiplier { numerator: 6, denominator: 5 };

    /// `numerator / denominator`, reduced.
    pub fn from_fraction(
        numerator: u64,
        denominator: u64,
    ) -> Result<NoiseMultiplier, NoiseMultiplierError> {
        let in_range = numerator > 0
            && denominator > 0
            && u128::from(numerator) <= u128::from(MAX_MULTIPLIER) * u128::from(denominator)
            && denominator <= 10_u64.pow(MAX_DECIMALS as u32);
        if !in_range {
            return Err(NoiseMultiplierError::Range(format!("{numerator}/{denominator}")));
        }
        let divisor = greatest_common_divisor(numerator, denominator);
        Ok(NoiseMultiplier { numerator: numerator / divisor, denominator: denominator / divisor })
    }

    /// Numerator of the reduced fraction.
    pub fn numerator(self) -> u64 {
        self.numerator
    }

    /// Denominator of the reduced fraction.
    pub fn denominator(self) -> u64 {
        self.denominator
    }

    /// The nearest `f64`, for display and for sub-sampled accounting.
    pub fn as_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }
}

impl FromStr for NoiseMultiplier {
    type Err = NoiseMultiplierError;

    /// Reads a plain decimal, exactly: `1.2` is six fifths, not the nearest binary fraction.
    fn from_str(text: &str) -> Result<NoiseMultiplier, NoiseMultiplierError> {
        let syntax = || NoiseMultiplierError::Syntax(text.to_owned());
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !plain(whole) || !plain(decimals) || decimals.len() > MAX_DECIMALS {
            return Err(syntax());
        }
        let denominator = 10_u64.pow(decimals.len() as u32);
        let range = || NoiseMultiplierError::Range(text.to_owned());
        // Of digits alone, so nothing fails here but a number beyond all of these.
        let numerator = format!("{whole}{decimals}").parse::<u64>().map_err(|_| range())?;
        NoiseMultiplier::from_fraction(numerator, denominator).map_err(|_| range())
    }
}

impl fmt::Display for NoiseMultiplier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_f64().fmt(formatter)
    }
}

pub(crate) fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        let z: NoiseMultiplier = "1.20".parse().unwrap();
        assert_eq!(z, NoiseMultiplier::DEFAULT);
        assert_eq!((z.numerator(), z.denominator()), (6, 5));
        assert_eq!("0.6002".parse::<NoiseMultiplier>().unwrap().denominator(), 5000);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", ".", "-1", "1e3", "NaN", "inf", " 1", "1.2345678", "1,2", "٣"] {
            let error = text.parse::<NoiseMultiplier>().unwrap_err();
            assert!(matches!(error, NoiseMultiplierError::Syntax(_)), "{text}: {error}");
        }
        for text in ["0", "0.0", "10000.1", "99999999999999999999"] {
            let error = text.parse::<NoiseMultiplier>().unwrap_err();
            assert!(matches!(error, NoiseMultiplierError::Range(_)), "{text}: {error}");
        }
    }
}
