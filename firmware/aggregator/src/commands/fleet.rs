//! The commands that look at the fleet or change it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use learn::edges::SystemClock;
use learn::head::Subset;

use super::{json, say};
use crate::cli::{AuditAction, DeviceAction, ModelAction, Output, RestoreArgs, RoundAction};
use crate::config::Config;
use crate::control::{Reply, Request, ask, execute};
use crate::date::utc;
use crate::engine::{Engine, Parts, RoundRequest, RoundStatus, Status};
use crate::gate::{Gate, NoGate};
use crate::hex;
use crate::keys::Keys;
use crate::records::{Device, Model, Phase, Rollout, Standing};
use crate::store::Store;
use crate::student::{Holdout, Trunk};

/// An engine on the configured database. `gate` says whether candidates will have to be judged, now or by the server that
/// comes after.
pub fn open(config: &Config, create: bool, gate: bool) -> Result<Engine> {
    let trunk = Trunk::load(&config.model)?;
    let (layout, shipped) = (trunk.layout().clone(), trunk.parameters().to_vec());
    let judge: Box<dyn Gate> = match &config.gate.holdout {
        Some(folder) if gate => {
            Box::new(Holdout::new(trunk, folder, config.gate.pictures.unwrap_or(2))?)
        }
        _ => Box::new(NoGate),
    };
    let path = config.database();
    let store = if create { Store::create(&path)? } else { Store::open(&path)? };
    let keys = Keys::of(&store, &config.data, create)?;
    Ok(Engine::new(Parts {
        store: Arc::new(store),
        key: keys.signing,
        secrets: keys.devices,
        clock: Arc::new(SystemClock),
        gate: judge,
        layout,
        shipped,
        channel: config.channel.clone(),
        rules: config.rules.clone(),
    })?)
}

/// `aggregator init`.
pub fn init(config: &Config) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(&config.data)
        .with_context(|| format!("cannot make {}", config.data.display()))?;
    let engine = open(config, true, false)?;
    if engine.store().models()?.is_empty() {
        let trunk = Trunk::load(&config.model)?;
        let numbers = engine.layout().gather(Subset::Full, trunk.parameters());
        let model = engine.add_model(&numbers, "as the mirrors ship")?;
        engine.publish(model.version)?;
        engine.complete(model.version)?;
    }
    say(format!("channel {}: database {}", config.channel, config.database().display()))?;
    say(format!("public key for the mirrors' settings: {}", engine.public_key()))?;
    Ok(())
}

fn request(config: &Config, request: Request) -> Result<Reply> {
    let socket = config.socket();
    let asked = ask(&socket, &request);
    let reply = match asked.with_context(|| format!("the server at {}", socket.display()))? {
        Some(reply) => reply,
        None => {
            let gate = matches!(request, Request::RoundStart(_));
            execute(&open(config, false, gate)?, None, request)
        }
    };
    match reply {
        Reply::Failed(reason) => bail!(reason),
        reply => Ok(reply),
    }
}

fn status_of(config: &Config) -> Result<Status> {
    match request(config, Request::Status)? {
        Reply::Status(status) => Ok(*status),
        other => bail!("the server answered something else: {other:?}"),
    }
}

/// `aggregator status`.
pub fn status(config: &Config, output: Output) -> Result<()> {
    let status = status_of(config)?;
    if output.json {
        return json(&status);
    }
    let online = status.online.map(|count| format!(", {count} online")).unwrap_or_default();
    say(format!("devices: {} enrolled{online}, {} revoked", status.enrolled, status.revoked))?;
    say("models:")?;
    for model in &status.models {
        say(format!("  {}", model_line(model)))?;
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
            print_reply(request(config, Request::RoundStart(start))?, output)
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
            let models = status_of(config)?.models;
            if output.json {
                return json(&models);
            }
            for model in &models {
                say(model_line(model))?;
            }
            Ok(())
        }
        ModelAction::Show { version, output } => {
            let models = status_of(config)?.models;
            let found = models.into_iter().find(|model| model.version == version);
            let model = found.with_context(|| format!("there is no model version {version}"))?;
            if output.json {
                return json(&model);
            }
            say(format!("{}\nparameters {}", model_line(&model), model.parameters))?;
            Ok(())
        }
        ModelAction::Publish { version } => {
            print_reply(request(config, Request::ModelPublish { version })?, plain)
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
                    say(device_line(device, None))?;
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
    Ok(crate::verify::verify(&Store::open(&path)?, trunk.layout(), &key)?)
}

/// What a mirror needs of its fleet, as the files that its settings name, for this user alone.
fn hand_over(folder: &Path, secret: &str, public_key: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
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
                say(device_line(&known.device, known.online))?;
            }
        }
        Reply::Device(device) => say(device_line(&device, None))?,
        Reply::Enrolled { device, secret, public_key } => {
            say(device_line(&device, None))?;
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
        Reply::Status(_) | Reply::Failed(_) => {}
    }
    Ok(())
}

fn round_line(status: &RoundStatus) -> String {
    let RoundStatus { round, tally } = status;
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
        Phase::Announced | Phase::Collecting => {
            format!(", open from {} to {} UTC", utc(round.opens_at), utc(round.closes_at))
        }
        _ => String::new(),
    };
    format!(
        "round {} on version {}: {}{times}{end}; {} updates, {} bytes, {} refused{score}; expected \
         cosine {:.3}{}",
        round.id,
        round.task.base_version,
        round.phase.name(),
        tally.counted,
        tally.bytes,
        tally.refused.values().sum::<u64>(),
        round.expected_cosine,
        if round.forced { ", forced" } else { "" },
    )
}

fn model_line(model: &Model) -> String {
    let rollout = match &model.rollout {
        Rollout::Held => "held".to_owned(),
        Rollout::Running { stage, .. } => format!("rolling out, stage {}", stage + 1),
        Rollout::Complete => "everywhere".to_owned(),
        Rollout::Stopped { reason } => format!("stopped: {reason}"),
    };
    format!(
        "version {} ({}): {rollout}; {} installed, {} failed",
        model.version, model.origin, model.installed, model.failed
    )
}

fn device_line(device: &Device, online: Option<bool>) -> String {
    let standing = match &device.standing {
        Standing::Enrolled => "enrolled".to_owned(),
        Standing::Revoked { reason } => format!("revoked: {reason}"),
    };
    let there = match online {
        Some(true) => ", online",
        Some(false) => ", offline",
        None => "",
    };
    let group = device.group.as_ref().map(|group| format!(", group {group}")).unwrap_or_default();
    format!("{} {standing}{there}{group}; certificate {}", device.name, device.fingerprint)
}
