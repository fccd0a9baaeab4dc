//! Layers are kept apart by the compiler; this keeps the table that says which may see which.

use std::{collections::BTreeSet, fs, path::Path};

/// Which of our own crates each crate may depend on.
const LAYERS: [(&str, &[&str]); 7] = [
    ("domain", &[]),
    ("event-store", &[]),
    ("edge", &[]),
    ("private-servers", &[]),
    ("command-api", &["domain", "edge", "event-store"]),
    ("projections", &["domain", "event-store"]),
    ("query-api", &["edge", "projections"]),
];

/// What the domain may never see: IO.
const NOT_IN_THE_DOMAIN: [&str; 5] = ["sqlx", "tokio", "axum", "async-nats", "reqwest"];

/// The names in the `[dependencies]` of a crate.
fn dependencies(member: &str) -> BTreeSet<String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join(member).join("Cargo.toml");
    let text = fs::read_to_string(&manifest).expect("a member has a manifest");
    let section = text
        .split("\n[")
        .find(|section| section.starts_with("dependencies]"))
        .expect("every member has dependencies");
    let names = section.lines().skip(1).filter_map(|line| line.split(['.', ' ', '=']).next());
    names.filter(|name| !name.is_empty() && !name.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn each_crate_sees_only_the_layers_below_it() {
    for (member, allowed) in LAYERS {
        let ours: BTreeSet<String> = dependencies(member)
            .into_iter()
            .filter_map(|name| name.strip_prefix("rollcall-").map(str::to_owned))
            .collect();
        let allowed: BTreeSet<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(ours, allowed, "{member}");
    }
}

#[test]
fn the_domain_does_no_io() {
    let found = dependencies("domain");
    for name in NOT_IN_THE_DOMAIN {
        assert!(!found.contains(name), "domain depends on {name}");
    }
}

#[test]
fn every_member_stands_in_the_table() {
    let root = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let line = root.lines().find(|line| line.starts_with("members = ")).unwrap();
    let members: BTreeSet<&str> = line.split('"').skip(1).step_by(2).collect();
    assert_eq!(members, LAYERS.map(|(member, _)| member).into());
}
