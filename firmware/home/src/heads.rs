//! The household's own heads: sealed, with a history to go back in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use learn::edges::{Digest, EdgeError, Timestamp};
use learn::head::{HeadLayout, Subset, numbers};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::hold::hold;
use crate::vault::Vault;

const MAGIC: &[u8; 4] = b"MHH1";
pub(crate) const PREFIX: &str = "head-";

/// Heads that are kept to go back to; the oldest goes first.
pub const KEPT_HEADS: usize = 5;

/// A head that this household trained and adopted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadInfo {
    /// Its number, never used twice.
    pub number: u64,
    /// When it was adopted, by the device's clock.
    pub adopted_at: Timestamp,
    /// Digest of the base model that it was trained from, in hexadecimal.
    pub base: String,
    /// Corrections it was trained on in its last run.
    pub examples: usize,
    /// Mean IoU on the held-back corrections before that run, 0 to 1.
    pub before: f64,
    /// Mean IoU on the held-back corrections after that run, 0 to 1.
    pub after: f64,
    /// Set where these are not the household's own numbers but those of this version of the fleet's model (0: the one
    /// that the mirror came with), chosen because another did worse on the household's corrections.
    #[serde(default)]
    pub fleet: Option<u64>,
}

/// The head in use, as the vision thread polls it.
#[derive(Default)]
pub(crate) struct HeadSlot {
    held: Mutex<HeldHead>,
    version: AtomicU64,
}

#[derive(Default)]
struct HeldHead {
    values: Option<Arc<[f32]>>,
    trouble: Option<String>,
}

impl HeadSlot {
    /// All numbers of the household's own head, where it is in use.
    pub fn values(&self) -> Option<Arc<[f32]>> {
        hold(&self.held).values.clone()
    }

    /// Why the last head of the list is not the one in use.
    pub fn trouble(&self) -> Option<String> {
        hold(&self.held).trouble.clone()
    }

    /// Grows with every [`HeadSlot::set`]. One atomic load.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Puts a head in use, `None` for the base's own, with the reason where it is not the list's last one.
    pub fn set(&self, values: Option<Arc<[f32]>>, trouble: Option<String>) {
        *hold(&self.held) = HeldHead { values, trouble };
        self.version.fetch_add(1, Ordering::SeqCst);
    }
}

fn name(number: u64) -> String {
    format!("{PREFIX}{number:010}")
}

/// Stores every trainable number of `parameters`; the constants are the base's own.
pub(crate) fn store(
    vault: &Vault,
    number: u64,
    layout: &HeadLayout,
    base: &Digest,
    parameters: &[f32],
) -> Result<(), EdgeError> {
    let values = Zeroizing::new(layout.gather(Subset::Full, parameters));
    let mut plain = Zeroizing::new(Vec::with_capacity(36 + 4 * values.len()));
    plain.extend_from_slice(MAGIC);
    plain.extend_from_slice(&base.0);
    numbers::encode_into(&mut plain, &values);
    vault.put(&name(number), &plain)
}

/// Whether a stored head is whole and of another network than the one with this digest. One that cannot be opened is not said to be.
pub(crate) fn is_of_another(vault: &Vault, number: u64, base: &Digest) -> bool {
    let plain = vault.get(&name(number)).ok().flatten();
    let body = plain.as_ref().and_then(|plain| plain.strip_prefix(MAGIC));
    body.is_some_and(|body| body.strip_prefix(&base.0).is_none())
}

/// The flat vector of a stored head, or why it cannot be used with this base.
pub(crate) fn load(
    vault: &Vault,
    number: u64,
    layout: &HeadLayout,
    base: &Digest,
    base_parameters: &[f32],
) -> Result<Vec<f32>, EdgeError> {
    let name = name(number);
    let refuse = |what: &str| EdgeError::Seal(format!("{name} {what}"));
    let plain = vault.get(&name)?.ok_or_else(|| refuse("is gone"))?;
    let body = plain.strip_prefix(MAGIC).ok_or_else(|| refuse("is no head"))?;
    let body = body.strip_prefix(&base.0).ok_or_else(|| refuse("is of another model"))?;
    let values = numbers::decode(body, layout.subset_len(Subset::Full));
    let values = Zeroizing::new(values.map_err(|error| refuse(&error.to_string()))?);
    let mut parameters = base_parameters.to_vec();
    layout.scatter(Subset::Full, &values, &mut parameters);
    Ok(parameters)
}

pub(crate) fn remove(vault: &Vault, number: u64) -> Result<(), EdgeError> {
    vault.remove(&name(number))
}

/// Numbers of the heads that have a file.
pub(crate) fn stored(vault: &Vault) -> Result<Vec<u64>, EdgeError> {
    let number = |name: &String| name.strip_prefix(PREFIX)?.parse().ok();
    Ok(vault.names()?.iter().filter_map(number).collect())
}
