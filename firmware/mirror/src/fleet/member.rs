//! The connection to the fleet's broker.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use learn::edges::Storage;
use learn::fs::Directory;
use proto::{Channel, DeviceId};
use settings::FleetSettings;
use tracing::{info, warn};
use uplink::device::{Device, Settings};
use uplink::edges::{EdgeError, Keeper, Memory};
use uplink::mqtt::{Endpoint, Mqtt};

use super::enrolment::Enrolment;
use super::household::AtHome;
use super::trial::Trial;
use super::{Fleet, follow, jitter, runtime, wait_for_home};
use crate::learning::Learning;
use crate::model::ModelSource;
use crate::report;
use crate::shared::{Shared, Topic};

const MEMORY: &str = "memory";

/// The part that belongs to the fleet.
pub struct Member {
    /// The mirror's common state.
    pub shared: Arc<Shared>,
    /// Where the stores come from.
    pub learning: Arc<Learning>,
    /// What is shared with the page.
    pub fleet: Arc<Fleet>,
    /// Broker, enrolment, floor.
    pub settings: FleetSettings,
    /// Folder for what must survive a restart.
    pub folder: PathBuf,
    /// The network's files, for trials.
    pub model: ModelSource,
}

impl Member {
    /// Runs until the mirror stops. A broker that is away is no failure: the connection tries again by itself.
    ///
    /// # Errors
    /// An enrolment or a folder that cannot be used; shown, and tried again by the supervisor.
    pub fn run(&self) -> Result<()> {
        let Some(home) = wait_for_home(&self.shared, &self.learning) else { return Ok(()) };
        let prepared = self.prepare(&home);
        let notice =
            prepared.as_ref().err().map(|error| format!("fleet: {}", report::describe(error)));
        self.shared.set_notice(Topic::Fleet, notice);
        let (device, endpoint) = prepared?;
        let (host, port) = (&self.settings.host, self.settings.port);
        info!("fleet: {} at {host}:{port}", endpoint.client_id);
        let jitter = jitter()?;
        runtime()?.block_on(async {
            let (connection, handle) = Mqtt::start(endpoint, jitter);
            tokio::spawn(follow(Arc::clone(&self.shared), handle, move || home.releases_version()));
            uplink::run::run(device, connection, self.fleet.watch.clone()).await;
        });
        Ok(())
    }

    fn prepare(&self, home: &Arc<home::Home>) -> Result<(Device, Endpoint)> {
        let Enrolment { identity, secret, keys } = Enrolment::read(&self.settings.folder)?;
        let channel: Channel = self.settings.channel.parse().context("fleet.channel")?;
        let store = Directory::open(&self.folder)
            .with_context(|| format!("the folder {}", self.folder.display()))?;
        let memory = read_memory(&store)?;
        let will = Device::will(&identity.device);
        let settings = Settings {
            device: DeviceId::clone(&identity.device),
            channel,
            firmware: env!("CARGO_PKG_VERSION").to_owned(),
            secret,
            keys,
        };
        let device = Device::new(
            settings,
            memory,
            jitter()?,
            Box::new(AtHome::new(Arc::clone(home), &self.settings)),
            Box::new(Trial::new(Arc::clone(home), self.model.clone())),
            Box::new(Kept(store)),
        );
        let endpoint = Endpoint {
            host: self.settings.host.clone(),
            port: self.settings.port,
            client_id: identity.client_id,
            tls: Some(identity.config),
            login: None,
            will,
            persistent: true,
        };
        Ok((device, endpoint))
    }
}

/// What the last run kept. A damaged file starts over: the fleet's signed numbers are learnt anew, and the ledger, not
/// this file, keeps a release from being made twice.
fn read_memory(store: &Directory) -> Result<Memory> {
    let Some(bytes) = store.read(MEMORY)? else { return Ok(Memory::default()) };
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        warn!("fleet: what was remembered cannot be read ({error}); it starts over");
        Memory::default()
    }))
}

/// The memory as one small file.
struct Kept(Directory);

impl Keeper for Kept {
    fn keep(&mut self, memory: &Memory) -> Result<(), EdgeError> {
        let told = |error: &dyn std::fmt::Display| EdgeError(error.to_string());
        let bytes = serde_json::to_vec(memory).map_err(|error| told(&error))?;
        self.0.replace(MEMORY, &bytes).map_err(|error| told(&error))
    }
}
