//! `cargo xtask ci`: everything that decides whether a change is good.

use anyhow::{Context as _, bail};
use clap::Args;

use crate::parts::{Outcome, PartResult, Parts};
use crate::workspace::Workspace;
use crate::{bench, conformance, e2e, fuzz, gateway, mutants, process, readme, test, tidy};

/// How to run the parts.
#[derive(Clone, Debug, Args)]
pub(crate) struct CiArguments {
    /// Also take the time for what is rare: many more cases in property tests, benches in full,
    /// fuzzing and the mutants.
    #[arg(long)]
    long: bool,
    /// Run the parts behind a failed one too.
    #[arg(long)]
    keep_going: bool,
}

/// Runs all parts, the fastest failure first, and prints the table.
pub(crate) fn run(workspace: &Workspace, arguments: &CiArguments) -> anyhow::Result<()> {
    let mut parts = Parts::new(arguments.keep_going);
    let cargo = |arguments: &[&str]| process::run(process::cargo(&workspace.root, arguments));
    let done = |arguments: &[&str]| cargo(arguments).map(|_| Outcome::Passed(None));
    let members = u64::try_from(workspace.crates.len()).context("members fit in 64 bits")?;

    parts.part("fmt", || done(&["fmt", "--all", "--check"]));
    parts.part("tidy", || tidy::part(workspace));
    parts.part("clippy", || {
        // `-- -D warnings`, not RUSTFLAGS: those would build every dependency a second time.
        let lint = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ];
        cargo(&lint).map(|_| Outcome::Passed(Some(members)))
    });
    parts.part("build", || {
        process::build(&workspace.root).map(|()| Outcome::Passed(Some(members)))
    });
    parts.part("tests", || test::part(workspace, arguments.long));
    parts.part("doc-tests", || test::doc_part(workspace));
    parts.part("rustdoc", || rustdoc(workspace, members));
    parts.part("readme", || readme::part(workspace));
    parts.part("conformance", || conformance::part(workspace));
    parts.part("e2e python", || e2e::part(workspace, e2e::Sdk::Python));
    parts.part("e2e js", || e2e::part(workspace, e2e::Sdk::Js));
    parts.part("gateway", || gateway::part(workspace));
    parts.part("bench", || bench::part(workspace, arguments.long));
    if arguments.long {
        parts.part("fuzz", || fuzz::part(workspace));
        parts.part("mutants", || mutants::part(workspace));
    }

    println!("\n{}", parts.table());
    if !parts.good() {
        bail!("not every part ran and passed");
    }
    Ok(())
}

fn rustdoc(workspace: &Workspace, members: u64) -> PartResult {
    // With private items: the crates' own documentation is read by who works on them, and the
    // links of a private module are checked only so.
    let arguments = [
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ];
    let mut command = process::cargo(&workspace.root, arguments);
    command.env("RUSTDOCFLAGS", "-D warnings");
    process::run(command).map(|_| Outcome::Passed(Some(members)))
}
