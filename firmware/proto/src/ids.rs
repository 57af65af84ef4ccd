//! Names and numbers that messages and topics are made of. What a type forbids cannot be decoded either.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A text or number that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a device name.
    #[error(
        "{0:?} is no device name; use 1 to 64 of a-z, 0-9 and '-', beginning with a letter or digit, and not \"fleet\""
    )]
    Device(String),
    /// Not a channel name.
    #[error(
        "{0:?} is no channel name; use 1 to 32 of a-z, 0-9 and '-', beginning with a letter or digit"
    )]
    Channel(String),
    /// Not hexadecimal digits of the right number.
    #[error("{text:?} is not {digits} lower-case hexadecimal digits")]
    Hex {
        /// What was found.
        text: String,
        /// How many digits there should be.
        digits: usize,
    },
    /// A ratio with a zero.
    #[error("the ratio {0}/{1} is not a positive number")]
    Ratio(u64, u64),
}

/// Reads exactly `N` bytes of lower-case hexadecimal digits.
fn from_hex<const N: usize>(text: &str) -> Result<[u8; N], IdError> {
    let wrong = || IdError::Hex { text: text.chars().take(80).collect(), digits: 2 * N };
    let digits = text.as_bytes();
    let plain = digits.iter().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit));
    if digits.len() != 2 * N || !plain {
        return Err(wrong());
    }
    let value = |digit: u8| if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 };
    Ok(std::array::from_fn(|index| value(digits[2 * index]) << 4 | value(digits[2 * index + 1])))
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub [u8; $length]);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<$name, IdError> {
                from_hex(text).map($name)
            }
        }
    };
}

bytes_id!(
    /// SHA-256.
    Digest, 32
);
bytes_id!(
    /// A device's name in one round of one channel; see [`crate::secret`].
    Pseudonym, 16
);
bytes_id!(
    /// Names a public key: the first eight bytes of its SHA-256.
    KeyId, 8
);
bytes_id!(
    /// One job of one device. A model's installation has the first half of its manifest's digest.
    JobId, 16
);

impl Digest {
    /// SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(sha2::Sha256::digest(bytes).into())
    }

    /// The job that deals with the thing of this digest.
    pub fn job(&self) -> JobId {
        JobId(std::array::from_fn(|index| self.0[index]))
    }
}

/// Whether this is 1 to `longest` of a-z, 0-9 and '-', beginning with a letter or digit, as all names of a fleet are.
pub fn is_name(text: &str, longest: usize) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    !text.is_empty()
        && text.len() <= longest
        && !text.starts_with('-')
        && text.as_bytes().iter().all(allowed)
}

/// A device, as its certificate's common name says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(String);

/// A part of the fleet that shares rounds and models, such as `stable`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Channel(String);

impl DeviceId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Channel {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for DeviceId {
    type Error = IdError;

    fn try_from(text: String) -> Result<DeviceId, IdError> {
        // `mirror/v1/fleet/...` are the fleet's own topics.
        let good = is_name(&text, 64) && text != "fleet";
        if good {
            Ok(DeviceId(text))
        } else {
            Err(IdError::Device(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for Channel {
    type Error = IdError;

    fn try_from(text: String) -> Result<Channel, IdError> {
        let good = is_name(&text, 32);
        if good {
            Ok(Channel(text))
        } else {
            Err(IdError::Channel(text.chars().take(80).collect()))
        }
    }
}

macro_rules! text_id {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<$name, IdError> {
                $name::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

text_id!(DeviceId);
text_id!(Channel);

/// An exact positive number. Compared exactly, so that "below the floor" never depends on rounding.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub struct Ratio {
    numerator: u64,
    denominator: u64,
}

impl Ratio {
    /// `numerator / denominator`. Neither may be zero.
    pub fn new(numerator: u64, denominator: u64) -> Result<Ratio, IdError> {
        if numerator == 0 || denominator == 0 {
            return Err(IdError::Ratio(numerator, denominator));
        }
        Ok(Ratio { numerator, denominator })
    }

    /// Numerator, never zero.
    pub fn numerator(self) -> u64 {
        self.numerator
    }

    /// Denominator, never zero.
    pub fn denominator(self) -> u64 {
        self.denominator
    }

    /// The nearest floating-point number, for display.
    pub fn as_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }
}

impl TryFrom<(u64, u64)> for Ratio {
    type Error = IdError;

    fn try_from((numerator, denominator): (u64, u64)) -> Result<Ratio, IdError> {
        Ratio::new(numerator, denominator)
    }
}

impl From<Ratio> for (u64, u64) {
    fn from(ratio: Ratio) -> (u64, u64) {
        (ratio.numerator, ratio.denominator)
    }
}

impl Ord for Ratio {
    fn cmp(&self, other: &Ratio) -> std::cmp::Ordering {
        let left = u128::from(self.numerator) * u128::from(other.denominator);
        let right = u128::from(other.numerator) * u128::from(self.denominator);
        left.cmp(&right)
    }
}

impl PartialOrd for Ratio {
    fn partial_cmp(&self, other: &Ratio) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ratio {
    fn eq(&self, other: &Ratio) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ratio {}

impl fmt::Display for Ratio {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.as_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_change_a_topic_are_refused() {
        for bad in ["", "a/b", "a+", "#", "Ä", "A", "-a", "fleet", &"a".repeat(65)] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad}");
        }
        assert_eq!("mirror-7".parse::<DeviceId>().unwrap().as_str(), "mirror-7");
        assert!("fleet".parse::<Channel>().is_ok());
        assert!("$share".parse::<Channel>().is_err());
    }

    #[test]
    fn hexadecimal_digits_have_one_form() {
        let digest = Digest::of(b"mirror");
        assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        assert!(digest.to_string().to_uppercase().parse::<Digest>().is_err());
        assert!("é".repeat(16).parse::<Pseudonym>().is_err());
    }

    #[test]
    fn ratios_compare_exactly() {
        let ratio = |n, d| Ratio::new(n, d).unwrap();
        assert_eq!(ratio(6, 5), ratio(12, 10));
        assert!(ratio(u64::MAX - 1, u64::MAX) < ratio(1, 1));
        assert!(Ratio::new(1, 0).is_err() && Ratio::new(0, 1).is_err());
    }
}
