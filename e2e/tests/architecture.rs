//! What must stay absent: dependencies that point the wrong way, and untidy sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which crates of this workspace a crate may use, tests apart. What is not here must not be.
const EDGES: &[(&str, &[&str])] = &[
    ("tidegate-vocab", &[]),
    ("tidegate-proto", &["tenure", "vocab"]), // The frames of tenure, as messages.
    ("tidegate-wire", &["vocab"]),
    ("tidegate-tenure", &["vocab"]),
    ("tidegate-eventlog", &["vocab"]),
    ("tidegate-history", &["eventlog", "vocab"]),
    ("tidegate-kafka", &["eventlog", "vocab"]),
    ("tidegate-link", &["tenure", "vocab"]),
    ("tidegate-telemetry", &["vocab"]),
    ("tidegate-deliver", &["link", "proto", "tenure", "vocab"]),
    ("tidegate-registry", &["proto", "vocab"]),
    ("tidegate-gateway", &["link", "registry", "telemetry", "tenure", "vocab", "wire"]),
    (
        "tidegate-router",
        &["eventlog", "history", "link", "proto", "registry", "telemetry", "tenure", "vocab"],
    ),
    (
        "tidegate",
        &[
            "deliver",
            "eventlog",
            "gateway",
            "history",
            "kafka",
            "link",
            "proto",
            "registry",
            "router",
            "telemetry",
            "vocab",
        ],
    ),
];

/// Programs and tests: they may use anything, and nothing else may use them.
const LEAVES: &[&str] = &["tidegate", "tidegate-example-chat", "tidegate-e2e", "tidegate-loadtest"];

/// Crates of others that only some of ours may name.
const OWNERS: &[(&str, &[&str])] = &[
    ("hyper", &["tidegate-gateway"]),
    ("hyper-util", &["tidegate-gateway"]),
    ("h2", &["tidegate-gateway", "tidegate-loadtest"]),
    ("rcgen", &["tidegate"]),
    ("rustls", &["tidegate-gateway"]),
    ("slab", &["tidegate-gateway"]),
    // Readers of a load test that stall as remote ones do, with a segment size that is not loopback's.
    ("socket2", &["tidegate-gateway", "tidegate-loadtest"]),
    ("fjall", &["tidegate-eventlog", "tidegate-history"]),
    // The load test measures librdkafka alone, as the floor: that must not go through our own crate.
    ("rdkafka", &["tidegate-kafka", "tidegate-loadtest"]),
    ("rdkafka-sys", &["tidegate-kafka"]),
    ("opentelemetry", &["tidegate-telemetry"]),
    ("dashmap", &["tidegate-registry"]),
    ("consistent_hash_ring", &["tidegate-registry"]),
    ("figment", &["tidegate"]),
    ("clap", &["tidegate", "tidegate-example-chat", "tidegate-loadtest"]),
    ("tikv-jemallocator", &["tidegate", "tidegate-loadtest"]),
];

/// Where TLS is spoken: by the server, by `tidegate tail`, by the clients of a load.
const NAMES_RUSTLS: &[&str] = &["gateway/src/tls", "tidegate/src/cli/tls.rs", "loadtest/src/tls.rs"];

/// Crates whose code does no IO: bytes in, events out.
const SANS_IO: &[&str] = &["tidegate-vocab", "tidegate-wire", "tidegate-tenure"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Direct dependencies of each crate of the workspace, those of its tests apart.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a name").to_owned();
    let of = |package: &Value| {
        let all = package["dependencies"].as_array().expect("a list").iter();
        all.filter(|dependency| dependency["kind"] != "dev")
            .map(|dependency| text(&dependency["name"]))
            .collect()
    };
    let packages = metadata["packages"].as_array().expect("a list").iter();
    packages.map(|package| (text(&package["name"]), of(package))).collect()
}

#[test]
fn dependencies_between_crates_point_one_way() {
    let dependencies = dependencies();
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    for (name, uses) in &dependencies {
        for used in uses.iter().filter(|used| used.starts_with("tidegate")) {
            let is_leaf_used = LEAVES.contains(&used.as_str());
            let short = used.strip_prefix("tidegate-").unwrap_or(used);
            let is_allowed = match allowed.get(name.as_str()) {
                Some(edges) => edges.contains(&short),
                None => LEAVES.contains(&name.as_str()),
            };
            assert!(
                is_allowed && (!is_leaf_used || LEAVES.contains(&name.as_str())),
                "{name} must not use {used}: see EDGES"
            );
        }
        assert!(
            allowed.contains_key(name.as_str()) || LEAVES.contains(&name.as_str()),
            "{name} is in no table: say in EDGES what it may use"
        );
    }
    for (name, _) in EDGES {
        assert!(dependencies.contains_key(*name), "{name} is gone: take it out of EDGES");
    }
}

#[test]
fn one_crate_names_each_of_the_libraries_that_must_stay_replaceable() {
    for (name, uses) in dependencies() {
        for (library, owners) in OWNERS {
            assert!(
                !uses.contains(*library) || owners.contains(&name.as_str()),
                "{name} must not name {library}: only {owners:?} may"
            );
        }
        if SANS_IO.contains(&name.as_str()) {
            for library in ["tokio", "hyper", "axum", "tonic", "socket2", "tracing"] {
                assert!(!uses.contains(library), "{name} does no IO, so not {library}");
            }
        }
    }
}

/// All Rust sources that are ours.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && !name.starts_with('.') && !["target", "node_modules"].contains(&name) {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let shown = path.strip_prefix(root()).expect("within").display().to_string();
                found.push((shown, std::fs::read_to_string(&path).expect("UTF-8")));
            }
        }
    }
    assert!(found.len() > 100, "{}", found.len());
    found
}

/// Whether a file is one of tests.
fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// Whether the lines just before look at a deadline: a sleep between two looks at a condition is a wait for it.
fn asserts_a_deadline(text: &str, number: usize) -> bool {
    text.lines().take(number).skip(number.saturating_sub(3)).any(|line| line.contains("deadline"))
}

#[test]
fn sources_are_tidy() {
    let mut untidy = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| !path.starts_with("deploy/local/")) {
        let lines = text.lines().count();
        if lines > 500 {
            untidy.push(format!("{path} has {lines} lines: 500 is the most"));
        }
        if path.ends_with("mod.rs") {
            untidy.push(format!("{path}: name it after its module"));
        }
        let own = path.ends_with("e2e/tests/architecture.rs");
        for (number, line) in text.lines().enumerate().filter(|_| !own) {
            let at = format!("{path}:{}", number + 1);
            for banned in ["todo!(", "unimplemented!(", "dbg!(", "#[ignore", concat!("/", "work/")] {
                if line.contains(banned) {
                    untidy.push(format!("{at}: {banned}"));
                }
            }
            let sleeps = line.contains("sleep(") || line.contains("sleep_until(");
            if is_test(path) && sleeps && !asserts_a_deadline(text, number) {
                untidy.push(format!("{at}: wait for a condition with a deadline, not for a time"));
            }
            let names_hyper = line.contains("hyper::") || line.contains("hyper_util::");
            if names_hyper && !path.starts_with("gateway/src/http") {
                untidy.push(format!("{at}: only gateway/src/http names hyper"));
            }
            let names_rustls = line.contains("rustls::");
            if names_rustls && !NAMES_RUSTLS.iter().any(|place| path.starts_with(place)) && !is_test(path) {
                untidy.push(format!("{at}: only {NAMES_RUSTLS:?} name rustls"));
            }
        }
    }
    assert!(untidy.is_empty(), "{}", untidy.join("\n"));
}

/// A checker is believed when it has been shown to fail: of a stage's commands any may be the one that does.
#[test]
fn a_stage_of_the_test_script_fails_with_any_of_its_commands() {
    let output = std::process::Command::new(root().join("test")).arg("planted").output().expect("bash");
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("stage planted failed"), "{said}");
}
