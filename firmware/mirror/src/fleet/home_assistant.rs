//! The connection to the home's own broker.

use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result};
use home::{ErasureProof, Home, HomeError};
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
        let shown = Shown { shared, learning: Arc::clone(&self.learning), fleet, home };
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
    learning: Arc<Learning>,
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
                (Some(spent.shown_epsilon()), Some(left), spent.to_string())
            }
            Err(error) => (None, None, error.to_string()),
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
            Command::OptOut => {
                self.fleet.answered(&self.shared);
                self.home.withdraw(PurposeKind::ContributeToFleet).map(drop)
            }
            Command::AskOptIn if self.home.token::<ContributeToFleet>().is_ok() => Ok(()),
            Command::AskOptIn => {
                self.fleet.ask(&self.shared);
                Ok(())
            }
            Command::Delete => self.delete_everything(),
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

impl Shown {
    /// A button there shows no outcome, so the mirror says it where not everything is gone.
    fn delete_everything(&self) -> Result<(), HomeError> {
        let proof = self.learning.delete_everything(&self.home, &self.shared);
        if !proof.as_ref().is_ok_and(ErasureProof::is_complete) {
            let notice = "Not everything that was learnt could be deleted: delete it on the page";
            self.shared.set_notice(Topic::Learning, Some(notice.to_owned()));
        }
        proof.map(drop)
    }
}

/// Seconds since 1970 as Home Assistant reads them; `None` where no calendar has such a moment.
fn rfc3339(seconds: u64) -> Option<String> {
    let seconds = i64::try_from(seconds).ok()?;
    let moment = time::OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    moment.format(&time::format_description::well_known::Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::time::Instant;

    use home::{BaseModel, HomeOptions};
    use learn::head::{HeadLayout, HeadShape};
    use learn::ledger::{LEDGER_NAME, RECORD_BYTES};
    use uplink::home_assistant::Home as _;
    use vision::GridSize;

    use super::*;
    use crate::parsed::Parsed;

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("mirror-assistant-{name}-{}", std::process::id()))
    }

    fn shown(folder: &Path) -> Shown {
        let shape = HeadShape { queries: 5, dim: 8, hidden: 12, mask_height: 12, mask_width: 8 };
        let layout = HeadLayout::of_shape(shape).expect("a head");
        let parameters = vec![0.25; layout.len()];
        let digest = layout.digest(&parameters);
        let grid = GridSize { height: 48, width: 32 };
        let base = BaseModel { layout, parameters, digest, grid, padding: 114 };
        let home = Home::open(folder, base, HomeOptions::default()).expect("writable");
        Shown {
            shared: Arc::new(Shared::new(Instant::now(), None)),
            learning: Arc::new(Learning::new()),
            fleet: Arc::new(Fleet::new(true)),
            home: Arc::new(home),
        }
    }

    #[test]
    fn switching_off_takes_the_question_back() {
        let folder = folder("question");
        let mut shown = shown(&folder);
        shown.command(Command::AskOptIn);
        assert!(shown.state().asks);
        shown.command(Command::OptOut);
        assert!(!shown.state().asks, "nobody is asked what was answered");
        fs::remove_dir_all(&folder).expect("ours");
    }

    #[test]
    fn a_damaged_ledger_shows_no_epsilon() {
        let folder = folder("ledger");
        fs::create_dir_all(folder.join("privacy")).expect("writable");
        fs::write(folder.join("privacy").join(LEDGER_NAME), [7; RECORD_BYTES]).expect("writable");
        let state = shown(&folder).state();
        assert!(state.privacy.contains("damaged"), "{}", state.privacy);
        let said = Topics::new("mirror-17".parse().expect("a name")).state_payload(&state);
        assert!(said["epsilon_spent"].is_null() && said["epsilon_left"].is_null(), "{said}");
        fs::remove_dir_all(&folder).expect("ours");
    }

    #[test]
    fn deleting_forgets_what_is_only_in_memory_too() {
        let folder = folder("delete");
        let mut shown = shown(&folder);
        let frozen = shown.shared.frozen.put(Parsed::blank((6, 8)));
        shown.learning.seen.note(vec![[1; 32]]).expect("new").stored_as(0);
        shown.command(Command::Delete);
        assert!(shown.shared.frozen.get(frozen).is_none());
        assert!(shown.learning.seen.note(vec![[1; 32]]).is_some());
        fs::remove_dir_all(&folder).expect("ours");
    }
}
