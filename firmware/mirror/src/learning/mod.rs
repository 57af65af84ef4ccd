//! Learning at home as a part of the mirror: opens the stores, trains when nobody needs the mirror, and tells the page.
//!
//! The mirror works without it: a data folder that cannot be used is told, and tried again.

mod answered;
mod gate;
mod options;
mod second_network;
mod trunk;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use home::edges::Edges;
use home::{
    BaseModel, ErasureProof, Home, HomeError, HomeOptions, Household, Stores, for_journal, vault,
};
use tracing::{info, warn};

use crate::fleet;
use crate::model::ModelSource;
use crate::shared::{Shared, Topic, lock};

pub use answered::{Answered, Key, Noted};
pub use gate::DeviceGate;
pub use options::options;
pub use second_network::{Held, SecondNetwork};
use trunk::LazyTrunk;
pub use trunk::at_size_of;

/// Longest wait for the network before looking whether to stop.
const PATIENCE: Duration = Duration::from_millis(200);

/// How often corrections are looked at for their age while there is no network to learn with.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);

/// On the screen, too: whoever pressed Home Assistant's button sees no answer there.
pub(crate) const NOT_ALL_DELETED: &str =
    "Not everything that was learnt could be deleted: delete it on the mirror's page";

/// What the vision part, the trainer and the page share.
#[derive(Default)]
pub struct Learning {
    /// What needs no network: consent, retention, the lists, deletion.
    household: OnceLock<Arc<Household>>,
    home: OnceLock<Arc<Home>>,
    /// The network's numbers, from whoever loaded it.
    base: (Mutex<Option<BaseModel>>, Condvar),
    /// Why the stores cannot be used.
    closed: Mutex<Option<String>>,
    /// Why nothing is learnt.
    refused: Mutex<Option<String>>,
    /// Memory for a network beside the camera's.
    pub second_network: Arc<SecondNetwork>,
    /// Training requests that were answered.
    pub answered: Answered,
}

impl Learning {
    /// Nothing open yet.
    pub fn new() -> Learning {
        Learning::default()
    }

    /// The open stores, also where there is no network to learn with.
    pub fn household(&self) -> Option<&Arc<Household>> {
        self.household.get()
    }

    /// The open stores with the network. For the vision thread: one atomic load.
    pub fn home(&self) -> Option<&Arc<Home>> {
        self.home.get()
    }

    /// Why there are none, or nothing is learnt, where that is known.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.closed).clone().or_else(|| lock(&self.refused).clone())
    }

    /// Deletes everything that was learnt, on the disk and in memory.
    ///
    /// # Errors
    /// As [`Household::delete_everything`]; what is in memory is forgotten even then.
    pub fn delete_everything(
        &self,
        household: &Household,
        shared: &Shared,
    ) -> Result<ErasureProof, HomeError> {
        let proof = household.delete_everything();
        // After the consents: from here on nothing is frozen or noted any more.
        shared.frozen.forget_any();
        self.answered.forget();
        let complete = proof.as_ref().is_ok_and(ErasureProof::is_complete);
        let notice = match complete {
            true => self.found().into_iter().next(),
            false => Some(NOT_ALL_DELETED.to_owned()),
        };
        shared.set_notice(Topic::Learning, notice.as_deref());
        tell_withdrawals(household, shared);
        let proof = proof?;
        // Whoever presses again and again is answered where they press.
        if !proof.removed.is_empty() {
            info!("everything that was learnt was deleted; complete: {}", proof.is_complete());
        }
        Ok(proof)
    }

    /// What was found damaged, and what is not possible, for people.
    pub fn problems(&self) -> Vec<String> {
        self.trouble().into_iter().chain(self.found()).collect()
    }

    /// What was found damaged in the stores; a network that does not load is told by whoever loads it.
    fn found(&self) -> Vec<String> {
        match (self.home(), self.household()) {
            (Some(home), _) => home.all_problems(),
            (None, Some(household)) => household.problems(),
            (None, None) => Vec::new(),
        }
    }

    /// Hands over the numbers of the network that the mirror runs.
    pub fn offer(&self, base: BaseModel) {
        *lock(&self.refused) = None;
        *lock(&self.base.0) = Some(base);
        self.base.1.notify_all();
    }

    /// Notes why the stores cannot be used.
    pub fn close(&self, reason: String) {
        *lock(&self.closed) = Some(reason);
    }

    /// Notes why nothing can be learnt until a network is offered.
    pub fn refuse(&self, reason: String) {
        *lock(&self.refused) = Some(reason);
    }

    /// The network's numbers, where they come within [`PATIENCE`].
    fn next_base(&self) -> Option<BaseModel> {
        let (base, came) = &self.base;
        let wait = came.wait_timeout_while(lock(base), PATIENCE, |base| base.is_none());
        wait.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Hands the open stores to whoever asks from now on.
    fn open_household(&self, household: Arc<Household>) -> Arc<Household> {
        *lock(&self.closed) = None;
        Arc::clone(self.household.get_or_init(|| household))
    }

    fn open_home(&self, home: Arc<Home>) -> Arc<Home> {
        *lock(&self.refused) = None;
        Arc::clone(self.home.get_or_init(|| home))
    }
}

#[cfg(test)]
impl Learning {
    /// With open stores in this folder, for the built-in network.
    pub fn in_folder(folder: &std::path::Path, options: HomeOptions) -> Learning {
        let model = ModelSource::new(&crate::testing::settings().vision);
        let base = BaseModel::new(&model.student().expect("built in")).expect("of its own shape");
        let learning = Learning::without_network(folder, options);
        let household = learning.household().expect("open");
        let home = Home::new(Arc::clone(household), base).expect("a folder of a test");
        learning.open_home(Arc::new(home));
        learning
    }

    /// With open stores in this folder, where the network does not load.
    pub fn without_network(folder: &std::path::Path, options: HomeOptions) -> Learning {
        let learning = Learning::new();
        let household = Household::open(folder, options).expect("a folder of a test");
        learning.open_household(Arc::new(household));
        learning
    }
}

/// The trainer's part of the mirror.
pub struct Trainer {
    /// The mirror's common state.
    pub shared: Arc<Shared>,
    /// What is shared with the page and the vision part.
    pub learning: Arc<Learning>,
    /// Where the stores lie.
    pub folder: std::path::PathBuf,
    /// Limits, triggers, budget.
    pub options: HomeOptions,
    /// The network's files, for a trunk of the trainer's own.
    pub model: ModelSource,
    /// When training may run.
    pub gate: DeviceGate,
}

impl Trainer {
    /// Runs until the mirror stops.
    ///
    /// # Errors
    /// Stores that cannot be opened; the supervisor tries again, and the mirror goes on without.
    pub fn run(&self) -> Result<()> {
        let household = self.open_household()?;
        let Some(home) = self.open_home(&household)? else { return Ok(()) };
        let mut trunk = LazyTrunk::new(
            at_size_of(&home, &self.model),
            Arc::clone(&self.learning.second_network),
        );
        home.serve(&mut trunk, &self.gate, self.stop_flag());
        Ok(())
    }

    fn stop_flag(&self) -> &AtomicBool {
        self.shared.stop_flag()
    }

    fn open_household(&self) -> Result<Arc<Household>> {
        if let Some(household) = self.learning.household() {
            return Ok(Arc::clone(household));
        }
        let opened = self.open_stores().with_context(|| {
            format!("learning at home cannot use {}; the mirror goes on", self.folder.display())
        });
        let household = opened.inspect_err(|error| {
            let text = crate::report::describe(error);
            self.shared.set_notice(Topic::Learning, Some(&text));
            self.learning.close(text);
        })?;
        for problem in household.problems() {
            warn!("learning: {}", for_journal(problem));
        }
        self.shared.set_notice(Topic::Learning, household.problems().first().map(String::as_str));
        if let Some(question) = household.changed_words() {
            info!("learning: {question}");
        }
        tell_withdrawals(&household, &self.shared);
        Ok(self.learning.open_household(Arc::new(household)))
    }

    /// The network, once it is there; `None` where the mirror stops first.
    fn open_home(&self, household: &Arc<Household>) -> Result<Option<Arc<Home>>> {
        if let Some(home) = self.learning.home() {
            return Ok(Some(Arc::clone(home)));
        }
        let Some(base) = self.wait_for_base(household) else { return Ok(None) };
        let opened = Home::new(Arc::clone(household), base).context("learning at home");
        let home = opened.inspect_err(|error| {
            let text = crate::report::describe(error);
            self.shared.set_notice(Topic::Learning, Some(&text));
            self.learning.refuse(text);
        })?;
        let known = household.problems();
        for problem in home.all_problems().iter().filter(|problem| !known.contains(problem)) {
            warn!("learning: {}", for_journal(problem));
        }
        // What is switched off and not stored has its own topic.
        let own = household.unstored_withdrawal();
        let first = home.all_problems().into_iter().find(|problem| Some(problem) != own.as_ref());
        self.shared.set_notice(Topic::Learning, first.as_deref());
        info!("learning at home is ready");
        Ok(Some(self.learning.open_home(Arc::new(home))))
    }

    /// Corrections grow too old meanwhile, and a network that does not load may never come.
    fn wait_for_base(&self, household: &Household) -> Option<BaseModel> {
        let mut tidied: Option<Instant> = None;
        let mut told: Option<String> = None;
        while !self.shared.is_stopping() {
            if tidied.is_none_or(|at| at.elapsed() >= TIDY_INTERVAL) {
                tidied = Some(Instant::now());
                let trouble = household.tidy().err().map(|error| error.to_string());
                // Once, for as long as it is the same.
                if let Some(text) = trouble.as_ref().filter(|_| trouble != told) {
                    warn!("learning: {}", for_journal(text));
                }
                told = trouble;
            }
            if let Some(base) = self.learning.next_base() {
                return Some(base);
            }
        }
        if let Err(error) = household.remember_lived() {
            warn!("learning: {error}");
        }
        None
    }

    fn open_stores(&self) -> Result<Household, HomeError> {
        let mut stores = Stores::in_folder(&self.folder)?;
        stores.beside.extend(self.folder.parent().map(fleet::beside));
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        stores.credential = vault::machine_credential(credentials.as_deref())?;
        Household::over_stores(stores, self.options, Edges::system(&self.folder))
    }
}

/// On the glass for as long as it is so: what was switched off and would be on again after the next start, and what is off because its
/// words have changed.
pub fn tell_withdrawals(household: &Household, shared: &Shared) {
    shared.set_notice(Topic::Withdrawal, household.unstored_withdrawal().as_deref());
    shared.set_notice(Topic::Words, household.changed_words().as_deref());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::testing::{Folder, settings};

    /// The part of a mirror that learns in `folder`, with a gate that is asked nothing.
    fn trainer(folder: &Path, options: HomeOptions, learning: Learning) -> Trainer {
        let shared = Arc::new(Shared::new(Instant::now(), None));
        Trainer {
            gate: DeviceGate::new(Arc::clone(&shared), None, Duration::ZERO),
            shared,
            learning: Arc::new(learning),
            folder: folder.to_owned(),
            options,
            model: ModelSource::new(&settings().vision),
        }
    }

    /// [`trainer`] with open stores, and with the network's numbers on offer.
    fn trainer_with_stores(folder: &Path) -> Trainer {
        let options = HomeOptions::default();
        let trainer = trainer(folder, options, Learning::without_network(folder, options));
        let student = trainer.model.student().expect("built in");
        trainer.learning.offer(BaseModel::new(&student).expect("of its own shape"));
        trainer
    }

    fn notice(shared: &Shared) -> Option<String> {
        shared.with_health(|health| health.notices.get(Topic::Learning).map(str::to_owned))
    }

    #[test]
    fn the_stores_are_open_whatever_becomes_of_the_network() {
        let folder = Folder::new("stores");
        let mut learning = settings().learning;
        // Nor does it take a budget.
        learning.epsilon = 0.5;
        let trainer = trainer(folder.path(), options(&learning).expect("usable"), Learning::new());
        let Trainer { shared, learning, .. } = &trainer;
        learning.refuse("the network is broken".to_owned());
        std::thread::scope(|scope| {
            let part = scope.spawn(|| trainer.run());
            let deadline = Instant::now() + Duration::from_secs(30);
            while learning.household().is_none() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            shared.stop();
            part.join().expect("no panic").expect("stopped");
        });
        let problems = learning.problems();
        assert_eq!(problems[0], "the network is broken");
        assert!(problems[1].contains("learning.noise_multiplier"), "{problems:?}");
        let household = learning.household().expect("open");
        assert!(learning.home().is_none());
        let proof = learning.delete_everything(household, shared).expect("writable");
        assert!(proof.is_complete(), "{proof:?}");
        let told = notice(shared).expect("no budget");
        assert!(
            told.contains("learning.noise_multiplier"),
            "that of the network has its own place"
        );
    }

    #[test]
    fn stores_that_take_no_network_are_told_until_they_do() {
        let folder = Folder::new("refused");
        let trainer = trainer_with_stores(folder.path());
        let Trainer { shared, learning, .. } = &trainer;
        let household = Arc::clone(learning.household().expect("open"));
        // The heads cannot be listed.
        let (vault, away) = (folder.path().join("vault"), folder.path().join("away"));
        std::fs::rename(&vault, &away).expect("ours");
        assert!(trainer.open_home(&household).is_err());
        let told = notice(shared);
        assert!(told.as_ref().is_some_and(|text| text.contains("cannot list")), "{told:?}");
        assert_eq!(learning.trouble(), told);
        std::fs::rename(&away, &vault).expect("ours");
        assert!(trainer.open_home(&household).expect("whole").is_some());
        assert_eq!((learning.trouble(), notice(shared)), (None, None));
    }

    #[test]
    fn what_was_agreed_to_in_other_words_is_asked_for_again_on_the_glass_until_somebody_answers() {
        let folder = Folder::new("words");
        let purpose = learn::consent::PurposeKind::ImproveMyMirror;
        let before = Household::open(folder.path(), HomeOptions::default()).expect("writable");
        before.grant(purpose, before.explanation().version(purpose)).expect("writable");
        drop(before);
        let mut options = HomeOptions::default();
        options.limits.age /= 2;
        let trainer = trainer(folder.path(), options, Learning::new());
        let household = trainer.open_household().expect("writable");
        let shared = &trainer.shared;
        let notice =
            || shared.with_health(|health| health.notices.get(Topic::Words).map(str::to_owned));
        let told = notice().expect("it is off, and nobody knows");
        assert!(told.contains("Improve my mirror") && told.contains("has changed"), "{told}");
        // It may stand for weeks, and the glass has room for one.
        shared.set_notice(Topic::Temperature, Some("the sensor is gone"));
        let notices = shared.health().notices;
        assert_eq!(notices.first(), Some("the sensor is gone"));
        assert_eq!(notices.get(Topic::Withdrawal), None);
        household.grant(purpose, household.explanation().version(purpose)).expect("writable");
        tell_withdrawals(&household, shared);
        assert_eq!(notice(), None);
    }

    #[test]
    fn a_withdrawal_that_is_not_stored_is_told_under_its_own_topic_alone() {
        let folder = Folder::new("unstored");
        let trainer = trainer_with_stores(folder.path());
        let Trainer { shared, learning, .. } = &trainer;
        let household = Arc::clone(learning.household().expect("open"));
        let purpose = learn::consent::PurposeKind::ImproveMyMirror;
        let version = household.explanation().version(purpose);
        household.grant(purpose, version).expect("writable");
        // Stands for a disk that takes no change.
        let record = folder.path().join("consent/consent.json");
        std::fs::remove_file(&record).expect("stored");
        std::fs::create_dir(&record).expect("writable");
        assert!(household.withdraw(purpose).is_err());
        assert!(trainer.open_home(&household).expect("whole").is_some());
        tell_withdrawals(&household, shared);
        let notices = shared.health().notices;
        assert_eq!(notices.get(Topic::Learning), None);
        assert!(notices.get(Topic::Withdrawal).is_some());
    }

    #[test]
    fn the_notice_of_a_deletion_goes_with_the_next_one_that_is_complete() {
        let folder = Folder::new("notice");
        let learning = Learning::in_folder(folder.path(), HomeOptions::default());
        let home = learning.home().expect("open");
        let shared = Shared::new(Instant::now(), None);
        // What is not known there is not removed.
        let stray = folder.path().join("privacy/stray");
        std::fs::write(&stray, "").expect("writable");
        let complete = learning.delete_everything(home, &shared).is_ok_and(|p| p.is_complete());
        assert_eq!((complete, notice(&shared).as_deref()), (false, Some(NOT_ALL_DELETED)));
        std::fs::remove_file(&stray).expect("ours");
        let complete = learning.delete_everything(home, &shared).is_ok_and(|p| p.is_complete());
        assert_eq!((complete, notice(&shared)), (true, None));
    }
}
