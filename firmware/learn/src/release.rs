//! The release path: reserve, sample, persist, publish, mark; each step durable before the next.
//!
//! A crash anywhere leads to one of two ends: the one update that was sampled is in the outbox, or the release is
//! burnt and its budget stays spent. Never a second noising, never an unnoised number on disk.

use std::collections::BTreeMap;

use crate::consent::{ConsentError, ConsentToken, ContributeToFleet};
use crate::edges::{EdgeError, Entropy, ReleaseId};
use crate::ledger::{
    Ledger, LedgerError, LedgerSummary, RecordKind, ReleaseState, ReservationRequest,
};
use crate::outbox::{Outbox, OutboxError};
use crate::privacy::sampler::DiscreteGaussian;
use crate::privacy::{CLIP_STEPS, Clipped, MechanismError, NoiseMultiplier};

/// Why a release did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Consent is missing or was withdrawn.
    #[error(transparent)]
    Consent(#[from] ConsentError),
    /// The ledger refused.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The outbox refused.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// Noising failed.
    #[error(transparent)]
    Mechanism(#[from] MechanismError),
    /// Entropy failed before anything was reserved.
    #[error(transparent)]
    Edge(#[from] EdgeError),
    /// The release does not wait for the network.
    #[error("release {0} is not waiting to be sent")]
    NotWaiting(ReleaseId),
}

/// Ledger and outbox together. The only way from a clipped delta to bytes on the network.
pub struct ReleasePath {
    ledger: Ledger,
    outbox: Outbox,
    entropy: Box<dyn Entropy>,
}

impl ReleasePath {
    /// Takes over ledger and outbox, and finishes or burns what a crash left under way.
    ///
    /// # Errors
    /// Of the ledger, the outbox or their storage. Opening once more goes on.
    pub fn open(
        ledger: Ledger,
        outbox: Outbox,
        entropy: Box<dyn Entropy>,
    ) -> Result<ReleasePath, ReleaseError> {
        let mut path = ReleasePath { ledger, outbox, entropy };
        path.recover()?;
        Ok(path)
    }

    /// The ledger, for reading.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Spent and left, for releases with noise multiplier `z` to come.
    ///
    /// # Errors
    /// As [`Ledger::summary`].
    pub fn summary(&self, z: NoiseMultiplier) -> Result<LedgerSummary, ReleaseError> {
        Ok(self.ledger.summary(z)?)
    }

    /// Releases a clipped delta into the outbox: reserve, sample, persist.
    ///
    /// On an error after the reservation the release is finished from the outbox, where its update is there already,
    /// or burnt; here or at the next start.
    ///
    /// # Errors
    /// Before the reservation, and nothing is spent: [`ReleaseError::Consent`], [`OutboxError::Full`] and [`OutboxError::TooLarge`], noise that the
    /// sampler cannot carry, and the refusals of [`Ledger::reserve`]. After it: of the entropy, the ledger or the outbox, or a consent that is
    /// withdrawn meanwhile.
    pub fn release(
        &mut self,
        clipped: Clipped,
        z: NoiseMultiplier,
        consent: &ConsentToken<ContributeToFleet>,
    ) -> Result<ReleaseId, ReleaseError> {
        consent.check()?;
        if self.ledger.needs_recovery() {
            self.recover()?;
        }
        // All that can be known beforehand, because a reservation is never given back.
        self.outbox.check_room(clipped.encoded_bytes(z))?;
        DiscreteGaussian::for_clip(z, CLIP_STEPS).map_err(MechanismError::from)?;
        let request = ReservationRequest {
            run: clipped.run(),
            layout: clipped.layout(),
            dimension: clipped.dimension(),
            noise_multiplier: z,
        };
        let reservation = self.ledger.reserve(&request, &mut *self.entropy)?;
        let release = reservation.release();
        let result = self.noise_and_persist(clipped, reservation, consent);
        if result.is_err() {
            // If burning fails too, the medium is broken; the next start burns it.
            let _ = self.recover();
        }
        result.map(|()| release)
    }

    fn noise_and_persist(
        &mut self,
        clipped: Clipped,
        reservation: crate::ledger::Reservation,
        consent: &ConsentToken<ContributeToFleet>,
    ) -> Result<(), ReleaseError> {
        let noised = clipped.noise(reservation, consent, &mut *self.entropy)?;
        let update = noised.encode();
        drop(noised);
        self.ledger.mark_sampled(update.release(), update.digest())?;
        self.outbox.put(&update)?;
        Ok(self.ledger.mark_persisted(update.release())?)
    }

    /// The releases that wait to be sent, oldest first.
    pub fn waiting(&self) -> Vec<ReleaseId> {
        let records = &self.ledger.verified().records;
        let persisted = records.iter().filter(|record| record.kind == RecordKind::Persisted);
        persisted.map(|record| record.release).filter(|release| self.is_waiting(release)).collect()
    }

    /// The bytes of a waiting release, the same on every call, for as long as consent stands.
    ///
    /// # Errors
    /// [`ReleaseError::Consent`] where it does not stand, [`ReleaseError::NotWaiting`], or of the storage. With [`OutboxError::Damaged`] the
    /// release is burnt here: it would keep the next one from being asked for.
    pub fn bytes(
        &mut self,
        release: ReleaseId,
        consent: &ConsentToken<ContributeToFleet>,
    ) -> Result<Vec<u8>, ReleaseError> {
        consent.check()?;
        let state = self.ledger.verified().releases().get(&release);
        let waiting = state.filter(|state| state.kind == RecordKind::Persisted);
        let digest = waiting.ok_or(ReleaseError::NotWaiting(release))?.digest;
        let found = self.outbox.read(release, &digest);
        if let Err(OutboxError::Damaged(_)) = found {
            self.give_up(release)?;
        }
        Ok(found?)
    }

    /// Records the aggregator's receipt and forgets the bytes. A second receipt is no error.
    ///
    /// # Errors
    /// [`ReleaseError::NotWaiting`] where it never waited or was given up; of the ledger or the outbox.
    pub fn published(&mut self, release: ReleaseId) -> Result<(), ReleaseError> {
        let state = self.ledger.verified().releases().get(&release).map(|state| state.kind);
        match state {
            Some(RecordKind::Published) => {}
            Some(RecordKind::Persisted) => self.ledger.mark_published(release)?,
            _ => return Err(ReleaseError::NotWaiting(release)),
        }
        Ok(self.outbox.remove(release)?)
    }

    /// Gives up one release that waits. The budget stays spent. One that waits no more is no error.
    ///
    /// # Errors
    /// Of the outbox or the ledger. Where only the ledger refuses, the bytes are gone all the same.
    pub fn give_up(&mut self, release: ReleaseId) -> Result<(), ReleaseError> {
        // The bytes first: whatever the ledger's disk says, they are not sent any more.
        self.outbox.remove(release)?;
        if self.is_waiting(&release) {
            self.ledger.burn(release)?;
        }
        Ok(())
    }

    /// Gives up everything that has not been published, after a withdrawal. The budget stays spent.
    ///
    /// # Errors
    /// The last one, after all were tried.
    pub fn discard_waiting(&mut self) -> Result<(), ReleaseError> {
        let given_up = self.waiting().into_iter().map(|release| self.give_up(release));
        given_up.fold(Ok(()), |before, this| this.and(before))
    }

    fn is_waiting(&self, release: &ReleaseId) -> bool {
        let state = self.ledger.verified().releases().get(release);
        state.is_some_and(|state| state.kind == RecordKind::Persisted)
    }

    /// Finishes or burns what is under way, and removes bytes that no waiting release owns.
    fn recover(&mut self) -> Result<(), ReleaseError> {
        self.ledger.settle()?;
        let releases: BTreeMap<ReleaseId, ReleaseState> = self.ledger.verified().releases().clone();
        for (release, state) in &releases {
            self.recover_release(*release, state)?;
        }
        for release in self.outbox.releases()? {
            if !self.is_waiting(&release) {
                self.outbox.remove(release)?;
            }
        }
        Ok(())
    }

    fn recover_release(
        &mut self,
        release: ReleaseId,
        state: &ReleaseState,
    ) -> Result<(), ReleaseError> {
        let stored = || match self.outbox.read(release, &state.digest) {
            Ok(_) => Ok(true),
            Err(OutboxError::Damaged(_)) => Ok(false),
            // A disk that cannot be read now may be readable later: nothing is burnt for that.
            Err(error) => Err(error),
        };
        match state.kind {
            RecordKind::Published | RecordKind::Burnt => Ok(()),
            // The digest in the ledger proves that these are the bytes that were sampled.
            RecordKind::Sampled if stored()? => Ok(self.ledger.mark_persisted(release)?),
            RecordKind::Persisted if stored()? => Ok(()),
            _ => Ok(self.ledger.burn(release)?),
        }
    }
}
