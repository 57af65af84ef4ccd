//! The operators' side of the fleet: rounds, averaging, the gate, models, and the operators' page.
//!
//! **Invariants**
//! - An acknowledged update is in the database; a counted one is counted once ([`store`]).
//! - Decisions are a pure function of records, arrivals and a clock that tests set (`round_steps`, [`rollout_rules`]).
//! - A round that would carry no signal is refused, with what to do instead (`signal`).
//! - No candidate becomes a version without a verdict of the holdout ([`gate`]).
//! - Every decision is signed and chained, and its arithmetic can be done again ([`audit`], [`verify`]).

#![cfg_attr(test, allow(clippy::unwrap_used))] // a failed unwrap is a failed test

pub mod announce;
pub mod arithmetic;
pub mod audit;
pub mod carrier;
mod certificate;
mod cli;
pub mod commands;
pub mod config;
pub mod contributor;
pub mod control;
mod date;
#[cfg(feature = "demo")]
pub mod demo;
pub mod desk;
pub mod engine;
mod files;
pub mod gate;
mod hex;
mod households;
pub mod ingest;
pub mod keys;
mod mqtt;
pub mod office;
mod page;
pub mod presence;
pub mod records;
pub mod refusal_kinds;
pub mod rollout_rules;
mod round_steps;
pub mod serve;
mod signal;
mod simulate;
pub mod store;
mod student;
pub mod verify;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The whole program: 0 when it worked, 1 when it did not, 2 for wrong usage or settings.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    start_log(cli.verbose, cli.is_quiet());
    match commands::dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stderr(), "aggregator: {}", describe(&error));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// An error with its causes; a cause that the text already quotes is not repeated.
fn describe(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// 2 for settings that another start finds as wrong as this one, 1 for everything else.
fn exit_code(error: &anyhow::Error) -> u8 {
    use config::ConfigError;
    use engine::EngineError;
    let is_wrong = error.chain().any(|cause| match cause.downcast_ref::<ConfigError>() {
        // A file that is not there may lie on a disk that is not mounted yet.
        Some(error) => !matches!(error, ConfigError::Read { .. }),
        None => matches!(
            cause.downcast_ref(),
            Some(EngineError::StagesChanged { .. } | EngineError::OtherChannel { .. })
        ),
    });
    if is_wrong { 2 } else { 1 }
}

/// Logs go to standard error. `RUST_LOG` overrides `-v`.
fn start_log(verbose: u8, quiet: bool) {
    // rumqttc writes out whole packets that a broker should not have sent; rumqttd is the demonstration's.
    let own = |level| {
        let foreign = ["rumqttc", "rumqttd"].map(|target| (target, LevelFilter::OFF));
        Targets::new().with_default(level).with_targets(foreign)
    };
    let targets = match verbose {
        0 if quiet => own(LevelFilter::ERROR),
        0 => own(LevelFilter::INFO),
        1 => own(LevelFilter::INFO).with_target("aggregator", LevelFilter::DEBUG),
        _ => Targets::new().with_default(LevelFilter::DEBUG),
    };
    let wanted = std::env::var("RUST_LOG").ok().and_then(|wanted| wanted.parse().ok());
    let targets: Targets = wanted.unwrap_or(targets);
    let log = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(std::io::stderr)
        // It would say on standard error that standard error takes nothing, and panic.
        .log_internal_errors(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false);
    // The journal has times of its own.
    match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => log.without_time().finish().with(targets).init(),
        None => log.finish().with(targets).init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::ConfigError;
    use engine::EngineError;

    #[test]
    fn settings_that_no_start_mends_are_told_from_everything_else() {
        let stages = EngineError::StagesChanged { version: 2, said: 20, now: 1000 };
        assert_eq!(exit_code(&anyhow::Error::new(stages).context("serving")), 2);
        let channel = EngineError::OtherChannel { known: "a".into(), found: "b".into() };
        assert_eq!(exit_code(&channel.into()), 2);
        let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
        let unread = ConfigError::Read { path: "nowhere".into(), source: gone };
        assert_eq!(exit_code(&unread.into()), 1);
        assert_eq!(exit_code(&EngineError::NoModels.into()), 1);
    }
}
