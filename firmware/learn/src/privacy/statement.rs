//! What a value of epsilon means. A number alone is shown only beside it, as in a table or a gauge.

use std::fmt;

use serde::Serialize;
use serde::ser::SerializeStruct;

use super::NoiseMultiplier;

/// Which two situations the guarantee makes hard to tell apart.
pub const ADJACENCY: &str = "zero-out (add or remove one unit's contribution)";

/// Whose data the guarantee protects, and for how long.
pub const UNIT: &str = "one household's device, over its lifetime";

/// Whom the guarantee asks to trust, where every unit takes part in every release.
pub const TRUST: &str = "nothing outside the device";

/// Whom the guarantee asks to trust where sampling is counted on: it protects only from those who do not see who was drawn.
pub const SAMPLED_TRUST: &str = "whoever sees which units take part in a release";

/// How an epsilon was computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Accounting {
    /// Closed form of composed Gaussian releases over all data, rounded up by more than the discrete noise differs.
    ExactGaussian,
    /// Upper bound through Rényi divergences, each release over a Poisson sample of the units.
    RenyiPoisson {
        /// The probability with which each unit takes part in a release.
        sampling_rate: f64,
    },
}

impl Accounting {
    /// The stable name used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Accounting::ExactGaussian => "exact-gaussian",
            Accounting::RenyiPoisson { .. } => "renyi-poisson",
        }
    }

    /// Whom the guarantee asks to trust.
    pub const fn trust(self) -> &'static str {
        match self {
            Accounting::ExactGaussian => TRUST,
            Accounting::RenyiPoisson { .. } => SAMPLED_TRUST,
        }
    }

    fn sampling_rate(self) -> f64 {
        match self {
            Accounting::ExactGaussian => 1.0,
            Accounting::RenyiPoisson { sampling_rate } => sampling_rate,
        }
    }
}

/// An epsilon with everything that gives it a meaning: delta, adjacency, unit, trust, and how it was computed.
///
/// The only type whose `Display` tells an epsilon. `Display` is one sentence; `Serialize` gives the fields.
#[derive(Clone, Debug, PartialEq)]
pub struct PrivacyStatement {
    epsilon: f64,
    delta: f64,
    noise_multiplier: Option<NoiseMultiplier>,
    releases: u64,
    accounting: Accounting,
}

impl PrivacyStatement {
    pub(super) fn new(
        epsilon: f64,
        delta: f64,
        noise_multiplier: Option<NoiseMultiplier>,
        releases: u64,
        accounting: Accounting,
    ) -> PrivacyStatement {
        PrivacyStatement { epsilon, delta, noise_multiplier, releases, accounting }
    }

    /// The certified upper bound, for arithmetic and for gauges that carry this statement beside them.
    pub fn epsilon(&self) -> f64 {
        self.epsilon
    }

    /// Epsilon as it is shown: four decimals, rounded up.
    pub fn shown_epsilon(&self) -> f64 {
        (self.epsilon * 1e4).ceil() / 1e4
    }

    /// The probability with which the guarantee may fail.
    pub fn delta(&self) -> f64 {
        self.delta
    }

    /// The noise multiplier, or `None` where there was no release or they differed.
    pub fn noise_multiplier(&self) -> Option<NoiseMultiplier> {
        self.noise_multiplier
    }

    /// How many releases the epsilon covers.
    pub fn releases(&self) -> u64 {
        self.releases
    }
}

impl fmt::Display for PrivacyStatement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.releases == 1 { "" } else { "s" };
        write!(
            formatter,
            "epsilon {:.4} at delta {:e} after {} release{plural}; unit: {UNIT}; adjacency: {ADJACENCY}; trust: {}; ",
            self.shown_epsilon(),
            self.delta,
            self.releases,
            self.accounting.trust(),
        )?;
        match self.accounting {
            Accounting::ExactGaussian => write!(formatter, "exact, rounded up"),
            Accounting::RenyiPoisson { sampling_rate } => write!(
                formatter,
                "an upper bound that holds only if every release draws each unit at random with rate {sampling_rate} and nobody else learns which"
            ),
        }
    }
}

impl Serialize for PrivacyStatement {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("PrivacyStatement", 9)?;
        fields.serialize_field("epsilon", &self.shown_epsilon())?;
        fields.serialize_field("delta", &self.delta)?;
        fields.serialize_field(
            "noise_multiplier",
            &self.noise_multiplier.map(NoiseMultiplier::as_f64),
        )?;
        fields.serialize_field("releases", &self.releases)?;
        fields.serialize_field("sampling_rate", &self.accounting.sampling_rate())?;
        fields.serialize_field("adjacency", ADJACENCY)?;
        fields.serialize_field("unit", UNIT)?;
        fields.serialize_field("trust", self.accounting.trust())?;
        fields.serialize_field("accounting", self.accounting.name())?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::{epsilon, sampled_epsilon};

    #[test]
    fn a_statement_names_everything() {
        let statement = epsilon(NoiseMultiplier::DEFAULT, 3, 1e-5).unwrap();
        assert_eq!(
            statement.to_string(),
            "epsilon 6.7348 at delta 1e-5 after 3 releases; unit: one household's device, over its lifetime; \
             adjacency: zero-out (add or remove one unit's contribution); trust: nothing outside the device; \
             exact, rounded up"
        );
        let json = serde_json::to_value(&statement).unwrap();
        let keys =
            ["epsilon", "delta", "noise_multiplier", "releases", "adjacency", "unit", "trust"];
        assert!(keys.iter().all(|key| !json[key].is_null()), "{json}");
        assert_eq!(json["epsilon"], 6.7348);
    }

    #[test]
    fn sampling_is_called_an_assumption() {
        let statement = sampled_epsilon(NoiseMultiplier::DEFAULT, 0.01, 1000, 1e-5).unwrap();
        let text = statement.to_string();
        assert!(text.contains("only if every release draws each unit at random"), "{text}");
        assert!(text.contains("trust: whoever sees which units take part"), "{text}");
        assert_eq!(serde_json::to_value(&statement).unwrap()["sampling_rate"], 0.01);
    }
}
