//! Who may import whom. The rules keep privacy and build times as they are; ARCHITECTURE.md says why.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::crossbuild::TARGET;
use crate::tools::{array, metadata, root, rust_files, text};

/// What the product is built for.
const TARGETS: [&str; 2] = [TARGET, "x86_64-unknown-linux-gnu"];

/// Crate and the crates of ours that it may import in its program (tests are free).
const ALLOWED: [(&str, &[&str]); 16] = [
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
    ("link", &[]),
    ("uplink", &["proto", "link"]),
    ("aggregator", &["proto", "learn", "vision", "frame", "link", "uplink"]),
    ("xtask", &[]),
    ("system-tests", &[]),
];

/// What opens a connection, or brings what does.
const NETWORK: [&str; 15] = [
    "async-io",
    "axum",
    "curl",
    "h2",
    "hyper",
    "mio",
    "native-tls",
    "quinn",
    "reqwest",
    "rumqttc",
    "rustls",
    "smol",
    "socket2",
    "tokio",
    "ureq",
];
/// What knows pictures.
const PICTURES: [&str; 9] =
    ["camera", "display", "frame", "home", "image", "jpeg-encoder", "png", "vision", "zune-jpeg"];
/// What gives a type a wire form.
const WIRE: [&str; 4] = ["postcard", "serde", "serde_core", "serde_json"];

/// Crates and what must not be reachable from them: who knows pictures has no network, who has one knows no pictures, and a picture
/// has no wire form.
const NO_WAY_OUT: [(&str, &[&str]); 12] = [
    ("learn", &NETWORK),
    ("learn", &PICTURES),
    ("proto", &NETWORK),
    ("proto", &PICTURES),
    ("home", &NETWORK),
    ("camera", &NETWORK),
    ("vision", &NETWORK),
    ("overlay", &NETWORK),
    ("link", &PICTURES),
    ("uplink", &PICTURES),
    ("frame", &NETWORK),
    ("frame", &WIRE),
];

/// Crates that must reach no network, and the packages of others that each may import: a list of bad names never has the next
/// one, so that a new import is a decision. What these packages import in turn is held by the rules above.
const MAY_IMPORT: [(&str, &[&str]); 7] = [
    ("frame", &["thiserror", "zune-jpeg"]),
    ("proto", &["ed25519-dalek", "hmac", "postcard", "serde", "sha2", "thiserror", "zeroize"]),
    (
        "learn",
        &[
            "chacha20",
            "getrandom",
            "libm",
            "matrixmultiply",
            "rand_core",
            "serde",
            "serde_json",
            "sha2",
            "thiserror",
            "zeroize",
        ],
    ),
    (
        "home",
        &["chacha20poly1305", "rustix", "serde", "serde_json", "thiserror", "tracing", "zeroize"],
    ),
    ("camera", &["heapless", "libc", "png", "thiserror", "tracing", "v4l"]),
    (
        "vision",
        &[
            "heapless",
            "inventory",
            "serde",
            "sha2",
            "thiserror",
            "toml",
            "tract-core",
            "tract-linalg",
            "tract-onnx",
        ],
    ),
    ("overlay", &["ab_glyph", "embedded-graphics", "notosans", "thiserror"]),
];

/// Words of code that opens a connection with the standard library, `rustix` or `libc`: the modules, and what is in them.
const CONNECTIONS: [&str; 10] = [
    "net",
    "socket",
    "connect",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
    "ToSocketAddrs",
];

/// Checks cargo's own view of the workspace, and what the crates without a network say.
pub fn check() -> Result<()> {
    let metadata = metadata(&TARGETS)?;
    let graph = imports(&metadata)?;
    let mut wrong = strangers(&metadata)?;
    wrong.extend(wrong_imports(&graph));
    for (name, _) in MAY_IMPORT {
        wrong.extend(connections(name)?);
    }
    if wrong.is_empty() {
        println!("imports are as ARCHITECTURE.md says");
        return Ok(());
    }
    bail!("imports that must not be:\n  {}", wrong.join("\n  "))
}

/// Crates of ours that no rule knows.
fn strangers(metadata: &Value) -> Result<Vec<String>> {
    let ours = array(metadata, "packages")?.iter().filter(|package| package["source"].is_null());
    let names = ours.map(|package| text(&package["name"]));
    let unknown = names.filter(|name| !is_ours(name));
    Ok(unknown
        .map(|name| {
            format!("{name} is not in the list of crates; add it to cross/xtask/src/deps.rs")
        })
        .collect())
}

fn is_ours(name: &str) -> bool {
    ALLOWED.iter().any(|(known, _)| *known == name)
}

/// What the graph has against the rules.
fn wrong_imports(graph: &Graph) -> Vec<String> {
    let mut wrong = Vec::new();
    let of = |name: &str| graph.get(name).into_iter().flatten().map(String::as_str);
    for (name, allowed) in ALLOWED {
        let bad = of(name).filter(|import| is_ours(import) && !allowed.contains(import));
        wrong.extend(bad.map(|import| format!("{name} imports {import}")));
    }
    for (name, allowed) in MAY_IMPORT {
        let bad = of(name).filter(|import| !is_ours(import) && !allowed.contains(import));
        wrong.extend(bad.map(|import| {
            format!("{name} imports {import}: if that cannot reach a network, add it to MAY_IMPORT in cross/xtask/src/deps.rs")
        }));
    }
    for (start, forbidden) in NO_WAY_OUT {
        if !graph.contains_key(start) {
            wrong.push(format!("there is no crate {start}, which a rule names"));
        }
        for bad in reachable(graph, start).iter().filter(|n| forbidden.contains(&n.as_str())) {
            wrong.push(format!("{bad} is reachable from {start}"));
        }
    }
    wrong
}

/// Where the program of a crate of ours names a connection.
fn connections(name: &str) -> Result<Vec<String>> {
    let mut files = Vec::new();
    rust_files(&root().join("firmware").join(name).join("src"), &mut files)?;
    let mut found = Vec::new();
    for path in files {
        let source = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        found.extend(named_connections(&source).into_iter().map(|(line, connection)| {
            format!("{}:{line}: {name} names {connection}", path.display())
        }));
    }
    Ok(found)
}

/// Lines, from 1, whose code has a word of [`CONNECTIONS`], however it was imported.
fn named_connections(source: &str) -> Vec<(usize, &str)> {
    let mut named = Vec::new();
    for (index, line) in source.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        named.extend(words.filter(|word| CONNECTIONS.contains(word)).map(|word| (index + 1, word)));
    }
    named
}

/// What every package imports, by name.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Imports of every package by name, without those of tests. Optional ones count in our crates, where a feature may be on; in
/// others' those count that are on.
fn imports(metadata: &Value) -> Result<Graph> {
    let mut graph: Graph = BTreeMap::new();
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

fn reachable(graph: &Graph, start: &str) -> BTreeSet<String> {
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

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// The crates that rules name, without imports but these.
    fn made_up(imports: &[(&str, &[&str])]) -> Graph {
        let mut graph: Graph =
            ALLOWED.iter().map(|(name, _)| ((*name).to_owned(), BTreeSet::new())).collect();
        graph.extend(imports.iter().map(|(name, of)| ((*name).to_owned(), set(of))));
        graph
    }

    #[test]
    fn a_way_to_a_network_or_a_wire_is_found() {
        assert_eq!(wrong_imports(&made_up(&[])), [""; 0]);
        let ways: [(&str, &[&str], &str); 6] = [
            ("frame", &["serde_core"], "serde_core is reachable from frame"),
            ("learn", &["ureq"], "ureq is reachable from learn"),
            ("uplink", &["jpeg-encoder"], "jpeg-encoder is reachable from uplink"),
            // No rule knows its name, and still it is refused.
            ("vision", &["brand-new-http"], "vision imports brand-new-http: "),
            ("vision", &["camera"], "vision imports camera"),
            ("home", &["learn", "vision", "aggregator"], "home imports aggregator"),
        ];
        for (name, imports, said) in ways {
            let wrong = wrong_imports(&made_up(&[(name, imports)]));
            assert!(wrong.iter().any(|line| line.starts_with(said)), "{said}: {wrong:?}");
        }
        let through = made_up(&[("home", &["tracing"]), ("tracing", &["socket2"])]);
        assert_eq!(wrong_imports(&through), ["socket2 is reachable from home"]);
    }

    #[test]
    fn a_connection_is_found_in_the_source_and_words_about_it_are_not() {
        let source = "use std::net::IpAddr;\nuse std::{io, os::unix::net};\nuse rustix::{fs, net};\n\
                      UnixStream::open(path)\nlibc::socket(1)\n// std::net is not used\n\
                      let planet = network.net_size;\n";
        let found = named_connections(source);
        assert_eq!(found, [(1, "net"), (2, "net"), (3, "net"), (4, "UnixStream"), (5, "socket")]);
    }

    #[test]
    fn reachability_follows_chains() {
        let graph = BTreeMap::from([
            ("a".into(), set(&["b"])),
            ("b".into(), set(&["c", "a"])),
            ("d".into(), set(&["e"])),
        ]);
        assert_eq!(reachable(&graph, "a"), set(&["a", "b", "c"]));
    }
}
