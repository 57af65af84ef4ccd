//! What each command does.

mod ask;
pub mod fleet;
pub mod open;
mod print;
mod serve;
mod simulate;

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};

use crate::cli::{Cli, Command};
use crate::config::Config;

/// How a process ends that a second signal has ended.
const SECOND_SIGNAL: i32 = 130;

/// What is said at the first one.
pub(crate) const STOPPING: &str = "stopping; a second signal ends it at once";

/// Does what the command line asks.
///
/// # Errors
/// Whatever stops the command, with the next step in its message.
pub fn dispatch(cli: Cli) -> Result<()> {
    let config = || Config::read(&cli.config);
    match cli.command {
        Command::Init => fleet::init(&config()?),
        Command::Serve => serve::run(&config()?),
        Command::Status(output) => fleet::status(&config()?, output),
        Command::Round { action } => fleet::round(&config()?, action),
        Command::Model { action } => fleet::model(&config()?, action),
        Command::Device { action } => fleet::device(&config()?, action),
        Command::Audit { action } => fleet::audit(&config()?, action),
        Command::Restore(args) => fleet::restore(&config()?, &args),
        #[cfg(feature = "demo")]
        Command::Demo(args) => crate::demo::run(&args),
        Command::Simulate(args) => simulate::run(&args),
    }
}

/// A flag that SIGINT and SIGTERM set. The second signal ends the process at once: whatever it was at is found again by the next one.
///
/// # Errors
/// Signals that cannot be watched.
pub fn stop_signal() -> Result<Arc<AtomicBool>> {
    let stop: Arc<AtomicBool> = Arc::default();
    for signal in [SIGINT, SIGTERM] {
        register_conditional_shutdown(signal, SECOND_SIGNAL, Arc::clone(&stop))
            .and_then(|_| register(signal, Arc::clone(&stop)))
            .context("cannot watch for the stop signal")?;
    }
    Ok(stop)
}

/// A line on standard output. A reader that has gone away (`aggregator device list | head`) is fine.
pub(crate) fn say(line: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// A value as JSON on standard output.
fn json<T: serde::Serialize>(value: &T) -> Result<()> {
    say(serde_json::to_string_pretty(value)?)?;
    Ok(())
}
