//! The household as the fleet's protocol sees it: its outbox, and its will.

use std::sync::{Arc, Mutex};

use home::{Home, ReleaseRules};
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
    /// The task that an update is to be made for.
    task: Mutex<Option<TaskManifest>>,
}

impl AtHome {
    /// With the floor of the settings.
    pub fn new(home: Arc<Home>, settings: &FleetSettings) -> AtHome {
        AtHome {
            home,
            min_cohort: settings.min_cohort,
            max_update_bytes: 1024 * settings.max_update_kib,
            task: Mutex::default(),
        }
    }

    fn fits(&self, id: learn::edges::ReleaseId, task: &TaskManifest) -> Result<bool, EdgeError> {
        let consent = self.home.token::<ContributeToFleet>().map_err(told)?;
        let bytes = self.home.bytes(id, &consent).map_err(told)?;
        let update = Update::decode(&bytes).map_err(told)?;
        let header = update.header();
        let noise = multiplier(task.noise_multiplier).ok();
        Ok(header.layout.0 == task.layout.0 && noise == Some(header.noise_multiplier))
    }

    fn matching(&self, task: &TaskManifest) -> Result<Vec<ReleaseId>, EdgeError> {
        let mut found = Vec::new();
        for id in self.home.waiting().map_err(told)? {
            if self.fits(id, task)? {
                found.push(ReleaseId(id.0));
            }
        }
        Ok(found)
    }

    /// Releases the finished run for the task that asked, once: only a round that wants an update spends budget.
    fn release(&self, task: &TaskManifest) -> Result<(), EdgeError> {
        let mut asked = lock(&self.task);
        if asked.as_ref().is_none_or(|asked| asked.round != task.round)
            || !self.home.has_candidate()
        {
            return Ok(());
        }
        let consent = self.home.token::<ContributeToFleet>().map_err(told)?;
        let rules = ReleaseRules {
            layout: LayoutId(task.layout.0),
            noise_multiplier: multiplier(task.noise_multiplier)?,
            clip: task.clip.as_f64(),
            max_update_bytes: task.max_update_bytes,
        };
        // Whatever comes of it: a refusal by the budget stays one.
        *asked = None;
        let release = self.home.release(&consent, Some(&rules)).map_err(told)?;
        tracing::info!(%release, round = task.round, "an update waits for the network");
        Ok(())
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
        self.home.token::<ContributeToFleet>().ok()?;
        let own = self.home.options().noise_multiplier().ok()?;
        Some(Floor {
            min_noise_multiplier: Ratio::new(own.numerator(), own.denominator()).ok()?,
            max_clip: Ratio::new(1, 1).ok()?,
            min_cohort: self.min_cohort,
            max_update_bytes: self.max_update_bytes,
            model: proto::Digest(self.home.base().digest.0),
        })
    }

    /// Gives up what waits for another model or other noise: its rounds are over. Then asks for training if there is no
    /// finished run, and something to train on, and budget for a release.
    fn prepare(&mut self, task: &TaskManifest) -> Result<(), EdgeError> {
        for id in self.home.waiting().map_err(told)? {
            if !self.fits(id, task)? {
                self.home.give_up(id).map_err(told)?;
            }
        }
        *lock(&self.task) = Some(task.clone());
        let left = self.home.privacy().map_err(told)?.ledger.releases_left;
        if left == 0 {
            return Err(EdgeError("the privacy budget is spent; nothing more is sent".to_owned()));
        }
        let may_train = self.home.token::<ImproveMyMirror>().is_ok();
        if !self.home.has_candidate() && may_train && self.home.usage().corrections > 0 {
            self.home.request_training();
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
