//! [`Household`]: what a household has and may always do with it. Consent, retention, the lists and deletion need stores
//! and a clock only: whatever becomes of the network, of the privacy budget or of the fleet, they are there.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use learn::consent::{Consents, PurposeKind};
use learn::edges::{EdgeError, MonotonicCounter, Storage};
use learn::fs::{Directory, StoredCounter};
use learn::privacy::NoiseMultiplier;
use learn::release::ReleasePath;
use vision::GridSize;
use zeroize::Zeroizing;

use crate::corrections::{self, CorrectionInfo, Corrections, Mask, Picture, Usage};
use crate::edges::Edges;
use crate::erase::{Beside, COUNTER_STAYS};
use crate::error::HomeError;
use crate::explanation::Explanation;
use crate::heads::{HeadInfo, HeadSlot};
use crate::hold::hold;
use crate::opening::{open_consents, open_releases, open_vault};
use crate::options::{HomeOptions, Limits};
use crate::releases::CANDIDATE_NAME;
use crate::state::{Further, State};
use crate::training::{CHECKPOINT_NAME, RunPlan, TrainingStatus};
use crate::vault::Vault;

/// Where things lie. No two of them are the same store.
pub struct Stores {
    /// Sealed files.
    pub vault: Arc<dyn Storage>,
    /// The vault's key.
    pub keys: Arc<dyn Storage>,
    /// The privacy ledger.
    pub ledger: Arc<dyn Storage>,
    /// Updates that wait for the network.
    pub outbox: Arc<dyn Storage>,
    /// Consent records.
    pub consent: Arc<dyn Storage>,
    /// The fleet's models. Nothing of the household's.
    pub models: Arc<dyn Storage>,
    /// Detects an older ledger put back; see [`learn::edges::NoCounter`] where there is nothing to count with.
    pub counter: Arc<dyn MonotonicCounter>,
    /// A secret of this machine that is mixed into the vault's key; see [`crate::vault::machine_credential`].
    pub credential: Option<Zeroizing<Vec<u8>>>,
    /// Folders that "delete everything" leaves and lists.
    pub beside: Vec<Beside>,
}

impl Stores {
    /// Folders of their own below `folder`, readable by the mirror's user only, locked against a second process. The
    /// counter is a file in a further folder.
    ///
    /// # Errors
    /// [`EdgeError`] naming the folder that cannot be used.
    pub fn in_folder(folder: &Path) -> Result<Stores, EdgeError> {
        let open = |name: &str| Directory::open(&folder.join(name)).map(Arc::new);
        let counter = folder.join("counter");
        Ok(Stores {
            vault: open("vault")?,
            keys: open("keys")?,
            ledger: open("privacy")?,
            outbox: open("outbox")?,
            consent: open("consent")?,
            models: open("models")?,
            counter: Arc::new(StoredCounter::new(Directory::open(&counter)?)),
            credential: None,
            beside: vec![Beside { name: "counter", folder: counter, why: COUNTER_STAYS }],
        })
    }
}

/// State and list change together.
pub(crate) struct Shared {
    pub state: State,
    pub corrections: Corrections,
}

/// What a household has: corrections, heads, consents, the privacy ledger; and what it may do with them without any network.
/// Every method may be called from any thread.
pub struct Household {
    pub(crate) options: HomeOptions,
    pub(crate) edges: Edges,
    pub(crate) stores: Stores,
    pub(crate) vault: Vault,
    pub(crate) consents: Consents,
    /// Held by one deletion of everything, so that no other's notes lie there when it proves that nothing does.
    pub(crate) deleting: Mutex<()>,
    /// Purposes that were withdrawn, and of which something is stored still; see [`Household::tidy`].
    pub(crate) undestroyed: Mutex<Vec<PurposeKind>>,
    pub(crate) explanation: Explanation,
    /// Every write to the vault is made under this lock.
    shared: Mutex<Shared>,
    /// The release path, or why there is none.
    pub(crate) releases: Mutex<Result<ReleasePath, String>>,
    pub(crate) releases_version: AtomicU64,
    /// Why the settings allow no release, if they allow none.
    pub(crate) stopped: Option<String>,
    /// See [`Household::noise_multiplier`]. A lifetime plan is searched for once: this is asked for every second.
    pub(crate) noise: Result<NoiseMultiplier, String>,
    /// Changed under the lock of `shared`.
    pub(crate) head: HeadSlot,
    pub(crate) status: Mutex<TrainingStatus>,
    /// Of the settings and the ledger, for as long as this process.
    problems: Vec<String>,
    /// Of what a deletion removes, until one is complete.
    problems_of_learnt: Mutex<Vec<String>>,
    /// `lived` and the steady time when this process began.
    pub(crate) began: (u64, Duration),
}

impl Household {
    /// Opens the stores below `folder` with the operating system's edges.
    ///
    /// # Errors
    /// Where a folder cannot be used or a setting is impossible. A ledger, consent file or sealed file that is damaged or
    /// cannot be read, and a privacy budget that no release fits, are no error here: they stop what depends on them and are
    /// told by [`Household::problems`].
    pub fn open(folder: &Path, options: HomeOptions) -> Result<Household, HomeError> {
        let stores = Stores::in_folder(folder)?;
        Household::over_stores(stores, options, Edges::system(folder))
    }

    /// [`Household::open`] over any stores and edges.
    ///
    /// # Errors
    /// As [`Household::open`].
    pub fn over_stores(
        stores: Stores,
        options: HomeOptions,
        edges: Edges,
    ) -> Result<Household, HomeError> {
        options.check()?;
        let stopped = options.check_releases().err().map(|reason| reason.to_string());
        let noise = options.noise_multiplier().map_err(|reason| reason.to_string());
        let no_releases = stopped.clone().map(|why| HomeError::NoReleases(why).to_string());
        let mut problems = Vec::from_iter(no_releases);
        // Opened also then: what waits or was sent before is known by it.
        let releases = open_releases(&stores, &edges, &options, &mut problems);
        let ledger = releases.as_ref().ok().map(ReleasePath::ledger);
        let explanation = Explanation::after(&options, ledger)?;
        let mut of_learnt = Vec::new();
        let consents = open_consents(&stores, &edges, explanation.versions, &mut of_learnt)?;
        let (files, keys) = (stores.vault.clone(), stores.keys.clone());
        let vault = Vault::new(files, keys, edges.entropy.clone(), stores.credential.clone());
        // Damaged or unread records are no sign of a deletion.
        let is_nothing_agreed = of_learnt.is_empty() && consents.is_empty();
        let (shared, is_cut_short) = open_vault(&vault, is_nothing_agreed, &mut of_learnt)?;
        let began = (shared.state.lived, edges.steady.elapsed());
        let household = Household {
            shared: Mutex::new(shared),
            deleting: Mutex::default(),
            undestroyed: Mutex::default(),
            status: Mutex::default(),
            releases: Mutex::new(releases),
            releases_version: AtomicU64::new(0),
            stopped,
            noise,
            head: HeadSlot::default(),
            options,
            edges,
            stores,
            vault,
            consents,
            explanation,
            problems,
            problems_of_learnt: Mutex::new(of_learnt),
            began,
        };
        if !is_cut_short && let Err(error) = household.note_age() {
            tracing::warn!(%error, "the age at which corrections go was not noted");
        }
        household.note_problems(household.finish_withdrawals());
        Ok(household)
    }

    /// What was found damaged when opening, and what is now, for people.
    pub fn problems(&self) -> Vec<String> {
        let unread = self.head.trouble().map(|why| HomeError::HeadUnread(why).to_string());
        let withdrawn = self.unstored_withdrawal();
        let mut problems: Vec<String> =
            withdrawn.into_iter().chain(self.problems.clone()).collect();
        problems.extend_from_slice(&self.problems_of_learnt());
        problems.extend(unread);
        problems
    }

    /// Notes what was found damaged of what a deletion removes.
    pub(crate) fn note_problems(&self, found: impl IntoIterator<Item = String>) {
        self.problems_of_learnt().extend(found);
    }

    /// What they were about is gone.
    pub(crate) fn forget_problems(&self) {
        self.problems_of_learnt().clear();
    }

    fn problems_of_learnt(&self) -> MutexGuard<'_, Vec<String>> {
        hold(&self.problems_of_learnt)
    }

    /// The settings in force.
    pub fn options(&self) -> &HomeOptions {
        &self.options
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        hold(&self.shared)
    }

    /// Seconds that the mirror was on since the store was made.
    pub(crate) fn lived(&self) -> u64 {
        let (before, start) = self.began;
        before + self.edges.steady.elapsed().saturating_sub(start).as_secs()
    }

    /// Stores the next state, and only then remembers it.
    pub(crate) fn save(&self, shared: &mut Shared, mut next: State) -> Result<(), HomeError> {
        next.lived = self.lived();
        next.save(&self.vault)?;
        shared.state = next;
        Ok(())
    }

    /// [`Household::save`]; where there is no key, in memory alone, until a correction makes one: sealing would make it where everything was
    /// deleted, perhaps while [`Household::delete_everything`] looks whether anything is left.
    pub(crate) fn save_under_key(&self, shared: &mut Shared, next: State) -> Result<(), HomeError> {
        if self.vault.has_key()? {
            return self.save(shared, next);
        }
        shared.state = next;
        Ok(())
    }

    /// Refuses to store `bytes` more where the limits want that much of the disk to stay free.
    pub(crate) fn check_space(&self, bytes: u64) -> Result<(), HomeError> {
        let kept = self.options.limits.headroom;
        match self.edges.space.free() {
            Some(free) if free < kept.saturating_add(bytes) => {
                Err(HomeError::DiskFull { free, kept })
            }
            _ => Ok(()),
        }
    }

    /// Every correction, oldest first.
    pub fn corrections(&self) -> Vec<CorrectionInfo> {
        self.lock().corrections.list()
    }

    /// Whether this correction is stored.
    pub fn has_correction(&self, number: u64) -> bool {
        self.lock().corrections.contains(number)
    }

    /// What is stored, against what may be.
    pub fn usage(&self) -> Usage {
        let shared = self.lock();
        let (corrections, bytes) = (shared.corrections.len(), shared.corrections.bytes());
        let age = Duration::from_secs(self.agreed_age(&shared));
        Usage { corrections, bytes, limits: Limits { age, ..self.options.limits } }
    }

    /// The picture of a correction, for the household's own page.
    ///
    /// # Errors
    /// Where there is none, or it is damaged.
    pub fn picture(&self, number: u64) -> Result<Picture, HomeError> {
        let opened = corrections::open(&self.vault, number)?;
        let GridSize { height, width } = opened.size;
        Ok(Picture { height, width, planes: opened.pixels().to_vec() })
    }

    /// The mask of a correction.
    ///
    /// # Errors
    /// Where there is none, or it is damaged.
    pub fn mask(&self, number: u64) -> Result<Mask, HomeError> {
        let opened = corrections::open(&self.vault, number)?;
        let GridSize { height, width } = opened.size;
        Ok(Mask { height, width, labels: opened.labels().to_vec() })
    }

    /// Deletes a correction. A run that is under way with it is given up, a finished run that waits to be released is
    /// forgotten, and updates that wait to be sent are destroyed, whose budget stays spent; what an earlier run learnt from it
    /// stays in the head until that is undone.
    ///
    /// # Errors
    /// Where there is none, or a store fails. On a full disk the correction is deleted even then.
    pub fn remove_correction(&self, number: u64) -> Result<(), HomeError> {
        let mut shared = self.lock();
        if !shared.corrections.contains(number) {
            return Err(HomeError::NoCorrection(number));
        }
        // The run first, so that after a power cut none waits for a picture that is gone.
        let forgotten = self.forget_work_on(&mut shared, &[number]);
        // Which updates it is in nobody can tell.
        let discarded = self.discard_waiting();
        shared.corrections.remove(&self.vault, number)?;
        forgotten.and(discarded.map(drop).map_err(HomeError::unnoted))
    }

    /// Forgets the finished run that waits to be released, and the run under way where it uses one of `numbers`. Updates that wait
    /// to be sent stay where corrections are merely too old: they were there when it was made, and nobody took them back.
    pub(crate) fn forget_work_on(
        &self,
        shared: &mut Shared,
        numbers: &[u64],
    ) -> Result<(), HomeError> {
        if numbers.is_empty() {
            return Ok(());
        }
        self.vault.remove(CANDIDATE_NAME)?;
        let is_used = |run: &RunPlan| run.corrections.iter().any(|number| numbers.contains(number));
        if shared.state.run.as_ref().is_some_and(is_used) {
            self.drop_run(shared)?;
        }
        Ok(())
    }

    /// Forgets the run under way, its checkpoint included.
    pub(crate) fn drop_run(&self, shared: &mut Shared) -> Result<(), HomeError> {
        self.vault.remove(CHECKPOINT_NAME)?;
        if shared.state.run.is_some() {
            let next = State { run: None, ..shared.state.clone() };
            self.save(shared, next)?;
        }
        Ok(())
    }

    /// Grows whenever the head changes. For the vision thread: one atomic load per picture.
    pub fn head_version(&self) -> u64 {
        self.head.version()
    }

    /// The household's heads, oldest first; the last one is in use.
    pub fn heads(&self) -> Vec<HeadInfo> {
        self.lock().state.heads.clone()
    }

    /// What a withdrawal makes illegitimate to keep: numbers on their way to the fleet, and, where training itself is
    /// withdrawn, the run under way and the wish for one.
    pub(crate) fn forget_run(&self, purpose: PurposeKind) -> Result<(), HomeError> {
        let mut shared = self.lock();
        self.vault.remove(CANDIDATE_NAME)?;
        if purpose == PurposeKind::ImproveMyMirror {
            self.drop_run(&mut shared)?;
            self.note_request(&mut shared, false)?;
        }
        Ok(())
    }

    /// Notes whether a run is asked for; where there is no key, in memory alone: sealing would make one where everything was
    /// deleted.
    pub(crate) fn note_request(
        &self,
        shared: &mut Shared,
        requested: bool,
    ) -> Result<(), HomeError> {
        if !requested && !shared.state.further.requested {
            return Ok(());
        }
        let further = Further { requested, ..shared.state.further.clone() };
        if self.vault.has_key()? {
            further.save(&self.vault)?;
        }
        shared.state.further = further;
        Ok(())
    }

    /// The key alone, at once; [`Household::forget_all`] erases one that a thread made anew meanwhile.
    pub(crate) fn erase_key(&self) -> Result<(), EdgeError> {
        let _shared = self.lock();
        self.vault.erase_key()
    }

    /// Key, sealed files, memory, each whatever becomes of the others; the base's own head is in use afterwards.
    pub(crate) fn forget_all(&self) -> Result<(), HomeError> {
        let mut shared = self.lock();
        let key = self.vault.erase_key();
        let files = self.vault.clear();
        // Numbers go on, so that an old page cannot mean a new correction by an old number.
        let State { next_correction, next_head, .. } = shared.state;
        shared.state =
            State { next_correction, next_head, lived: self.lived(), ..State::default() };
        shared.corrections = Corrections::default();
        *hold(&self.status) = TrainingStatus::default();
        self.head.set(None, None);
        key?;
        Ok(files?)
    }
}
