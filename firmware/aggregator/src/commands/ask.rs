//! Asks the fleet's server or, where none runs, its database, for a command.

use anyhow::{Context, Result, bail};

use super::open::{Purpose, open};
use crate::config::Config;
use crate::control::{Listed, Reply, Request, ask, execute};
use crate::engine::{Failure, ModelStatus, RoundRequest, RoundStatus, Status};
use crate::records::Device;
use crate::verify::Verified;

/// A device that was just enrolled, with what its mirror needs.
pub struct Enrolled {
    pub device: Device,
    pub secret: String,
    pub public_key: String,
}

/// The reply, and whether a running server gave it.
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

/// A reply that belongs to another request, as of another version's server.
fn wrong<T>(reply: Reply) -> Result<T> {
    bail!("the server answered something else: {reply:?}; use the program that it runs")
}

pub fn status(config: &Config) -> Result<Status> {
    match answer(config, Request::Status)?.0 {
        Reply::Status(status) => Ok(*status),
        other => wrong(other),
    }
}

/// The round that has started, and whether a running server announces it.
pub fn round_start(config: &Config, start: RoundRequest) -> Result<(RoundStatus, bool)> {
    match answer(config, Request::RoundStart(start))? {
        (Reply::Round(round), is_served) => Ok((*round, is_served)),
        (other, _) => wrong(other),
    }
}

pub fn round_abort(config: &Config, round: u64, reason: String) -> Result<RoundStatus> {
    match answer(config, Request::RoundAbort { round, reason })?.0 {
        Reply::Round(round) => Ok(*round),
        other => wrong(other),
    }
}

/// What comes of a request that puts a version on its way.
pub fn model(config: &Config, request: Request) -> Result<ModelStatus> {
    match answer(config, request)?.0 {
        Reply::Model(model) => Ok(model),
        other => wrong(other),
    }
}

pub fn failures(config: &Config, version: u64) -> Result<Vec<Failure>> {
    match answer(config, Request::ModelFailures { version })?.0 {
        Reply::Failures(failures) => Ok(failures),
        other => wrong(other),
    }
}

pub fn devices(config: &Config) -> Result<Vec<Listed>> {
    match answer(config, Request::DeviceList)?.0 {
        Reply::Devices(devices) => Ok(devices),
        other => wrong(other),
    }
}

pub fn enrol(
    config: &Config,
    name: String,
    fingerprint: String,
    group: Option<String>,
) -> Result<Enrolled> {
    match answer(config, Request::DeviceEnrol { name, fingerprint, group })?.0 {
        Reply::Enrolled { device, secret, public_key } => {
            Ok(Enrolled { device, secret, public_key })
        }
        other => wrong(other),
    }
}

pub fn revoke(config: &Config, name: String, reason: String) -> Result<Device> {
    match answer(config, Request::DeviceRevoke { name, reason })?.0 {
        Reply::Device(device) => Ok(device),
        other => wrong(other),
    }
}

pub fn verified(config: &Config) -> Result<Verified> {
    match answer(config, Request::AuditVerify)?.0 {
        Reply::Verified(verified) => Ok(verified),
        other => wrong(other),
    }
}
