//! One mirror of the demonstration: the real protocol over real MQTT, a rendered household, real training and noise.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use learn::edges::LayoutId;
use learn::head::{Subset, numbers};
use learn::privacy::NoiseMultiplier;
use proto::secret::DeviceSecret;
use proto::signing::KeyRing;
use proto::status::JobFault;
use proto::task::{Floor, TaskManifest};
use proto::update::Refusal;
use proto::{Channel, DeviceId, Digest, Ratio};
use uplink::device::{Device, Settings};
use uplink::edges::{EdgeError, Household, Keeper, Memory, ModelTrial, Outbox, ReleaseId};
use uplink::mqtt::{Endpoint, Handle, Mqtt};
use uplink::pace::Jitter;
use uplink::run::{Watch, run_hasty};

use crate::contributor::{Contributor, ContributorError, settings_of};
use crate::households::Households;
use crate::student::{StudentError, Trunk};

/// How much faster than the world's the mirrors' clocks go.
pub const HASTE: u32 = 20;

/// What all mirrors of the demonstration share.
pub struct World {
    /// The network.
    pub trunk: Trunk,
    /// The households; mirror number `n` has the `n`th.
    pub households: Households,
    /// An owner who agreed to everything, with the budget of a demonstration.
    pub owner: Contributor,
    /// The least noise that the mirrors accept.
    pub noise: NoiseMultiplier,
}

/// What a mirror has on its disk.
struct Disk {
    /// All numbers of the head in use.
    head: Vec<f32>,
    ledger: crate::contributor::Device,
    waiting: BTreeMap<ReleaseId, Vec<u8>>,
}

#[derive(Clone)]
struct Edges {
    world: Arc<World>,
    number: usize,
    disk: Arc<Mutex<Disk>>,
}

/// A running mirror.
pub struct Mirror {
    /// What it says of its connection.
    pub watch: Watch,
    handle: Handle,
    thread: std::thread::JoinHandle<()>,
}

impl Mirror {
    /// Starts mirror `number` on a thread of its own.
    ///
    /// # Errors
    /// No thread, or no ledger.
    pub fn start(
        world: &Arc<World>,
        number: usize,
        name: &DeviceId,
        channel: &Channel,
        trust: (DeviceSecret, KeyRing),
        broker: SocketAddr,
    ) -> Result<Mirror> {
        let head = world.trunk.parameters().to_vec();
        let ledger = world.owner.device()?;
        let disk = Disk { head, ledger, waiting: BTreeMap::new() };
        let edges = Edges { world: Arc::clone(world), number, disk: Arc::new(Mutex::new(disk)) };
        let edge = || Box::new(edges.clone());
        let settings = Settings {
            device: name.clone(),
            channel: channel.clone(),
            firmware: env!("CARGO_PKG_VERSION").to_owned(),
            secret: trust.0,
            keys: trust.1,
            least_trial: std::time::Duration::ZERO,
        };
        let jitter = || Jitter::new(number as u64);
        let device = Device::new(settings, Memory::default(), jitter(), edge(), edge(), edge());
        let endpoint = Endpoint {
            host: broker.ip().to_string(),
            port: broker.port(),
            client_id: name.to_string(),
            tls: None,
            certificate_end: None,
            login: None,
            will: Device::will(name),
            persistent: true,
        };
        let watch = Watch::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (transport, handle) = runtime.block_on(async { Mqtt::start(endpoint, jitter()) });
        let shown = watch.clone();
        let work = move || runtime.block_on(run_hasty(device, transport, shown, HASTE));
        let thread = std::thread::Builder::new().name(name.to_string()).spawn(work)?;
        Ok(Mirror { watch, handle, thread })
    }

    /// Says goodbye to the broker and ends.
    ///
    /// # Errors
    /// A mirror that panicked.
    pub fn stop(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(self.handle.stop());
        self.thread.join().ok().context("a mirror panicked")
    }
}

impl Edges {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Trains on the household's corrections, from the head in use: all but this goes the way of a real mirror.
    fn delta(&self, subset: Subset) -> Result<Vec<f32>, TrainingFailed> {
        let World { trunk, households, owner, .. } = &*self.world;
        let household = &households.households[self.number];
        let pictures = 0..household.corrections;
        let examples = pictures
            .map(|picture| trunk.example(households, household, picture))
            .collect::<Result<Vec<_>, _>>()?;
        let head = self.disk().head.clone();
        let after = owner.train(trunk.layout(), &head, &examples, settings_of(subset))?;
        let gather = |flat: &[f32]| trunk.layout().gather(subset, flat);
        Ok(gather(&after).iter().zip(gather(&head)).map(|(after, before)| after - before).collect())
    }

    fn subset(&self, task: &TaskManifest) -> Result<Subset, EdgeError> {
        let layout = self.world.trunk.layout();
        let fits = |subset: &Subset| layout.id(*subset, &task.model.0).0 == task.layout.0;
        let subset = [Subset::Sparse, Subset::Full].into_iter().find(fits);
        subset.ok_or_else(|| EdgeError("the round asks for numbers that this head has not".into()))
    }
}

#[derive(Debug, thiserror::Error)]
enum TrainingFailed {
    #[error(transparent)]
    Student(#[from] StudentError),
    #[error(transparent)]
    Contributor(#[from] ContributorError),
}

fn told(error: impl std::fmt::Display) -> EdgeError {
    EdgeError(error.to_string())
}

impl Outbox for Edges {
    fn waiting(&self, _: &TaskManifest) -> Result<Vec<ReleaseId>, EdgeError> {
        Ok(self.disk().waiting.keys().copied().collect())
    }

    fn bytes(&self, id: ReleaseId) -> Result<Vec<u8>, EdgeError> {
        self.disk().waiting.get(&id).cloned().ok_or_else(|| EdgeError("it is gone".into()))
    }

    fn published(&mut self, id: ReleaseId) -> Result<(), EdgeError> {
        self.disk().waiting.remove(&id);
        Ok(())
    }

    fn refused(&mut self, id: ReleaseId, _: Refusal) -> Result<(), EdgeError> {
        self.disk().waiting.remove(&id);
        Ok(())
    }
}

impl Household for Edges {
    fn floor(&self) -> Option<Floor> {
        let noise = self.world.noise;
        let model = self.world.trunk.layout().digest(&self.disk().head);
        Some(Floor {
            min_noise_multiplier: Ratio::new(noise.numerator(), noise.denominator()).ok()?,
            max_clip: Ratio::new(1, 1).ok()?,
            min_cohort: 2,
            max_update_bytes: 1 << 20,
            model: Digest(model.0),
        })
    }

    fn prepare(&mut self, task: &TaskManifest) -> Result<(), EdgeError> {
        let noise = task.noise_multiplier;
        let noise = NoiseMultiplier::from_fraction(noise.numerator(), noise.denominator());
        let delta = self.delta(self.subset(task)?).map_err(told)?;
        let mut disk = self.disk();
        let bytes = disk.ledger.release(LayoutId(task.layout.0), delta, noise.map_err(told)?);
        let bytes = bytes.map_err(told)?;
        let name = Digest::of(&bytes).0;
        // What waited for an earlier round is for a head that is no longer in use.
        disk.waiting.clear();
        disk.waiting.insert(ReleaseId(std::array::from_fn(|index| name[index])), bytes);
        Ok(())
    }
}

impl ModelTrial for Edges {
    fn base(&self) -> Digest {
        let trunk = &self.world.trunk;
        Digest(trunk.layout().digest(trunk.parameters()).0)
    }

    fn begin(&mut self, _: u64, parameters: Vec<u8>) -> Result<(), JobFault> {
        let layout = self.world.trunk.layout();
        let values = numbers::decode(&parameters, layout.subset_len(Subset::Full))
            .map_err(|_| JobFault::Unusable)?;
        layout.scatter(Subset::Full, &values, &mut self.disk().head);
        Ok(())
    }

    fn poll(&mut self) -> Option<Result<(), JobFault>> {
        Some(Ok(()))
    }
}

impl Keeper for Edges {
    fn keep(&mut self, _: &Memory) -> Result<(), EdgeError> {
        // A mirror of the demonstration lives as long as its process.
        Ok(())
    }
}
