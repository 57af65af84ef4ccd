//! The same pictures through the native and the aarch64 program.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::crossbuild;
use crate::labels::read_png;
use crate::tools::{cargo_build, need, root, run, stage, target};

/// Share of pixels that may get another label: float sums are added in another order, and a label may flip where two
/// parts are equally likely.
const MOST_DIFFERENT: f64 = 0.002;

/// Compares label maps of the demo clip's first pictures.
pub fn check(pictures: usize) -> Result<()> {
    need("qemu-aarch64-static", "qemu-user-static")?;
    let folder = target().join("same-parsing");
    let mut inputs = stage("pictures of the demo clip", || clip_pictures(&folder, pictures))?;
    // The clip is upright; this one is wide, and the network's input with it.
    inputs.push(root().join("models/student/fixtures/pair.png"));
    let mirror = stage("aarch64 build", crossbuild::mirror)?;
    let native = stage("native build", || {
        run(&mut cargo_build(&["-p", "mirror"]))?;
        Ok(target().join("release/mirror"))
    })?;
    let (here, there) = (folder.join("x86-64"), folder.join("aarch64"));
    stage("native parsing", || parse(&mut Command::new(&native), &inputs, &here))?;
    stage("aarch64 parsing", || {
        let mut command = Command::new("qemu-aarch64-static");
        command.args(["-L", "/usr/aarch64-linux-gnu"]).arg(&mirror);
        parse(&mut command, &inputs, &there)
    })?;
    for input in &inputs {
        let name = format!("{}.png", input.file_stem().context("a name")?.to_string_lossy());
        let share = difference(&here.join(&name), &there.join(&name))?;
        println!("{name}: {:.4} % of pixels differ", 100.0 * share);
        ensure!(
            share <= MOST_DIFFERENT,
            "{name} differs in more than {:.2} % of pixels",
            100.0 * MOST_DIFFERENT
        );
    }
    Ok(())
}

fn parse(command: &mut Command, inputs: &[PathBuf], out: &Path) -> Result<()> {
    run(command.args(["parse", "--once"]).args(inputs).arg("--out").arg(out))
}

fn difference(a: &Path, b: &Path) -> Result<f64> {
    let (a, b) = (read_png(a)?, read_png(b)?);
    ensure!((a.width, a.height) == (b.width, b.height), "the maps have different sizes");
    let people = a.bytes.iter().filter(|v| **v != 0).count();
    ensure!(people > 0, "nobody was found; there is nothing to compare");
    let other = a.bytes.iter().zip(&b.bytes).filter(|(x, y)| x != y).count();
    Ok(other as f64 / a.bytes.len() as f64)
}

/// Writes the clip's first JPEG files one by one.
fn clip_pictures(folder: &Path, count: usize) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    let clip = std::fs::read(root().join("firmware/mirror/assets/demo.mjpeg"))?;
    let starts: Vec<usize> = clip
        .windows(3)
        .enumerate()
        .filter(|(_, w)| *w == [0xFF, 0xD8, 0xFF])
        .map(|(at, _)| at)
        .collect();
    ensure!(starts.len() > count, "the clip has {} pictures", starts.len());
    (0..count)
        .map(|k| {
            let path = folder.join(format!("{k:04}.jpg"));
            std::fs::write(&path, &clip[starts[k]..starts[k + 1]])?;
            Ok(path)
        })
        .collect()
}
