//! The mirror and the device suites for aarch64 Linux.
//!
//! The standard library for the target comes from rustup. Where rustup can fetch no target, Debian's `rustc-web`
//! packages are unpacked below `target/` and used instead.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::notices;
use crate::tools::{cargo_build, need, output, root, run, target};

/// The target's name.
pub const TARGET: &str = "aarch64-unknown-linux-gnu";

/// Newest C library that the mirror may ask for: the one of Debian 12, and so of the 64-bit Raspberry Pi OS bookworm.
const NEWEST_GLIBC: (u32, u32) = (2, 36);

/// The device suites, which only the emulated board runs.
pub struct Suites {
    /// The suite of the camera crate.
    pub camera: PathBuf,
    /// The suite of the display crate.
    pub display: PathBuf,
}

/// Builds the mirror and gathers what a board gets: the program, its unit, what installs them, and the notices.
pub fn for_board() -> Result<PathBuf> {
    let program = mirror()?;
    let folder = target().join(TARGET).join("board");
    std::fs::create_dir_all(&folder)?;
    std::fs::copy(&program, folder.join("mirror"))?;
    for name in ["mirror.service", "install.sh"] {
        std::fs::copy(root().join("board").join(name), folder.join(name)).context(name)?;
    }
    std::fs::write(folder.join("NOTICES.txt"), notices::text_for_device()?)?;
    Ok(folder)
}

/// Builds the device program, optimised; its path. In a call of its own: what the suites need beside it would change the
/// features of its dependencies, and with them the program that ships.
pub fn mirror() -> Result<PathBuf> {
    need("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross")?;
    cargo(&["-p", "mirror", "--bin", "mirror"])?;
    let program = stripped("mirror")?;
    let needs = output(
        Command::new("aarch64-linux-gnu-readelf").env("LC_ALL", "C").arg("-VW").arg(&program),
    )?;
    let newest = newest_glibc(&needs).context("the program names no C library")?;
    ensure!(
        newest <= NEWEST_GLIBC,
        "the program needs the C library {}.{}, and boards with Debian 12 have {}.{}: build it on Debian 12 (bookworm), or in \
         its container",
        newest.0,
        newest.1,
        NEWEST_GLIBC.0,
        NEWEST_GLIBC.1,
    );
    Ok(program)
}

/// Builds the device suites, optimised.
pub fn suites() -> Result<Suites> {
    need("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross")?;
    cargo(&[
        "-p",
        "camera",
        "-p",
        "display",
        "--example",
        "camera-suite",
        "--example",
        "display-suite",
    ])?;
    Ok(Suites {
        camera: stripped("examples/camera-suite")?,
        display: stripped("examples/display-suite")?,
    })
}

/// A copy without debugging lines, which are ten times the program.
fn stripped(program: &str) -> Result<PathBuf> {
    let folder = target().join(TARGET);
    let from = folder.join("release").join(program);
    let name = from.file_name().context("a program's name")?;
    let to = folder.join("stripped").join(name);
    std::fs::create_dir_all(folder.join("stripped"))?;
    run(Command::new("aarch64-linux-gnu-strip").arg("-o").args([&to, &from]))?;
    Ok(to)
}

/// The newest version of the C library that a program needs, from what `readelf -V` says about it.
fn newest_glibc(needs: &str) -> Option<(u32, u32)> {
    let versions = needs.lines().filter_map(|line| {
        let name = line.split_once("Name: GLIBC_")?.1.split_whitespace().next()?;
        let mut numbers = name.split('.').map(|number| number.parse().ok());
        Some((numbers.next()??, numbers.next()??))
    });
    versions.max()
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let mut command = cargo_build(&["--target", TARGET]);
    command
        .args(arguments)
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
    let folder = target().join("rustc-web");
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
    /// What `readelf -V` of binutils 2.40 said about the mirror, shortened.
    const NEEDS: &str = "\
Version symbols section '.gnu.version' contains 256 entries:
  000:   0 (*local*)       2 (GLIBC_2.99)    3 (GCC_3.0)       4 (GLIBC_2.17)
Version needs section '.gnu.version_r' contains 3 entries:
  000000: Version: 1  File: libm.so.6  Cnt: 4
  0x0010:   Name: GLIBC_2.27  Flags: none  Version: 11
  0x0030:   Name: GLIBC_2.35  Flags: none  Version: 5
  0x0050: Version: 1  File: libgcc_s.so.1  Cnt: 3
  0x0060:   Name: GCC_4.2.0  Flags: none  Version: 13
  0x0090: Version: 1  File: libc.so.6  Cnt: 8
  0x0100:   Name: GLIBC_2.4  Flags: none  Version: 7
  0x0110:   Name: GLIBC_2.2.5  Flags: none  Version: 2
";

    #[test]
    fn the_newest_c_library_that_is_needed_is_found() {
        assert_eq!(newest_glibc(NEEDS), Some((2, 35)), "a number, not letters");
        let newer = format!("{NEEDS}  0x0120:   Name: GLIBC_2.38  Flags: none  Version: 17\n");
        assert_eq!(newest_glibc(&newer), Some((2, 38)));
        assert!(NEWEST_GLIBC < (2, 38) && NEWEST_GLIBC >= (2, 35));
        assert_eq!(newest_glibc("There is no version information in this file."), None);
    }
}
