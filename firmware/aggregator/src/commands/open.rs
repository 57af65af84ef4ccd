//! The database of the fleet, opened for a command or the server.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use anyhow::{Result, ensure};
use learn::edges::SystemClock;

use crate::config::Config;
use crate::engine::{Engine, Parts};
use crate::gate::{Gate, NoGate};
use crate::keys::{self, Keys};
use crate::store::{Store, StoreError};
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
    let found = std::fs::metadata(folder).map_err(|source| match source.kind() {
        ErrorKind::NotFound => StoreError::Absent(path.clone()),
        _ => StoreError::Unreachable { path: path.clone(), source },
    })?;
    let mode = found.permissions().mode();
    ensure!(
        mode & 0o077 == 0,
        "{} can be entered by others, and who takes part is nobody else's business; `chmod 700` it",
        folder.display()
    );
    let is_gone = matches!(path.try_exists(), Ok(false)) && keys::is_signing_key_in(folder);
    if is_gone { Err(StoreError::Gone(path).into()) } else { Ok(()) }
}
