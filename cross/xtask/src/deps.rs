//! Who may import whom. The rules keep privacy and build times as they are; ARCHITECTURE.md says why.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::tools::{output, root};

/// Crate and the crates of ours that it may import in its program (tests are free).
const ALLOWED: [(&str, &[&str]); 15] = [
    ("proto", &[]),
    ("settings", &[]),
    ("frame", &[]),
    ("v4l2-sys-mit", &[]),
    ("camera", &["frame"]),
    ("vision", &["frame", "proto"]),
    ("overlay", &["proto"]),
    ("display", &["overlay"]),
    ("learn", &[]),
    ("home", &["learn", "vision"]),
    (
        "mirror",
        &[
            "proto", "settings", "frame", "camera", "vision", "overlay", "display", "learn",
            "home", "uplink",
        ],
    ),
    ("uplink", &["proto"]),
    ("aggregator", &["proto", "learn", "vision", "frame", "uplink"]),
    ("xtask", &[]),
    ("system-tests", &[]),
];

/// What opens a connection.
const NETWORK: [&str; 4] = ["tokio", "rumqttc", "axum", "hyper"];
/// What knows pictures.
const PICTURES: [&str; 4] = ["frame", "vision", "png", "zune-jpeg"];

/// Crates and what must not be reachable from them: who knows pictures has no network, who has one knows no pictures, and a picture
/// has no wire form.
const NO_WAY_OUT: [(&str, &[&str]); 11] = [
    ("learn", &NETWORK),
    ("learn", &PICTURES),
    ("proto", &NETWORK),
    ("proto", &PICTURES),
    ("home", &NETWORK),
    ("camera", &NETWORK),
    ("vision", &NETWORK),
    ("overlay", &NETWORK),
    ("uplink", &PICTURES),
    ("frame", &NETWORK),
    ("frame", &["serde"]),
];

/// Checks cargo's own view of the workspace.
pub fn check() -> Result<()> {
    let text = output(
        Command::new("cargo")
            .args(["metadata", "--format-version=1", "--offline"])
            .current_dir(root()),
    )
    .or_else(|_| {
        output(Command::new("cargo").args(["metadata", "--format-version=1"]).current_dir(root()))
    })?;
    let metadata: Value = serde_json::from_str(&text)?;
    let graph = imports(&metadata)?;
    let ours: BTreeSet<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    let mut wrong = Vec::new();
    for package in array(&metadata, "packages")? {
        let name = package["name"].as_str().context("a package without a name")?;
        if package["source"].is_null() && !ours.contains(name) {
            wrong.push(format!(
                "{name} is not in the list of crates; add it to cross/xtask/src/deps.rs"
            ));
        }
    }
    for (name, allowed) in ALLOWED {
        for import in graph.get(name).into_iter().flatten() {
            if ours.contains(import.as_str()) && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{name} imports {import}"));
            }
        }
    }
    for (start, forbidden) in NO_WAY_OUT {
        if !graph.contains_key(start) {
            wrong.push(format!("there is no crate {start}, which a rule names"));
        }
        for bad in reachable(&graph, start).iter().filter(|n| forbidden.contains(&n.as_str())) {
            wrong.push(format!("{bad} is reachable from {start}"));
        }
    }
    if wrong.is_empty() {
        println!("imports are as ARCHITECTURE.md says");
        return Ok(());
    }
    bail!("imports that must not be:\n  {}", wrong.join("\n  "))
}

/// A list within cargo's answer.
pub fn array<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value[key].as_array().with_context(|| format!("cargo metadata has no {key}"))
}

/// Imports of every package by name, without those of tests. Optional ones count in our crates, where a feature may be on; in
/// others' those count that are on.
fn imports(metadata: &Value) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut names = BTreeMap::new();
    for package in array(metadata, "packages")? {
        let name = text(&package["name"]);
        names.insert(text(&package["id"]), name);
        let entry = graph.entry(name.to_owned()).or_default();
        if package["source"].is_null() {
            let dependencies = array(package, "dependencies")?.iter();
            let imported = dependencies.filter(|dependency| dependency["kind"] != "dev");
            entry.extend(imported.map(|dependency| text(&dependency["name"]).to_owned()));
        }
    }
    for node in array(&metadata["resolve"], "nodes")? {
        let name =
            names.get(text(&node["id"])).context("cargo metadata names an unknown package")?;
        for dependency in array(node, "deps")? {
            let is_imported =
                array(dependency, "dep_kinds")?.iter().any(|kind| kind["kind"] != "dev");
            if let (true, Some(other)) = (is_imported, names.get(text(&dependency["pkg"]))) {
                graph.entry((*name).to_owned()).or_default().insert((*other).to_owned());
            }
        }
    }
    Ok(graph)
}

/// A string within cargo's answer, empty where there is none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn reachable(graph: &BTreeMap<String, BTreeSet<String>>, start: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut waiting = vec![start.to_owned()];
    while let Some(name) = waiting.pop() {
        for next in graph.get(&name).into_iter().flatten() {
            if seen.insert(next.clone()) {
                waiting.push(next.clone());
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_keeps_its_rules() {
        check().expect("imports are as they should be");
    }

    #[test]
    fn reachability_follows_chains() {
        let set = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<BTreeSet<_>>();
        let graph = BTreeMap::from([
            ("a".into(), set(&["b"])),
            ("b".into(), set(&["c", "a"])),
            ("d".into(), set(&["e"])),
        ]);
        assert_eq!(reachable(&graph, "a"), set(&["a", "b", "c"]));
    }
}
