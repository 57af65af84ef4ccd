//! The mirror and the device suites for aarch64 Linux.
//!
//! The standard library for the target comes from rustup. Where rustup can fetch no target, Debian's `rustc-web`
//! packages are unpacked below `target/` and used instead.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tools::{need, output, root, run};

/// The target's name.
pub const TARGET: &str = "aarch64-unknown-linux-gnu";

/// Programs that were built.
pub struct Built {
    /// The device program.
    pub mirror: PathBuf,
    /// The suite of the camera crate.
    pub camera_suite: PathBuf,
    /// The suite of the display crate.
    pub display_suite: PathBuf,
}

/// Builds everything that the emulated board needs, optimised.
pub fn build() -> Result<Built> {
    need("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross")?;
    cargo(&[
        "build",
        "--release",
        "--locked",
        "--target",
        TARGET,
        "-p",
        "mirror",
        "-p",
        "camera",
        "-p",
        "display",
        "--bin",
        "mirror",
        "--example",
        "camera-suite",
        "--example",
        "display-suite",
    ])?;
    Ok(Built {
        mirror: stripped("mirror")?,
        camera_suite: stripped("examples/camera-suite")?,
        display_suite: stripped("examples/display-suite")?,
    })
}

/// A copy without debugging lines, which are ten times the program.
fn stripped(program: &str) -> Result<PathBuf> {
    let folder = root().join("target").join(TARGET);
    let from = folder.join("release").join(program);
    let name = from.file_name().context("a program's name")?;
    let to = folder.join("stripped").join(name);
    std::fs::create_dir_all(folder.join("stripped"))?;
    run(Command::new("aarch64-linux-gnu-strip").arg("-o").args([&to, &from]))?;
    Ok(to)
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("cargo");
    command
        .args(arguments)
        .current_dir(root())
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")
        .env("CC_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-gcc")
        .env("AR_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-ar");
    // A tree without its history has only its version to say.
    if let Ok(name) = build_name() {
        command.env("MIRROR_BUILD", name);
    }
    if !rustup_has_target() {
        command.env("RUSTC", debian_rustc()?);
    }
    run(&mut command)
}

/// What `mirror --version` and a fleet's list of devices call this build, such as `0.1.0+fbd49e3-dirty`.
fn build_name() -> Result<String> {
    let commit =
        output(Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root()))?;
    Ok(format!("{}+{}", env!("CARGO_PKG_VERSION"), commit.trim()))
}

fn rustup_has_target() -> bool {
    let installed = || {
        output(Command::new("rustup").args(["target", "list", "--installed"]))
            .is_ok_and(|list| list.contains(TARGET))
    };
    installed()
        || (output(Command::new("rustup").args(["target", "add", TARGET])).is_ok() && installed())
}

/// Unpacks Debian's compiler and its standard libraries for both architectures, and writes a wrapper that finds them.
fn debian_rustc() -> Result<PathBuf> {
    let folder = root().join("target/rustc-web");
    let wrapper = folder.join("rustc");
    if wrapper.is_file() {
        return Ok(wrapper);
    }
    println!("   rustup has no {TARGET}; taking Debian's rustc-web");
    let debs = folder.join("debs");
    std::fs::create_dir_all(&debs)?;
    know_arm64()?;
    let policy = output(Command::new("apt-cache").args(["policy", "rustc-web"]))?;
    let version = policy
        .lines()
        .find_map(|l| l.trim().strip_prefix("Candidate: "))
        .filter(|v| *v != "(none)")
        .context("Debian offers no rustc-web; add the security archive to apt's sources")?;
    let short: String = version.split('.').take(2).collect::<Vec<_>>().join(".");
    let library = format!("libstd-rust-web-{short}");
    let shown = output(Command::new("apt-cache").args(["show", &format!("{library}={version}")]))?;
    let llvm = shown
        .split(|c: char| !c.is_ascii_alphanumeric())
        .find(|word| word.starts_with("libllvm"))
        .context("rustc-web's LLVM is not named by its package")?
        .to_owned();
    let mut wanted: Vec<String> =
        ["rustc-web", &library, "libstd-rust-web-dev", "libstd-rust-web-dev:arm64"]
            .iter()
            .map(|p| format!("{p}={version}"))
            .collect();
    wanted.push(llvm.clone());
    run(Command::new("apt-get").arg("download").arg("-q").args(&wanted).current_dir(&debs))?;
    unpack_all(&debs, &folder.join("root"))?;
    let text = format!(
        "#!/bin/sh\nD={}\nexport LD_LIBRARY_PATH=$D/usr/lib/x86_64-linux-gnu:$D/usr/lib/llvm-{}/lib\nexec $D/usr/bin/rustc \"$@\"\n",
        folder.join("root").display(),
        llvm.trim_start_matches("libllvm"),
    );
    std::fs::write(&wrapper, text)?;
    run(Command::new("chmod").arg("+x").arg(&wrapper))?;
    Ok(wrapper)
}

/// Lets apt find packages for arm64. Asks for nothing where it does already: changing that takes root.
pub fn know_arm64() -> Result<()> {
    let foreign = output(Command::new("dpkg").arg("--print-foreign-architectures"))?;
    if !foreign.contains("arm64") {
        run(Command::new("dpkg").args(["--add-architecture", "arm64"]))?;
        run(Command::new("apt-get").args(["update", "-q"]))?;
    }
    Ok(())
}

/// Unpacks every package of a folder into another; nothing is installed.
pub fn unpack_all(debs: &Path, into: &Path) -> Result<()> {
    std::fs::create_dir_all(into)?;
    let mut count = 0;
    for entry in std::fs::read_dir(debs)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "deb") {
            run(Command::new("dpkg-deb").arg("-x").arg(&path).arg(into))?;
            count += 1;
        }
    }
    if count == 0 {
        bail!("no package was downloaded to {}", debs.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_named_after_its_commit() {
        // A tree without its history has none.
        let Ok(name) = build_name() else { return };
        let commit = name.strip_prefix(concat!(env!("CARGO_PKG_VERSION"), "+"));
        assert!(commit.is_some_and(|c| c.len() >= 4) && name.len() <= 64, "{name}");
    }
}
