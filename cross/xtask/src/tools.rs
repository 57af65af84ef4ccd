//! Commands, stages and their times; cargo's builds and its view of the packages; the files of the source tree.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The workspace's root.
pub fn root() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    folder.canonicalize().expect("the source tree that this program was built from is there")
}

/// Where everything is built, whatever `CARGO_TARGET_DIR` or the settings of cargo say: a program is looked for where it
/// was just made, and never an older one where it was made once.
pub fn target() -> PathBuf {
    root().join("target")
}

/// An optimised build into [`target`].
pub fn cargo_build(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--locked", "--target-dir"]).arg(target());
    command.args(arguments).current_dir(root());
    command
}

/// Cargo's view of the packages that are built for one of the targets. Packages of other systems are neither downloaded nor
/// named.
pub fn metadata(targets: &[&str]) -> Result<Value> {
    let mut command = Command::new("cargo");
    command.args(["metadata", "--format-version=1", "--locked"]).current_dir(root());
    for target in targets {
        command.args(["--filter-platform", target]);
    }
    serde_json::from_str(&output(&mut command)?).context("cargo metadata")
}

/// A list within cargo's answer.
pub fn array<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value[key].as_array().with_context(|| format!("cargo metadata has no {key}"))
}

/// A string within cargo's answer, empty where there is none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Adds the Rust files of a folder and of those within it.
pub fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Runs a stage, printing its name and how long it took.
pub fn stage<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("-- {name}");
    let began = Instant::now();
    let result = work().with_context(|| name.to_owned())?;
    println!("-- {name}: {:.1} s", began.elapsed().as_secs_f32());
    Ok(result)
}

/// Fails with the package to install when a program is missing.
pub fn need(program: &str, package: &str) -> Result<()> {
    let found = std::env::var_os("PATH").is_some_and(|paths| {
        std::env::split_paths(&paths)
            .chain(["/sbin".into(), "/usr/sbin".into()])
            .any(|p| p.join(program).is_file())
    });
    if !found {
        bail!("{program} is missing; apt-get install {package}");
    }
    Ok(())
}

/// Runs a command; its failure names it.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown} failed: {status}");
    }
    Ok(())
}

/// Runs a command and gives what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        bail!("{shown} failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_built_where_it_is_looked_for() {
        let command = cargo_build(&["-p", "mirror"]);
        let arguments: Vec<PathBuf> = command.get_args().map(PathBuf::from).collect();
        let at = arguments.iter().position(|argument| argument.as_os_str() == "--target-dir");
        assert_eq!(at.map(|at| &arguments[at + 1]), Some(&root().join("target")));
    }
}
