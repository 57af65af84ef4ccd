//! The device program: camera, network, display, local page, and the supervisor that keeps them
//! alive.
//!
//! Invariants: pictures stay in memory, except a correction that somebody asked to keep, which is sealed. The page is
//! reachable from this machine and, if that is wanted, by paired browsers. The display gets labels, never a picture.

mod access;
mod backoff;
mod cli;
mod commands;
mod config;
mod fleet;
mod found;
mod frozen;
mod learning;
mod look;
mod memory;
mod model;
mod page;
mod parsed;
pub mod pictures;
mod private;
mod progress;
mod report;
mod run;
mod second_look;
mod shared;
mod sources;
#[cfg(test)]
mod testing;
mod thermal;
mod timings;
mod view;

pub use fleet::Trial;
pub use model::ModelSource;

use std::process::ExitCode;
use std::time::Instant;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What the program, its page, its fleet and Home Assistant call this build: what `MIRROR_BUILD` said when it was made, as
/// `cargo xtask cross` does, such as `0.1.0+fbd49e3`; at most 64 bytes.
pub const VERSION: &str = match option_env!("MIRROR_BUILD") {
    Some(build) => build,
    None => env!("CARGO_PKG_VERSION"),
};

// A fleet takes no longer one.
const _: () = assert!(VERSION.len() <= 64, "MIRROR_BUILD is longer than 64 bytes");

/// The whole program: 0 when it worked, 1 when it did not, 2 for wrong usage or settings.
pub fn main() -> ExitCode {
    let started = Instant::now();
    let cli = cli::Cli::read();
    start_log(cli.verbose, cli.is_run());
    match commands::dispatch(cli, started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::tell(&error);
            ExitCode::from(report::exit_code(&error))
        }
    }
}

/// Logs go to standard error; the journal adds its own times. `RUST_LOG` overrides `-v`.
fn start_log(verbose: u8, running: bool) {
    // rumqttc writes out whole packets that a broker should not have sent.
    let own = |level| Targets::new().with_default(level).with_target("rumqttc", LevelFilter::OFF);
    let targets = match (verbose, running) {
        (0, false) => own(LevelFilter::WARN),
        (0, true) => own(LevelFilter::INFO),
        (1, _) => own(LevelFilter::INFO).with_targets(
            ["mirror", "camera", "display", "vision"].map(|t| (t, LevelFilter::DEBUG)),
        ),
        (_, _) => Targets::new().with_default(LevelFilter::DEBUG),
    };
    let wanted = std::env::var("RUST_LOG").ok().and_then(|wanted| wanted.parse().ok());
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(std::io::stderr)
        // It would say on standard error that standard error takes nothing, and panic.
        .log_internal_errors(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .without_time()
        .finish()
        .with(wanted.unwrap_or(targets))
        .init();
}
