//! `cargo xtask bench`: the workloads beside their references, in one run.

use std::process::Command;

use clap::Args;

use crate::parts::{Outcome, PartResult};
use crate::process;
use crate::synapse;
use crate::workspace::Workspace;

/// Those that show figures.
const DOCUMENTS: [&str; 2] = ["README.md", "docs/performance.md"];

/// What to measure.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchArguments {
    /// Only check that every workload runs, in the profile that `ci` builds.
    #[arg(long)]
    short: bool,
    /// Measure beside a Synapse, which is installed below the target directory, instead of the
    /// references.
    #[arg(long)]
    synapse: bool,
    /// Keep the figures in bench/runs, and write them into the documents that show them.
    #[arg(long, conflicts_with = "short")]
    record: bool,
    /// Passed on to kitbag-bench, such as `--json FILE` or `--filter put/64`; `--help` after a
    /// `--` lists what there is.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// `cargo xtask bench`.
pub(crate) fn task(workspace: &Workspace, arguments: &BenchArguments) -> anyhow::Result<()> {
    let mut command = built(workspace, arguments.short)?;
    let mut run = "bench/runs/references.json";
    if arguments.synapse {
        command.arg("--synapse").arg(synapse::install(workspace)?);
        run = "bench/runs/synapse.json";
    }
    if arguments.record {
        command.arg("--json").arg(workspace.path(run));
    }
    command.args(&arguments.rest);
    // It also fails where a budget is missed: then all is measured and written, and is shown.
    let measured = process::run(command);
    if arguments.record {
        let mut fill = Command::new(workspace.release_program("kitbag-bench"));
        fill.arg("fill").args(DOCUMENTS);
        fill.current_dir(&workspace.root);
        process::run(fill)?;
    }
    measured.map(drop)
}

/// Each workload, once and short; or in full, where it fails by the budgets that are no ratios.
pub(crate) fn part(workspace: &Workspace, long: bool) -> PartResult {
    process::run(built(workspace, !long)?).map(|_| Outcome::Passed(None))
}

/// Builds the programs, and returns how the measuring one is called.
fn built(workspace: &Workspace, is_short: bool) -> anyhow::Result<Command> {
    if is_short {
        process::build(&workspace.root)?;
        let mut command = Command::new(workspace.program("kitbag-bench"));
        command.arg("--short");
        return Ok(command);
    }
    let arguments = [
        "build",
        "--release",
        "-p",
        "kitbag-server",
        "-p",
        "kitbag-bench",
    ];
    process::run(process::cargo(&workspace.root, arguments))?;
    Ok(Command::new(workspace.release_program("kitbag-bench")))
}
