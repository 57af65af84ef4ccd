//! The commands that look at the fleet or change it.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use learn::edges::SystemClock;
use proto::signing::KeyRing;
use proto::status::JobFault;
use tracing::warn;

use super::{json, say};
use crate::cli::{AuditAction, DeviceAction, ModelAction, Output, RestoreArgs, RoundAction};
use crate::config::Config;
use crate::control::{Listed, Reply, Request, ask, execute};
use crate::date::utc;
use crate::engine::{Engine, Failure, ModelStatus, Parts, RoundRequest, RoundStatus, Status};
use crate::gate::{Gate, NoGate};
use crate::hex;
use crate::keys::{self, Keys};
use crate::records::{Device, Phase, Rollout, Round, Standing};
use crate::rollout::RolloutRules;
use crate::signal::NoisePlace;
use crate::store::{Snapshot, Store, StoreError};
use crate::student::{Holdout, Trunk};

/// What a database is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To begin a fleet: database and keys are made where there are none.
    Init,
    /// For a command that needs no holdout.
    Look,
    /// Candidates will have to be judged, now or by the server that comes after.
    Judge,
}

/// An engine on the configured database.
///
/// # Errors
/// A data folder, network, key or database that cannot be used.
pub fn open(config: &Config, purpose: Purpose) -> Result<Engine> {
    check_folder(config)?;
    let trunk = Trunk::load(&config.model)?;
    let (layout, shipped) = (trunk.layout().clone(), trunk.parameters().to_vec());
    let gate: Box<dyn Gate> = match &config.gate.holdout {
        Some(folder) if purpose == Purpose::Judge => {
            Box::new(Holdout::new(trunk, folder, config.gate.pictures)?)
        }
        _ => Box::new(NoGate),
    };
    let (path, is_first) = (config.database(), purpose == Purpose::Init);
    let store = if is_first { Store::create(&path)? } else { Store::open(&path)? };
    let keys = Keys::of(&store, &config.data, is_first)?;
    Ok(Engine::new(Parts {
        store: Arc::new(store),
        key: keys.signing,
        secrets: keys.devices,
        clock: Arc::new(SystemClock),
        gate,
        layout,
        shipped,
        channel: config.channel.clone(),
        rules: config.rules.clone(),
    })?)
}

/// Refuses a data folder that others may enter, and one whose database is gone: a new one would begin a fleet without the old
/// one's devices, rounds and spent budget.
fn check_folder(config: &Config) -> Result<()> {
    let (folder, path) = (&config.data, config.database());
    let mode = std::fs::metadata(folder).map_or(0, |found| found.permissions().mode());
    ensure!(
        mode & 0o077 == 0,
        "{} can be entered by others, and who takes part is nobody else's business; `chmod 700` it",
        folder.display()
    );
    let is_gone = matches!(path.try_exists(), Ok(false)) && keys::is_signing_key_in(folder);
    if is_gone { Err(StoreError::Gone(path).into()) } else { Ok(()) }
}

/// `aggregator init`.
pub fn init(config: &Config) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(&config.data)
        .with_context(|| format!("cannot make {}", config.data.display()))?;
    let engine = open(config, Purpose::Init)?;
    engine.ship("as the mirrors ship")?;
    say(format!("channel {}: database {}", config.channel, config.database().display()))?;
    say(format!("public key for the mirrors' settings: {}", engine.public_key()))?;
    say(key_line(&engine.public_key())?)?;
    Ok(())
}

fn request(config: &Config, request: Request) -> Result<Reply> {
    Ok(answer(config, request)?.0)
}

/// What comes of a request, and whether a running server did it.
fn answer(config: &Config, request: Request) -> Result<(Reply, bool)> {
    let socket = config.socket();
    let asked = ask(&socket, &request);
    let asked = asked.with_context(|| format!("the server at {}", socket.display()))?;
    let is_served = asked.is_some();
    let reply = match asked {
        Some(reply) => reply,
        None => {
            let purpose = match request {
                Request::RoundStart(_) => Purpose::Judge,
                _ => Purpose::Look,
            };
            execute(&open(config, purpose)?, None, request)
        }
    };
    match reply {
        Reply::Failed(reason) => bail!(reason),
        reply => Ok((reply, is_served)),
    }
}

fn status_of(config: &Config) -> Result<Status> {
    match request(config, Request::Status)? {
        Reply::Status(status) => Ok(*status),
        other => bail!("the server answered something else: {other:?}"),
    }
}

fn failures_of(config: &Config, version: u64) -> Result<Vec<Failure>> {
    match request(config, Request::ModelFailures { version })? {
        Reply::Failures(failures) => Ok(failures),
        other => bail!("the server answered something else: {other:?}"),
    }
}

/// `model show --json`.
#[derive(serde::Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    known: &'a ModelStatus,
    /// The devices that it failed on.
    failures: Vec<Failure>,
}

/// `aggregator status`.
pub fn status(config: &Config, output: Output) -> Result<()> {
    let status = status_of(config)?;
    if output.json {
        return json(&status);
    }
    let online = status.online.map(|count| format!(", {count} online")).unwrap_or_default();
    say(format!("devices: {} enrolled{online}, {} revoked", status.enrolled, status.revoked))?;
    say(key_line(&status.public_key)?)?;
    server_lines(&status).into_iter().try_for_each(say)?;
    say("models:")?;
    for known in &status.models {
        say(format!("  {}", model_line(known)))?;
    }
    say("rounds:")?;
    for round in &status.rounds {
        say(format!("  {}", round_line(round)))?;
    }
    match &status.privacy {
        Some(statement) => say(format!("a device that was counted in every round: {statement}"))?,
        None => say("no update has been counted")?,
    }
    if status.unknown_rounds > 0 {
        say(format!(
            "up to {} rounds from before `aggregator restore` are not known here and may have cost \
             budget as well",
            status.unknown_rounds
        ))?;
    }
    Ok(())
}

/// The name of the fleet's key in what mirrors say.
fn key_line(public_key: &str) -> Result<String> {
    let keys = KeyRing::from_text(public_key).context("the public key")?;
    Ok(format!("signing key: {keys}, as mirrors name it"))
}

/// How a running server does; nothing where none runs.
fn server_lines(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    if status.workers > 0 {
        let (up, all) = (status.workers_connected, status.workers);
        lines.push(format!("broker: {up} of {all} connections are up"));
    }
    if status.broker_refused_now > 0 {
        let count = status.broker_refused_now;
        lines.push(format!("broker: {count} subscriptions or messages refused; the log says why"));
    }
    if status.rival_statements > 0 {
        lines.push(
            "another server announces with this fleet's key, and mirrors take only one of the two for newer; stop one of them, and \
             start the other one anew"
                .to_owned(),
        );
    }
    if let Some(reason) = &status.decisions_failing {
        lines.push(format!("rounds and roll-outs do not go on: {reason}"));
    }
    lines
}

/// `aggregator round`.
pub fn round(config: &Config, action: RoundAction) -> Result<()> {
    match action {
        RoundAction::Start { parameters, noise_multiplier, force, output } => {
            let start = RoundRequest { parameters, noise_multiplier, force };
            let (reply, is_served) = answer(config, Request::RoundStart(start))?;
            print_reply(reply.clone(), output)?;
            if let Reply::Round(started) = &reply {
                warn_of_few(config, &started.round)?;
            }
            if !is_served {
                warn!(
                    "no server runs, so no mirror hears of the round; its time begins with `aggregator serve`"
                );
            }
            Ok(())
        }
        RoundAction::Abort { round, reason } => {
            let reply = request(config, Request::RoundAbort { round, reason })?;
            print_reply(reply, Output { json: false })
        }
        RoundAction::Show { round, output } => {
            let mut rounds = status_of(config)?.rounds;
            if let Some(id) = round {
                rounds.retain(|known| known.round.id == id);
                ensure!(!rounds.is_empty(), "there is no round {id}; `status` lists them");
            }
            if output.json {
                return json(&rounds);
            }
            for known in &rounds {
                say(round_line(known))?;
                for (reason, count) in &known.tally.refused {
                    say(format!("  refused, {reason}: {count}"))?;
                }
            }
            Ok(())
        }
    }
}

/// `aggregator model`.
pub fn model(config: &Config, action: ModelAction) -> Result<()> {
    let plain = Output { json: false };
    match action {
        ModelAction::List(output) => {
            let status = status_of(config)?;
            if output.json {
                return json(&status.models);
            }
            status.models.iter().map(model_line).try_for_each(say)?;
            Ok(())
        }
        ModelAction::Show { version, output } => {
            let models = status_of(config)?.models;
            let known = models.iter().find(|known| known.model.version == version);
            let known = known.with_context(|| format!("there is no model version {version}"))?;
            let failures = failures_of(config, version)?;
            if output.json {
                return json(&Shown { known, failures });
            }
            say(format!("{}\nparameters {}", model_line(known), known.model.parameters))?;
            failures.iter().map(failure_line).try_for_each(say)?;
            Ok(())
        }
        ModelAction::Publish { version } => {
            print_reply(request(config, Request::ModelPublish { version })?, plain)?;
            // It is published, whatever becomes of the rest.
            if let Ok(Reply::Devices(devices)) = request(config, Request::DeviceList) {
                let devices: Vec<Device> = devices.into_iter().map(|known| known.device).collect();
                warn_of_blind_stages(&config.rules.rollout, &devices);
            }
            Ok(())
        }
        ModelAction::Rollback { version } => {
            print_reply(request(config, Request::ModelRollback { version })?, plain)
        }
    }
}

/// `aggregator device`.
pub fn device(config: &Config, action: DeviceAction) -> Result<()> {
    let plain = Output { json: false };
    match action {
        DeviceAction::List(output) => print_reply(request(config, Request::DeviceList)?, output),
        DeviceAction::Enrol { name, fingerprint, group, out } => {
            let reply = request(config, Request::DeviceEnrol { name, fingerprint, group })?;
            match (out, &reply) {
                (Some(folder), Reply::Enrolled { device, secret, public_key }) => {
                    hand_over(&folder, secret, public_key)?;
                    say(device_line(device, ""))?;
                    say(format!("device.secret and fleet.pub are in {}", folder.display()))?;
                    Ok(())
                }
                _ => print_reply(reply, plain),
            }
        }
        DeviceAction::Revoke { name, reason } => {
            print_reply(request(config, Request::DeviceRevoke { name, reason })?, plain)
        }
    }
}

/// `aggregator restore`.
pub fn restore(config: &Config, args: &RestoreArgs) -> Result<()> {
    let RestoreArgs { rounds_above, versions_above } = *args;
    let reply = request(config, Request::Restore { rounds_above, versions_above })?;
    print_reply(reply, Output { json: false })
}

/// `aggregator audit`.
pub fn audit(config: &Config, action: AuditAction) -> Result<()> {
    let AuditAction::Verify { database, key, output } = action;
    let reply = if database.is_none() && key.is_none() {
        request(config, Request::AuditVerify)?
    } else {
        Reply::Verified(verify(config, database.as_deref(), key.as_deref())?)
    };
    print_reply(reply, output)
}

/// Without any secret: a copy of the database, the public key and the network's layout are enough.
fn verify(
    config: &Config,
    database: Option<&Path>,
    key: Option<&str>,
) -> Result<crate::verify::Verified> {
    if let Some(copy) = database
        && let Ok(false) = copy.try_exists()
    {
        bail!("there is no database at {}; name an existing copy", copy.display());
    }
    let path = database.map_or_else(|| config.database(), Path::to_owned);
    let beside = config.data.join("signing.pub");
    let text = match key {
        Some(text) => text.to_owned(),
        None => std::fs::read_to_string(&beside).with_context(|| {
            format!("no public key at {}; give one with --key", beside.display())
        })?,
    };
    let bytes = hex::decode::<32>(text.trim()).context("a public key is 64 hexadecimal digits")?;
    let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).context("this is no public key")?;
    let trunk = Trunk::load(&config.model)?;
    let verify = |snapshot: &Snapshot| crate::verify::verify(snapshot, trunk.layout(), &key);
    Ok(Snapshot::of_file(&path, verify)??)
}

/// What a mirror needs of its fleet, as the files that its settings name, for this user alone.
fn hand_over(folder: &Path, secret: &str, public_key: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, text) in [("device.secret", secret), ("fleet.pub", public_key)] {
        let path = folder.join(name);
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&path)
            .and_then(|mut file| writeln!(file, "{text}"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn print_reply(reply: Reply, output: Output) -> Result<()> {
    if output.json {
        return match &reply {
            Reply::Round(round) => json(round),
            Reply::Devices(devices) => json(devices),
            Reply::Verified(verified) => json(verified),
            other => json(other),
        };
    }
    match reply {
        Reply::Round(round) => say(round_line(&round))?,
        Reply::Model(model) => say(model_line(&model))?,
        Reply::Devices(devices) => {
            for known in &devices {
                say(device_line(&known.device, &presence_words(known)))?;
            }
        }
        Reply::Device(device) => say(device_line(&device, ""))?,
        Reply::Enrolled { device, secret, public_key } => {
            say(device_line(&device, ""))?;
            say(format!("secret for this mirror's settings, shown to nobody else: {secret}"))?;
            say(format!("public key of the fleet: {public_key}"))?;
        }
        Reply::Verified(verified) => say(format!(
            "{} entries hold; {} rounds with {} updates averaged again; {} models have their digests; of {} rounds the \
             names are forgotten, as the log says\nlast hash {}",
            verified.entries,
            verified.rounds,
            verified.updates,
            verified.models,
            verified.pruned,
            verified.head
        ))?,
        Reply::Status(_) | Reply::Failures(_) | Reply::Failed(_) => {}
    }
    Ok(())
}

fn round_line(status: &RoundStatus) -> String {
    let RoundStatus { round, tally, counted_cosine } = status;
    let counted = counted_cosine.map(|cosine| format!(", {cosine:.3} of those counted"));
    let end = match &round.phase {
        Phase::Aborted { reason } => format!(": {reason}"),
        Phase::Published { version } => format!(" as version {version}"),
        _ => String::new(),
    };
    let score = match (round.score_before, round.score_after) {
        (Some(before), Some(after)) => format!(", holdout {before:.4} -> {after:.4}"),
        _ => String::new(),
    };
    let times = match round.phase {
        Phase::Announced => {
            format!(", open from {} to {} UTC", utc(round.opens_at), utc(round.closes_at))
        }
        // An outage puts its opening off as well, so its record does not say when it opened.
        Phase::Collecting => format!(", open until {} UTC", utc(round.closes_at)),
        _ => String::new(),
    };
    format!(
        "round {} on version {}: {}{times}{end}; {} updates, {} bytes, {} refused{score}; expected \
         cosine {:.3} of all devices{}{}",
        round.id,
        round.task.base_version,
        round.phase.name(),
        tally.counted,
        tally.bytes,
        tally.refused.values().sum::<u64>(),
        round.expected_cosine,
        counted.unwrap_or_default(),
        if round.forced { ", forced" } else { "" },
    )
}

/// Says that a round may be averaged with so few updates that they carry less signal than is wanted: what is checked at its
/// start is what all devices could carry.
fn warn_of_few(config: &Config, round: &Round) -> Result<()> {
    let (signal, rules) = (config.rules.signal(&round.task)?, &config.rules);
    let (minimum, wanted) = (round.task.minimum_cohort, rules.wanted_cosine);
    let needed = signal.devices_for(wanted);
    if minimum < needed {
        let cosine = signal.expected_cosine(minimum, NoisePlace::EveryDevice);
        warn!(
            "the round is averaged with as few as {minimum} updates (rounds.minimum_cohort), of which a cosine of {cosine:.3} is \
             expected; {wanted} takes {needed}"
        );
    }
    Ok(())
}

/// Says which groups are too few for their reports to stop a version.
pub fn warn_of_blind_stages(rules: &RolloutRules, devices: &[Device]) {
    let enrolled = devices.iter().filter(|device| device.standing == Standing::Enrolled);
    let groups: Vec<_> = enrolled.map(|device| device.group.clone()).collect();
    for (stage, reached) in rules.blind_stages(&groups) {
        warn!(
            "with the group \"{stage}\" of rollout.stages a version has reached only {reached} of the fleet's devices, and fewer \
             than {} failures (rollout.minimum_failures) stop nothing; enrol more of them into it, or lower that number",
            rules.minimum_failures
        );
    }
}

fn model_line(ModelStatus { model, standing }: &ModelStatus) -> String {
    let since = match model.rollout {
        Rollout::Running { since, .. } => format!("; the stage began {} UTC", utc(since)),
        _ => String::new(),
    };
    format!(
        "version {} ({}): {standing}{since}; {} installed, {} failed",
        model.version, model.origin, model.installed, model.failed
    )
}

fn failure_line(failure: &Failure) -> String {
    let how = match failure.fault {
        Some(JobFault::Content) => "its bytes contradict its manifest",
        Some(JobFault::Base) => "it belongs to another network than the mirror's",
        Some(JobFault::Unusable) => "it cannot be loaded or run",
        Some(JobFault::PublicCheck) => "it is worse than its predecessor on the public check",
        Some(JobFault::Storage) => "the mirror has no room, or its disk fails",
        None => "how was not noted",
    };
    format!("failed on {}: {how}", failure.device)
}

/// Words for a line of the list: nothing where no server knows.
fn presence_words(known: &Listed) -> String {
    match (known.online, &known.firmware) {
        (Some(true), Some(firmware)) => format!(", online, firmware {firmware}"),
        (Some(true), None) => ", online".to_owned(),
        (Some(false), _) => ", offline".to_owned(),
        (None, _) => String::new(),
    }
}

fn device_line(device: &Device, there: &str) -> String {
    let standing = match &device.standing {
        Standing::Enrolled => "enrolled".to_owned(),
        Standing::Revoked { reason } => format!("revoked: {reason}"),
    };
    let group = device.group.as_ref().map(|group| format!(", group {group}")).unwrap_or_default();
    format!("{} {standing}{there}{group}; certificate {}", device.name, device.fingerprint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Model, Parameters, Tally};
    use std::fs::{self, Permissions};
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    /// A folder of this test's own that others may not enter, and settings whose model is nowhere.
    fn scratch(name: &str) -> (PathBuf, Config) {
        let folder = std::env::temp_dir().join(format!("aggregator-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        let data = folder.display();
        let text = format!(
            "channel = \"a\"\ndata = \"{data}\"\nmodel = \"nowhere\"\n[broker]\nhost = \"localhost\"\nport = 1883\n"
        );
        (folder.clone(), Config::parse(Path::new("aggregator.toml"), &text).unwrap())
    }

    #[test]
    fn a_fleet_whose_database_is_gone_gets_no_new_one() {
        let (folder, config) = scratch("gone");
        fs::write(folder.join("devices.key"), "00".repeat(32)).unwrap();
        // Only the network is missing: a new fleet may keep the old one's devices.
        assert!(!init(&config).unwrap_err().to_string().contains("database"));
        fs::write(folder.join("signing.key"), "00".repeat(32)).unwrap();
        for refused in [init(&config), open(&config, Purpose::Look).map(drop)] {
            let told = refused.unwrap_err().to_string();
            assert!(
                told.contains("there was one") && told.contains("aggregator restore"),
                "{told}"
            );
        }
        assert!(!config.database().exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_copy_that_is_not_there_is_asked_for_by_its_name() {
        let (folder, config) = scratch("copy");
        let told = verify(&config, Some(&folder.join("copi.redb")), None).unwrap_err().to_string();
        assert!(told.contains("copi.redb; name an existing copy"), "{told}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_key_is_named_as_mirrors_name_it() {
        // The first key of RFC 8032, and the beginning of its SHA-256.
        let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let line = key_line(key).unwrap();
        assert!(line.starts_with("signing key: 21fe31dfa154a261,"), "{line}");
    }

    #[test]
    fn a_version_on_its_way_is_listed_with_the_time_at_which_its_stage_began() {
        let model = |rollout| Model {
            version: 2,
            parameters: String::new(),
            origin: "round 1".into(),
            created_at: 0,
            score: None,
            rollout,
            installed: 3,
            failed: 0,
        };
        let line =
            |rollout| model_line(&ModelStatus { model: model(rollout), standing: "S".into() });
        let running = line(Rollout::Running { stage: 0, since: 86_400 });
        let wanted =
            "version 2 (round 1): S; the stage began 1970-01-02 00:00 UTC; 3 installed, 0 failed";
        assert_eq!(running, wanted);
        assert_eq!(line(Rollout::Complete), "version 2 (round 1): S; 3 installed, 0 failed");
    }

    fn status_of_round(phase: Phase) -> RoundStatus {
        let round = Round { phase, ..Round::example() };
        RoundStatus { round, tally: Tally::default(), counted_cosine: None }
    }

    #[test]
    fn a_round_is_listed_with_its_hours_and_one_that_is_open_with_its_end() {
        let line = |phase| round_line(&status_of_round(phase));
        let announced = line(Phase::Announced);
        assert!(
            announced.contains("announced, open from 1970-01-01 00:18 to 1970-01-01 00:20 UTC;"),
            "{announced}"
        );
        let collecting = line(Phase::Collecting);
        assert!(
            collecting.contains("collecting, open until 1970-01-01 00:20 UTC;"),
            "{collecting}"
        );
        assert!(!line(Phase::Closed).contains("UTC"));
    }

    #[test]
    fn a_round_that_has_started_is_said_to_though_the_server_answers_nothing_more() {
        let (folder, config) = scratch("started");
        let server = UnixListener::bind(config.socket()).unwrap();
        let reply = Reply::Round(Box::new(status_of_round(Phase::Announced)));
        let answered = serde_json::to_string(&reply).unwrap() + "\n";
        let serve = move || {
            for (number, stream) in server.incoming().enumerate() {
                let mut stream = stream.unwrap();
                BufReader::new(stream.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
                if number == 0 {
                    stream.write_all(answered.as_bytes()).unwrap();
                }
            }
        };
        // Ends with the test's process.
        std::thread::spawn(serve);
        let (parameters, output) = (Parameters::Sparse, Output { json: false });
        let noise_multiplier = "1.2".to_owned();
        let start = RoundAction::Start { parameters, noise_multiplier, force: false, output };
        round(&config, start).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_data_folder_that_others_may_enter_is_refused_and_the_database_is_the_users_alone() {
        let (folder, config) = scratch("entered");
        drop(Store::create(&config.database()).unwrap());
        let mode = fs::metadata(config.database()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::set_permissions(&folder, Permissions::from_mode(0o750)).unwrap();
        let told = open(&config, Purpose::Look).err().unwrap().to_string();
        assert!(told.contains("chmod 700"), "{told}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_the_broker_refused_before_it_was_mended_is_no_trouble() {
        let status =
            |now| Status { broker_refused: 7, broker_refused_now: now, ..Status::default() };
        assert!(server_lines(&status(0)).is_empty());
        assert!(server_lines(&status(2))[0].contains("2 subscriptions or messages refused"));
    }
}
