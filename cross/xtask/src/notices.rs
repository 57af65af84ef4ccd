//! Whose work is in the device program, and under which terms: the words that go with every copy of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::crossbuild::TARGET;
use crate::tools::{array, metadata, root, text};

/// How files with licences and with names of authors begin.
const BEGINNINGS: [&str; 6] = ["license", "licence", "copying", "copyright", "notice", "unlicense"];

const HEAD: &str = "\
The mirror's program contains the work of others. Here are its packages, each with its licence, and after them the words of the
licences. Besides, it contains Rust's standard library (MIT or Apache-2.0, The Rust Project Developers,
https://www.rust-lang.org/policies/licenses), and a network that was trained on scenes from CC0 assets and, for some motions, from the
CMU Graphics Lab Motion Capture Database (mocap.cs.cmu.edu, created with funding from NSF EIA-0196217).
";

/// Everything that belongs beside the device program, as text.
pub fn text_for_device() -> Result<String> {
    let metadata = metadata(&[TARGET])?;
    let packages = linked(&metadata, "mirror")?;
    let mut list = String::new();
    let mut licences: BTreeMap<String, Licence> = BTreeMap::new();
    for package in packages.into_iter().filter(|package| !package["source"].is_null()) {
        let name = format!("{} {}", text(&package["name"]), text(&package["version"]));
        writeln!(list, "{name}: {}, {}", text(&package["license"]), text(&package["repository"]))?;
        for words in licence_texts(package).with_context(|| name.clone())? {
            // The same words are often broken into lines in another way.
            let same = words.split_whitespace().collect::<Vec<_>>().join(" ");
            let licence = licences.entry(same).or_insert(Licence { words, of: BTreeSet::new() });
            licence.of.insert(name.clone());
        }
    }
    let mut all = format!("{HEAD}\n{list}");
    for licence in licences.values() {
        let of: Vec<&str> = licence.of.iter().map(String::as_str).collect();
        write!(all, "\n{}\nOf {}:\n\n{}\n", "=".repeat(80), of.join(", "), licence.words.trim())?;
    }
    Ok(all)
}

struct Licence {
    words: String,
    /// Packages that come with it.
    of: BTreeSet<String>,
}

/// The packages that a program is linked from, and their macros; not what only tests or build scripts use.
fn linked<'a>(metadata: &'a Value, program: &str) -> Result<Vec<&'a Value>> {
    let packages: BTreeMap<&str, &Value> = array(metadata, "packages")?
        .iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let nodes: BTreeMap<&str, &Value> = array(&metadata["resolve"], "nodes")?
        .iter()
        .map(|node| (text(&node["id"]), node))
        .collect();
    let is_program = |package: &&Value| package["source"].is_null() && package["name"] == program;
    let start = packages.values().find(|p| is_program(p)).context("no such program")?;
    let mut waiting = vec![text(&start["id"])];
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        let node = nodes.get(id).context("cargo metadata leaves a package out")?;
        for dependency in array(node, "deps")? {
            if array(dependency, "dep_kinds")?.iter().any(|kind| kind["kind"].is_null()) {
                waiting.push(text(&dependency["pkg"]));
            }
        }
    }
    let mut linked: Vec<&Value> = seen.iter().filter_map(|id| packages.get(id).copied()).collect();
    linked.sort_by_key(|package| (text(&package["name"]), text(&package["version"])));
    Ok(linked)
}

/// The files that come with a package; where none does, the standard words under its authors' names.
fn licence_texts(package: &Value) -> Result<Vec<String>> {
    let folder = Path::new(text(&package["manifest_path"])).parent().context("no folder")?;
    let mut files = Vec::new();
    licence_files(folder, &mut files)?;
    if let Some(named) = package["license_file"].as_str() {
        files.push(folder.join(named));
    }
    files.sort();
    files.dedup();
    let read = |path: &PathBuf| {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    if !files.is_empty() {
        return files.iter().map(read).collect();
    }
    let licence = text(&package["license"]);
    let words: Vec<&str> = licence.split([' ', '/', '(', ')']).collect();
    if words.contains(&"MIT") {
        return Ok(vec![mit(&authors(package), &read(&root().join("LICENSE-MIT"))?)?]);
    }
    if words.contains(&"Apache-2.0") {
        return Ok(vec![read(&root().join("LICENSE-APACHE"))?]);
    }
    bail!("it comes without the words of its licence ({licence:?}), and they are not known here")
}

fn licence_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if path.is_dir() {
            licence_files(&path, files)?;
        } else if BEGINNINGS.iter().any(|begins| name.starts_with(begins)) && !is_code(&path) {
            files.push(path);
        }
    }
    Ok(())
}

fn is_code(path: &Path) -> bool {
    path.extension().is_some_and(|end| ["rs", "py", "sh", "hbs"].iter().any(|code| end == *code))
}

fn authors(package: &Value) -> String {
    let named: Vec<&str> = package["authors"].as_array().into_iter().flatten().map(text).collect();
    match named.is_empty() {
        true => format!("the authors of {}", text(&package["name"])),
        false => named.join(", "),
    }
}

/// The MIT licence with other authors than ours.
fn mit(authors: &str, ours: &str) -> Result<String> {
    let (_, after) = ours.split_once("Copyright (c)").context("our licence names no author")?;
    let (_, terms) = after.split_once('\n').context("our licence has no terms")?;
    Ok(format!("MIT License\n\nCopyright (c) {authors}\n{terms}"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::tools::output;

    #[test]
    fn every_package_of_the_device_program_is_named_and_comes_with_words() {
        let notices = text_for_device().expect("notices");
        // Cargo's own list, made in another way.
        let tree = output(
            Command::new("cargo")
                .args(["tree", "--locked", "-p", "mirror", "-e", "normal", "--prefix", "none"])
                .args(["--target", TARGET, "--format", "{p}"])
                .current_dir(root()),
        )
        .expect("cargo tree");
        let (list, words) = notices.split_once("=====").expect("two parts");
        let mut count = 0;
        for line in tree.lines().filter(|line| !line.contains("(/")) {
            let mut parts = line.split(' ');
            let (Some(name), Some(version)) = (parts.next(), parts.next()) else { continue };
            let package = format!("{name} {}", version.trim_start_matches('v'));
            assert!(list.contains(&format!("\n{package}: ")), "{package} is not listed");
            assert!(words.contains(&package), "{package} comes with no words");
            count += 1;
        }
        assert!(count > 200, "{count} packages");
        for licence in
            ["SIL OPEN FONT LICENSE", "Independent JPEG Group", "Redistributions in binary form"]
        {
            assert!(notices.contains(licence), "{licence}");
        }
    }

    #[test]
    fn where_no_file_comes_with_a_package_its_authors_are_named() {
        let ours = std::fs::read_to_string(root().join("LICENSE-MIT")).expect("our licence");
        let words = mit("A. Author", &ours).expect("words");
        assert!(words.contains("Copyright (c) A. Author\n") && words.contains("WITHOUT WARRANTY"));
        assert!(!words.contains("the mirror's authors"));
    }
}
