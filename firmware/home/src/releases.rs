//! From a finished run to bytes in the outbox, and the uplink's side of the outbox.

use std::sync::atomic::Ordering;

use learn::consent::{ConsentToken, ContributeToFleet};
use learn::edges::{Digest, EdgeError, LayoutId, ReleaseId, RunId, Timestamp};
use learn::head::{Subset, numbers};
use learn::ledger::{LedgerError, LedgerSummary, RecordKind};
use learn::outbox::OutboxError;
use learn::privacy::{Clipped, Delta, MechanismError, NoiseMultiplier};
use learn::release::{ReleaseError, ReleasePath};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::error::HomeError;
use crate::hold::hold;
use crate::home::Home;
use crate::household::Household;

/// The finished run's numbers, until they are released or forgotten.
pub(crate) const CANDIDATE_NAME: &str = "candidate";

const MAGIC: &[u8; 4] = b"MHR2";

/// The norm that every update is clipped to.
const CLIP: f64 = 1.0;

/// What a fleet's task asks of an update. The device refuses to add less noise than its own setting says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReleaseRules {
    /// What the values must belong to.
    pub layout: LayoutId,
    /// Noise multiplier; at least the device's own.
    pub noise_multiplier: NoiseMultiplier,
    /// Clipping norm; this firmware clips to 1.0.
    pub clip: f64,
    /// Bytes of an encoded update at most.
    pub max_update_bytes: u32,
}

/// Spent and left, and what the next release would be.
#[derive(Clone, Debug, Serialize)]
pub struct PrivacyOverview {
    /// The ledger's own summary: epsilon with unit, adjacency, delta and trust.
    #[serde(flatten)]
    pub ledger: LedgerSummary,
    /// Noise multiplier of the next release.
    pub next_noise_multiplier: f64,
    /// Clipping norm.
    pub clip: f64,
}

/// A finished run: which parameters, and how far it moved them.
pub(crate) struct Candidate {
    pub run: RunId,
    /// The base in force during the run.
    pub base: Digest,
    pub subset: Subset,
    /// After the run less before it, in the layout's order. The run started from the head in use, which may be the
    /// household's own: its distance from the base is older than the run and no part of it.
    pub change: Zeroizing<Vec<f32>>,
}

impl Candidate {
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut plain = Zeroizing::new(Vec::with_capacity(53 + 4 * self.change.len()));
        plain.extend_from_slice(MAGIC);
        plain.extend_from_slice(&self.run.0);
        plain.extend_from_slice(&self.base.0);
        plain.push(u8::from(self.subset == Subset::Full));
        numbers::encode_into(&mut plain, &self.change);
        plain
    }

    pub fn decode(plain: &[u8]) -> Option<Candidate> {
        let (run, rest) = plain.strip_prefix(MAGIC)?.split_first_chunk::<16>()?;
        let (base, rest) = rest.split_first_chunk::<32>()?;
        let (full, rest) = rest.split_first()?;
        let subset = if *full == 1 { Subset::Full } else { Subset::Sparse };
        let change = Zeroizing::new(numbers::decode(rest, rest.len() / 4).ok()?);
        Some(Candidate { run: RunId(*run), base: Digest(*base), subset, change })
    }
}

impl Home {
    /// What an update of this device belongs to.
    pub fn layout_id(&self) -> LayoutId {
        let base = self.base();
        base.layout.id(self.options.training.subset, &base.digest.0)
    }

    /// Values of an update.
    pub fn update_values(&self) -> usize {
        self.shipped.layout.subset_len(self.options.training.subset)
    }

    /// Releases the finished run into the outbox by the rules of a fleet's task: what it changed is clipped, budget is reserved,
    /// noise added, the bytes stored.
    ///
    /// The run's numbers are forgotten as soon as its budget is reserved, and where they can never be released.
    ///
    /// # Errors
    /// [`HomeError::NothingToRelease`], a refusal by the rules, the disk or the budget, or a failure on the way.
    pub fn release(
        &self,
        consent: &ConsentToken<ContributeToFleet>,
        rules: &ReleaseRules,
    ) -> Result<ReleaseId, HomeError> {
        consent.check()?;
        let z = self.accepted_noise(rules)?;
        // Nothing is deleted, undone or finished between reading the run and reserving its budget.
        let _shared = self.lock();
        let delta = self.finished_delta();
        if delta.as_ref().is_err_and(is_useless) {
            // A new run may take its place.
            self.vault.remove(CANDIDATE_NAME)?;
        }
        let clipped = delta?.clip();
        check_fit(&clipped, z, rules)?;
        self.check_space(clipped.encoded_bytes(z) as u64)?;
        let result = self.changing_releases(|path| Ok(path.release(clipped, z, consent)?));
        if result.as_ref().map_or_else(is_useless, |_| true) {
            self.vault.remove(CANDIDATE_NAME)?;
        }
        result
    }

    /// What the finished run changed, if it belongs to the model and the parameters that are in force.
    fn finished_delta(&self) -> Result<Delta, HomeError> {
        let plain = self.vault.get(CANDIDATE_NAME)?.ok_or(HomeError::NothingToRelease)?;
        let candidate = Candidate::decode(&plain);
        let Candidate { run, base, subset, change } =
            candidate.ok_or_else(|| HomeError::Unsealed(CANDIDATE_NAME.to_owned()))?;
        let layout = self.shipped.layout.id(subset, &base.0);
        if layout != self.layout_id() {
            return Err(HomeError::OtherLayout(run));
        }
        Ok(Delta::new(run, layout, change.to_vec())?)
    }
}

impl Household {
    /// Spent and left.
    ///
    /// # Errors
    /// [`HomeError::NoReleases`] with the reason: of the ledger, or of settings that know no noise.
    pub fn privacy(&self) -> Result<PrivacyOverview, HomeError> {
        let z = self.noise_multiplier()?;
        let ledger = self.with_releases(|path| Ok(path.summary(z)?))?;
        Ok(PrivacyOverview { ledger, next_noise_multiplier: z.as_f64(), clip: CLIP })
    }

    /// The noise multiplier of a release, by the settings in force.
    ///
    /// # Errors
    /// [`HomeError::NoReleases`] with what [`crate::HomeOptions::noise_multiplier`] says.
    pub fn noise_multiplier(&self) -> Result<NoiseMultiplier, HomeError> {
        self.noise.clone().map_err(HomeError::NoReleases)
    }

    /// Whether a finished run waits to be released.
    pub fn has_candidate(&self) -> bool {
        self.vault.names().is_ok_and(|names| names.iter().any(|name| name == CANDIDATE_NAME))
    }

    fn accepted_noise(&self, rules: &ReleaseRules) -> Result<NoiseMultiplier, HomeError> {
        if let Some(reason) = &self.stopped {
            return Err(HomeError::NoReleases(reason.clone()));
        }
        let own = self.noise_multiplier()?;
        if rules.clip != CLIP {
            let (asked, own) = (rules.clip.to_string(), CLIP.to_string());
            return Err(HomeError::Rules { what: "clipping norm", asked, own });
        }
        if rules.noise_multiplier.as_f64() < own.as_f64() {
            let (asked, own) = (rules.noise_multiplier.to_string(), own.to_string());
            return Err(HomeError::Rules { what: "noise multiplier", asked, own });
        }
        Ok(rules.noise_multiplier)
    }

    /// Grows whenever the outbox may have changed, so that the uplink can poll one number.
    pub fn releases_version(&self) -> u64 {
        self.releases_version.load(Ordering::SeqCst)
    }

    /// The releases that wait to be sent, oldest first.
    ///
    /// # Errors
    /// [`HomeError::NoReleases`] with the ledger's reason.
    pub fn waiting(&self) -> Result<Vec<ReleaseId>, HomeError> {
        self.with_releases(|path| Ok(path.waiting()))
    }

    /// The bytes of a waiting release, the same on every call, for as long as consent stands.
    ///
    /// # Errors
    /// Where consent was withdrawn, the release does not wait, or its bytes are damaged; a damaged one is given up.
    pub fn bytes(
        &self,
        release: ReleaseId,
        consent: &ConsentToken<ContributeToFleet>,
    ) -> Result<Vec<u8>, HomeError> {
        let found = self.with_releases(|path| Ok(path.bytes(release, consent)?));
        // Not for other errors: whoever polls would try those again without a pause.
        if let Err(HomeError::Release(ReleaseError::Outbox(OutboxError::Damaged(_)))) = found {
            self.note_releases_changed();
        }
        found
    }

    /// Records the aggregator's receipt and forgets the bytes. A second receipt is no error.
    ///
    /// # Errors
    /// Where the release never waited, or the ledger cannot be written.
    pub fn published(&self, release: ReleaseId) -> Result<(), HomeError> {
        self.changing_releases(|path| Ok(path.published(release)?))
    }

    /// Gives up one release that the fleet will never take; its budget stays spent. A second call is no error.
    ///
    /// # Errors
    /// Where the ledger cannot be written.
    pub fn give_up(&self, release: ReleaseId) -> Result<(), HomeError> {
        self.changing_releases(|path| Ok(path.give_up(release)?))
    }

    /// Burns everything that waits; gives how many, by the outbox where the ledger is damaged.
    pub(crate) fn discard_waiting(&self) -> Result<u64, HomeError> {
        let burnt = self.changing_releases(|path| {
            let waiting = path.waiting().len() as u64;
            path.discard_waiting()?;
            Ok(waiting)
        });
        // Also where the ledger is damaged: nothing stays that could be sent.
        let files = self.stores.outbox.names()?;
        for name in &files {
            self.stores.outbox.remove(name)?;
        }
        match burnt {
            Err(HomeError::NoReleases(_)) => Ok(files.len() as u64),
            burnt => burnt,
        }
    }

    /// When the newest update was received by the fleet, by this device's clock.
    pub fn last_published(&self) -> Option<Timestamp> {
        let newest = |path: &mut ReleasePath| {
            let records = path.ledger().verified().records.iter().rev();
            let mut published = records.filter(|record| record.kind == RecordKind::Published);
            Ok(published.next().map(|record| record.time))
        };
        self.with_releases(newest).unwrap_or_default()
    }

    /// `None` where the ledger is damaged: nobody knows then.
    pub(crate) fn count_releases(&self, kind: RecordKind) -> Option<u64> {
        let count = |path: &mut ReleasePath| {
            let releases = path.ledger().verified().releases().values();
            Ok(releases.filter(|state| state.kind == kind).count() as u64)
        };
        self.with_releases(count).ok()
    }

    /// [`Household::with_releases`], with the version raised whatever comes of it: what fails halfway may have changed something, too.
    fn changing_releases<T>(
        &self,
        work: impl FnOnce(&mut ReleasePath) -> Result<T, HomeError>,
    ) -> Result<T, HomeError> {
        let result = self.with_releases(work);
        self.note_releases_changed();
        result
    }

    fn note_releases_changed(&self) {
        self.releases_version.fetch_add(1, Ordering::SeqCst);
    }

    fn with_releases<T>(
        &self,
        work: impl FnOnce(&mut ReleasePath) -> Result<T, HomeError>,
    ) -> Result<T, HomeError> {
        let mut held = hold(&self.releases);
        match held.as_mut() {
            Ok(path) => work(path),
            Err(reason) => Err(HomeError::NoReleases(reason.clone())),
        }
    }
}

/// Whether a round takes an update like this one; asked before it costs anything.
fn check_fit(clipped: &Clipped, z: NoiseMultiplier, rules: &ReleaseRules) -> Result<(), HomeError> {
    if clipped.layout() != rules.layout {
        return Err(HomeError::OtherLayout(clipped.run()));
    }
    let (bytes, limit) = (clipped.encoded_bytes(z), rules.max_update_bytes);
    if bytes as u64 > u64::from(limit) {
        return Err(HomeError::UpdateTooLarge { bytes, limit });
    }
    Ok(())
}

/// Whether a finished run can never be released after this error: its numbers are unreadable, of another model or no
/// numbers, its budget was reserved, or this device makes no update any more.
fn is_useless(error: &HomeError) -> bool {
    match error {
        HomeError::Edge(EdgeError::Seal(_))
        | HomeError::Unsealed(_)
        | HomeError::OtherLayout(_)
        | HomeError::Mechanism(_)
        | HomeError::Release(ReleaseError::Ledger(
            LedgerError::AlreadyReserved(_) | LedgerError::TooMany { .. },
        )) => true,
        // Noise beyond the sampler is refused before the reservation; everything else comes after it.
        HomeError::Release(ReleaseError::Mechanism(error)) => {
            !matches!(error, MechanismError::Sigma(_))
        }
        _ => false,
    }
}
