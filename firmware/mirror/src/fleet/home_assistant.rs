//! The connection to the home's own broker.

use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result};
use home::Home;
use learn::consent::{ContributeToFleet, PurposeKind};
use proto::DeviceId;
use settings::HomeAssistantSettings;
use tracing::{info, warn};
use uplink::home_assistant::{self, Command, State, Topics};
use uplink::mqtt::{Endpoint, Mqtt};
use uplink::tls;

use super::{Fleet, follow, jitter, runtime, wait_for_home};
use crate::learning::Learning;
use crate::report;
use crate::shared::{Shared, Topic};

/// The part that shows the mirror in Home Assistant.
pub struct HomePart {
    /// The mirror's common state.
    pub shared: Arc<Shared>,
    /// Where the stores come from.
    pub learning: Arc<Learning>,
    /// The fleet's side, and the question that waits for an answer.
    pub fleet: Arc<Fleet>,
    /// The home's broker.
    pub settings: HomeAssistantSettings,
}

impl HomePart {
    /// Runs until the mirror stops.
    ///
    /// # Errors
    /// A password or an authority that cannot be read; shown, and tried again by the supervisor.
    pub fn run(&self) -> Result<()> {
        let Some(home) = wait_for_home(&self.shared, &self.learning) else { return Ok(()) };
        let prepared = self.prepare();
        let notice = prepared
            .as_ref()
            .err()
            .map(|error| format!("Home Assistant: {}", report::describe(error)));
        self.shared.set_notice(Topic::HomeAssistant, notice);
        let (device, endpoint) = prepared?;
        info!("Home Assistant: broker {}:{}", endpoint.host, endpoint.port);
        let (shared, fleet) = (Arc::clone(&self.shared), Arc::clone(&self.fleet));
        let changes = Arc::clone(&self.shared);
        let shown = Shown { shared, fleet, home };
        let jitter = jitter()?;
        runtime()?.block_on(async {
            let (connection, handle) = Mqtt::start(endpoint, jitter);
            let version = move || changes.health_version();
            tokio::spawn(follow(Arc::clone(&self.shared), handle, version));
            let firmware = env!("CARGO_PKG_VERSION").to_owned();
            home_assistant::run(device, firmware, shown, connection).await;
        });
        Ok(())
    }

    fn prepare(&self) -> Result<(DeviceId, Endpoint)> {
        let settings = &self.settings;
        let device: DeviceId = settings.name.parse().context("home_assistant.name")?;
        let login = match &settings.login {
            None => None,
            Some((user, file)) => {
                let password = fs::read_to_string(file).with_context(|| {
                    format!("cannot read home_assistant.password_file {}", file.display())
                })?;
                Some((user.clone(), password.trim_end().to_owned()))
            }
        };
        let tls = match &settings.authority {
            None => None,
            Some(file) => {
                let pem = fs::read(file).with_context(|| {
                    format!("cannot read home_assistant.authority {}", file.display())
                })?;
                Some(tls::anonymous(&pem).with_context(|| file.display().to_string())?)
            }
        };
        let endpoint = Endpoint {
            host: settings.host.clone(),
            port: settings.port,
            client_id: format!("mirror-home-{device}"),
            tls,
            login,
            will: Topics::new(device.clone()).will(),
            persistent: false,
        };
        Ok((device, endpoint))
    }
}

/// What Home Assistant sees and may press.
struct Shown {
    shared: Arc<Shared>,
    fleet: Arc<Fleet>,
    home: Arc<Home>,
}

impl home_assistant::Home for Shown {
    fn state(&self) -> State {
        let takes_part = self.home.token::<ContributeToFleet>().is_ok();
        let snapshot = self.fleet.snapshot();
        let model = self.home.fleet_version();
        let newest = snapshot.model_under_way.max(snapshot.model_on_offer).unwrap_or(0);
        let (epsilon_spent, epsilon_left, privacy) = match self.home.privacy() {
            Ok(overview) => {
                let spent = &overview.ledger.spent;
                let left = (overview.ledger.target_epsilon - spent.shown_epsilon()).max(0.0);
                (spent.shown_epsilon(), left, spent.to_string())
            }
            Err(error) => (0.0, 0.0, error.to_string()),
        };
        State {
            takes_part,
            asks: self.fleet.asks(),
            camera_active: self.shared.with_health(|health| health.sensor_open),
            epsilon_spent,
            epsilon_left,
            privacy,
            rounds: snapshot.contributions,
            last_update: self.home.last_published().and_then(|at| rfc3339(at.0)),
            model,
            newest_model: newest.max(model),
        }
    }

    fn command(&mut self, command: Command) {
        let done = match command {
            Command::OptOut => self.home.withdraw(PurposeKind::ContributeToFleet).map(drop),
            Command::AskOptIn if self.home.token::<ContributeToFleet>().is_ok() => Ok(()),
            Command::AskOptIn => {
                self.fleet.ask(&self.shared);
                Ok(())
            }
            Command::Delete => self.home.delete_everything().map(drop),
            Command::InstallModel => {
                self.fleet.watch.wish_newest_model();
                Ok(())
            }
        };
        if let Err(error) = done {
            warn!("Home Assistant asked for {command:?}: {error}");
        }
    }
}

/// Seconds since 1970 as Home Assistant reads them; `None` where no calendar has such a moment.
fn rfc3339(seconds: u64) -> Option<String> {
    let seconds = i64::try_from(seconds).ok()?;
    let moment = time::OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    moment.format(&time::format_description::well_known::Rfc3339).ok()
}
