//! [`Household`]: what a household has and may always do with it. Consent, retention, the lists and deletion need stores
//! and a clock only: whatever becomes of the network, of the privacy budget or of the fleet, they are there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use learn::consent::{ConsentError, Consents, PurposeKind};
use learn::edges::{EdgeError, MonotonicCounter, Storage};
use learn::fs::{Directory, StoredCounter};
use learn::ledger::Ledger;
use learn::outbox::Outbox;
use learn::release::{ReleaseError, ReleasePath};
use vision::GridSize;
use zeroize::Zeroizing;

use crate::corrections::{self, CorrectionInfo, Corrections, Mask, Picture, Usage};
use crate::edges::{EARLIEST_DATE, Edges};
use crate::erase::{Beside, COUNTER_STAYS};
use crate::error::HomeError;
use crate::explanation::Explanation;
use crate::heads::{self, HeadInfo};
use crate::options::{HomeOptions, Limits};
use crate::releases::CANDIDATE_NAME;
use crate::state::{Further, Lost, STATE_NAME, State};
use crate::training::{CHECKPOINT_NAME, RunPlan, TrainingStatus};
use crate::vault::Vault;

/// The wall clock alone deletes a correction only after it has called it too old for this long, so that a clock that
/// jumps and is put right deletes nothing.
pub(crate) const GRACE: Duration = Duration::from_secs(7 * 86_400);

/// And after it was on for so long meanwhile: a clock that jumps on cannot have called it too old for a week at once.
const SEEN_ON: u64 = 3_600;

/// How much of the time that the mirror was on may be lost by a power cut, in seconds: half of what it was on since its
/// start, within these. A mirror that is switched off by its socket after minutes keeps count, and one that stays on
/// spares its disk.
const LIVED_SAVED_EVERY: [u64; 2] = [60, 900];

/// Since when the wall clock has called corrections too old without a break, by their numbers: in seconds that the mirror
/// was on, and by that clock.
#[derive(Clone, PartialEq)]
struct Overdue {
    lived: BTreeMap<u64, u64>,
    wall: BTreeMap<u64, u64>,
}

impl Overdue {
    fn forget(&mut self, number: u64) {
        self.lived.remove(&number);
        self.wall.remove(&number);
    }

    /// Whether it has been so for longer than [`GRACE`], on the mirror's own time or, on a mirror that is seldom on, by the date.
    fn is_confirmed(&self, number: u64, lived: u64, wall: u64) -> bool {
        let passed = |since: &BTreeMap<u64, u64>, now: u64| {
            since.get(&number).map_or(0, |since| now.saturating_sub(*since))
        };
        let on = passed(&self.lived, lived);
        let by_date = passed(&self.wall, wall) >= GRACE.as_secs() && on >= SEEN_ON;
        on > GRACE.as_secs() || by_date
    }

    /// Whether one of them still has to be seen on for [`SEEN_ON`].
    fn is_counted(&self, lived: u64) -> bool {
        self.lived.values().any(|since| lived.saturating_sub(*since) < SEEN_ON)
    }
}

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
    /// All numbers of the head in use where it is the household's; `None` for the base's own. Changed under the lock of
    /// `shared`.
    head: RwLock<Option<Arc<[f32]>>>,
    head_version: AtomicU64,
    /// Why the last head of the list is not the one in use.
    head_trouble: Mutex<Option<String>>,
    pub(crate) status: Mutex<TrainingStatus>,
    /// Of the settings and the ledger, for as long as this process.
    problems: Vec<String>,
    /// Of what a deletion removes, until one is complete.
    problems_of_learnt: Mutex<Vec<String>>,
    /// `lived` and the steady time when this process began.
    began: (u64, Duration),
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
        Household::with(stores, options, Edges::system(folder))
    }

    /// The same over any stores and edges.
    ///
    /// # Errors
    /// As [`Household::open`].
    pub fn with(
        stores: Stores,
        options: HomeOptions,
        edges: Edges,
    ) -> Result<Household, HomeError> {
        options.check()?;
        let mut problems = Vec::new();
        let stopped = options.check_releases().err().map(|reason| reason.to_string());
        problems.extend(stopped.clone().map(|why| HomeError::NoReleases(why).to_string()));
        // Opened also then: what waits or was sent before is known by it.
        let releases = open_releases(&stores, &edges, &options, &mut problems);
        let ledger = releases.as_ref().ok().map(ReleasePath::ledger);
        let explanation = Explanation::after(&options, ledger)?;
        let mut of_learnt = Vec::new();
        let consents = open_consents(&stores, &edges, explanation.version, &mut of_learnt)?;
        let credential = stores.credential.clone();
        let vault = Vault::new(
            stores.vault.clone(),
            stores.keys.clone(),
            edges.entropy.clone(),
            credential,
        );
        // Damaged or unread records are no sign of a deletion.
        let is_nothing_agreed = of_learnt.is_empty() && consents.is_empty();
        let cut_short = if is_nothing_agreed { finish_deletion(&vault) } else { None };
        // What is to be deleted is not shown, and gets no new key: the next start goes on.
        let is_cut_short = cut_short.is_some();
        of_learnt.extend(cut_short);
        let shared = match is_cut_short {
            true => Shared {
                state: started_over(&vault, &Corrections::load(&vault)?)?,
                corrections: Corrections::default(),
            },
            false => load(&vault, &mut of_learnt)?,
        };
        let began = (shared.state.lived, edges.steady.elapsed());
        let household = Household {
            shared: Mutex::new(shared),
            undestroyed: Mutex::default(),
            status: Mutex::default(),
            releases: Mutex::new(releases),
            releases_version: AtomicU64::new(0),
            stopped,
            head: RwLock::default(),
            head_version: AtomicU64::new(0),
            head_trouble: Mutex::default(),
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

    /// The numbers of the household's own head, where it is in use.
    pub(crate) fn own_head(&self) -> Option<Arc<[f32]>> {
        self.head.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a head in use, `None` for the base's own, with the reason where it is not the list's last one.
    pub(crate) fn set_head(&self, values: Option<Arc<[f32]>>, trouble: Option<String>) {
        *self.head_trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        *self.head.write().unwrap_or_else(PoisonError::into_inner) = values;
        self.head_version.fetch_add(1, Ordering::SeqCst);
    }

    /// What was found damaged when opening, and what is now, for people.
    pub fn problems(&self) -> Vec<String> {
        let unread = self.head_trouble().map(|why| HomeError::HeadUnread(why).to_string());
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
        self.problems_of_learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The settings in force.
    pub fn options(&self) -> &HomeOptions {
        &self.options
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        // Memory is changed only after the disk was: a panic between leaves both whole.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
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

    pub(crate) fn head_trouble(&self) -> Option<String> {
        self.head_trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    /// Deletes a correction. A run that is under way with it is given up, and a finished run that waits to be released is
    /// forgotten; what an earlier run learnt from it stays in the head until that is undone.
    ///
    /// # Errors
    /// Where there is none, or the store fails. On a full disk the correction is deleted even then.
    pub fn remove_correction(&self, number: u64) -> Result<(), HomeError> {
        let mut shared = self.lock();
        if !shared.corrections.contains(number) {
            return Err(HomeError::NoCorrection(number));
        }
        // The run first, so that after a power cut none waits for a picture that is gone.
        let forgotten = self.forget_work_on(&mut shared, &[number]);
        shared.corrections.remove(&self.vault, number)?;
        forgotten
    }

    /// Forgets the finished run that waits to be released, and the run under way where it uses one of `numbers`.
    fn forget_work_on(&self, shared: &mut Shared, numbers: &[u64]) -> Result<(), HomeError> {
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
        self.head_version.load(Ordering::Acquire)
    }

    /// The household's heads, oldest first; the last one is in use.
    pub fn heads(&self) -> Vec<HeadInfo> {
        self.lock().state.heads.clone()
    }

    /// Deletes corrections past their age, remembers the time lived, stores what was withdrawn in memory alone, and destroys what
    /// a withdrawal could not. Called now and then by whoever has the stores open; gives how many corrections went.
    ///
    /// # Errors
    /// Of the store.
    pub fn tidy(&self) -> Result<u64, HomeError> {
        let stored = self.store_withdrawals();
        let removed = self.remove_expired()?;
        stored.map(|()| removed)
    }

    fn remove_expired(&self) -> Result<u64, HomeError> {
        let lived = self.lived();
        let mut shared = self.lock();
        let (expired, mut overdue) = self.expired(&shared, lived);
        let forgotten = self.forget_work_on(&mut shared, &expired);
        // One that cannot be removed keeps no other.
        let mut removed = Ok(());
        for number in &expired {
            match shared.corrections.remove(&self.vault, *number) {
                Ok(()) => overdue.forget(*number),
                Err(error) => removed = Err(error),
            }
        }
        forgotten?;
        let changed = overdue != overdue_of(&shared.state) || !expired.is_empty();
        let [least, most] = LIVED_SAVED_EVERY;
        let most = if overdue.is_counted(lived) { least } else { most };
        let may_be_lost = (lived.saturating_sub(self.began.0) / 2).clamp(least, most);
        let late = lived.saturating_sub(shared.state.lived) >= may_be_lost;
        if changed || (late && shared.corrections.len() > 0) {
            let Overdue { lived: overdue, wall: overdue_wall } = overdue;
            let next = State { overdue, overdue_wall, ..shared.state.clone() };
            self.save(&mut shared, next)?;
        }
        removed.map(|()| expired.len() as u64)
    }

    /// Remembers the time lived, however short it was: a mirror may be on for minutes a day.
    ///
    /// # Errors
    /// Of the store.
    pub fn remember_lived(&self) -> Result<(), HomeError> {
        let mut shared = self.lock();
        if shared.corrections.len() == 0 {
            return Ok(());
        }
        let next = shared.state.clone();
        self.save(&mut shared, next)
    }

    /// Seconds for which a correction is kept: as many as somebody agreed to, or fewer where the settings say fewer now. What
    /// was agreed to for corrections that are gone does not count for the next one.
    fn agreed_age(&self, shared: &Shared) -> u64 {
        let set = self.options.limits.age.as_secs();
        let agreed = shared.state.further.agreed_age.filter(|_| shared.corrections.len() > 0);
        agreed.map_or(set, |agreed| agreed.min(set))
    }

    /// The state with the next correction, and with the age that holds for it and for those before it.
    pub(crate) fn with_next_correction(&self, shared: &Shared) -> State {
        let State { next_correction, further, .. } = shared.state;
        State {
            next_correction: next_correction + 1,
            further: Further { agreed_age: Some(self.agreed_age(shared)), ..further },
            ..shared.state.clone()
        }
    }

    /// Remembers the shorter age: settings that say more later do not keep for longer what was saved under these.
    fn note_age(&self) -> Result<(), HomeError> {
        let mut shared = self.lock();
        let age = self.agreed_age(&shared);
        self.keep_age(&mut shared, age)
    }

    /// Somebody agreed to the age that is set now.
    pub(crate) fn agree_to_age(&self) -> Result<(), HomeError> {
        self.keep_age(&mut self.lock(), self.options.limits.age.as_secs())
    }

    fn keep_age(&self, shared: &mut Shared, age: u64) -> Result<(), HomeError> {
        if shared.corrections.len() == 0 || shared.state.further.agreed_age == Some(age) {
            return Ok(());
        }
        // The rest stays as it is on the disk: it may be what a program before this one wrote.
        let further = Further { agreed_age: Some(age), ..shared.state.further };
        further.save(&self.vault)?;
        shared.state.further = further;
        Ok(())
    }

    /// Corrections past their age, and since when the wall clock has called which of them too old. The week that it takes to
    /// believe the clock lies within the age.
    fn expired(&self, shared: &Shared, lived: u64) -> (Vec<u64>, Overdue) {
        let wall = self.edges.clock.now();
        let age = self.agreed_age(shared);
        let date_age = age.saturating_sub(GRACE.as_secs());
        let mut overdue = overdue_of(&shared.state);
        let mut expired = Vec::new();
        for entry in shared.corrections.list() {
            // Where the date says nothing, the time lived alone counts. A clock that is not set yet says nothing either way.
            let saved_at = entry.saved_at.filter(|at| *at >= EARLIEST_DATE);
            let is_set = wall >= EARLIEST_DATE;
            if is_set && saved_at.is_some_and(|at| wall.0.saturating_sub(at.0) >= date_age) {
                overdue.lived.entry(entry.number).or_insert(lived);
                overdue.wall.entry(entry.number).or_insert(wall.0);
            } else if is_set {
                overdue.forget(entry.number);
            }
            let confirmed = overdue.is_confirmed(entry.number, lived, wall.0);
            if confirmed || lived.saturating_sub(entry.lived) > age {
                expired.push(entry.number);
            }
        }
        (expired, overdue)
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
        let further = Further { requested, ..shared.state.further };
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
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = TrainingStatus::default();
        self.set_head(None, None);
        key?;
        Ok(files?)
    }
}

fn overdue_of(state: &State) -> Overdue {
    Overdue { lived: state.overdue.clone(), wall: state.overdue_wall.clone() }
}

fn open_consents(
    stores: &Stores,
    edges: &Edges,
    version: u32,
    problems: &mut Vec<String>,
) -> Result<Consents, HomeError> {
    let (storage, clock) = (stores.consent.clone(), edges.clock.clone());
    match Consents::open(storage.clone(), clock.clone(), version) {
        Ok(consents) => Ok(consents),
        Err(error) => {
            problems.push(match error {
                ConsentError::Edge(error) => format!("{error}; every consent is asked for again"),
                error => error.to_string(),
            });
            Ok(Consents::reset(storage, clock, version)?)
        }
    }
}

/// "Delete everything" takes the consents and the key first. A power cut that came before the files leaves what nobody can open and
/// nobody agrees to, and the vault's note of it. Gives what a person should know.
fn finish_deletion(vault: &Vault) -> Option<String> {
    // Where nobody can tell, nothing is deleted.
    let is_half_deleted = vault.is_half_deleted().unwrap_or_else(|error| {
        tracing::warn!(%error, "whether a deletion was cut short");
        false
    });
    if !is_half_deleted {
        return None;
    }
    let Err(error) = vault.clear() else {
        tracing::warn!("what was left of a deletion that was cut short is deleted");
        return None;
    };
    Some(format!(
        "what is left of a deletion that was cut short cannot be removed ({error}); delete everything once more"
    ))
}

fn open_releases(
    stores: &Stores,
    edges: &Edges,
    options: &HomeOptions,
    problems: &mut Vec<String>,
) -> Result<ReleasePath, String> {
    let (storage, counter) = (stores.ledger.clone(), stores.counter.clone());
    let open = || {
        let ledger = Ledger::open(storage, counter, edges.clock.clone(), options.budget)
            .map_err(ReleaseError::from)?
            .with_most_releases(options.most_releases());
        let outbox = Outbox::new(stores.outbox.clone(), options.outbox);
        Ok(ReleasePath::open(ledger, outbox, (edges.entropy)())?)
    };
    let opened: Result<ReleasePath, HomeError> = open();
    opened.map_err(|error| {
        problems.push(error.to_string());
        error.to_string()
    })
}

fn load(vault: &Vault, problems: &mut Vec<String>) -> Result<Shared, HomeError> {
    let mut corrections = Corrections::load(vault)?;
    let state = load_state(vault, &corrections, problems)?;
    for meanwhile in &state.meanwhile {
        corrections.put_later(meanwhile.numbers, meanwhile.later);
    }
    Ok(Shared { state, corrections })
}

fn load_state(
    vault: &Vault,
    corrections: &Corrections,
    problems: &mut Vec<String>,
) -> Result<State, HomeError> {
    // Without it the settings of today count, as they did before there was such a file.
    let further = Further::load(vault).unwrap_or_else(|error| {
        tracing::warn!(%error, "the age at which corrections go");
        None
    });
    let (state, trouble) = match State::load(vault) {
        Ok(state) => (state, None),
        Err(error) => (started_over(vault, corrections)?, Some(error)),
    };
    let state = state.completed_by(further.unwrap_or_default());
    if state.lost.is_some()
        && let Some(before) = State::load_aside(vault)
    {
        // Where this one does not open, heads that it alone names may be left.
        let state = before.joined(state, trouble.is_some());
        // Where there is no room for it the copy stays, and the next start does the same.
        told(state.save(vault).and_then(|()| State::remove_aside(vault)).map_err(HomeError::from));
        return Ok(state);
    }
    match trouble {
        None if state.lost.is_none() => told(State::remove_aside(vault).map_err(HomeError::from)),
        None => {}
        Some(error) => {
            problems.push(format!(
                "{STATE_NAME} cannot be read ({error}); heads and counters start over"
            ));
            told(State::set_aside(vault).map_err(HomeError::from));
        }
    }
    Ok(state)
}

/// A copy that cannot be made, stored or removed keeps no home from being opened.
fn told(result: Result<(), HomeError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "{STATE_NAME} and its copy");
    }
}

/// Numbers above all that have a file, and a time lived that no correction is ahead of.
fn started_over(vault: &Vault, corrections: &Corrections) -> Result<State, HomeError> {
    let last = corrections.list().last().map(|entry| entry.number);
    let head = heads::stored(vault)?.last().copied();
    let next_head = head.map_or(0, |number| number + 1);
    let lived = corrections.newest_lived().unwrap_or(0);
    let next_correction = last.map_or(0, |number| number + 1);
    Ok(State {
        next_correction,
        next_head,
        lived,
        lost: Some(Lost {
            heads_since: Some(next_head),
            lived_since: Some(lived),
            corrections_since: Some(next_correction),
        }),
        ..State::default()
    })
}
