//! Who may know whom.

use super::{Findings, Repository};
use crate::workspace::{Crate, Dependency};

/// The members that a member may use outside its tests. Names without `kitbag-`; `store-*` stands
/// for every store. A new crate gets its row here, and with it a place in the house.
const LAYERS: [(&str, &[&str]); 13] = [
    ("bench", &["client", "push"]),
    ("client", &[]),
    ("conformance", &["client"]),
    ("domain", &[]),
    // The targets, which are tests: they reach what a stranger's bytes reach.
    ("fuzz", &["domain", "http", "push", "server"]),
    ("gateway", &["domain", "http"]),
    ("http", &["domain", "push", "rooms"]),
    ("push", &[]),
    ("rooms", &["domain", "push"]),
    (
        "server",
        &[
            "client", "domain", "gateway", "http", "push", "rooms", "store-*",
        ],
    ),
    ("store-*", &["domain"]),
    // For tests of the others: it may know only what they are made of.
    ("testkit", &["domain"]),
    ("xtask", &[]),
];

/// The only members that may use a library outside their tests, and why no other.
const LIBRARIES: [(&str, &[&str], &str); 7] = [
    (
        "anyhow",
        &["bench", "conformance", "server", "xtask"],
        "a library names its errors",
    ),
    ("axum", &["gateway", "http"], "HTTP stays at the edge"),
    (
        "getrandom",
        &["bench", "conformance", "server"],
        "randomness is an argument",
    ),
    (
        "hyper",
        &["bench", "client", "gateway", "http", "server", "testkit"],
        "HTTP stays at the edge",
    ),
    (
        "hyper-util",
        &["bench", "client", "gateway", "http", "server", "testkit"],
        "HTTP stays at the edge",
    ),
    (
        "prometheus-client",
        &["server"],
        "who counts keeps plain figures",
    ),
    (
        "rusqlite",
        // testkit has the disk under SQLite, and knows nothing of what is stored.
        &["bench", "store-sqlite", "testkit"],
        "one crate knows the database",
    ),
];

/// Libraries that the innermost members must not use, so that anyone can use these.
const INNERMOST: [&str; 2] = ["domain", "push"];
const NOT_INNERMOST: [&str; 6] = [
    "axum",
    "hyper",
    "hyper-util",
    "ruma",
    "ruma-common",
    "rusqlite",
];

/// What of tokio the domain and the stores may use: they must run on any runtime.
const TOKIO_FEATURES: [&str; 1] = ["sync"];

/// The arrows of the house: with one turned round, a store cannot be exchanged or a library used
/// alone any more, and it shows only when somebody tries.
pub(super) fn dependencies_stay_within_the_walls(repository: &Repository) -> Findings {
    let mut findings = Findings::new();
    for member in &repository.crates {
        let name = short(&member.name);
        let Some((_, known)) = LAYERS.iter().find(|(row, _)| stands_for(row, name)) else {
            findings.push(format!("{name}: has no row in xtask/src/tidy/walls.rs"));
            continue;
        };
        for dependency in member
            .dependencies
            .iter()
            .filter(|dependency| !dependency.dev)
        {
            let inside = repository
                .crates
                .iter()
                .any(|other| other.name == dependency.name);
            let finding = if inside {
                between_members(short(&dependency.name), known)
            } else {
                of_library(member, dependency)
            };
            findings.extend(finding.map(|finding| format!("{name}: {finding}")));
        }
    }
    findings
}

fn between_members(used: &str, known: &[&str]) -> Option<String> {
    if used == "testkit" {
        return Some("testkit is for tests: make it a dev-dependency".to_owned());
    }
    let allowed = known.iter().any(|row| stands_for(row, used));
    (!allowed).then(|| format!("must not know {used}"))
}

fn of_library(member: &Crate, dependency: &Dependency) -> Option<String> {
    let name = short(&member.name);
    let used = dependency.name.as_str();
    if INNERMOST.contains(&name) && NOT_INNERMOST.contains(&used) {
        return Some(format!("must not use {used}: it is for everyone"));
    }
    if let Some((_, users, why)) = LIBRARIES.iter().find(|(library, ..)| *library == used)
        && !users.contains(&name)
    {
        return Some(format!("must not use {used}: {why}"));
    }
    if used != "tokio" {
        return None;
    }
    if name == "push" {
        return Some("must not use tokio: it is pure".to_owned());
    }
    if name != "domain" && !stands_for("store-*", name) {
        return None;
    }
    let surplus = dependency
        .features
        .iter()
        .find(|f| !TOKIO_FEATURES.contains(&f.as_str()));
    surplus.map(|feature| format!("must not use tokio's `{feature}`, only {TOKIO_FEATURES:?}"))
}

fn short(name: &str) -> &str {
    name.strip_prefix("kitbag-").unwrap_or(name)
}

fn stands_for(row: &str, name: &str) -> bool {
    row == name || (row == "store-*" && name.starts_with("store-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(name: &str, features: &[&str]) -> Dependency {
        let features = features
            .iter()
            .map(|feature| (*feature).to_owned())
            .collect();
        Dependency {
            name: name.to_owned(),
            dev: false,
            features,
        }
    }

    /// A workspace of all members, where `member` has `dependency`.
    fn findings(member: &str, dependency: Dependency) -> Findings {
        let names = [
            "client",
            "domain",
            "http",
            "push",
            "server",
            "store-sqlite",
            "testkit",
        ];
        let mut crates: Vec<_> = names
            .iter()
            .map(|name| Crate {
                name: format!("kitbag-{name}"),
                ..Crate::default()
            })
            .collect();
        let found = crates.iter_mut().find(|c| short(&c.name) == member);
        found.unwrap().dependencies.push(dependency);
        dependencies_stay_within_the_walls(&Repository {
            crates,
            files: Vec::new(),
        })
    }

    #[test]
    fn arrows_of_the_house_are_fine() {
        for (member, used) in [
            ("http", "kitbag-domain"),
            ("store-sqlite", "kitbag-domain"),
            ("server", "kitbag-store-sqlite"),
            ("http", "axum"),
            ("store-sqlite", "rusqlite"),
            ("http", "tokio"),
            ("domain", "serde"),
        ] {
            assert_eq!(
                findings(member, on(used, &[])),
                Findings::new(),
                "{member} -> {used}"
            );
        }
    }

    #[test]
    fn turned_arrow_is_found() {
        for (member, used) in [
            ("domain", "kitbag-http"),
            ("http", "kitbag-store-sqlite"),
            ("store-sqlite", "kitbag-http"),
            ("client", "kitbag-domain"),
            ("http", "kitbag-testkit"),
        ] {
            assert_eq!(
                findings(member, on(used, &[])).len(),
                1,
                "{member} -> {used}"
            );
        }
    }

    #[test]
    fn library_behind_a_wall_is_found() {
        for (member, used) in [
            ("domain", "axum"),
            ("domain", "ruma"),
            ("push", "tokio"),
            ("client", "axum"),
            ("store-sqlite", "hyper"),
            ("http", "rusqlite"),
            ("http", "anyhow"),
            ("http", "getrandom"),
            ("store-sqlite", "prometheus-client"),
        ] {
            assert_eq!(
                findings(member, on(used, &[])).len(),
                1,
                "{member} -> {used}"
            );
        }
    }

    #[test]
    fn tokio_with_more_than_sync_is_found() {
        assert_eq!(findings("domain", on("tokio", &["sync"])), Findings::new());
        assert_eq!(findings("domain", on("tokio", &["sync", "time"])).len(), 1);
        assert_eq!(findings("store-sqlite", on("tokio", &["rt"])).len(), 1);
    }

    #[test]
    fn dependency_for_tests_is_fine() {
        let mut dependency = on("kitbag-testkit", &[]);
        dependency.dev = true;
        assert_eq!(findings("domain", dependency), Findings::new());
    }

    #[test]
    fn member_without_a_row_is_found() {
        let crates = vec![Crate {
            name: "kitbag-new".to_owned(),
            ..Crate::default()
        }];
        let repository = Repository {
            crates,
            files: Vec::new(),
        };
        assert!(dependencies_stay_within_the_walls(&repository)[0].contains("no row"));
    }
}
