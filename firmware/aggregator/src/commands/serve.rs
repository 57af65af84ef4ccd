//! `aggregator serve`.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tracing::{error, info};

use super::fleet::warn_of_blind_stages;
use super::open::{Purpose, open};
use super::{STOPPING, stop_signal};
use crate::config::Config;
use crate::control;
use crate::serve::Server;

/// Serves until SIGINT or SIGTERM, and then until the judgement at hand is over, which may take minutes; a second signal does not
/// wait for it.
///
/// # Errors
/// Settings, folders or ports that cannot be used; and a database that an I/O error has closed, or
/// a thread that has died, neither of which anything but another start mends.
pub fn run(config: &Config) -> Result<()> {
    let engine = open(config, Purpose::Judge)?;
    ensure!(
        !engine.store().models()?.is_empty(),
        "there is no model yet; `aggregator init` adds the one that the mirrors ship with"
    );
    engine.check_stages()?;
    engine.lost()?.iter().for_each(|lost| error!("{lost}"));
    let mut devices = Vec::new();
    engine.store().each_device(|device| devices.push(device))?;
    warn_of_blind_stages(&config.rules.rollout, &devices);
    let stop = stop_signal()?;
    let mut server = Server::start(engine, &config.broker)?;
    let socket = config.socket();
    let control = control::listen(&socket, Arc::clone(&server.office))
        .with_context(|| format!("the control socket {}", socket.display()))?;
    server.watch(control);
    let (address, page) = crate::page::start(config.page.listen, Arc::clone(&server.office))?;
    server.watch(page);
    info!("page: {address}");
    let waited = server.wait(&stop);
    if waited.is_ok() {
        info!("{STOPPING}");
    }
    server.stop();
    // Whoever asks from now on opens the database.
    let _ = std::fs::remove_file(&socket);
    Ok(waited?)
}
