//! The household as the fleet's protocol sees it: its outbox, and its will.

use std::sync::{Arc, Mutex};

use home::{Contribution, Home, HomeError, ReleaseRules};
use learn::consent::{ContributeToFleet, ImproveMyMirror};
use learn::edges::LayoutId;
use learn::privacy::NoiseMultiplier;
use learn::update::Update;
use proto::ids::Ratio;
use proto::task::{Floor, TaskManifest};
use proto::update::Refusal;
use settings::FleetSettings;
use uplink::edges::{EdgeError, Household, Outbox, ReleaseId};

use crate::shared::lock;

/// Over the stores of [`Home`].
pub struct AtHome {
    home: Arc<Home>,
    min_cohort: u32,
    max_update_bytes: u32,
    /// What an update is to be made for.
    asked: Mutex<Option<Asked>>,
}

/// A round that asked for an update.
struct Asked {
    task: TaskManifest,
    /// A run was asked for in the place of one that could never be released, or is gone.
    again: bool,
}

impl AtHome {
    /// With the floor of the settings.
    pub fn new(home: Arc<Home>, settings: &FleetSettings) -> AtHome {
        AtHome {
            home,
            min_cohort: settings.min_cohort,
            max_update_bytes: 1024 * settings.max_update_kib,
            asked: Mutex::default(),
        }
    }

    /// What an update that waits belongs to, and its noise.
    fn terms(&self, id: learn::edges::ReleaseId) -> Result<(LayoutId, NoiseMultiplier), EdgeError> {
        let consent = self.home.token::<ContributeToFleet>().map_err(told)?;
        let bytes = self.home.bytes(id, &consent).map_err(told)?;
        let update = Update::decode(&bytes).map_err(told)?;
        let header = update.header();
        Ok((header.layout, header.noise_multiplier))
    }

    fn matching(&self, task: &TaskManifest) -> Result<Vec<ReleaseId>, EdgeError> {
        let mut found = Vec::new();
        let noise = multiplier(task.noise_multiplier)?;
        for id in self.home.waiting().map_err(told)? {
            if self.terms(id)? == (LayoutId(task.layout.0), noise) {
                found.push(ReleaseId(id.0));
            }
        }
        Ok(found)
    }

    /// Releases the finished run for the task that asked, once: only a round that wants an update spends budget.
    fn release(&self, task: &TaskManifest) -> Result<(), EdgeError> {
        let mut asked = lock(&self.asked);
        let Some(own) = asked.as_mut().filter(|own| own.task.round == task.round) else {
            return Ok(());
        };
        if !self.home.has_candidate() {
            // The run has ended, and what it came of was deleted while it waited for its moment.
            if !own.again && !self.home.is_due() {
                own.again = true;
                self.ask_for_training();
            }
            return Ok(());
        }
        let consent = self.home.token::<ContributeToFleet>().map_err(told)?;
        let rules = ReleaseRules {
            layout: LayoutId(task.layout.0),
            noise_multiplier: multiplier(task.noise_multiplier)?,
            clip: task.clip.as_f64(),
            max_update_bytes: task.max_update_bytes,
        };
        let reserved = self.reserved();
        let error = match self.home.release(&consent, &rules) {
            Ok(release) => {
                *asked = None;
                tracing::info!(%release, round = task.round, "an update waits to be sent");
                return Ok(());
            }
            Err(error) => error,
        };
        let is_spent = self.reserved() != reserved;
        if !own.again && !is_spent && !self.home.has_candidate() {
            // The run was of before, and could never be released; once, one for this round takes its place.
            own.again = true;
            self.ask_for_training();
        } else if !matches!(error, HomeError::DiskFull { .. }) {
            // Whatever comes of it: a refusal by the budget stays one. Room on the disk may come.
            *asked = None;
        }
        Err(told(error))
    }

    /// Updates that budget was reserved for so far.
    fn reserved(&self) -> Option<u64> {
        self.home.privacy().ok().map(|privacy| privacy.ledger.spent.releases())
    }

    /// Where there is something to train on, and an update could come of it.
    fn ask_for_training(&self) {
        let may_train = self.home.token::<ImproveMyMirror>().is_ok();
        let may_release = self.home.contribution() == Contribution::On;
        if may_train && may_release && self.home.usage().corrections > 0 {
            self.home.request_training();
        }
    }
}

impl Outbox for AtHome {
    fn waiting(&self, task: &TaskManifest) -> Result<Vec<ReleaseId>, EdgeError> {
        let waiting = self.matching(task)?;
        if !waiting.is_empty() {
            return Ok(waiting);
        }
        self.release(task)?;
        self.matching(task)
    }

    fn bytes(&self, id: ReleaseId) -> Result<Vec<u8>, EdgeError> {
        let consent = self.home.token::<ContributeToFleet>().map_err(told)?;
        self.home.bytes(learn::edges::ReleaseId(id.0), &consent).map_err(told)
    }

    fn published(&mut self, id: ReleaseId) -> Result<(), EdgeError> {
        self.home.published(learn::edges::ReleaseId(id.0)).map_err(told)
    }

    fn refused(&mut self, id: ReleaseId, _reason: Refusal) -> Result<(), EdgeError> {
        self.home.give_up(learn::edges::ReleaseId(id.0)).map_err(told)
    }
}

impl Household for AtHome {
    fn floor(&self) -> Option<Floor> {
        if matches!(self.home.contribution(), Contribution::NoFleet | Contribution::Off) {
            return None;
        }
        let own = self.home.noise_multiplier().ok()?;
        Some(Floor {
            min_noise_multiplier: Ratio::new(own.numerator(), own.denominator()).ok()?,
            max_clip: Ratio::new(1, 1).ok()?,
            min_cohort: self.min_cohort,
            max_update_bytes: self.max_update_bytes,
            model: proto::Digest(self.home.base().digest.0),
        })
    }

    /// Where there is budget for a release: gives up what waits for another model, whose rounds are over, and asks for training if
    /// there is no finished run, and something to train on. What waits with other noise than this round's may fit the next.
    fn prepare(&mut self, task: &TaskManifest) -> Result<(), EdgeError> {
        let left = self.home.privacy().map_err(told)?.ledger.releases_left;
        if left == 0 {
            return Err(EdgeError("the privacy budget is spent; nothing more is sent".to_owned()));
        }
        for id in self.home.waiting().map_err(told)? {
            if self.terms(id)?.0 != LayoutId(task.layout.0) {
                self.home.give_up(id).map_err(told)?;
            }
        }
        *lock(&self.asked) = Some(Asked { task: task.clone(), again: false });
        if !self.home.has_candidate() {
            self.ask_for_training();
        }
        Ok(())
    }
}

fn multiplier(ratio: Ratio) -> Result<NoiseMultiplier, EdgeError> {
    NoiseMultiplier::from_fraction(ratio.numerator(), ratio.denominator()).map_err(told)
}

fn told(error: impl std::error::Error) -> EdgeError {
    EdgeError(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use proto::task::ReportWindow;

    use super::*;
    use crate::fleet::small;
    use crate::testing::Folder;

    /// A household with a correction, and `count` updates that wait.
    fn waiting(name: &str, count: usize) -> (Folder, AtHome) {
        let folder = Folder::new(name);
        let home = Arc::new(small::home(folder.path()));
        small::agree(&home);
        small::correct(&home);
        for _ in 0..count {
            small::learn(&home);
        }
        let max_update_bytes = 1 << 20;
        (folder, AtHome { home, min_cohort: 2, max_update_bytes, asked: Mutex::default() })
    }

    fn task(home: &Home, noise: (u64, u64)) -> TaskManifest {
        TaskManifest {
            channel: "stable".parse().expect("valid"),
            round: 5,
            model_version: 1,
            model: proto::Digest(home.base().digest.0),
            layout: proto::Digest(home.layout_id().0),
            dimension: 100,
            noise_multiplier: Ratio::new(noise.0, noise.1).expect("a number"),
            clip: Ratio::new(1, 1).expect("one"),
            min_cohort: 2,
            max_update_bytes: 1 << 20,
            report: ReportWindow { after_seconds: 0, spread_seconds: 0 },
        }
    }

    #[test]
    fn what_waits_outlives_a_round_of_other_noise_and_goes_with_its_model() {
        let (_folder, mut at_home) = waiting("noise", 1);
        let other = task(&at_home.home, (2, 1));
        assert!(at_home.waiting(&other).expect("readable").is_empty());
        at_home.prepare(&other).expect("there is budget");
        let own = task(&at_home.home, (6, 5));
        assert_eq!(at_home.waiting(&own).expect("readable").len(), 1);
        at_home.prepare(&TaskManifest { layout: proto::Digest([7; 32]), ..own }).expect("budget");
        assert!(at_home.home.waiting().expect("readable").is_empty());
    }

    #[test]
    fn a_run_that_is_deleted_before_its_moment_is_made_once_more() {
        let (_folder, mut at_home) = waiting("gone", 0);
        small::correct(&at_home.home);
        small::correct(&at_home.home);
        small::train(&at_home.home);
        let own = task(&at_home.home, (6, 5));
        at_home.prepare(&own).expect("there is budget");
        at_home.home.remove_correction(0).expect("removed");
        let asks = |at_home: &AtHome| {
            assert!(at_home.waiting(&own).expect("readable").is_empty());
            at_home.home.is_due()
        };
        assert!(!at_home.home.has_candidate() && !at_home.home.is_due());
        assert!(asks(&at_home), "the round's own run is asked for");
        small::train(&at_home.home);
        at_home.home.remove_correction(1).expect("removed");
        assert!(!asks(&at_home), "once");
    }

    #[test]
    fn a_full_disk_costs_no_round_its_update_once_there_is_room() {
        let folder = Folder::new("room");
        let (home, free) = small::home_with_space(folder.path());
        let home = Arc::new(home);
        small::agree(&home);
        small::correct(&home);
        small::train(&home);
        let max_update_bytes = 1 << 20;
        let mut at_home = AtHome { home, min_cohort: 2, max_update_bytes, asked: Mutex::default() };
        let own = task(&at_home.home, (6, 5));
        at_home.prepare(&own).expect("there is budget");
        free.store(0, Ordering::SeqCst);
        for _ in 0..2 {
            let refused = at_home.waiting(&own).expect_err("no room");
            assert!(refused.to_string().contains("free some room"), "{refused}");
        }
        free.store(u64::MAX, Ordering::SeqCst);
        assert_eq!(at_home.waiting(&own).expect("room").len(), 1);
    }

    #[test]
    fn a_run_that_was_released_before_makes_room_for_one_of_this_round_once() {
        let (folder, mut at_home) = waiting("stale", 0);
        let candidate = folder.path().join("vault/candidate");
        small::train(&at_home.home);
        let stale = std::fs::read(&candidate).expect("a finished run");
        small::release(&at_home.home);
        let first = at_home.home.waiting().expect("readable")[0];
        at_home.published(ReleaseId(first.0)).expect("writable");
        // As a power cut leaves it that comes between the reservation and the removal.
        std::fs::write(&candidate, &stale).expect("ours");
        let own = task(&at_home.home, (6, 5));
        at_home.prepare(&own).expect("there is budget");
        assert!(!at_home.home.is_due(), "it has a finished run");
        assert!(at_home.waiting(&own).is_err());
        assert!(at_home.home.is_due(), "or nobody would ask again in this round");
        small::train(&at_home.home);
        assert_eq!(at_home.waiting(&own).expect("a new run").len(), 1);
        let privacy = at_home.home.privacy().expect("readable");
        assert_eq!(privacy.ledger.spent.releases(), 2);
        // Not for ever, whatever becomes of the new one.
        let other = TaskManifest { round: 6, ..own };
        at_home.published(at_home.waiting(&other).expect("readable")[0]).expect("writable");
        std::fs::write(&candidate, &stale).expect("ours");
        at_home.prepare(&other).expect("there is budget");
        for is_due in [true, false] {
            std::fs::write(&candidate, &stale).expect("ours");
            assert!(at_home.waiting(&other).is_err());
            assert_eq!(at_home.home.is_due(), is_due);
            small::train(&at_home.home);
        }
    }

    #[test]
    fn the_floor_is_the_mirrors_own_and_is_there_with_consent_alone() {
        let (_folder, at_home) = waiting("floor", 0);
        let floor = at_home.floor().expect("the household agreed");
        let noise = Ratio::new(6, 5).expect("a number");
        assert_eq!((floor.min_noise_multiplier, floor.min_cohort), (noise, 2));
        assert_eq!(
            (floor.max_clip, floor.max_update_bytes),
            (Ratio::new(1, 1).expect("one"), 1 << 20)
        );
        assert_eq!(floor.model.0, at_home.home.base().digest.0);
        let own = task(&at_home.home, (6, 5));
        floor.check(&own).expect("all it asks for");
        let fewer = TaskManifest { min_cohort: 1, ..own.clone() };
        let quieter = task(&at_home.home, (1, 1));
        let longer = TaskManifest { clip: Ratio::new(2, 1).expect("two"), ..own };
        for refused in [fewer, quieter, longer] {
            assert!(floor.check(&refused).is_err(), "{refused:?}");
        }
        at_home.home.withdraw(learn::consent::PurposeKind::ContributeToFleet).expect("writable");
        assert_eq!(at_home.floor(), None);
    }

    #[test]
    fn the_floor_of_the_settings_reaches_the_rounds() {
        let (_folder, at_home) = waiting("own-floor", 0);
        let text = "[fleet]\nenabled = true\nhost = \"fleet\"\nmin_cohort = 7\nmax_update_kib = 3";
        let layers = settings::Layers::defaults().and_then(|layers| layers.file("test", text));
        let settings = layers.and_then(settings::Layers::finish).expect("valid").settings;
        let settings = settings.fleet.expect("enabled");
        let floor = AtHome::new(Arc::clone(&at_home.home), &settings).floor().expect("agreed");
        assert_eq!((floor.min_cohort, floor.max_update_bytes), (7, 3 * 1024));
    }

    #[test]
    fn without_budget_for_another_nothing_that_waits_is_given_up() {
        let (_folder, mut at_home) = waiting("spent", 3);
        let other = TaskManifest { layout: proto::Digest([7; 32]), ..task(&at_home.home, (6, 5)) };
        assert!(at_home.prepare(&other).is_err());
        assert_eq!(at_home.home.waiting().expect("readable").len(), 3);
    }
}
