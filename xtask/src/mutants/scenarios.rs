//! The black-box scenarios, run against a server that was built from the copy.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use super::Colour;
use super::copy::Copy;
use super::programs;
use crate::conformance::{self, Report, Setup};
use crate::process::{self, Ended};
use crate::server::Server;

/// All scenarios together take a few seconds; each has time-outs of its own.
const RUN_TIMEOUT: Duration = Duration::from_secs(120);

/// Builds the server, and tells how each of the scenarios ends against it.
///
/// # Errors
/// Where it cannot be built or does not start, or a scenario is not there.
pub(crate) fn run<'a>(
    copy: &Copy,
    names: impl IntoIterator<Item = &'a str>,
) -> anyhow::Result<BTreeMap<&'a str, Colour>> {
    let build = ["build", "-p", "kitbag-server", "-p", "kitbag-conformance"];
    let messages = ["--message-format=json-render-diagnostics"];
    programs::cargo(copy, &[&build[..], &messages[..]].concat())?;
    let mut by_setup = BTreeMap::<&str, (&'static Setup, Vec<&'a str>)>::new();
    for name in names {
        let setup = conformance::setup_of(name);
        let (_, names) = by_setup.entry(setup.name).or_insert((setup, Vec::new()));
        names.push(name);
    }
    let mut colours = BTreeMap::new();
    for (setup, names) in by_setup.into_values() {
        run_on(copy, setup, &names, &mut colours)?;
    }
    Ok(colours)
}

fn run_on<'a>(
    copy: &Copy,
    setup: &Setup,
    names: &[&'a str],
    colours: &mut BTreeMap<&'a str, Colour>,
) -> anyhow::Result<()> {
    let [log, printed, report] =
        ["server.log", "scenarios.log", "scenarios.json"].map(|file| copy.logs.join(file));
    let server = Server::launch(&program(copy, "kitbag"), log, setup.settings)?;
    let mut arguments = vec!["--json".to_owned(), report.display().to_string()];
    for name in names {
        arguments.extend(["--filter".to_owned(), (*name).to_owned()]);
    }
    let program = program(copy, "kitbag-conformance");
    // Not that of the run before, where this one writes none.
    fs::remove_file(&report).ok();
    let command = conformance::command(&program, server.base_url(), setup, &arguments);
    let ended = process::run_within(&command, RUN_TIMEOUT, &printed)?;
    if ended == Ended::TimedOut {
        colours.extend(names.iter().map(|name| (*name, Colour::Hung)));
        return Ok(());
    }
    // Ends with a failure where one is red, so only the report tells.
    let report = Report::read(&report)?;
    for name in names {
        let row = report.rows.iter().find(|row| row.name == *name);
        let row = row.with_context(|| format!("the report has no scenario `{name}`"))?;
        let colour = if row.passed {
            Colour::Green
        } else {
            Colour::Red
        };
        colours.insert(name, colour);
    }
    // Dropped, not stopped: what such a server logs, and how it ends, is not asked here.
    drop(server);
    Ok(())
}

fn program(copy: &Copy, name: &str) -> PathBuf {
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    copy.target.join("debug").join(file)
}
