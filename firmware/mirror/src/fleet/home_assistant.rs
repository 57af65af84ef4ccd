//! The connection to the home's own broker.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use home::{Contribution, Household, for_journal};
use learn::consent::PurposeKind;
use learn::ledger::LedgerSummary;
use proto::DeviceId;
use settings::HomeAssistantSettings;
use tracing::{info, warn};
use uplink::home_assistant::{self, Command, Mirror, State, Topics, Trouble};
use uplink::mqtt::{Endpoint, Mqtt};
use uplink::tls;

use super::absence::Absence;
use super::{Fleet, follow, jitter, runtime, wait_for};
use crate::learning::{Learning, tell_withdrawals};
use crate::report;
use crate::shared::{Shared, Topic};

/// What `home_assistant.authority` names.
pub const AUTHORITY: tls::Given = tls::Given {
    what: "authority of the home's broker",
    next: "give home_assistant.authority the PEM file of the authority that signed the broker's certificate",
};

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
        let told = (Topic::HomeAssistant, "Home Assistant");
        let waiting = wait_for(&self.shared, &self.learning, told, Learning::household);
        let Some(household) = waiting else { return Ok(()) };
        let prepared = self.prepare();
        let notice = prepared
            .as_ref()
            .err()
            .map(|error| format!("Home Assistant: {}", report::describe(error)));
        self.shared.set_notice(Topic::HomeAssistant, notice.as_deref());
        let (device, endpoint) = prepared?;
        let broker = format!("{}:{}", endpoint.host, endpoint.port);
        info!("Home Assistant: broker {broker}");
        let changes = Arc::clone(&self.shared);
        let shown = Shown {
            shared: Arc::clone(&self.shared),
            learning: Arc::clone(&self.learning),
            fleet: Arc::clone(&self.fleet),
            household,
            absence: Absence::new(format!("Home Assistant: {broker}"), Instant::now()),
            topics: Topics::new(device.clone()),
            failed: BTreeMap::new(),
        };
        let firmware = crate::VERSION.to_owned();
        let mirror = Mirror { device, firmware, member: self.fleet.is_member() };
        let jitter = jitter()?;
        runtime()?.block_on(async {
            let (connection, handle) = Mqtt::start(endpoint, jitter);
            let version = move || changes.health_version();
            tokio::spawn(follow(Arc::clone(&self.shared), handle, version));
            home_assistant::run(mirror, shown, connection).await;
        });
        Ok(())
    }

    fn prepare(&self) -> Result<(DeviceId, Endpoint)> {
        let settings = &self.settings;
        let device: DeviceId = settings.name.parse().context("home_assistant.name")?;
        let login = match &settings.login {
            None => None,
            Some((user, file)) => Some((user.clone(), password(file)?)),
        };
        let tls = match &settings.authority {
            None => None,
            Some(file) => {
                let pem = fs::read(file).with_context(|| {
                    format!("cannot read home_assistant.authority {}", file.display())
                })?;
                Some(tls::anonymous(&pem, AUTHORITY).with_context(|| file.display().to_string())?)
            }
        };
        let endpoint = Endpoint {
            host: settings.host.clone(),
            port: settings.port,
            client_id: format!("mirror-home-{device}"),
            tls,
            certificate_end: None,
            login,
            will: Topics::new(device.clone()).will(),
            persistent: false,
        };
        Ok((device, endpoint))
    }
}

/// The file's text without the end of its line. Blanks are the password's own.
fn password(file: &Path) -> Result<String> {
    let name = || format!("home_assistant.password_file {}", file.display());
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", name()))?;
    let line = text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n')).unwrap_or(&text);
    ensure!(
        !line.is_empty(),
        "{} is empty; write the password of the home's broker into it",
        name()
    );
    Ok(line.to_owned())
}

/// What Home Assistant sees and may press.
struct Shown {
    shared: Arc<Shared>,
    learning: Arc<Learning>,
    fleet: Arc<Fleet>,
    household: Arc<Household>,
    absence: Absence,
    topics: Topics,
    /// Commands that failed when they came last, and why: the journal is told once.
    failed: BTreeMap<Command, String>,
}

impl home_assistant::Home for Shown {
    fn state(&self) -> State {
        let contribution = self.household.contribution();
        let takes_part = matches!(contribution, Contribution::On | Contribution::Spent);
        let snapshot = self.fleet.snapshot();
        let model = self.learning.home().map(|home| home.fleet_version());
        let newest = snapshot.model_under_way.max(snapshot.model_on_offer).unwrap_or(0);
        // Rounds by the ledger: what the connection knows of them comes later than a start, and ends with a fleet.
        let privacy = self.household.privacy();
        let known = privacy.as_ref().ok().map(|overview| &overview.ledger);
        // What no update fits any more is nothing that is left.
        let left = |ledger: &LedgerSummary| match ledger.releases_left {
            0 => 0.0,
            _ => room(ledger.target_epsilon, ledger.spent.shown_epsilon()),
        };
        State {
            takes_part,
            asks: self.fleet.asks(),
            camera_active: self.shared.with_health(|health| health.sensor_open),
            epsilon_spent: known.map(|ledger| ledger.spent.shown_epsilon()),
            epsilon_left: known.map(left),
            updates_left: known.map(|ledger| ledger.releases_left),
            rounds: known.map(|ledger| ledger.published),
            privacy: privacy.map_or_else(
                |error| error.to_string(),
                |overview| overview.ledger.spent.to_string(),
            ),
            last_update: self.household.last_published().and_then(|at| rfc3339(at.0)),
            model,
            newest_model: model.map(|model| newest.max(model)),
        }
    }

    fn command(&mut self, command: Command) {
        let done = match command {
            Command::OptOut => {
                self.fleet.answered(&self.shared);
                self.household.withdraw(PurposeKind::ContributeToFleet).map(drop)
            }
            // There is nothing to ask where it takes part, or has nothing to take part in.
            Command::AskOptIn => {
                if self.household.contribution() == Contribution::Off {
                    self.fleet.ask(&self.shared);
                }
                Ok(())
            }
            Command::Delete => {
                self.learning.delete_everything(&self.household, &self.shared).map(drop)
            }
            Command::InstallModel => {
                self.fleet.watch.wish_newest_model();
                Ok(())
            }
        };
        // Whoever pressed sees no answer there.
        tell_withdrawals(&self.household, &self.shared);
        let Err(error) = done.map_err(|error| error.to_string()) else {
            self.failed.remove(&command);
            return;
        };
        if self.failed.get(&command) != Some(&error) {
            warn!("Home Assistant asked for {command:?}: {}", for_journal(&error));
            self.failed.insert(command, error);
        }
    }

    fn connection(&mut self, state: Result<(), &Trouble>) {
        self.look(state, Instant::now());
        tell_withdrawals(&self.household, &self.shared);
    }
}

impl Shown {
    fn look(&mut self, connection: Result<(), &Trouble>, now: Instant) {
        // An attempt takes its time, and ends with a reason.
        if connection == Err(&Trouble::NotYet) {
            return;
        }
        let connection = connection.map_err(|trouble| self.describe(trouble));
        let notice = self.absence.look(connection, now);
        self.shared.set_notice(Topic::HomeAssistant, notice);
    }

    /// What is wrong with the connection, with the next step.
    fn describe(&self, trouble: &Trouble) -> String {
        let broker = &self.absence.broker;
        match trouble {
            Trouble::NotYet => format!("{broker}: no answer yet"),
            Trouble::Away(reason) => format!(
                "{broker} cannot be reached, or ends the connection ({reason}); check the home network, \
                 home_assistant.host, user and password_file, and that every mirror of the home has a home_assistant.name of its own"
            ),
            Trouble::Untrusted(reason) => format!("{broker}: {reason}"),
            Trouble::Denied { reason, is_access: true } => {
                format!("{broker}: {reason} ({})", self.topics.access().join(", "))
            }
            Trouble::Denied { reason, is_access: false } => format!("{broker}: {reason}"),
        }
    }
}

/// What epsilon `spent`, which has four decimals, leaves of `target`: with as many, rounded down.
fn room(target: f64, spent: f64) -> f64 {
    let steps = (1e4 * target).floor() - (1e4 * spent).round();
    steps.max(0.0) / 1e4
}

/// Seconds since 1970 as Home Assistant reads them; `None` where no calendar has such a moment.
fn rfc3339(seconds: u64) -> Option<String> {
    let seconds = i64::try_from(seconds).ok()?;
    let moment = time::OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    moment.format(&time::format_description::well_known::Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::time::Duration;

    use home::HomeOptions;
    use learn::ledger::{LEDGER_NAME, RECORD_BYTES};
    use uplink::home_assistant::Home as _;

    use super::*;
    use crate::fleet::small;
    use crate::parsed::Parsed;
    use crate::shared::Health;
    use crate::testing::Folder;

    fn shown(folder: &Path) -> Shown {
        Shown {
            shared: Arc::new(Shared::new(Instant::now(), None)),
            learning: Arc::new(Learning::new()),
            fleet: Arc::new(Fleet::new(true)),
            household: Arc::clone(small::home(folder).household()),
            absence: Absence::new("Home Assistant: home.example:1883".into(), Instant::now()),
            topics: Topics::new("mirror-17".parse().expect("a name")),
            failed: BTreeMap::new(),
        }
    }

    #[test]
    fn what_is_wrong_with_the_connection_is_on_the_glass_with_what_to_do() {
        let folder = Folder::new("away");
        let mut shown = shown(folder.path());
        let long = Instant::now() + Duration::from_secs(3600);
        let mut told = |connection: Result<(), &Trouble>, seconds| {
            shown.look(connection, long + Duration::from_secs(seconds));
            let notice =
                |health: &Health| health.notices.get(Topic::HomeAssistant).map(str::to_owned);
            shown.shared.with_health(notice)
        };
        // As it is where two mirrors of one name throw each other off.
        let away = told(Err(&Trouble::Away("session taken over".into())), 0).expect("long away");
        for part in [
            "home.example:1883 cannot be reached",
            "taken over",
            "home_assistant.host, user and password_file",
            "home_assistant.name",
        ] {
            assert!(away.contains(part), "{away}");
        }
        let untrusted = told(Err(&Trouble::Untrusted("it ended; give a new one".into())), 0);
        let words = "Home Assistant: home.example:1883: it ended; give a new one";
        assert_eq!(untrusted.as_deref(), Some(words), "no word of the network");
        let denied = |reason: &str, is_access| Trouble::Denied { reason: reason.into(), is_access };
        let large = told(Err(&denied("packets of 100 bytes", false)), 0).expect("long away");
        assert!(!large.contains("mirror-home"), "no topic is missing: {large}");
        let denied = told(Err(&denied("NotAuthorized", true)), 0).expect("long away");
        assert!(!denied.contains("cannot be reached"), "{denied}");
        for topic in [
            "mirror-home/mirror-17/#",
            "homeassistant/device/mirror-17/config",
            "homeassistant/status",
        ] {
            assert!(denied.contains(topic), "{denied}");
        }
        told(Ok(()), 0);
        assert_eq!(told(Ok(()), 60), None);
        assert_eq!(told(Err(&Trouble::NotYet), 3600), None, "it is being tried");
    }

    #[test]
    fn a_password_keeps_its_blanks_and_loses_the_end_of_its_line() {
        let folder = Folder::new("password");
        let file = folder.path().join("secret");
        for (text, known) in
            [("a b ", "a b "), ("a \t\n", "a \t"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a\r", "a\r")]
        {
            fs::write(&file, text).expect("writable");
            assert_eq!(password(&file).expect("a password"), known, "{text:?}");
        }
        for text in ["", "\n", "\r\n"] {
            fs::write(&file, text).expect("writable");
            let told = password(&file).expect_err("empty").to_string();
            let name = format!("home_assistant.password_file {} is empty", file.display());
            assert!(told.starts_with(&name), "{told}");
        }
    }

    #[test]
    fn switching_off_takes_the_question_back() {
        let folder = Folder::new("question");
        let mut shown = shown(folder.path());
        shown.command(Command::AskOptIn);
        assert!(shown.state().asks);
        shown.command(Command::OptOut);
        assert!(!shown.state().asks, "nobody is asked what was answered");
    }

    #[test]
    fn pressed_again_and_again_nothing_is_written_where_it_holds_already() {
        let folder = Folder::new("wear");
        let (mut shown, data) = (shown(folder.path()), folder.path().join("fleet"));
        shown.fleet = Arc::new(Fleet::new(true).kept_in(&data, &shown.shared));
        let version = shown.household.explanation().version(PurposeKind::ContributeToFleet);
        shown.household.grant(PurposeKind::ContributeToFleet, version).expect("writable");
        let written = |shown: &mut Shown, command| {
            shown.command(command);
            let files = [folder.path().join("consent/consent.json"), data.join("question")];
            files.map(|path| {
                fs::metadata(path).ok().map(|found| (found.ino(), found.modified().ok()))
            })
        };
        // What is written anew is another file, put in the place of the one before.
        let off = written(&mut shown, Command::OptOut);
        assert!(off[0].is_some());
        assert_eq!(written(&mut shown, Command::OptOut), off);
        let asked = written(&mut shown, Command::AskOptIn);
        assert!(asked[1].is_some());
        assert_eq!(written(&mut shown, Command::AskOptIn), asked);
        let deleted = written(&mut shown, Command::Delete);
        assert_eq!(deleted, asked, "there was nothing to be withdrawn");
        fs::remove_file(data.join("question")).expect("ours");
        assert!(written(&mut shown, Command::AskOptIn)[1].is_some(), "a lost one is kept again");
    }

    #[test]
    fn a_switching_off_that_the_disk_refuses_is_told_on_the_glass_until_it_is_stored() {
        let folder = Folder::new("refused");
        let mut shown = shown(folder.path());
        let version = shown.household.explanation().version(PurposeKind::ContributeToFleet);
        shown.household.grant(PurposeKind::ContributeToFleet, version).expect("writable");
        let notice = |shown: &Shown| {
            let health = |health: &Health| health.notices.get(Topic::Withdrawal).map(str::to_owned);
            shown.shared.with_health(health)
        };
        // Stands for a disk that takes no change.
        let record = folder.path().join("consent/consent.json");
        fs::remove_file(&record).expect("stored");
        fs::create_dir(&record).expect("writable");
        shown.command(Command::OptOut);
        assert!(!shown.state().takes_part);
        let told = notice(&shown).expect("whoever pressed sees no answer there");
        assert!(told.contains("until the mirror's next start only"), "{told}");
        let refused = shown.failed.clone();
        assert!(refused[&Command::OptOut].contains("until the mirror's next start only"));
        shown.command(Command::AskOptIn);
        assert_eq!(shown.failed, refused, "told already, whatever is pressed in between");
        fs::remove_dir(&record).expect("ours");
        shown.household.tidy().expect("writable");
        shown.connection(Ok(()));
        assert_eq!(notice(&shown), None);
        shown.command(Command::OptOut);
        assert!(shown.failed.is_empty());
    }

    #[test]
    fn a_mirror_without_a_fleet_asks_nobody_to_take_part() {
        let folder = Folder::new("alone");
        let options = HomeOptions { member: false, ..HomeOptions::default() };
        let household = Household::open(folder.path(), options).expect("writable");
        let mut shown =
            Shown { household: Arc::new(household), ..shown(&folder.path().join("unused")) };
        shown.command(Command::AskOptIn);
        assert!(!shown.state().asks && !shown.state().takes_part);
    }

    #[test]
    fn a_damaged_ledger_shows_no_epsilon() {
        let folder = Folder::new("ledger");
        fs::create_dir_all(folder.path().join("privacy")).expect("writable");
        fs::write(folder.path().join("privacy").join(LEDGER_NAME), [7; RECORD_BYTES])
            .expect("writable");
        let state = shown(folder.path()).state();
        assert!(state.privacy.contains("damaged"), "{}", state.privacy);
        let said = Topics::new("mirror-17".parse().expect("a name")).state_payload(&state);
        for unknown in ["epsilon_spent", "epsilon_left", "updates_left", "rounds"] {
            assert!(said[unknown].is_null(), "{said}");
        }
    }

    #[test]
    fn nothing_is_left_after_the_last_update() {
        let folder = Folder::new("left");
        let home = small::home(folder.path());
        small::agree(&home);
        small::correct(&home);
        let shown =
            Shown { household: Arc::clone(home.household()), ..shown(&folder.path().join("own")) };
        for updates in [3, 2, 1, 0] {
            let state = shown.state();
            assert_eq!(state.updates_left, Some(updates));
            assert_eq!(state.epsilon_left == Some(0.0), updates == 0, "{state:?}");
            if updates > 0 {
                small::learn(&home);
            }
        }
        assert!(shown.state().epsilon_spent < Some(8.0), "or the figure would be 0 anyway");
    }

    #[test]
    fn what_is_left_has_four_decimals_and_is_never_rounded_up() {
        for (target, spent, left) in
            [(8.0, 6.7348, 1.2652), (8.0, 3.5487, 4.4513), (2.00009, 1.0, 1.0), (1.0, 1.2, 0.0)]
        {
            assert_eq!(room(target, spent), left, "{spent} of {target}");
        }
    }

    #[test]
    fn no_model_is_told_before_the_network_has_loaded() {
        let folder = Folder::new("model");
        let mut shown = shown(folder.path());
        let versions = |shown: &Shown| {
            let state = shown.state();
            let topics = Topics::new("mirror-17".parse().expect("a name"));
            let said = topics.state_payload(&state);
            [said["model"].clone(), said["newest_model"].clone()]
        };
        assert!(versions(&shown).iter().all(serde_json::Value::is_null));
        let own = folder.path().join("own");
        shown.learning = Arc::new(Learning::in_folder(&own, HomeOptions::default()));
        assert_eq!(versions(&shown), ["0", "0"]);
    }

    #[test]
    fn deleting_forgets_what_is_only_in_memory_too() {
        let folder = Folder::new("delete");
        let mut shown = shown(folder.path());
        let frozen = shown.shared.frozen.put(Parsed::blank((6, 8))).expect("the first").keep();
        shown.learning.answered.note(vec![[1; 32]], |_| true).expect("new").stored_as(0);
        shown.command(Command::Delete);
        assert!(shown.shared.frozen.get(frozen).is_none());
        assert!(shown.learning.answered.note(vec![[1; 32]], |_| true).is_some());
    }
}
