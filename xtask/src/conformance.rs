//! The black-box scenarios, run against a server of our own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use clap::Args;
use serde::Deserialize;

use crate::parts::{Outcome, PartResult};
use crate::process;
use crate::server::{CANARY, CANARY_VARIABLE, Server};
use crate::workspace::Workspace;

/// A server and the scenarios that it is for.
#[derive(Debug)]
pub(crate) struct Setup {
    /// Names the log and the report.
    pub(crate) name: &'static str,
    pub(crate) settings: &'static [&'static str],
    features: &'static str,
    /// A part of the names: a feature alone may be needed by others too.
    filter: &'static str,
}

/// What Kitbag offers today as it is by default: all but rooms.
static DEFAULT: Setup = Setup {
    name: "conformance",
    settings: &[],
    features: "spec,kitbag,msc3391,msc3890,msc4331,msc4547",
    filter: "",
};

/// The settings that change what clients see, each with a server of its own.
static SWITCHED: [Setup; 2] = [
    Setup {
        name: "conformance-put-empty",
        settings: &["msc3391.put_empty_deletes=true"],
        features: "put-empty-deletes,msc4331",
        filter: "put_empty/",
    },
    Setup {
        name: "conformance-short-tokens",
        settings: &["sessions.access_token_lifetime_ms=2000"],
        features: "short-tokens,kitbag",
        filter: "short_tokens/",
    },
];

/// What a gateway before Synapse offers, with all that it can.
pub(crate) static GATEWAY: Setup = Setup {
    name: "gateway-conformance",
    settings: &[],
    features: "spec,rooms,kitbag,msc3391,msc4331,msc4547",
    filter: "",
};

/// Which server, and what to pass on.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConformanceArguments {
    /// Run against this server instead of starting one.
    #[arg(long)]
    base_url: Option<String>,
    /// Passed on to kitbag-conformance after `--`, such as `--filter account_data/`.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// What kitbag-conformance writes with `--json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) canary_stored: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) passed: bool,
    /// What should have come, where it did not.
    pub(crate) expected: Option<String>,
    /// What came instead.
    pub(crate) got: Option<String>,
}

impl Report {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).context("the report is not as expected")
    }
}

/// The setup whose server a scenario is run against.
pub(crate) fn setup_of(scenario: &str) -> &'static Setup {
    let switched = SWITCHED.iter();
    let mut switched = switched.filter(|setup| scenario.starts_with(setup.filter));
    switched.next().unwrap_or(&DEFAULT)
}

/// `cargo xtask conformance`: all that `part` does, or what the arguments after `--` choose of the
/// scenarios for a default server.
pub(crate) fn task(workspace: &Workspace, arguments: &ConformanceArguments) -> anyhow::Result<()> {
    if let Some(base_url) = &arguments.base_url {
        process::build(&workspace.root)?;
        return scenarios(workspace, base_url, &DEFAULT, &arguments.rest);
    }
    if arguments.rest.is_empty() {
        return part(workspace).map(drop);
    }
    let server = Server::start(workspace, DEFAULT.name, DEFAULT.settings)?;
    scenarios(workspace, server.base_url(), &DEFAULT, &arguments.rest)?;
    server.stop()
}

/// All scenarios for what Kitbag offers, against a fresh server for each setup.
pub(crate) fn part(workspace: &Workspace) -> PartResult {
    let mut passed = 0;
    let mut failures = Vec::new();
    for setup in [&DEFAULT].into_iter().chain(&SWITCHED) {
        // The others still tell what is wrong with them.
        match run(workspace, setup) {
            Ok(count) => passed += count,
            Err(error) => failures.push(format!("{}: {error:#}", setup.name)),
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(Outcome::Passed(Some(passed)))
}

/// The scenarios of one setup, and how many there are.
fn run(workspace: &Workspace, setup: &Setup) -> anyhow::Result<u64> {
    let server = Server::start(workspace, setup.name, setup.settings)?;
    let report = workspace.target.join(format!("xtask/{}.json", setup.name));
    let arguments = ["--json".to_owned(), report.display().to_string()];
    scenarios(workspace, server.base_url(), setup, &arguments)?;
    server.stop()?;
    count(&report)
}

fn scenarios(
    workspace: &Workspace,
    base_url: &str,
    setup: &Setup,
    rest: &[String],
) -> anyhow::Result<()> {
    let program = workspace.program("kitbag-conformance");
    process::run(command(&program, base_url, setup, rest)).map(drop)
}

/// Returns the call of `program`, which is kitbag-conformance; `rest` goes before the setup's.
pub(crate) fn command(program: &Path, base_url: &str, setup: &Setup, rest: &[String]) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--base-url", base_url])
        .env(CANARY_VARIABLE, CANARY);
    for (option, value) in [("--features", setup.features), ("--filter", setup.filter)] {
        let is_given = rest.iter().any(|argument| argument.starts_with(option));
        if !is_given && !value.is_empty() {
            command.args([option, value]);
        }
    }
    command.args(rest);
    command
}

fn count(report: &Path) -> anyhow::Result<u64> {
    let report = Report::read(report)?;
    ensure!(
        report.rows.iter().all(|row| row.passed),
        "the report has failed scenarios"
    );
    ensure!(
        report.canary_stored > 0,
        "the canary was never stored, so its absence from the log shows nothing"
    );
    u64::try_from(report.rows.len()).context("rows fit in 64 bits")
}
