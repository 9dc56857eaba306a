//! Tasks of the Kitbag repository: `cargo xtask --help` lists them.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "telling people what happens is what this program is for"
)]

mod bench;
mod ci;
mod conformance;
mod e2e;
mod fuzz;
mod gateway;
mod http;
mod mutants;
mod parts;
mod process;
mod python;
mod readme;
mod server;
mod synapse;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::bench::BenchArguments;
use crate::ci::CiArguments;
use crate::conformance::ConformanceArguments;
use crate::e2e::E2eArguments;
use crate::fuzz::FuzzArguments;
use crate::gateway::GatewayArguments;
use crate::mutants::MutantsArguments;
use crate::readme::ReadmeArguments;
use crate::test::TestArguments;
use crate::workspace::Workspace;

/// Tasks of the Kitbag repository. `cargo xtask ci` is what decides whether a change is good.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Measures the server beside reference handlers, in the release profile; some twenty minutes.
    ///
    /// docs/performance.md tells what is measured, and how the figures are to be read.
    Bench(BenchArguments),
    /// Runs every part, from the fastest failure to the slowest, and prints a table of them.
    ///
    /// A part that cannot run here (no Python, no Node) says what it lacks and fails the run.
    Ci(CiArguments),
    /// Runs the conformance scenarios against a server of our own, or against --base-url.
    Conformance(ConformanceArguments),
    /// Drives real SDKs (matrix-nio, mautrix, matrix-js-sdk) against a server of our own.
    ///
    /// Installs them, at the versions locked in `e2e/`, below the target directory.
    E2e(E2eArguments),
    /// Runs each fuzz target of `fuzz/` for a minute, led by coverage.
    ///
    /// Works on the stable toolchain; needs a C++ compiler.
    Fuzz(FuzzArguments),
    /// Shows what a gateway does before a real Synapse, and that it can be taken away.
    ///
    /// Installs Synapse, at the version locked in `bench/synapse`, below the target directory.
    Gateway(GatewayArguments),
    /// Takes rules out of the product, one at a time, and sees that tests notice each.
    ///
    /// Works on a copy of the commit that is checked out, below the target directory. A test that
    /// hangs counts as red.
    Mutants(MutantsArguments),
    /// Runs the marked shell blocks of README.md and compares what they print.
    Readme(ReadmeArguments),
    /// Runs the tests of all crates, by cargo-nextest where it is installed.
    Test(TestArguments),
    /// Checks what no compiler checks: dependency walls, documents against code, links.
    Tidy,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    match task {
        Task::Bench(arguments) => bench::task(&workspace, &arguments),
        Task::Ci(arguments) => ci::run(&workspace, &arguments),
        Task::Conformance(arguments) => conformance::task(&workspace, &arguments),
        Task::E2e(arguments) => e2e::task(&workspace, &arguments),
        Task::Fuzz(arguments) => fuzz::task(&workspace, &arguments),
        Task::Gateway(arguments) => gateway::task(&workspace, &arguments),
        Task::Mutants(arguments) => mutants::task(&workspace, &arguments),
        Task::Readme(arguments) => readme::task(&workspace, &arguments),
        Task::Test(arguments) => test::task(&workspace, &arguments),
        Task::Tidy => tidy::task(&workspace),
    }
}
