//! Chores that need more than cargo: `cargo xtask help`.

mod board;
mod crossbuild;
mod deps;
mod guest;
mod labels;
mod locks;
mod notices;
mod same_parsing;
mod tools;
mod unfinished;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Chores of the mirror's workspace.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check which crate imports which, that the lock files agree, and that nothing unfinished is left
    Deps,
    /// Build the mirror for aarch64 Linux, and gather what a board gets in one folder
    Cross,
    /// Write whose work is in the device program, and under which terms
    Notices {
        /// File to write
        #[arg(long, default_value = "target/NOTICES.txt")]
        out: PathBuf,
    },
    /// Run the mirror on a virtual camera and screen in an emulated aarch64 board
    BoardTest {
        /// Folder for logs and screens
        #[arg(long, default_value = "target/board-test")]
        out: PathBuf,
    },
    /// Parse the same pictures on this machine and as an aarch64 program, and compare
    SameParsing {
        /// Pictures to parse
        #[arg(long, default_value_t = 4)]
        pictures: usize,
    },
}

fn main() -> Result<()> {
    match Cli::parse().chore {
        Chore::Deps => {
            deps::check().and_then(|()| locks::check()).and_then(|()| unfinished::check())
        }
        Chore::Cross => crossbuild::for_board().map(|folder| println!("{}", folder.display())),
        Chore::Notices { out } => Ok(std::fs::write(out, notices::text_for_device()?)?),
        Chore::BoardTest { out } => board::test(&out),
        Chore::SameParsing { pictures } => same_parsing::check(pictures),
    }
}
