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

/// What Kitbag offers today: all but rooms.
const FEATURES: &str = "spec,kitbag,msc3391,msc3890,msc4331,msc4547";

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

#[derive(Debug, Deserialize)]
struct Report {
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    passed: bool,
}

/// `cargo xtask conformance`.
pub(crate) fn task(workspace: &Workspace, arguments: &ConformanceArguments) -> anyhow::Result<()> {
    if let Some(base_url) = &arguments.base_url {
        process::build(&workspace.root)?;
        return scenarios(workspace, base_url, &arguments.rest).map(drop);
    }
    let server = Server::start(workspace, "conformance")?;
    scenarios(workspace, server.base_url(), &arguments.rest)?;
    server.stop()
}

/// All scenarios for what Kitbag offers, against a fresh server.
pub(crate) fn part(workspace: &Workspace) -> PartResult {
    let server = Server::start(workspace, "conformance")?;
    let report = workspace.target.join("xtask/conformance.json");
    let arguments = ["--json".to_owned(), report.display().to_string()];
    scenarios(workspace, server.base_url(), &arguments)?;
    server.stop()?;
    Ok(Outcome::Passed(Some(count(&report)?)))
}

fn scenarios(workspace: &Workspace, base_url: &str, rest: &[String]) -> anyhow::Result<()> {
    let mut command = Command::new(workspace.program("kitbag-conformance"));
    command
        .args(["--base-url", base_url])
        .env(CANARY_VARIABLE, CANARY);
    if !rest
        .iter()
        .any(|argument| argument.starts_with("--features"))
    {
        command.args(["--features", FEATURES]);
    }
    command.args(rest);
    process::run(command).map(drop)
}

fn count(report: &Path) -> anyhow::Result<u64> {
    let text =
        fs::read_to_string(report).with_context(|| format!("cannot read {}", report.display()))?;
    let report: Report = serde_json::from_str(&text).context("the report is not as expected")?;
    ensure!(
        report.rows.iter().all(|row| row.passed),
        "the report has failed scenarios"
    );
    u64::try_from(report.rows.len()).context("rows fit in 64 bits")
}
