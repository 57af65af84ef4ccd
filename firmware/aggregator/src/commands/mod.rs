//! What each command does.

pub mod fleet;
mod serve;
mod simulate;

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::Result;

use crate::cli::{Cli, Command};
use crate::config::Config;

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
