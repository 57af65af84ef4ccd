//! [`Home`]: what a household has, and the network that learns from it: corrections and heads. Training, releases and the
//! fleet's models have files of their own.

use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use learn::consent::{ConsentToken, ImproveMyMirror};
use learn::edges::EdgeError;
use learn::head::Subset;

use crate::corrections::{self, CorrectionInfo};
use crate::edges::Edges;
use crate::error::{HomeError, for_journal};
use crate::heads::{self, HeadInfo, KEPT_HEADS};
use crate::hold::hold;
use crate::household::{Household, Shared, Stores};
use crate::model::BaseModel;
use crate::models::Models;
use crate::options::HomeOptions;
use crate::releases::CANDIDATE_NAME;
use crate::state::{Further, State};
use crate::training::Night;
use crate::vault::Vault;

/// Learning at home: a [`Household`] with a network. Shared behind an `Arc`; every method may be called from any thread.
pub struct Home {
    household: Arc<Household>,
    /// The model that the mirror came with.
    pub(crate) shipped: Arc<BaseModel>,
    /// The model in force: the fleet's newest that passed its public check, else the shipped one. Changed under the
    /// household's lock.
    base: Mutex<Arc<BaseModel>>,
    /// The fleet's models that are kept.
    pub(crate) models: Mutex<Models>,
    pub(crate) inferences: AtomicU64,
    /// Held by the one thread that trains.
    pub(crate) running: Mutex<()>,
    pub(crate) night: Mutex<Night>,
    /// Of the fleet's models.
    problems: Vec<String>,
}

/// Whatever needs no network: consent, retention, the lists, deletion.
impl Deref for Home {
    type Target = Household;

    fn deref(&self) -> &Household {
        &self.household
    }
}

impl Home {
    /// Opens the stores below `folder` with the operating system's edges.
    ///
    /// # Errors
    /// As [`Household::open`] and [`Home::new`].
    pub fn open(folder: &Path, base: BaseModel, options: HomeOptions) -> Result<Home, HomeError> {
        Home::new(Arc::new(Household::open(folder, options)?), base)
    }

    /// [`Home::open`] over any stores and edges.
    ///
    /// # Errors
    /// As [`Home::open`].
    pub fn over_stores(
        stores: Stores,
        base: BaseModel,
        options: HomeOptions,
        edges: Edges,
    ) -> Result<Home, HomeError> {
        Home::new(Arc::new(Household::over_stores(stores, options, edges)?), base)
    }

    /// What `household` has, learnt from with the network of `base`. A household has one network.
    ///
    /// # Errors
    /// Of the entropy, and where the heads cannot be listed. A model or a head that is damaged is no error: it is told by
    /// [`Home::all_problems`].
    pub fn new(household: Arc<Household>, base: BaseModel) -> Result<Home, HomeError> {
        let mut problems = Vec::new();
        let shipped = Arc::new(base);
        let models = Models::load(&*household.stores.models, &shipped, &mut problems);
        let base = models.newest(&shipped);
        let night = Night::draw(&household.edges)?;
        let home = Home {
            household,
            shipped,
            base: Mutex::new(base),
            models: Mutex::new(models),
            night: Mutex::new(night),
            inferences: AtomicU64::new(0),
            running: Mutex::new(()),
            problems,
        };
        home.note_problems(home.restore()?);
        Ok(home)
    }

    /// [`Household::problems`], and what was found damaged of the fleet's models.
    pub fn all_problems(&self) -> Vec<String> {
        let mut problems = self.household.problems();
        problems.extend_from_slice(&self.problems);
        problems
    }

    /// What of it needs no network.
    pub fn household(&self) -> &Arc<Household> {
        &self.household
    }

    /// The model in force: what updates belong to. See [`Home::try_model`].
    pub fn base(&self) -> Arc<BaseModel> {
        hold(&self.base).clone()
    }

    /// The model that the mirror came with.
    pub fn shipped(&self) -> &BaseModel {
        &self.shipped
    }

    /// Puts another base in force. The caller holds the lock of `shared`.
    pub(crate) fn set_base(&self, base: Arc<BaseModel>) {
        *hold(&self.base) = base;
    }

    /// Heads of another network than this firmware's are out of use. They are kept until a run on this network adopts a head, for the
    /// program of before an update that is taken back. The corrections count as new, so that what the household taught is learnt anew.
    fn leave_other_networks(&self, shared: &mut Shared) -> Result<(), HomeError> {
        let digest = &self.shipped.digest;
        let State { heads, others, further, .. } = &mut shared.state;
        let all = others.drain(..).chain(heads.drain(..));
        (*others, *heads) =
            all.partition(|head| heads::is_of_another(&self.vault, head.number, digest));
        let network = digest.0.first_chunk().copied().map(u64::from_le_bytes);
        let is_other =
            if further.network.is_some() { further.network != network } else { !others.is_empty() };
        if !is_other {
            return Ok(());
        }
        tracing::info!(
            "the network is another one than before: what the household taught is learnt anew, and its heads for the other one are kept \
             until then"
        );
        let next = State { learnt_up_to: 0, second_look: None, ..shared.state.clone() };
        self.save(shared, next)?;
        // Last: without it the next start does both again.
        let further = Further { network, ..shared.state.further.clone() };
        further.save(&self.vault)?;
        shared.state.further = further;
        Ok(())
    }

    /// Uses the stored head, and removes heads that no list knows. Gives what a person should know.
    fn restore(&self) -> Result<Option<String>, HomeError> {
        let mut shared = self.lock();
        if let Err(error) = self.leave_other_networks(&mut shared) {
            tracing::warn!(%error, "corrections do not count as new until the next start");
        }
        let lost = self.leave_damaged(&mut shared);
        // Before there is a key nothing is kept of a look to come.
        if self.fleet_version() > 0 && !self.vault.has_key()? {
            shared.state.second_look = Some(shared.state.next_correction);
        }
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
        match head.map(|head| self.load_head(head)) {
            None => self.head.set(None, None),
            Some(Ok(values)) => self.head.set(Some(values.into()), None),
            Some(Err(error)) => {
                tracing::warn!(error = %for_journal(&error), "the household's head is not used");
                self.head.set(None, Some(error.to_string()));
            }
        }
    }

    /// Reads the head in use once more where the disk did not give it back: nothing is learnt from the numbers of another.
    ///
    /// # Errors
    /// [`HomeError::HeadUnread`] where it still does not.
    pub(crate) fn reread_head(&self, shared: &Shared) -> Result<(), HomeError> {
        if self.head.trouble().is_some() {
            self.use_head(shared.state.heads.last());
        }
        self.head.trouble().map_or(Ok(()), |trouble| Err(HomeError::HeadUnread(trouble)))
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
        let next = self.with_next_correction(&shared);
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

    // The household's head.

    /// The trainable numbers of the head in use, for [`vision::Parser::use_trainable`]; the base's own where
    /// the household has none.
    pub fn head_trainable(&self) -> Vec<f32> {
        self.shipped.layout.gather(Subset::Full, &self.head_values())
    }

    /// All numbers of the head in use, constants included, in the layout of the base.
    pub fn head_values(&self) -> Arc<[f32]> {
        self.head.values().unwrap_or_else(|| self.base().parameters.clone().into())
    }

    /// Goes back from the head of this number to the one before; gives the one in use then, or `None` for the base's own. Updates
    /// that wait to be sent are destroyed; their budget stays spent.
    ///
    /// # Errors
    /// [`HomeError::NoHead`] where the base's own is in use, [`HomeError::OtherHead`] where another one is, or of the stores;
    /// [`HomeError::Unnoted`] where the head is undone and the ledger cannot note what was destroyed.
    pub fn undo_head(&self, number: u64) -> Result<Option<HeadInfo>, HomeError> {
        let mut shared = self.lock();
        let mut next = shared.state.clone();
        let undone = next.heads.pop().ok_or(HomeError::NoHead)?;
        if undone.number != number {
            return Err(HomeError::OtherHead);
        }
        // What the undone head was learnt from, or led to, does not leave either, noised or not.
        self.vault.remove(CANDIDATE_NAME)?;
        let discarded = self.discard_waiting();
        self.save(&mut shared, next)?;
        self.use_head(shared.state.heads.last());
        // A run that started from the undone head would bring it back.
        self.drop_run(&mut shared)?;
        heads::remove(&self.vault, undone.number)?;
        discarded.map_err(HomeError::unnoted)?;
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
        next.heads.drain(..next.heads.len().saturating_sub(KEPT_HEADS));
        Ok(())
    }

    /// Uses the last head of the stored list, and removes the files of those that it does not name: a failure leaves files too many,
    /// and never a head without one.
    pub(crate) fn use_list(&self, shared: &Shared) -> Result<(), EdgeError> {
        self.use_head(shared.state.heads.last());
        let State { heads, others, lost, .. } = &shared.state;
        // Where the list itself was lost, now or before, nothing is removed that it may have named.
        let lost_below = lost.map_or(0, |lost| lost.heads_since.unwrap_or(u64::MAX));
        for number in heads::stored(&self.vault)? {
            let is_listed = heads.iter().chain(others).any(|head| head.number == number);
            if number >= lost_below && !is_listed {
                heads::remove(&self.vault, number)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use learn::edges::Timestamp;
    use learn::head::{HeadLayout, HeadShape};
    use vision::GridSize;

    use super::*;

    fn base() -> BaseModel {
        let shape = HeadShape { queries: 5, dim: 8, hidden: 12, mask_height: 12, mask_width: 8 };
        let layout = HeadLayout::of_shape(shape).unwrap();
        let parameters = vec![0.25; layout.len()];
        let (digest, grid) = (layout.digest(&parameters), GridSize { height: 48, width: 32 });
        BaseModel { layout, parameters, digest, grid, padding: 114 }
    }

    fn adopt(home: &Home) {
        let mut shared = home.lock();
        let mut next = shared.state.clone();
        let info = HeadInfo {
            number: next.next_head,
            adopted_at: Timestamp(0),
            base: home.shipped.digest.to_string(),
            examples: 1,
            before: 0.0,
            after: 1.0,
            fleet: None,
        };
        next.next_head += 1;
        home.adopt(&mut next, info, &home.head_values()).unwrap();
        home.save(&mut shared, next).unwrap();
        home.use_list(&shared).unwrap();
    }

    #[test]
    fn a_list_that_two_networks_made_too_long_is_cut_by_the_next_head() {
        let folder = std::env::temp_dir().join(format!("home-cut-{}", std::process::id()));
        let home = Home::open(&folder, base(), HomeOptions::default()).unwrap();
        (0..3).for_each(|_| adopt(&home));
        let heads = home.lock().state.heads.clone();
        home.lock().state.heads = [&heads[..]; 3].concat();
        adopt(&home);
        assert_eq!(home.lock().state.heads.len(), KEPT_HEADS);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn after_a_lost_list_the_heads_that_come_since_are_kept_in_their_number() {
        let folder = std::env::temp_dir().join(format!("home-heads-{}", std::process::id()));
        let open = || Home::open(&folder, base(), HomeOptions::default()).unwrap();
        let home = open();
        (0..2).for_each(|_| adopt(&home));
        drop(home);
        std::fs::write(folder.join("vault/state"), b"scribble").unwrap();
        let home = open();
        (0..7).for_each(|_| adopt(&home));
        drop(home);
        let home = open();
        let stored = heads::stored(&home.vault).unwrap();
        assert_eq!(stored, [0, 1, 4, 5, 6, 7, 8], "those of before may come back");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
