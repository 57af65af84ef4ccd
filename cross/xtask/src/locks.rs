//! What the product's crates are built from in the workspaces beside it: the same packages that they ship with.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use toml::Table;

use crate::tools::root;

/// Folders with a lock file of their own.
const BESIDE: [&str; 2] = ["tests/fuzz", "firmware/learn/oracle"];

/// Name and version.
type Package = (String, String);

/// The packages of a lock file.
type Lock = BTreeMap<Package, Locked>;

struct Locked {
    /// A crate of this source tree.
    ours: bool,
    /// `NAME`, or `NAME VERSION` where there are several.
    dependencies: Vec<String>,
}

/// Checks the lock files as they lie there.
pub fn check() -> Result<()> {
    let read = |folder: &str| {
        let path = root().join(folder).join("Cargo.lock");
        let shown = || path.display().to_string();
        parse(&std::fs::read_to_string(&path).with_context(shown)?).with_context(shown)
    };
    let product = read(".")?;
    let mut wrong = Vec::new();
    for folder in BESIDE {
        for (name, version) in strangers(&product, &read(folder)?) {
            wrong.push(format!("{folder}: {name} {version}"));
        }
    }
    if wrong.is_empty() {
        println!("the lock files agree");
        return Ok(());
    }
    bail!(
        "packages that the product's Cargo.lock has in another version (cargo update --manifest-path FOLDER/Cargo.toml -p NAME \
         --precise VERSION):\n  {}",
        wrong.join("\n  ")
    )
}

fn parse(text: &str) -> Result<Lock> {
    let table: Table = text.parse()?;
    let packages = table.get("package").and_then(|v| v.as_array()).context("no packages")?;
    packages.iter().map(|package| entry(package).context("an entry without a name")).collect()
}

fn entry(package: &toml::Value) -> Option<(Package, Locked)> {
    let word = |key: &str| Some(package.get(key)?.as_str()?.to_owned());
    let listed = package.get("dependencies").and_then(|v| v.as_array());
    let dependencies =
        listed.into_iter().flatten().filter_map(|v| Some(v.as_str()?.to_owned())).collect();
    let ours = package.get("source").is_none();
    Some(((word("name")?, word("version")?), Locked { ours, dependencies }))
}

/// Packages that crates of both lock files reach in `beside` and that are not in `product`.
fn strangers(product: &Lock, beside: &Lock) -> BTreeSet<Package> {
    let shared =
        |(package, locked): &(&Package, &Locked)| locked.ours && product.contains_key(*package);
    let mut waiting: Vec<&Package> =
        beside.iter().filter(shared).map(|(package, _)| package).collect();
    let mut seen: BTreeSet<&Package> = BTreeSet::new();
    while let Some(package) = waiting.pop() {
        if seen.insert(package) {
            waiting.extend(beside[package].dependencies.iter().filter_map(|d| find(beside, d)));
        }
    }
    seen.into_iter().filter(|package| !product.contains_key(*package)).cloned().collect()
}

fn find<'a>(lock: &'a Lock, dependency: &str) -> Option<&'a Package> {
    let mut words = dependency.split(' ');
    let (name, version) = (words.next()?, words.next());
    lock.keys().find(|(known, at)| known == name && version.is_none_or(|wanted| wanted == at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_files_agree() {
        check().expect("one version of everything");
    }

    #[test]
    fn what_only_the_other_workspace_needs_may_differ() {
        let product = "[[package]]\nname = \"frame\"\nversion = \"0.1.0\"\ndependencies = [\"a\"]\n\
                       [[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"x\"\n\
                       [[package]]\nname = \"b\"\nversion = \"1.0.0\"\nsource = \"x\"\n";
        let beside = "[[package]]\nname = \"fuzz\"\nversion = \"0.1.0\"\ndependencies = [\"frame\", \"b\"]\n\
                      [[package]]\nname = \"frame\"\nversion = \"0.1.0\"\ndependencies = [\"a 1.0.1\"]\n\
                      [[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"x\"\n\
                      [[package]]\nname = \"a\"\nversion = \"1.0.1\"\nsource = \"x\"\n\
                      [[package]]\nname = \"b\"\nversion = \"2.0.0\"\nsource = \"x\"\n";
        let found = strangers(&parse(product).expect("a lock"), &parse(beside).expect("a lock"));
        assert_eq!(found, BTreeSet::from([("a".to_owned(), "1.0.1".to_owned())]));
    }
}
