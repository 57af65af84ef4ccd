//! The connection to the fleet's broker.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use home::Contribution;
use home::edges::EARLIEST_DATE;
use learn::edges::{Clock, Storage, SystemClock, Timestamp};
use learn::fs::Directory;
use proto::{Channel, DeviceId};
use settings::FleetSettings;
use tracing::{info, warn};
use uplink::device::{Device, Settings, Snapshot};
use uplink::edges::{EdgeError, Keeper, Memory, Origin};
use uplink::mqtt::{Endpoint, Mqtt};
use uplink::tls::{self, Identity};

use super::absence::Absence;
use super::enrolment::Enrolment;
use super::household::AtHome;
use super::trial::Trial;
use super::{ANOTHER_FLEET, Fleet, LOST, follow, jitter, runtime, wait_for};
use crate::learning::Learning;
use crate::model::ModelSource;
use crate::report;
use crate::shared::{Shared, Topic};

const MEMORY: &str = "memory";

/// How long a model is tried at least, as far as the fleet can see: how long it really takes says how many corrections there are
/// to judge it by.
pub(super) const TRIAL: Duration = Duration::from_secs(600);

/// So long ahead of its end the mirror's certificate is told of, in seconds: as the aggregator's own is to its operator.
const CERTIFICATE_ENDS: u64 = 60 * 86_400;

/// How often the connection is looked at for a broker that is away.
const LOOK: Duration = Duration::from_secs(5);

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
        let waiting =
            wait_for(&self.shared, &self.learning, (Topic::Fleet, "fleet"), Learning::home);
        let Some(home) = waiting else { return Ok(()) };
        let prepared = self.prepare(&home);
        let notice =
            prepared.as_ref().err().map(|error| format!("fleet: {}", report::describe(error)));
        self.shared.set_notice(Topic::Fleet, notice.as_deref());
        let (device, endpoint) = prepared?;
        let (host, port) = (&self.settings.host, self.settings.port);
        info!("fleet: {} at {host}:{port}", endpoint.client_id);
        let (jitter, certificate_end) = (jitter()?, endpoint.certificate_end);
        runtime()?.block_on(async {
            let (connection, handle) = Mqtt::start(endpoint, jitter);
            tokio::spawn(follow(Arc::clone(&self.shared), handle, move || home.releases_version()));
            tokio::spawn(self.tell_absence(certificate_end));
            uplink::run::run(device, connection, self.fleet.watch.clone()).await;
        });
        Ok(())
    }

    /// Tells a person once the fleet has not been heard for long, and takes it back when it is; or that the mirror's certificate ends
    /// soon, at `certificate_end`.
    fn tell_absence(&self, certificate_end: Option<u64>) -> impl Future<Output = ()> + use<> {
        let (shared, watch) = (Arc::clone(&self.shared), self.fleet.watch.clone());
        let broker = format!("{}:{}", self.settings.host, self.settings.port);
        async move {
            let mut absence = Absence::new(format!("fleet: {broker}"), Instant::now());
            loop {
                tokio::time::sleep(LOOK).await;
                let (snapshot, at) = (watch.read(), SystemClock.now());
                // An attempt takes its time, and ends with a reason.
                if is_first_attempt(&snapshot) && at >= EARLIEST_DATE {
                    continue;
                }
                let connection = match snapshot.connected && !snapshot.unheard {
                    true => Ok(()),
                    false => Err(reason(&broker, &snapshot, at)),
                };
                shared.set_notice(Topic::Fleet, absence.look(connection, Instant::now()));
                tell_ending(&shared, certificate_end, at);
            }
        }
    }

    fn prepare(&self, home: &Arc<home::Home>) -> Result<(Device, Endpoint)> {
        let Enrolment { identity, secret, keys } = Enrolment::read(&self.settings.folder)?;
        let channel: Channel = self.settings.channel.parse().context("fleet.channel")?;
        let store = Directory::open(&self.folder)
            .with_context(|| format!("the folder {}", self.folder.display()))?;
        let mut kept = Kept(store);
        let origin = Origin { channel: channel.clone(), keys: keys.ids() };
        let memory = self.memory_of(origin, &mut kept, home)?;
        let settings = Settings {
            device: DeviceId::clone(&identity.device),
            channel,
            firmware: crate::VERSION.to_owned(),
            secret,
            keys,
            least_trial: TRIAL,
        };
        let device = Device::new(
            settings,
            memory,
            jitter()?,
            Box::new(AtHome::new(Arc::clone(home), &self.settings)),
            Box::new(Trial::new(Arc::clone(home), self.model.clone())),
            Box::new(kept),
        );
        Ok((device, self.endpoint(identity)))
    }

    /// What the mirror remembers of the fleet that it belongs to, and what a household that comes to another one is asked.
    fn memory_of(&self, origin: Origin, kept: &mut Kept, home: &home::Home) -> Result<Memory> {
        let known = read_memory(&kept.0)?;
        if !known.is_of_fleet(&origin) {
            let is_gone = known.lost && known.origin.is_none();
            let why = if is_gone { LOST } else { ANOTHER_FLEET };
            self.fleet.ask_anew(&self.shared, home, why).context("fleet: asking anew")?;
        } else if home.contribution() != Contribution::Off {
            // Agreed to just before a power cut.
            self.fleet.answered(&self.shared);
        }
        // A memory that is gone does not say whose the model in force is.
        let is_foreign = !known.is_of_fleet(&origin) && home.fleet_version() > 0;
        if is_foreign || known.is_of_another(&origin) {
            // Before the new fleet is kept, so that a power cut in between repeats it.
            home.leave_fleet().context("fleet: leaving the one before")?;
        }
        let memory = known.clone().for_origin(origin);
        // At once: after one more start with other keys it would be taken for another fleet's.
        if memory != known {
            kept.keep(&memory).context("fleet: what it remembers")?;
        }
        Ok(memory)
    }

    fn endpoint(&self, identity: Identity) -> Endpoint {
        Endpoint {
            host: self.settings.host.clone(),
            port: self.settings.port,
            client_id: identity.client_id,
            tls: Some(identity.config),
            certificate_end: Some(identity.end),
            login: None,
            will: Device::will(&identity.device),
            persistent: true,
        }
    }
}

fn is_first_attempt(snapshot: &Snapshot) -> bool {
    !snapshot.connected && !snapshot.denied && snapshot.note.is_none()
}

/// Tells a person, and the journal once, of the end of the mirror's certificate.
fn tell_ending(shared: &Shared, certificate_end: Option<u64>, now: Timestamp) {
    let notice = certificate_end.and_then(|end| ending(end, now));
    if shared.set_notice(Topic::Certificate, notice.as_deref()) {
        notice.iter().for_each(|notice| warn!("{notice}"));
    }
}

/// What a person should do about a certificate of the mirror's that ends soon, or has ended, by the clock.
fn ending(end: u64, now: Timestamp) -> Option<String> {
    let (ends, today) = (tls::day(end), tls::day(now.0));
    if now.0 >= end {
        return Some(format!(
            "fleet: this mirror's certificate ended on {ends}; enrol the mirror anew, or let it reach a time server, if it is not {today} today"
        ));
    }
    let is_near = end - now.0 <= CERTIFICATE_ENDS;
    is_near.then(|| {
        format!("fleet: this mirror's certificate ends on {ends}; enrol the mirror anew before")
    })
}

/// Why the mirror hears nothing of its fleet, with the next step.
fn reason(broker: &str, snapshot: &Snapshot, now: Timestamp) -> String {
    if now < EARLIEST_DATE {
        return format!(
            "fleet: the clock is not set, so {broker} cannot be trusted; let the mirror reach a time server"
        );
    }
    let note = snapshot.note.as_deref().unwrap_or("no answer yet");
    // That has a next step of its own.
    if snapshot.denied || snapshot.unheard {
        return format!("fleet: {broker}: {note}");
    }
    format!(
        "fleet: {broker} cannot be reached, or ends the connection ({note}); check the home network and fleet.host. If others reach \
         it, another mirror may use this one's certificate: each needs its own"
    )
}

/// What the last run kept. A damaged file starts over: the fleet's signed numbers are learnt anew, and the round that is
/// announced now counts as answered.
fn read_memory(store: &Directory) -> Result<Memory> {
    let Some(bytes) = store.read(MEMORY)? else { return Ok(Memory::default()) };
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        warn!("fleet: what was remembered cannot be read ({error}); it starts over");
        Memory { lost: true, ..Memory::default() }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use learn::consent::{ContributeToFleet, ImproveMyMirror};
    use proto::signing::KeyId;

    use super::*;
    use crate::fleet::{enrolment, small};
    use crate::testing::{Folder, settings};

    /// A member of a fleet with all that it keeps in this folder.
    fn member(root: &Path) -> Member {
        let defaults = settings();
        let settings = FleetSettings {
            host: "fleet.example".into(),
            port: 8883,
            channel: "stable".into(),
            folder: root.join("enrolment"),
            min_cohort: 2,
            max_update_kib: 1024,
        };
        Member {
            shared: Arc::new(Shared::new(Instant::now(), None)),
            learning: Arc::new(Learning::new()),
            fleet: Arc::new(Fleet::new(true)),
            settings,
            folder: root.join("fleet"),
            model: ModelSource::new(&defaults.vision),
        }
    }

    #[test]
    fn a_start_with_another_fleets_keys_takes_back_the_consent_and_what_waits() {
        let root = Folder::new("moves");
        let home = Arc::new(small::home(&root.path().join("home")));
        let member = member(root.path());
        let start = |key: &str| {
            enrolment::tests::enrol(&member.settings.folder, &format!("{key}{}", "00".repeat(31)));
            member.prepare(&home).expect("whole");
            let kept = Directory::open(&member.folder).expect("no longer held");
            read_memory(&kept).expect("readable")
        };
        let first = start("00");
        small::agree(&home);
        small::correct(&home);
        small::learn(&home);
        assert_eq!(start("00"), first);
        assert!(
            home.token::<ContributeToFleet>().is_ok() && !member.fleet.asks(),
            "the same fleet"
        );
        assert_eq!(home.waiting().expect("readable").len(), 1);

        let second = start("01");
        assert_ne!(second, first);
        assert!(home.token::<ContributeToFleet>().is_err() && member.fleet.asks());
        assert!(home.waiting().expect("readable").is_empty(), "made for the other fleet");
        assert!(home.token::<ImproveMyMirror>().is_ok() && home.usage().corrections == 1);
    }

    #[test]
    fn a_model_whose_fleet_nobody_knows_any_more_is_left_with_it() {
        for damaged in [false, true] {
            let folder = Folder::new("whose");
            let root = folder.path();
            let home = Arc::new(small::home(&root.join("home")));
            let member = member(root);
            let kept = || Kept(Directory::open(&root.join("fleet")).expect("no longer held"));
            let origin = |keys: &[u8]| Origin {
                channel: "stable".parse().expect("valid"),
                keys: keys.iter().map(|&key| KeyId([key; 8])).collect(),
            };
            let first = member.memory_of(origin(&[1]), &mut kept(), &home).expect("writable");
            small::agree(&home);
            small::take_model(&home, 40);
            let again = member.memory_of(origin(&[1]), &mut kept(), &home).expect("writable");
            assert_eq!((again, home.fleet_version()), (first, 40), "the same fleet's");
            assert!(!member.fleet.asks());

            let store = kept();
            match damaged {
                true => store.0.replace(MEMORY, b"{\"round\":").expect("writable"),
                false => store.0.remove(MEMORY).expect("writable"),
            }
            drop(store);
            let memory = member.memory_of(origin(&[2]), &mut kept(), &home).expect("writable");
            assert_eq!((memory.lost, memory.model_tried), (damaged, 0));
            assert_eq!(
                home.fleet_version(),
                0,
                "the next fleet's models 1 to 40 are newer than this"
            );
            let asked = member
                .shared
                .with_health(|health| health.notices.get(Topic::Question).map(str::to_owned));
            let why = if damaged { LOST } else { ANOTHER_FLEET };
            assert_eq!(asked.as_deref(), Some(why));
        }
    }

    #[test]
    fn a_certificate_s_end_is_told_two_months_ahead_and_after_it() {
        // 2036-11-27 13:13 UTC.
        let end = 2_111_404_423;
        assert_eq!(ending(end, Timestamp(end - 60 * 86_400 - 1)), None);
        let soon = ending(end, Timestamp(end - 60 * 86_400));
        let text =
            "fleet: this mirror's certificate ends on 2036-11-27; enrol the mirror anew before";
        assert_eq!(soon.as_deref(), Some(text));
        assert_eq!(ending(end, Timestamp(end - 1)), soon);
        let over = ending(end, Timestamp(end + 86_400)).expect("it has ended");
        assert!(
            over.contains("ended on 2036-11-27; enrol") && over.contains("not 2036-11-28 today"),
            "{over}"
        );
    }

    #[test]
    fn a_certificate_s_end_leaves_the_glass_to_what_is_urgent_and_is_in_the_journal_once() {
        let folder = Folder::new("ending");
        let journal = folder.path().join("journal");
        let file = Arc::new(std::fs::File::create(&journal).expect("writable"));
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(file).finish();
        let shared = Shared::new(Instant::now(), None);
        shared.set_notice(Topic::Fleet, Some("away"));
        shared.set_notice(Topic::Source, Some("a demo"));
        let end = 2_111_404_423;
        tracing::subscriber::with_default(log, || {
            for before in [61 * 86_400, 86_400, 5] {
                tell_ending(&shared, Some(end), Timestamp(end - before));
            }
        });
        let notices = || {
            shared
                .with_health(|health| health.notices.iter().map(str::to_owned).collect::<Vec<_>>())
        };
        let told = ending(end, Timestamp(end - 5)).expect("near");
        assert_eq!(notices(), ["away", "a demo", told.as_str()]);
        let lines = std::fs::read_to_string(&journal).expect("written");
        assert!(lines.lines().count() == 1 && lines.contains(&told), "{lines}");
        tell_ending(&shared, None, Timestamp(end));
        assert_eq!(notices(), ["away", "a demo"]);
    }

    #[test]
    fn the_question_is_asked_at_every_start_until_somebody_answers() {
        let root = Folder::new("asks");
        let home = small::home(&root.path().join("home"));
        let folder = root.path().join("fleet");
        let start = || {
            let shared = Shared::new(Instant::now(), None);
            (Fleet::new(true).kept_in(&folder, &shared), shared)
        };
        let notice = |shared: &Shared| {
            shared.with_health(|health| health.notices.get(Topic::Question).map(str::to_owned))
        };
        small::agree(&home);
        let (fleet, shared) = start();
        fleet.ask_anew(&shared, &home, ANOTHER_FLEET).expect("writable");
        let asked = notice(&shared);
        assert!(fleet.asks() && asked.is_some());
        // The power goes before the new fleet is remembered: the consent is gone already.
        let (fleet, shared) = start();
        assert!(fleet.asks());
        assert_eq!(notice(&shared), asked);
        fleet.ask_anew(&shared, &home, ANOTHER_FLEET).expect("writable");
        let (alone, quiet) = (Fleet::new(false), Shared::new(Instant::now(), None));
        assert!(!alone.kept_in(&folder, &quiet).asks(), "it belongs to no fleet any more");
        fleet.answered(&shared);
        assert!(!start().0.asks());
    }

    #[test]
    fn the_notice_names_the_broker_or_the_clock() {
        let broken = Snapshot { note: Some("SessionTakenOver".into()), ..Snapshot::default() };
        let text = reason("fleet.example:8883", &broken, EARLIEST_DATE);
        // As it is where two mirrors with one certificate throw each other off.
        for part in ["fleet.example:8883", "SessionTakenOver", "certificate"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(reason("fleet.example:8883", &broken, Timestamp(90)).contains("clock"));
        let denied = Snapshot { denied: true, ..broken };
        let text = reason("fleet.example:8883", &denied, EARLIEST_DATE);
        assert_eq!(text, "fleet: fleet.example:8883: SessionTakenOver", "it was reached");
        let note = Some("nothing of fleet.channel was heard".into());
        let silent = Snapshot { connected: true, unheard: true, note, ..Snapshot::default() };
        let text = reason("fleet.example:8883", &silent, EARLIEST_DATE);
        assert_eq!(text, "fleet: fleet.example:8883: nothing of fleet.channel was heard");
    }

    #[test]
    fn only_a_household_that_had_agreed_is_asked_anew() {
        let folder = Folder::new("anew");
        let home = small::home(folder.path());
        let (shared, fleet) = (Shared::new(Instant::now(), None), Fleet::new(true));
        fleet.ask_anew(&shared, &home, ANOTHER_FLEET).expect("writable");
        assert!(!fleet.asks(), "nobody is asked again who never agreed");
        small::agree(&home);
        fleet.ask_anew(&shared, &home, ANOTHER_FLEET).expect("writable");
        assert!(fleet.asks() && home.token::<ContributeToFleet>().is_err());
        assert!(home.token::<ImproveMyMirror>().is_ok(), "that is no fleet's business");
    }

    #[test]
    fn a_damaged_memory_is_known_to_be_lost_and_a_missing_one_is_a_first_start() {
        let folder = Folder::new("memory");
        let store = Directory::open(folder.path()).expect("writable");
        assert_eq!(read_memory(&store).expect("readable"), Memory::default());
        store.replace(MEMORY, b"{\"round\":").expect("writable");
        let lost = read_memory(&store).expect("readable");
        assert_eq!(lost, Memory { lost: true, ..Memory::default() });
        // Until a notice was heard that stays so, over any number of starts.
        let mut kept = Kept(store);
        kept.keep(&lost).expect("writable");
        assert_eq!(read_memory(&kept.0).expect("readable"), lost);
    }
}
