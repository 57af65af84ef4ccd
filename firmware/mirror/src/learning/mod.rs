//! Learning at home as a part of the mirror: opens the stores, trains when nobody needs the mirror, and tells the page.
//!
//! The mirror works without it: a data folder that cannot be used is told, and tried again.

mod gate;
mod seen;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use home::edges::Edges;
use home::{
    BaseModel, Capability, ErasureProof, Home, HomeError, HomeOptions, Limits, NightlyWindow,
    NoisePlan, Stores, Triggers, Trunk, vault,
};
use learn::head::TrainingSettings;
use learn::privacy::{Budget, NoiseMultiplier};
use settings::LearningSettings;
use tracing::{info, warn};
use vision::{Student, VisionError};

use crate::fleet;
use crate::model::ModelSource;
use crate::shared::{Shared, Topic, lock};

pub use gate::DeviceGate;
pub use seen::{Key, Noted, Seen};

/// Longest wait for the network before looking whether to stop.
const PATIENCE: Duration = Duration::from_millis(200);

/// On the screen, too: whoever pressed Home Assistant's button sees no answer there.
const NOT_ALL_DELETED: &str =
    "Not everything that was learnt could be deleted: delete it on the page";

/// Training that rests for this long gives the network's memory back.
const KEPT: Duration = Duration::from_secs(60);

const MEBIBYTE: u64 = 1 << 20;
const DAY: u64 = 86_400;

/// What the vision part, the trainer and the page share.
#[derive(Default)]
pub struct Learning {
    home: OnceLock<Arc<Home>>,
    /// The network's numbers, from whoever loaded it.
    base: (Mutex<Option<BaseModel>>, Condvar),
    trouble: Mutex<Option<String>>,
    /// Training requests that were answered.
    pub seen: Seen,
}

impl Learning {
    /// Nothing open yet.
    pub fn new() -> Learning {
        Learning::default()
    }

    /// The open stores. For the vision thread: one atomic load.
    pub fn home(&self) -> Option<&Arc<Home>> {
        self.home.get()
    }

    /// Why there are none, where that is known.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// Deletes everything that was learnt, on the disk and in memory.
    ///
    /// # Errors
    /// As [`Home::delete_everything`]; what is in memory is forgotten even then.
    pub fn delete_everything(
        &self,
        home: &Home,
        shared: &Shared,
    ) -> Result<ErasureProof, HomeError> {
        let proof = home.delete_everything();
        // After the consents: from here on nothing is frozen or noted any more.
        shared.frozen.forget_any();
        self.seen.forget();
        let complete = proof.as_ref().is_ok_and(ErasureProof::is_complete);
        let notice = match complete {
            true => home.problems().first().cloned(),
            false => Some(NOT_ALL_DELETED.to_owned()),
        };
        shared.set_notice(Topic::Learning, notice);
        let proof = proof?;
        info!("everything that was learnt was deleted; complete: {}", proof.is_complete());
        Ok(proof)
    }

    /// Hands over the numbers of the network that the mirror runs.
    pub fn offer(&self, base: BaseModel) {
        *lock(&self.base.0) = Some(base);
        self.base.1.notify_all();
    }

    /// Notes why the network's head cannot be trained.
    pub fn refuse(&self, reason: String) {
        *lock(&self.trouble) = Some(reason);
    }

    fn wait_for_base(&self, shared: &Shared) -> Option<BaseModel> {
        let mut base = lock(&self.base.0);
        while base.is_none() && !shared.is_stopping() {
            base = match self.base.1.wait_timeout(base, PATIENCE) {
                Ok((base, _)) => base,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        base.clone()
    }
}

#[cfg(test)]
impl Learning {
    /// With open stores in this folder, for the built-in network.
    pub fn in_folder(folder: &std::path::Path) -> Learning {
        let settings = settings::Layers::defaults().and_then(settings::Layers::finish);
        let model = ModelSource::new(&settings.expect("the defaults").settings.vision);
        let base = BaseModel::new(&model.student().expect("built in")).expect("of its own shape");
        let home = Home::open(folder, base, HomeOptions::default()).expect("a folder of a test");
        let learning = Learning::new();
        assert!(learning.home.set(Arc::new(home)).is_ok(), "nothing is open yet");
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
        let Some(home) = self.open()? else { return Ok(()) };
        let mut trunk = LazyTrunk::new(at_size_of(&home, &self.model));
        home.serve(&mut trunk, &self.gate, self.stop_flag());
        Ok(())
    }

    fn stop_flag(&self) -> &AtomicBool {
        self.shared.stop_flag()
    }

    fn open(&self) -> Result<Option<Arc<Home>>> {
        if let Some(home) = self.learning.home() {
            return Ok(Some(Arc::clone(home)));
        }
        let Some(base) = self.learning.wait_for_base(&self.shared) else { return Ok(None) };
        if self.shared.is_stopping() {
            return Ok(None);
        }
        let opened = self.open_stores(base);
        let home = opened.map(Arc::new).with_context(|| {
            format!("learning at home cannot use {}; the mirror goes on", self.folder.display())
        });
        let home = home.inspect_err(|error| {
            let text = crate::report::describe(error);
            self.shared.set_notice(Topic::Learning, Some(text.clone()));
            self.learning.refuse(text);
        })?;
        for problem in home.problems() {
            warn!("learning: {problem}");
        }
        let problem = home.problems().first().cloned();
        self.shared.set_notice(Topic::Learning, problem);
        *self.learning.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        info!("learning at home is ready");
        Ok(Some(Arc::clone(self.learning.home.get_or_init(|| home))))
    }

    fn open_stores(&self, base: BaseModel) -> Result<Home, HomeError> {
        let mut stores = Stores::in_folder(&self.folder)?;
        stores.beside.extend(self.folder.parent().map(fleet::beside));
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        stores.credential = vault::machine_credential(credentials.as_deref())?;
        Home::with(stores, base, self.options, Edges::system(&self.folder))
    }
}

/// The network at the input size that learning has for as long as the program runs, whatever the camera does meanwhile.
pub fn at_size_of(home: &Home, model: &ModelSource) -> ModelSource {
    let grid = home.shipped().grid;
    model.clone().for_pictures(Some((grid.width as u32, grid.height as u32)))
}

/// Loads the network when training needs it: most of the time it does not.
struct LazyTrunk {
    model: ModelSource,
    loaded: Arc<Mutex<Option<Loaded>>>,
}

struct Loaded {
    student: Student,
    used: Instant,
}

impl LazyTrunk {
    fn new(model: ModelSource) -> LazyTrunk {
        LazyTrunk { model, loaded: Arc::default() }
    }
}

impl Trunk for LazyTrunk {
    fn run(&mut self, pixels: &[u8]) -> Result<[Vec<f32>; 4], VisionError> {
        let mut slot = lock(&self.loaded);
        let loaded = match &mut *slot {
            Some(loaded) => loaded,
            empty => {
                let student = self.model.student();
                let student =
                    student.map_err(|error| VisionError::Network(format!("{error:#}")))?;
                unload_when_unused(Arc::downgrade(&self.loaded));
                empty.insert(Loaded { student, used: Instant::now() })
            }
        };
        let answer = loaded.student.run_trunk(pixels);
        loaded.used = Instant::now();
        answer
    }
}

/// Takes the network out once it was not used for [`KEPT`], on a thread that ends then. The trainer's own is held by the
/// stores, training or not.
fn unload_when_unused(slot: Weak<Mutex<Option<Loaded>>>) {
    let watch = move || {
        while let Some(slot) = slot.upgrade() {
            let mut loaded = lock(&slot);
            if is_unused(&loaded, Instant::now()) {
                *loaded = None;
                return;
            }
            drop(loaded);
            drop(slot);
            std::thread::sleep(KEPT / 4);
        }
    };
    // Without the thread the network stays: a loss of memory, and of nothing else.
    if let Err(error) = std::thread::Builder::new().name("unload".to_owned()).spawn(watch) {
        warn!("learning: {error}");
    }
}

fn is_unused(loaded: &Option<Loaded>, now: Instant) -> bool {
    loaded.as_ref().is_some_and(|loaded| now.saturating_duration_since(loaded.used) >= KEPT)
}

/// The settings in effect as learning wants them.
///
/// # Errors
/// A budget without a plan.
pub fn options(settings: &LearningSettings) -> Result<HomeOptions> {
    let (training, at_home) = match settings.parameters.as_str() {
        "full" => (TrainingSettings::FULL, TrainingSettings::FULL),
        "sparse" => (TrainingSettings::SPARSE, TrainingSettings::SPARSE),
        _ => (TrainingSettings::SPARSE, TrainingSettings::FULL),
    };
    let passes = |training| TrainingSettings { epochs: settings.epochs, ..training };
    let noise = match settings.lifetime_releases {
        0 => {
            let text = settings.noise_multiplier.to_string();
            NoisePlan::Multiplier(
                text.parse::<NoiseMultiplier>().context("learning.noise_multiplier")?,
            )
        }
        releases => NoisePlan::Lifetime(releases),
    };
    let some = |count: u32| (count > 0).then_some(count);
    let nightly = some(settings.night_minutes)
        .map(|length| NightlyWindow { start: settings.night_start, length });
    let defaults = HomeOptions::default();
    let options = HomeOptions {
        limits: Limits {
            corrections: settings.corrections,
            bytes: settings.megabytes * MEBIBYTE,
            age: Duration::from_secs(settings.days * DAY),
            headroom: settings.free_megabytes * MEBIBYTE,
        },
        training: passes(training),
        at_home: passes(at_home),
        budget: Budget::new(settings.epsilon, settings.delta)?,
        noise,
        triggers: Triggers {
            corrections: some(settings.after_corrections),
            nightly,
            inferences: (settings.after_pictures > 0).then_some(settings.after_pictures),
        },
        capability: Capability {
            time_allowed: Duration::from_secs(settings.time_allowed_s),
            hottest: settings.hottest_celsius,
            busiest: settings.busiest,
            ..defaults.capability
        },
        ..defaults
    };
    options.check()?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use learn::head::Subset;
    use settings::Layers;

    fn from(text: &str) -> LearningSettings {
        let layers = Layers::defaults().and_then(|layers| layers.file("test", text));
        layers.and_then(Layers::finish).expect("valid settings").settings.learning
    }

    #[test]
    fn the_defaults_are_those_of_the_engine() {
        assert_eq!(options(&from("")).expect("a plan"), HomeOptions::default());
    }

    #[test]
    fn all_of_the_head_is_trained_where_nothing_leaves() {
        let trained = |text: &str| {
            let options = options(&from(text)).expect("a plan");
            [options.training, options.at_home].map(|training| (training.subset, training.epochs))
        };
        let (sparse, full) = ((Subset::Sparse, 3), (Subset::Full, 3));
        assert_eq!(trained(""), [sparse, full]);
        assert_eq!(trained("[learning]\nparameters = \"sparse\""), [sparse, sparse]);
        assert_eq!(trained("[learning]\nparameters = \"full\""), [full, full]);
        assert_eq!(trained("[learning]\nepochs = 5"), [(Subset::Sparse, 5), (Subset::Full, 5)]);
    }

    #[test]
    fn the_network_goes_a_minute_after_its_last_use() {
        let settings = Layers::defaults().and_then(Layers::finish).expect("the defaults");
        let model = ModelSource::new(&settings.settings.vision);
        let used = Instant::now();
        let loaded = Some(Loaded { student: model.student().expect("built in"), used });
        assert!(!is_unused(&loaded, used + KEPT - Duration::from_millis(1)));
        assert!(is_unused(&loaded, used + KEPT));
        assert!(!is_unused(&None, used + KEPT));
    }

    #[test]
    fn the_notice_of_a_deletion_goes_with_the_next_one_that_is_complete() {
        let folder = std::env::temp_dir().join(format!("mirror-notice-{}", std::process::id()));
        let learning = Learning::in_folder(&folder);
        let home = learning.home().expect("open");
        let shared = Shared::new(Instant::now(), None);
        let notice =
            || shared.with_health(|health| health.notices.get(Topic::Learning).map(str::to_owned));
        // What is not known there is not removed.
        let stray = folder.join("privacy/stray");
        std::fs::write(&stray, "").expect("writable");
        let complete = learning.delete_everything(home, &shared).is_ok_and(|p| p.is_complete());
        assert_eq!((complete, notice().as_deref()), (false, Some(NOT_ALL_DELETED)));
        std::fs::remove_file(&stray).expect("ours");
        let complete = learning.delete_everything(home, &shared).is_ok_and(|p| p.is_complete());
        assert_eq!((complete, notice()), (true, None));
        std::fs::remove_dir_all(&folder).expect("ours");
    }

    #[test]
    fn zero_means_not_by_this_trigger() {
        let text = "[learning]\nafter_corrections = 0\nnight_minutes = 0\nafter_pictures = 10";
        let triggers = options(&from(text)).expect("a plan").triggers;
        assert_eq!((triggers.corrections, triggers.nightly), (None, None));
        assert_eq!(triggers.inferences, Some(10));
    }

    #[test]
    fn a_lifetime_plan_raises_the_noise() {
        let options = options(&from("[learning]\nlifetime_releases = 12")).expect("a plan");
        assert_eq!(options.noise_multiplier().expect("a plan").as_f64(), 2.0793);
    }
}
