//! The commands besides `mirror run`.

mod bench;
mod config;
mod eval;
mod pair;
mod parse;
mod privacy;

use std::time::Instant;

use anyhow::Result;

use crate::cli::{Cli, Command};
use crate::run;

/// Does what the command line asks for; `started` is the start of the process.
///
/// # Errors
/// Whatever keeps the command from doing its work.
pub fn dispatch(cli: Cli, started: Instant) -> Result<()> {
    match cli.command {
        None => run::run(&cli.run, started),
        Some(Command::Run(args)) => run::run(&args, started),
        Some(Command::Parse(args)) => parse::parse(&args),
        Some(Command::Bench(args)) => bench::bench(&args, started),
        Some(Command::Eval(args)) => eval::eval(&args),
        Some(Command::Config(args)) => config::config(&args),
        Some(Command::Pair(args)) => pair::pair(&args),
        Some(Command::Privacy(args)) => privacy::privacy(&args),
    }
}
