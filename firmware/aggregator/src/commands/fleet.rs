//! The commands that look at the fleet or change it.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tracing::warn;

use super::ask::{self, Enrolled};
use super::open::{Purpose, open};
use super::print::{
    device_line, failure_line, key_line, listed_line, model_line, round_line, server_lines,
    verified_lines,
};
use super::{json, say};
use crate::cli::{AuditAction, DeviceAction, ModelAction, Output, RestoreArgs, RoundAction};
use crate::config::Config;
use crate::control::Request;
use crate::engine::{Failure, ModelStatus, RoundRequest, Rules};
use crate::files;
use crate::hex;
use crate::records::{Device, Standing, Task};
use crate::rollout_rules::{RolloutRules, Stage};
use crate::signal::{NoisePlace, rounded_down};
use crate::store::Snapshot;
use crate::student::Trunk;

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

/// `model show --json`.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    known: &'a ModelStatus,
    /// The devices that it failed on.
    failures: Vec<Failure>,
}

/// `aggregator status`.
pub fn status(config: &Config, output: Output) -> Result<()> {
    let status = ask::status(config)?;
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

/// `aggregator round`.
pub fn round(config: &Config, action: RoundAction) -> Result<()> {
    match action {
        RoundAction::Start { parameters, noise_multiplier, force, output } => {
            let start = RoundRequest { parameters, noise_multiplier, force };
            let (started, is_served) = ask::round_start(config, start)?;
            print(&started, output, round_line)?;
            too_few(&config.rules, &started.round.task)?.iter().for_each(|few| warn!("{few}"));
            if !is_served {
                warn!(
                    "no server runs, so no mirror hears of the round; its time begins with `aggregator serve`"
                );
            }
            Ok(())
        }
        RoundAction::Abort { round, reason } => {
            Ok(say(round_line(&ask::round_abort(config, round, reason)?))?)
        }
        RoundAction::Show { round, output } => {
            let mut rounds = ask::status(config)?.rounds;
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
    match action {
        ModelAction::List(output) => {
            let status = ask::status(config)?;
            if output.json {
                return json(&status.models);
            }
            status.models.iter().map(model_line).try_for_each(say)?;
            Ok(())
        }
        ModelAction::Show { version, output } => {
            let models = ask::status(config)?.models;
            let known = models.iter().find(|known| known.model.version == version);
            let known = known.with_context(|| format!("there is no model version {version}"))?;
            let failures = ask::failures(config, version)?;
            if output.json {
                return json(&Shown { known, failures });
            }
            say(format!("{}\nparameters {}", model_line(known), known.model.parameters))?;
            failures.iter().map(failure_line).try_for_each(say)?;
            Ok(())
        }
        ModelAction::Publish { version } => {
            say(model_line(&ask::model(config, Request::ModelPublish { version })?))?;
            // It is published, whatever becomes of the rest.
            if let Ok(devices) = ask::devices(config) {
                let devices: Vec<Device> = devices.into_iter().map(|known| known.device).collect();
                warn_of_blind_stages(&config.rules.rollout, &devices);
            }
            Ok(())
        }
        ModelAction::Rollback { version } => {
            Ok(say(model_line(&ask::model(config, Request::ModelRollback { version })?))?)
        }
    }
}

/// `aggregator device`.
pub fn device(config: &Config, action: DeviceAction) -> Result<()> {
    match action {
        DeviceAction::List(output) => {
            let devices = ask::devices(config)?;
            if output.json {
                return json(&devices);
            }
            devices.iter().map(listed_line).try_for_each(say)?;
            Ok(())
        }
        DeviceAction::Enrol { name, fingerprint, group, out } => {
            let Enrolled { device, secret, public_key } =
                ask::enrol(config, name, fingerprint, group)?;
            if let Some(words) = unstaged(&config.rules.rollout, &device) {
                warn!("{words}");
            }
            if let Some(folder) = &out {
                hand_over(folder, &secret, &public_key)?;
            }
            say(device_line(&device, ""))?;
            match out {
                Some(folder) => {
                    say(format!("device.secret and fleet.pub are in {}", folder.display()))?;
                }
                None => {
                    say(format!(
                        "secret for this mirror's settings, shown to nobody else: {secret}"
                    ))?;
                    say(format!("public key of the fleet: {public_key}"))?;
                }
            }
            Ok(())
        }
        DeviceAction::Revoke { name, reason } => {
            Ok(say(device_line(&ask::revoke(config, name, reason)?, ""))?)
        }
    }
}

/// `aggregator restore`.
pub fn restore(config: &Config, args: &RestoreArgs) -> Result<()> {
    let RestoreArgs { rounds_above, versions_above } = *args;
    let restored = ask::model(config, Request::Restore { rounds_above, versions_above })?;
    Ok(say(model_line(&restored))?)
}

/// `aggregator audit`.
pub fn audit(config: &Config, action: AuditAction) -> Result<()> {
    let AuditAction::Verify { database, key, output } = action;
    let verified = match (&database, &key) {
        (None, None) => ask::verified(config)?,
        _ => verify(config, database.as_deref(), key.as_deref())?,
    };
    print(&verified, output, verified_lines)
}

/// A value as JSON where that is wanted, else in words.
fn print<T: Serialize>(value: &T, output: Output, words: fn(&T) -> String) -> Result<()> {
    match output.json {
        true => json(value),
        false => Ok(say(words(value))?),
    }
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
    let failed = |operation: &str, path: &Path| {
        let path = path.display();
        format!(
            "cannot {operation} {path}; the mirror is enrolled, and the same command again writes what it needs"
        )
    };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(folder).with_context(|| failed("make", folder))?;
    for (name, text) in [("device.secret", secret), ("fleet.pub", public_key)] {
        let path = folder.join(name);
        files::write(&path, &format!("{text}\n")).with_context(|| failed("write", &path))?;
    }
    Ok(())
}

/// What to say where a round may be averaged with so few updates that they carry less signal than is wanted: what is checked at its
/// start is what all devices could carry.
fn too_few(rules: &Rules, task: &Task) -> Result<Option<String>> {
    let signal = rules.signal(task)?;
    let (minimum, wanted) = (task.minimum_cohort, rules.wanted_cosine);
    let needed = signal.devices_for(wanted);
    Ok((minimum < needed).then(|| {
        let cosine = rounded_down(signal.expected_cosine(minimum, NoisePlace::EveryDevice));
        format!(
            "the round is averaged with as few as {minimum} updates (rounds.minimum_cohort), of which a cosine of {cosine} is \
             expected; {wanted} takes {needed}"
        )
    }))
}

/// What to say of a device whose group no stage names, so that it counts for nothing.
fn unstaged(rules: &RolloutRules, device: &Device) -> Option<String> {
    let group = device.group.as_deref()?;
    let is_named = rules.stages.contains(&Stage::Group(group.to_owned()));
    (!is_named).then(|| {
        format!(
            "no stage of rollout.stages is the group {group:?}, so it brings {} nothing earlier; add it there, or enrol the \
             mirror again into a group that is",
            device.name
        )
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Reply;
    use crate::engine::RoundStatus;
    use crate::records::{Parameters, Phase, Round, Tally};
    use crate::store::Store;
    use std::fs::{self, Permissions};
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::fs::PermissionsExt;
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
    fn that_few_updates_carry_too_little_never_reads_as_if_it_were_enough() {
        let task = Task { dimension: 5_490, minimum_cohort: 100, ..Round::example().task };
        let told = |wanted_cosine| {
            let rules = Rules { wanted_cosine, ..Rules::default() };
            too_few(&rules, &task).unwrap()
        };
        // 0.03371 is expected.
        let few = told(0.034).unwrap();
        assert!(few.contains("a cosine of 0.033 is expected; 0.034 takes 102"), "{few}");
        assert_eq!(told(0.033), None);
    }

    #[test]
    fn what_a_mirror_needs_takes_its_place_whole_and_where_it_cannot_the_next_step_is_said() {
        let (folder, _) = scratch("handover");
        let (secret, before) = (folder.join("device.secret"), folder.join("before"));
        fs::write(&before, "of before").unwrap();
        fs::hard_link(&before, &secret).unwrap();
        hand_over(&folder, "new", "key").unwrap();
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(
            (read(&secret), read(&folder.join("fleet.pub"))),
            ("new\n".into(), "key\n".into())
        );
        assert_eq!(read(&before), "of before", "it was written over in its place");
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        // No folder, and a folder in the place of a file.
        fs::create_dir(folder.join("taken")).unwrap();
        fs::create_dir(folder.join("taken/device.secret")).unwrap();
        for refused in [&before, &folder.join("taken")] {
            let told = hand_over(refused, "new", "key").unwrap_err().to_string();
            assert!(told.contains("is enrolled, and the same command again"), "{told}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_group_that_no_stage_names_is_told_of() {
        let mut rules = Rules::default().rollout;
        rules.stages = vec![Stage::Group("pilot".into()), Stage::Permille(1000)];
        let told = |group: Option<&str>| {
            let device = Device {
                name: "mirror-1".into(),
                fingerprint: "00".repeat(32),
                standing: Standing::Enrolled,
                enrolled_at: 0,
                group: group.map(str::to_owned),
            };
            unstaged(&rules, &device)
        };
        assert_eq!([told(None), told(Some("pilot"))], [None, None]);
        let words = told(Some("pilots")).unwrap();
        assert!(words.contains("\"pilots\"") && words.contains("rollout.stages"), "{words}");
    }

    #[test]
    fn a_copy_that_is_not_there_is_asked_for_by_its_name() {
        let (folder, config) = scratch("copy");
        let told = verify(&config, Some(&folder.join("copi.redb")), None).unwrap_err().to_string();
        assert!(told.contains("copi.redb; name an existing copy"), "{told}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_round_that_has_started_is_said_to_though_the_server_answers_nothing_more() {
        let (folder, config) = scratch("started");
        let server = UnixListener::bind(config.socket()).unwrap();
        let started = Round { phase: Phase::Announced, ..Round::example() };
        let (tally, counted_cosine) = (Tally::default(), None);
        let status = RoundStatus { round: started, tally, counted_cosine };
        let reply = Reply::Round(Box::new(status));
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
    fn a_data_folder_that_cannot_be_looked_at_is_refused_before_anything_else() {
        let (folder, config) = scratch("unseen");
        fs::write(folder.join("file"), "").unwrap();
        let told = |data: &str| {
            let config = Config { data: folder.join(data), ..config.clone() };
            open(&config, Purpose::Look).err().unwrap().to_string()
        };
        let (below, missing) = (told("file/data"), told("missing"));
        assert!(
            below.contains("cannot reach the database") && below.contains("file/data"),
            "{below}"
        );
        assert!(missing.contains("there is no database at"), "{missing}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn an_answer_to_another_request_is_no_success() {
        let (folder, config) = scratch("another");
        let server = UnixListener::bind(config.socket()).unwrap();
        let serve = move || {
            let mut stream = server.accept().unwrap().0;
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
            let reply = serde_json::to_string(&Reply::Failures(Vec::new())).unwrap() + "\n";
            stream.write_all(reply.as_bytes()).unwrap();
        };
        std::thread::spawn(serve);
        let told = model(&config, ModelAction::Rollback { version: 1 }).unwrap_err().to_string();
        assert!(told.contains("answered something else"), "{told}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
