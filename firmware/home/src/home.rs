//! [`Home`]: the stores put together, corrections and heads. Training, releases, consent and deletion have files of
//! their own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use learn::consent::{ConsentError, ConsentToken, Consents, ImproveMyMirror, PurposeKind};
use learn::edges::{EdgeError, MonotonicCounter, Storage};
use learn::fs::{Directory, StoredCounter};
use learn::head::Subset;
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
use crate::heads::{self, HeadInfo, KEPT_HEADS};
use crate::model::BaseModel;
use crate::models::Models;
use crate::options::HomeOptions;
use crate::releases::CANDIDATE_NAME;
use crate::state::{STATE_NAME, State};
use crate::training::{CHECKPOINT_NAME, Night, RunPlan, TrainingStatus};
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

/// Learning at home. Shared behind an `Arc`; every method may be called from any thread.
pub struct Home {
    /// The model that the mirror came with.
    pub(crate) shipped: Arc<BaseModel>,
    /// The model in force: the fleet's newest that passed its public check, else the shipped one. Changed under the
    /// lock of `shared`.
    base: RwLock<Arc<BaseModel>>,
    /// The fleet's models that are kept.
    pub(crate) models: Mutex<Models>,
    pub(crate) options: HomeOptions,
    pub(crate) edges: Edges,
    pub(crate) stores: Stores,
    pub(crate) vault: Vault,
    pub(crate) consents: Consents,
    pub(crate) explanation: Explanation,
    /// Every write to the vault is made under this lock.
    shared: Mutex<Shared>,
    /// The release path, or why there is none.
    pub(crate) releases: Mutex<Result<ReleasePath, String>>,
    pub(crate) releases_version: AtomicU64,
    head: RwLock<Arc<[f32]>>,
    head_version: AtomicU64,
    /// Why the last head of the list is not the one in use.
    head_trouble: Mutex<Option<String>>,
    pub(crate) inferences: AtomicU64,
    pub(crate) requested: AtomicBool,
    /// Held by the one thread that trains.
    pub(crate) running: Mutex<()>,
    pub(crate) status: Mutex<TrainingStatus>,
    pub(crate) night: Mutex<Night>,
    problems: Vec<String>,
    /// `lived` and the steady time when this process began.
    began: (u64, Duration),
}

impl Home {
    /// Opens the stores below `folder` with the operating system's edges.
    ///
    /// # Errors
    /// Where a folder cannot be used or a setting is impossible. A ledger, consent file, model or sealed file that is
    /// damaged or cannot be read is no error here: it stops what depends on it and is told by [`Home::problems`].
    pub fn open(folder: &Path, base: BaseModel, options: HomeOptions) -> Result<Home, HomeError> {
        let stores = Stores::in_folder(folder)?;
        Home::with(stores, base, options, Edges::system(folder))
    }

    /// The same over any stores and edges.
    ///
    /// # Errors
    /// As [`Home::open`].
    pub fn with(
        stores: Stores,
        base: BaseModel,
        options: HomeOptions,
        edges: Edges,
    ) -> Result<Home, HomeError> {
        options.check()?;
        let mut problems = Vec::new();
        let explanation = Explanation::new(&options)?;
        let consents = open_consents(&stores, &edges, explanation.version, &mut problems)?;
        let releases = open_releases(&stores, &edges, &options, &mut problems);
        let credential = stores.credential.clone();
        let vault = Vault::new(
            stores.vault.clone(),
            stores.keys.clone(),
            edges.entropy.clone(),
            credential,
        );
        let corrections = Corrections::load(&vault)?;
        let state = load_state(&vault, &corrections, &mut problems)?;
        let shipped = Arc::new(base);
        let models = Models::load(&*stores.models, &shipped, &mut problems);
        let base = models.newest(&shipped);
        let began = (state.lived, edges.steady.elapsed());
        let night = Night::draw(&edges)?;
        let mut home = Home {
            head: RwLock::new(base.parameters.clone().into()),
            shipped,
            base: RwLock::new(base),
            models: Mutex::new(models),
            shared: Mutex::new(Shared { state, corrections }),
            status: Mutex::default(),
            night: Mutex::new(night),
            releases: Mutex::new(releases),
            releases_version: AtomicU64::new(0),
            head_version: AtomicU64::new(0),
            head_trouble: Mutex::default(),
            inferences: AtomicU64::new(0),
            requested: AtomicBool::new(false),
            running: Mutex::new(()),
            options,
            edges,
            stores,
            vault,
            consents,
            explanation,
            problems,
            began,
        };
        let lost = home.restore()?;
        home.problems.extend(lost);
        home.problems.extend(home.finish_withdrawals());
        Ok(home)
    }

    /// What was found damaged when opening, and what is now, for people.
    pub fn problems(&self) -> Vec<String> {
        let unread = self.head_trouble().map(|why| HomeError::HeadUnread(why).to_string());
        self.problems.iter().cloned().chain(unread).collect()
    }

    /// The settings in force.
    pub fn options(&self) -> &HomeOptions {
        &self.options
    }

    /// The model in force: what updates belong to. See [`Home::try_model`].
    pub fn base(&self) -> Arc<BaseModel> {
        self.base.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The model that the mirror came with.
    pub fn shipped(&self) -> &BaseModel {
        &self.shipped
    }

    /// Puts another base in force. The caller holds the lock of `shared`.
    pub(crate) fn set_base(&self, base: Arc<BaseModel>) {
        *self.base.write().unwrap_or_else(PoisonError::into_inner) = base;
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

    /// Heads of another network than this firmware's fit nothing any more: they leave the list, and their files go with those that no
    /// list knows. The corrections count as new, so that what the household taught is learnt anew.
    fn leave_other_networks(&self, shared: &mut Shared) -> Result<(), HomeError> {
        let digest = &self.shipped.digest;
        let fits = |head: &&HeadInfo| !heads::is_of_another(&self.vault, head.number, digest);
        let fitting: Vec<HeadInfo> = shared.state.heads.iter().filter(fits).cloned().collect();
        if fitting.len() == shared.state.heads.len() {
            return Ok(());
        }
        tracing::info!("the network is another one now: the household's head will be trained anew");
        let next =
            State { heads: fitting, learnt_up_to: 0, second_look: None, ..shared.state.clone() };
        self.save(shared, next)
    }

    /// Uses the stored head, and removes heads that no list knows. Gives what a person should know.
    fn restore(&self) -> Result<Option<String>, HomeError> {
        let mut shared = self.lock();
        if let Err(error) = self.leave_other_networks(&mut shared) {
            tracing::warn!(%error, "heads of another network stay for now");
        }
        let lost = self.leave_damaged(&mut shared);
        self.use_list(&shared)?;
        Ok(lost)
    }

    /// Heads that do not open any more leave the end of the list, so that the one that is shown as in use is in use. What is
    /// said of it, if any did.
    fn leave_damaged(&self, shared: &mut Shared) -> Option<String> {
        let mut heads = shared.state.heads.clone();
        while heads.last().is_some_and(|head| self.is_damaged(head)) {
            heads.pop();
        }
        let lost = shared.state.heads.len() - heads.len();
        if lost == 0 {
            return None;
        }
        let next = State { heads, run: None, ..shared.state.clone() };
        if let Err(error) = self.save(shared, next) {
            tracing::warn!(%error, "heads that cannot be opened stay in the list for now");
        }
        Some(format!("{lost} of the household's heads cannot be opened; the one before is in use"))
    }

    fn is_damaged(&self, head: &HeadInfo) -> bool {
        // A disk that fails may give it back at the next start.
        matches!(self.load_head(head), Err(EdgeError::Seal(_)))
    }

    fn load_head(&self, head: &HeadInfo) -> Result<Vec<f32>, EdgeError> {
        let BaseModel { layout, parameters, digest, .. } = &*self.shipped;
        heads::load(&self.vault, head.number, layout, digest, parameters)
    }

    /// Hands the head's numbers to whoever polls; the base's own where there is no head or it does not fit the base.
    pub(crate) fn use_head(&self, head: Option<&HeadInfo>) {
        let mut trouble = None;
        let values = match head.map(|head| self.load_head(head)) {
            None => self.base().parameters.clone(),
            Some(Ok(values)) => values,
            Some(Err(error)) => {
                tracing::warn!(%error, "the household's head is not used");
                trouble = Some(error.to_string());
                self.base().parameters.clone()
            }
        };
        *self.head_trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        *self.head.write().unwrap_or_else(PoisonError::into_inner) = values.into();
        self.head_version.fetch_add(1, Ordering::SeqCst);
    }

    /// Reads the head in use once more where the disk did not give it back: nothing is learnt from the numbers of another.
    ///
    /// # Errors
    /// [`HomeError::HeadUnread`] where it still does not.
    pub(crate) fn reread_head(&self, shared: &Shared) -> Result<(), HomeError> {
        if self.head_trouble().is_some() {
            self.use_head(shared.state.heads.last());
        }
        self.head_trouble().map_or(Ok(()), |trouble| Err(HomeError::HeadUnread(trouble)))
    }

    fn head_trouble(&self) -> Option<String> {
        self.head_trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    // Corrections.

    /// Stores a corrected picture: R, G, B planes and one part per pixel, both of the network's input size
    /// ([`vision::Parser::pixels`]); 255 in the mask is "not said".
    ///
    /// # Errors
    /// A mask or picture of the wrong size, an unknown class, a limit reached, a full disk, or no consent. Nothing is
    /// stored then.
    pub fn add_correction(
        &self,
        consent: &ConsentToken<ImproveMyMirror>,
        pixels: &[u8],
        mask: &[u8],
    ) -> Result<CorrectionInfo, HomeError> {
        consent.check()?;
        let size = self.shipped.grid;
        let (saved_at, lived) = (self.edges.clock.now(), self.lived());
        let mut shared = self.lock();
        // Again, now that "delete everything" cannot come between.
        consent.check()?;
        let number = shared.state.next_correction;
        let plain = corrections::pack(number, saved_at, lived, size, pixels, mask)?;
        let bytes = Vault::sealed_size(plain.len());
        shared.corrections.check_room(bytes, &self.options.limits)?;
        self.check_space(bytes)?;
        // The number first: one that was given is never given again, even where storing then fails.
        let mut next = shared.state.clone();
        next.next_correction += 1;
        self.save(&mut shared, next)?;
        self.vault.put(&corrections::name(number), &plain)?;
        // A withdrawal while it was being written: the household does not find it stored afterwards.
        if let Err(error) = consent.check() {
            self.vault.remove(&corrections::name(number))?;
            return Err(error.into());
        }
        let held_back = learn::head::is_held_back(number as usize);
        let saved_at = Some(saved_at);
        let info = CorrectionInfo { number, saved_at, bytes, held_back, damaged: false, lived };
        shared.corrections.insert(info.clone());
        Ok(info)
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
        Usage { corrections, bytes, limits: self.options.limits }
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

    // The household's head.

    /// Grows whenever the head changes. For the vision thread: one atomic load per picture.
    pub fn head_version(&self) -> u64 {
        self.head_version.load(Ordering::Acquire)
    }

    /// The trainable numbers of the head in use, for [`vision::HeadParameters::with_trainable`]; the base's own where
    /// the household has none.
    pub fn head_trainable(&self) -> Vec<f32> {
        self.shipped.layout.gather(Subset::Full, &self.head_values())
    }

    /// All numbers of the head in use, constants included, in the layout of the base.
    pub fn head_values(&self) -> Arc<[f32]> {
        self.head.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The household's heads, oldest first; the last one is in use.
    pub fn heads(&self) -> Vec<HeadInfo> {
        self.lock().state.heads.clone()
    }

    /// Goes back from the head of this number to the one before; gives the one in use then, or `None` for the base's own.
    ///
    /// # Errors
    /// [`HomeError::NoHead`] where the base's own is in use, [`HomeError::OtherHead`] where another one is.
    pub fn undo_head(&self, number: u64) -> Result<Option<HeadInfo>, HomeError> {
        let mut shared = self.lock();
        let mut next = shared.state.clone();
        let undone = next.heads.pop().ok_or(HomeError::NoHead)?;
        if undone.number != number {
            return Err(HomeError::OtherHead);
        }
        // What the undone head was learnt from, or led to, does not leave either.
        self.vault.remove(CANDIDATE_NAME)?;
        self.save(&mut shared, next)?;
        self.use_head(shared.state.heads.last());
        // A run that started from the undone head would bring it back.
        self.drop_run(&mut shared)?;
        heads::remove(&self.vault, undone.number)?;
        Ok(shared.state.heads.last().cloned())
    }

    /// Stores a better head and puts it last in the list. Called with the list still to be saved; [`Home::use_list`] comes after
    /// that.
    pub(crate) fn adopt(
        &self,
        next: &mut State,
        info: HeadInfo,
        parameters: &[f32],
    ) -> Result<(), HomeError> {
        let BaseModel { layout, digest, .. } = &*self.shipped;
        heads::store(&self.vault, info.number, layout, digest, parameters)?;
        next.heads.push(info);
        if next.heads.len() > KEPT_HEADS {
            next.heads.remove(0);
        }
        Ok(())
    }

    /// Uses the last head of the stored list, and removes the files of those that it does not name: a failure leaves files too many,
    /// and never a head without one.
    pub(crate) fn use_list(&self, shared: &Shared) -> Result<(), EdgeError> {
        self.use_head(shared.state.heads.last());
        // Where the list itself was lost, now or before, nothing is removed.
        if shared.state.list_lost {
            return Ok(());
        }
        for number in heads::stored(&self.vault)? {
            if shared.state.heads.iter().all(|head| head.number != number) {
                heads::remove(&self.vault, number)?;
            }
        }
        Ok(())
    }

    // Time and deletion.

    /// Deletes corrections past their age and remembers the time lived. Called now and then by the trainer's thread.
    ///
    /// # Errors
    /// Of the store.
    pub fn tidy(&self) -> Result<u64, HomeError> {
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
    pub(crate) fn remember_lived(&self) -> Result<(), HomeError> {
        let mut shared = self.lock();
        if shared.corrections.len() == 0 {
            return Ok(());
        }
        let next = shared.state.clone();
        self.save(&mut shared, next)
    }

    /// Corrections past their age, and since when the wall clock has called which of them too old. The week that it takes to
    /// believe the clock lies within the age.
    fn expired(&self, shared: &Shared, lived: u64) -> (Vec<u64>, Overdue) {
        let wall = self.edges.clock.now();
        let age = self.options.limits.age.as_secs();
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
    /// withdrawn, the run under way.
    pub(crate) fn forget_run(&self, purpose: PurposeKind) -> Result<(), HomeError> {
        let mut shared = self.lock();
        self.vault.remove(CANDIDATE_NAME)?;
        if purpose == PurposeKind::ImproveMyMirror {
            self.drop_run(&mut shared)?;
        }
        Ok(())
    }

    /// The key alone, at once; [`Home::forget_all`] erases one that a thread made anew meanwhile.
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
        self.use_head(None);
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
            .with_most_releases(options.most_releases()?);
        let outbox = Outbox::new(stores.outbox.clone(), options.outbox);
        Ok(ReleasePath::open(ledger, outbox, (edges.entropy)())?)
    };
    let opened: Result<ReleasePath, HomeError> = open();
    opened.map_err(|error| {
        problems.push(error.to_string());
        error.to_string()
    })
}

fn load_state(
    vault: &Vault,
    corrections: &Corrections,
    problems: &mut Vec<String>,
) -> Result<State, HomeError> {
    let (state, trouble) = match State::load(vault) {
        Ok(state) => (state, None),
        Err(error) => (started_over(vault, corrections)?, Some(error)),
    };
    if state.list_lost
        && let Some(before) = State::load_aside(vault)
    {
        // Where this one does not open, heads that it alone names may be left.
        let list_lost = trouble.is_some();
        let state = State { list_lost, ..before.joined(state) };
        // Where there is no room for it the copy stays, and the next start does the same.
        told(state.save(vault).and_then(|()| State::remove_aside(vault)));
        return Ok(state);
    }
    match trouble {
        None if !state.list_lost => told(State::remove_aside(vault)),
        None => {}
        Some(error) => {
            problems.push(format!(
                "{STATE_NAME} cannot be read ({error}); heads and counters start over"
            ));
            told(State::set_aside(vault));
        }
    }
    Ok(state)
}

/// A copy that cannot be made, stored or removed keeps no home from being opened.
fn told(result: Result<(), EdgeError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "{STATE_NAME} and its copy");
    }
}

/// Numbers above all that have a file.
fn started_over(vault: &Vault, corrections: &Corrections) -> Result<State, HomeError> {
    let last = corrections.list().last().map(|entry| entry.number);
    let head = heads::stored(vault)?.last().copied();
    Ok(State {
        next_correction: last.map_or(0, |number| number + 1),
        next_head: head.map_or(0, |number| number + 1),
        list_lost: true,
        ..State::default()
    })
}
