//! The tests of the crates, each run alone in a process of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use cargo_metadata::{Artifact, Message, TargetKind};

use super::Colour;
use super::copy::Copy;
use super::table::{TestName, TestProgram, TestTarget};
use crate::process::{self, Ended};

/// The longest test takes some seconds; one that takes this long has lost what it waits for.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the programs are that were built.
type Built = BTreeMap<TestProgram, (PathBuf, PathBuf)>;

/// Builds what holds the tests, and tells how each of them ends.
///
/// # Errors
/// Where it cannot be built, with the compiler's first error, or a test is not there.
pub(crate) fn run(
    copy: &Copy,
    tests: &BTreeSet<TestName>,
) -> anyhow::Result<BTreeMap<TestName, Colour>> {
    let built = build(copy, tests)?;
    let mut colours = BTreeMap::new();
    for test in tests {
        let (program, folder) = &built[&test.program];
        let mut command = Command::new(program);
        command
            .args(["--exact", &test.path])
            .current_dir(folder)
            .env("CARGO_MANIFEST_DIR", folder);
        // A seed or the long form is for whoever looks at one test.
        process::remove_own_variables(&mut command);
        let log = copy.logs.join("test.log");
        let colour = match process::run_within(&command, TEST_TIMEOUT, &log)? {
            Ended::TimedOut => Colour::Hung,
            Ended::By(status) if !status.success() => Colour::Red,
            Ended::By(_) => {
                let printed = fs::read_to_string(&log).context("a test's output is not there")?;
                if !printed.contains("1 passed") {
                    bail!("there is no test `{test}`");
                }
                Colour::Green
            }
        };
        colours.insert(test.clone(), colour);
    }
    Ok(colours)
}

fn build(copy: &Copy, tests: &BTreeSet<TestName>) -> anyhow::Result<Built> {
    let programs: BTreeSet<&TestProgram> = tests.iter().map(|test| &test.program).collect();
    let packages: BTreeSet<&str> = programs.iter().map(|p| p.package.as_str()).collect();
    let mut built = Built::new();
    for package in packages {
        // Each package by itself, as a contributor would: so nothing of the others is built.
        let mut arguments = vec!["test", "--no-run", "-p", package];
        arguments.push("--message-format=json-render-diagnostics");
        for program in programs.iter().filter(|p| p.package == package) {
            match &program.target {
                TestTarget::Bin(name) => arguments.extend(["--bin", name]),
                TestTarget::Lib => arguments.push("--lib"),
                TestTarget::Test(name) => arguments.extend(["--test", name]),
            }
        }
        for artifact in cargo(copy, &arguments)? {
            let Some(executable) = artifact.executable.filter(|_| artifact.profile.test) else {
                continue;
            };
            let folder = artifact.manifest_path.parent();
            let folder = folder.context("a manifest lies in a folder")?;
            let name = artifact.target.name;
            let target = match artifact.target.kind.first() {
                Some(TargetKind::Bin) => TestTarget::Bin(name),
                Some(TargetKind::Test) => TestTarget::Test(name),
                _ => TestTarget::Lib,
            };
            let program = TestProgram {
                package: package.to_owned(),
                target,
            };
            built.insert(program, (executable.into(), folder.into()));
        }
    }
    match programs.iter().find(|p| !built.contains_key(p)) {
        Some(program) => bail!("cargo built no {program:?}"),
        None => Ok(built),
    }
}

/// Runs cargo on the copy; returns what it made.
pub(crate) fn cargo(copy: &Copy, arguments: &[&str]) -> anyhow::Result<Vec<Artifact>> {
    let mut command = process::cargo(&copy.tree, arguments);
    command
        .env("CARGO_TARGET_DIR", &copy.target)
        // Half of the time goes into linking, and nobody looks at these programs.
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .stdin(Stdio::null());
    let output = command.output().context("cannot run cargo")?;
    if !output.status.success() {
        let printed = String::from_utf8_lossy(&output.stderr);
        fs::write(copy.logs.join("build.log"), &*printed).context("cannot write a log")?;
        let is_error = |line: &&str| line.starts_with("error");
        let error = printed.lines().find(is_error).unwrap_or("cargo failed");
        bail!("does not build: {error}");
    }
    let artifacts = Message::parse_stream(&*output.stdout).filter_map(|message| match message {
        Ok(Message::CompilerArtifact(artifact)) => Some(Ok(artifact)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    });
    let artifacts: Result<_, _> = artifacts.collect();
    artifacts.context("cargo's messages are not as expected")
}
