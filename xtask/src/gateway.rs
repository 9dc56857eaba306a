//! A gateway before a real Synapse: what clients meet there, and that it can be taken away.

mod conformance;
mod lab;
mod proxies;
mod removal;
mod requests;
mod tools;

use std::time::Instant;

use anyhow::ensure;
use clap::{Args, ValueEnum};

use self::lab::Lab;
use crate::e2e::{self, Sdk};
use crate::parts::{Outcome, PartResult};
use crate::process;
use crate::python::{self, Python};
use crate::synapse;
use crate::workspace::Workspace;

/// What is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Piece {
    /// The conformance scenarios.
    Conformance,
    /// Requests that are answered alike with and without the gateway.
    Requests,
    /// The gateway goes and comes under load.
    Removal,
    /// matrix-nio and mautrix.
    Python,
    /// matrix-js-sdk.
    Js,
    /// The snippets of docs/gateway in nginx, HAProxy and Caddy.
    Proxies,
    /// The operator's commands: sweep and doctor.
    Tools,
}

impl Piece {
    const ALL: [Self; 7] = [
        Self::Requests,
        Self::Proxies,
        Self::Conformance,
        Self::Removal,
        Self::Python,
        Self::Js,
        Self::Tools,
    ];

    fn run(self, lab: &Lab<'_>) -> PartResult {
        let flows = |sdk| e2e::through_gateway(lab.workspace, sdk, lab.gateway.base_url());
        let counted = |count| Ok(Outcome::Passed(Some(count)));
        match self {
            Self::Conformance => conformance::run(lab).and_then(counted),
            Self::Js => flows(Sdk::Js),
            Self::Proxies => proxies::run(lab),
            Self::Python => flows(Sdk::Python),
            Self::Removal => removal::run(lab).and_then(counted),
            Self::Requests => requests::run(lab).and_then(counted),
            Self::Tools => tools::run(lab).and_then(counted),
        }
    }
}

/// What to look at.
#[derive(Clone, Debug, Args)]
pub(crate) struct GatewayArguments {
    /// Only these.
    #[arg(value_enum)]
    pieces: Vec<Piece>,
}

/// `cargo xtask gateway`.
pub(crate) fn task(workspace: &Workspace, arguments: &GatewayArguments) -> anyhow::Result<()> {
    let pieces = match &arguments.pieces[..] {
        [] => &Piece::ALL[..],
        some => some,
    };
    let outcome = run(workspace, pieces)?;
    ensure!(matches!(outcome, Outcome::Passed(_)), "{outcome:?}");
    Ok(())
}

/// All of it.
pub(crate) fn part(workspace: &Workspace) -> PartResult {
    run(workspace, &Piece::ALL)
}

fn run(workspace: &Workspace, pieces: &[Piece]) -> PartResult {
    if Python::find().is_none() {
        return Ok(Outcome::NotRun(python::MISSING.to_owned()));
    }
    process::build(&workspace.root)?;
    let python = synapse::install(workspace)?;
    let lab = Lab::start(workspace, &python)?;
    let mut all = 0;
    let mut failures = Vec::new();
    let mut not_run = Vec::new();
    for piece in pieces {
        let started = Instant::now();
        // The others still tell what is wrong with them.
        match piece.run(&lab) {
            Ok(Outcome::Passed(Some(count))) if count > 0 => {
                let seconds = started.elapsed().as_secs_f64();
                println!("gateway, {piece:?}: {count} in {seconds:.1} s");
                all += count;
            }
            Ok(Outcome::NotRun(why)) => not_run.push(format!("{piece:?} {why}")),
            Ok(outcome) => failures.push(format!("{piece:?}: {outcome:?}")),
            Err(error) => failures.push(format!("{piece:?}: {error:#}")),
        }
    }
    lab.stop()?;
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    if !not_run.is_empty() {
        return Ok(Outcome::NotRun(not_run.join(", ")));
    }
    Ok(Outcome::Passed(Some(all)))
}
