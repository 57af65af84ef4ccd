//! `mirror config show` and `mirror config check`.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use settings::{Board, Effective};

use crate::cli::{ConfigAction, ConfigArgs, SettingsArgs};
use crate::config;
use crate::report::{self, Usage};

/// Shows or checks settings.
///
/// # Errors
/// Settings that cannot be used; exit code 2.
pub fn config(args: &ConfigArgs) -> Result<()> {
    match &args.action {
        ConfigAction::Show { json, settings } => show(*json, settings),
        ConfigAction::Check { files, settings } => check(files, settings),
    }
}

fn show(json: bool, args: &SettingsArgs) -> Result<()> {
    let board = config::board(args)?;
    let effective = config::load_on(&board, args, &[])?;
    let text = match json {
        true => as_json(&effective)?,
        false => format!("# board {}\n{}", board_line(&board, args), as_toml(&effective)),
    };
    Ok(report::print(&text)?)
}

/// Which profile applies, and why.
fn board_line(board: &Board, args: &SettingsArgs) -> String {
    format!("{}: {}", board.name, config::why(board, args))
}

fn as_json(effective: &Effective) -> Result<String> {
    Ok(serde_json::to_string_pretty(&effective.entries())? + "\n")
}

/// Valid TOML with dotted keys; the origins are comments in a column of their own.
fn as_toml(effective: &Effective) -> String {
    let lines: Vec<(String, String)> = effective
        .entries()
        .into_iter()
        .map(|entry| (format!("{} = {}", entry.key, entry.value), entry.origin))
        .collect();
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(60);
    let mut text = String::new();
    for (line, origin) in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line:width$}  # {origin}");
    }
    text
}

/// Checks each file over the defaults, and tells every trouble, not only the first; or the settings in effect, with the files and the
/// devices that they name on this machine, up to the first trouble.
fn check(files: &[PathBuf], args: &SettingsArgs) -> Result<()> {
    if files.is_empty() {
        let board = config::board(args)?;
        let effective = config::load_on(&board, args, &[])?;
        config::check(&effective)?;
        config::check_files(&effective)?;
        let board = board_line(&board, args);
        return Ok(report::print(&format!(
            "The settings in effect are valid on board {board}.\n"
        ))?);
    }
    let mut troubles = Vec::new();
    for path in files {
        match config::check_file(args, path) {
            Ok(()) => report::print(&format!("{}: valid\n", path.display()))?,
            Err(error) => troubles.push(report::describe(&error)),
        }
    }
    match troubles.is_empty() {
        true => Ok(()),
        false => Err(Usage(troubles.join("\nmirror: ")).into()),
    }
}
