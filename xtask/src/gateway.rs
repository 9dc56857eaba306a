//! A gateway before a real Synapse: what clients meet there, and that it can be taken away.

mod conformance;
mod lab;

use std::time::Instant;

use anyhow::ensure;
use clap::{Args, ValueEnum};

use self::lab::Lab;
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
}

impl Piece {
    const ALL: [Self; 1] = [Self::Conformance];

    fn run(self, lab: &Lab<'_>) -> anyhow::Result<u64> {
        match self {
            Self::Conformance => conformance::run(lab),
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
    for piece in pieces {
        let started = Instant::now();
        // The others still tell what is wrong with them.
        match piece.run(&lab) {
            Ok(count) => {
                let seconds = started.elapsed().as_secs_f64();
                println!("gateway, {piece:?}: {count} in {seconds:.1} s");
                ensure!(count > 0, "{piece:?} looked at nothing");
                all += count;
            }
            Err(error) => failures.push(format!("{piece:?}: {error:#}")),
        }
    }
    lab.stop()?;
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(Outcome::Passed(Some(all)))
}
