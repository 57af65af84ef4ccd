//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::records::Parameters;

/// The operators' side of a fleet of mirrors: rounds, averaging, models.
#[derive(Debug, Parser)]
#[command(name = "aggregator", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Print more about what happens, on standard error (-vv for still more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Settings file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "AGGREGATOR_CONFIG",
        default_value = "/etc/mirror/aggregator.toml"
    )]
    pub config: PathBuf,
}

impl Cli {
    /// Whether the command draws on the terminal itself.
    pub fn is_quiet(&self) -> bool {
        #[cfg(feature = "demo")]
        if matches!(self.command, Command::Demo(_)) {
            return true;
        }
        false
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the database and the keys, and add the model that the mirrors ship with as version 1
    Init,
    /// Run the server: announce rounds, count updates, publish models, until stopped
    Serve,
    /// Show devices, models, rounds and troubles
    Status(Output),
    /// Rounds
    Round {
        /// What to do with them.
        #[command(subcommand)]
        action: RoundAction,
    },
    /// Model versions
    Model {
        /// What to do with them.
        #[command(subcommand)]
        action: ModelAction,
    },
    /// Devices
    Device {
        /// What to do with them.
        #[command(subcommand)]
        action: DeviceAction,
    },
    /// The audit log
    Audit {
        /// What to do with it.
        #[command(subcommand)]
        action: AuditAction,
    },
    /// Go on with a database from a backup: number rounds and versions above those that mirrors may have seen, and publish its
    /// newest proven model again
    Restore(RestoreArgs),
    /// The whole fleet in this process: a broker, this server, a dozen mirrors that really train, and their rounds
    #[cfg(feature = "demo")]
    Demo(DemoArgs),
    /// A fleet without a network: accuracy, epsilon and bytes by round
    Simulate(SimulateArgs),
}

/// How answers are printed.
#[derive(Args, Clone, Copy, Debug)]
pub struct Output {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Rounds.
#[derive(Debug, Subcommand)]
pub enum RoundAction {
    /// Announce a round, unless it would carry no signal
    Start {
        /// Which numbers are trained
        #[arg(long, value_enum, default_value = "sparse")]
        parameters: Parameters,
        /// Noise of every update, in multiples of the clipping norm, from 0.5 on: no mirror takes less
        #[arg(long, value_name = "Z", default_value = "1.2")]
        noise_multiplier: String,
        /// Start a round that would be refused; it spends privacy budget of every mirror that answers
        #[arg(long)]
        force: bool,
        /// How to print it.
        #[command(flatten)]
        output: Output,
    },
    /// Show a round, or all of them
    Show {
        /// Its number
        round: Option<u64>,
        /// How to print it.
        #[command(flatten)]
        output: Output,
    },
    /// End a round without a result
    Abort {
        /// Its number
        round: u64,
        /// Why, for the audit log
        #[arg(long, default_value = "by the operator")]
        reason: String,
    },
}

/// Model versions.
#[derive(Debug, Subcommand)]
pub enum ModelAction {
    /// Every version
    List(Output),
    /// One version
    Show {
        /// Its number
        version: u64,
        /// How to print it.
        #[command(flatten)]
        output: Output,
    },
    /// Begin the roll-out of the newest version again from its first stage, where it was stopped
    Publish {
        /// Its number
        version: u64,
    },
    /// Put an older version's numbers on top as a new version: for every device at once if its own roll-out was over, else stage by stage
    Rollback {
        /// The older version
        version: u64,
    },
}

/// Devices.
#[derive(Debug, Subcommand)]
pub enum DeviceAction {
    /// Every device
    List(Output),
    /// Let a device take part, and print the secret for its settings
    Enrol {
        /// Name, as in its certificate
        name: String,
        /// SHA-256 of its certificate, as `openssl x509 -fingerprint -sha256` prints it
        #[arg(long, value_name = "HEX")]
        fingerprint: String,
        /// Group for roll-outs, such as `pilot`
        #[arg(long)]
        group: Option<String>,
        /// Write `device.secret` and `fleet.pub` into this folder instead of printing them
        #[arg(long, value_name = "FOLDER")]
        out: Option<std::path::PathBuf>,
    },
    /// Never count a device again
    Revoke {
        /// Its name
        name: String,
        /// Why, for the audit log
        #[arg(long, default_value = "by the operator")]
        reason: String,
    },
}

/// The audit log.
#[derive(Debug, Subcommand)]
pub enum AuditAction {
    /// Check chain, signatures and the arithmetic of every round
    Verify {
        /// Database to check instead of the configured one, such as a backup
        #[arg(long, value_name = "FILE")]
        database: Option<PathBuf>,
        /// Public key that you trust, instead of the one beside the database
        #[arg(long, value_name = "HEX")]
        key: Option<String>,
        /// How to print it.
        #[command(flatten)]
        output: Output,
    },
}

/// Options of `aggregator restore`.
#[derive(Args, Debug)]
pub struct RestoreArgs {
    /// The last round that mirrors may have seen, or any higher number
    #[arg(long, value_name = "ROUND")]
    pub rounds_above: u32,
    /// The last version that mirrors may have seen, or any higher number
    #[arg(long, value_name = "VERSION")]
    pub versions_above: u32,
}

/// Options of `aggregator demo`.
#[cfg(feature = "demo")]
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Mirrors, each of a household of its own
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=84))]
    pub devices: u16,
    /// Rounds
    #[arg(long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// Noise of every update, in multiples of the clipping norm. The default is far too little for privacy: a dozen mirrors
    /// would learn nothing under more
    #[arg(long, value_name = "Z", default_value = "0.02")]
    pub noise_multiplier: String,
    /// Port of the operators' page on this machine; 0: any
    #[arg(long, value_name = "PORT", default_value_t = 8090)]
    pub page_port: u16,
    /// Stay until Ctrl+C, with page and broker
    #[arg(long)]
    pub keep_open: bool,
    /// Folder with the network; left out, the one of the source tree
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Folder with the households; left out, the one of the source tree
    #[arg(long, value_name = "DIR")]
    pub households: Option<PathBuf>,
}

/// Options of `aggregator simulate`.
#[derive(Args, Debug)]
pub struct SimulateArgs {
    /// Devices that take part in every round
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    pub devices: u64,
    /// Rounds
    #[arg(long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// Noise of every update, in multiples of the clipping norm; left out, what epsilon 8 at delta 1e-5 (unit: one household's device; adjacency: zero-out; trust: nothing outside the device) allows for these rounds
    #[arg(long, value_name = "Z")]
    pub noise_multiplier: Option<String>,
    /// Which numbers are trained
    #[arg(long, value_enum, default_value = "sparse")]
    pub parameters: Parameters,
    /// Server momentum, 0 for plain federated averaging
    #[arg(long, value_name = "M", default_value_t = 0.0)]
    pub momentum: f32,
    /// Server step size
    #[arg(long, value_name = "RATE", default_value_t = 1.0)]
    pub rate: f32,
    /// Keep candidates that are worse than their predecessor
    #[arg(long)]
    pub no_gate: bool,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub threads: usize,
    /// Folder with the network
    #[arg(long, value_name = "DIR", default_value = "models/student")]
    pub model: PathBuf,
    /// Folder with the households
    #[arg(long, value_name = "DIR", default_value = "models/households")]
    pub households: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
