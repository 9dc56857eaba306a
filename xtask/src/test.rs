//! The tests of the crates.

use std::process::Command;

use anyhow::{bail, ensure};
use clap::Args;

use crate::parts::{Outcome, PartResult};
use crate::process;
use crate::workspace::Workspace;

/// How many cases a property test takes in a long run, against the 256 of proptest's default.
const LONG_CASES: &str = "10000";

/// What to pass on to the test runner.
#[derive(Clone, Debug, Args)]
pub(crate) struct TestArguments {
    /// Passed on, such as a part of a test's name.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// `cargo xtask test`.
pub(crate) fn task(workspace: &Workspace, arguments: &TestArguments) -> anyhow::Result<()> {
    let mut command = runner(workspace);
    command.args(&arguments.rest);
    process::run(command).map(drop)
}

/// The unit and integration tests of all crates.
pub(crate) fn part(workspace: &Workspace, long: bool) -> PartResult {
    let mut command = runner(workspace);
    if long {
        command.env("PROPTEST_CASES", LONG_CASES);
        command.env("KITBAG_TEST_LONG", "1");
    }
    counted(&process::run(command)?)
}

/// The examples in the documentation, which nextest does not run.
pub(crate) fn doc_part(workspace: &Workspace) -> PartResult {
    let output = process::run(process::cargo(
        &workspace.root,
        ["test", "--workspace", "--doc"],
    ))?;
    Ok(Outcome::Passed(Some(count(&output))))
}

fn runner(workspace: &Workspace) -> Command {
    let nextest = process::ask(&mut process::cargo(
        &workspace.root,
        ["nextest", "--version"],
    ));
    let arguments: &[&str] = if nextest.is_some() {
        &["nextest", "run", "--workspace"]
    } else {
        &["test", "--workspace", "--lib", "--bins", "--tests"]
    };
    process::cargo(&workspace.root, arguments)
}

/// A run of nothing shows nothing, and neither does a test that is left out.
fn counted(output: &str) -> PartResult {
    let count = count(output);
    ensure!(count > 0, "no test ran");
    let left_out = output.lines().find(|line| {
        ["skipped", "ignored"]
            .iter()
            .any(|word| number_before(line, word).is_some_and(|n| n > 0))
    });
    if let Some(line) = left_out {
        bail!("tests were left out: {}", line.trim());
    }
    Ok(Outcome::Passed(Some(count)))
}

/// Adds up the summary lines of nextest (`12 tests run: 12 passed`) and libtest (`ok. 12 passed`).
fn count(output: &str) -> u64 {
    output
        .lines()
        .filter_map(|line| number_before(line, "passed"))
        .sum()
}

/// The number before a word in a summary line.
fn number_before(line: &str, wanted: &str) -> Option<u64> {
    let summaries = ["tests run: ", "test run: ", "test result: ok. "];
    let summary = summaries.iter().find_map(|start| line.split_once(start))?.1;
    let words: Vec<_> = summary
        .split([' ', ',', ';'])
        .filter(|word| !word.is_empty())
        .collect();
    words.windows(2).find_map(|pair| match pair {
        [number, word] if *word == wanted => number.parse().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_reads_the_summary_of_nextest() {
        assert_eq!(
            count("     Summary [   0.1s] 31 tests run: 31 passed, 0 skipped\n"),
            31
        );
        assert_eq!(
            count("     Summary [   0.1s] 1 test run: 1 passed, 30 skipped\n"),
            1
        );
    }

    #[test]
    fn count_adds_the_summaries_of_libtest() {
        let output = "test result: ok. 3 passed; 0 failed\ntest result: ok. 4 passed; 0 failed\n";
        assert_eq!(count(output), 7);
    }

    #[test]
    fn run_that_leaves_tests_out_fails() {
        assert!(counted("Summary [ 0.1s] 2 tests run: 2 passed, 1 skipped").is_err());
        assert!(counted("test result: ok. 2 passed; 0 failed; 1 ignored").is_err());
        assert!(counted("Summary [ 0.1s] 2 tests run: 2 passed, 0 skipped").is_ok());
    }

    #[test]
    fn run_of_no_test_fails() {
        assert!(counted("Summary [ 0.1s] 0 tests run: 0 passed").is_err());
    }
}
