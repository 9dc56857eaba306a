//! Real SDKs against a server of our own, installed at locked versions below the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};

use crate::parts::{Outcome, PartResult};
use crate::process;
use crate::python::{self, Python, install};
use crate::server::{CANARY, CANARY_VARIABLE, Server};
use crate::workspace::Workspace;

const URL_VARIABLE: &str = "KITBAG_TEST_URL";

/// Tells the tests that the server is a gateway before another homeserver.
const GATEWAY_VARIABLE: &str = "KITBAG_TEST_GATEWAY";

const NODE_MISSING: &str = "needs Node 20.14 or newer with npm: https://nodejs.org/en/download";

/// `--test-force-exit` came with it, and matrix-js-sdk leaves timers behind.
const NODE_VERSION_MIN: (u32, u32) = (20, 14);

/// More than all deadlines within one test together: the SDK repeats some requests for ever.
const JS_TEST_MS_MAX: u32 = 90_000;

/// An SDK family with its own language and folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Sdk {
    /// matrix-js-sdk.
    Js,
    /// matrix-nio and mautrix.
    Python,
}

/// Which SDKs, against which server.
#[derive(Clone, Debug, Args)]
pub(crate) struct E2eArguments {
    /// Only these.
    #[arg(value_enum)]
    sdks: Vec<Sdk>,
    /// Run against this server instead of starting one.
    #[arg(long)]
    base_url: Option<String>,
}

/// `cargo xtask e2e`.
pub(crate) fn task(workspace: &Workspace, arguments: &E2eArguments) -> anyhow::Result<()> {
    let all = [Sdk::Python, Sdk::Js];
    let sdks = if arguments.sdks.is_empty() {
        &all[..]
    } else {
        &arguments.sdks
    };
    for &sdk in sdks {
        let outcome = match &arguments.base_url {
            Some(base_url) => match Tool::find(sdk) {
                Ok(tool) => tool.run(workspace, base_url, &[])?,
                Err(why) => Outcome::NotRun(why.to_owned()),
            },
            None => part(workspace, sdk)?,
        };
        ensure!(
            matches!(outcome, Outcome::Passed(_)),
            "{sdk:?}: {outcome:?}"
        );
    }
    Ok(())
}

/// The flows of one SDK family, against a fresh server.
pub(crate) fn part(workspace: &Workspace, sdk: Sdk) -> PartResult {
    let tool = match Tool::find(sdk) {
        Ok(tool) => tool,
        Err(why) => return Ok(Outcome::NotRun(why.to_owned())),
    };
    let server = Server::start(workspace, tool.log_name(), &[])?;
    let outcome = tool.run(workspace, server.base_url(), &[])?;
    server.stop()?;
    Ok(outcome)
}

/// The flows of one SDK family that another homeserver has too, through the gateway before it.
pub(crate) fn through_gateway(workspace: &Workspace, sdk: Sdk, base_url: &str) -> PartResult {
    match Tool::find(sdk) {
        Ok(tool) => tool.run(workspace, base_url, &[(GATEWAY_VARIABLE, "1")]),
        Err(why) => Ok(Outcome::NotRun(why.to_owned())),
    }
}

/// The interpreter that a part runs on.
#[derive(Debug)]
enum Tool {
    Node,
    Python(Python),
}

impl Tool {
    fn find(sdk: Sdk) -> Result<Self, &'static str> {
        match sdk {
            Sdk::Js => {
                let version = process::ask(Command::new("node").arg("--version"));
                let npm = process::ask(Command::new("npm").arg("--version"));
                let new = version.is_some_and(|version| is_new_enough(&version));
                if new && npm.is_some() {
                    Ok(Self::Node)
                } else {
                    Err(NODE_MISSING)
                }
            }
            Sdk::Python => Python::find().map(Self::Python).ok_or(python::MISSING),
        }
    }

    fn log_name(&self) -> &'static str {
        match self {
            Self::Node => "e2e-js",
            Self::Python(_) => "e2e-python",
        }
    }

    fn run(&self, workspace: &Workspace, base_url: &str, more: &[(&str, &str)]) -> PartResult {
        let mut command = match self {
            Self::Node => node_tests(workspace)?,
            Self::Python(python) => python_tests(workspace, python)?,
        };
        command
            .env(URL_VARIABLE, base_url)
            .env(CANARY_VARIABLE, CANARY)
            .env_remove(GATEWAY_VARIABLE)
            .envs(more.iter().copied());
        let output = process::run(command)?;
        let count = summary(&output, "pass", "passed");
        ensure!(count > 0, "no test ran");
        let left_out = summary(&output, "skipped", "skipped");
        ensure!(left_out == 0, "{left_out} tests were left out");
        Ok(Outcome::Passed(Some(count)))
    }
}

/// Makes the environment unless one of the same packages is there, and returns the test command.
fn python_tests(workspace: &Workspace, python: &Python) -> anyhow::Result<Command> {
    let source = workspace.path("e2e/python");
    let folder = workspace.target.join("e2e/python");
    let mut pytest = Command::new(python.environment(&folder, &source.join("requirements.txt"))?);
    pytest
        .args(["-m", "pytest", "--verbose"])
        .current_dir(source)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(pytest)
}

/// Copies the tests beside their packages (Node looks for packages from the file on upwards),
/// installs those unless they are there, and returns the test command.
fn node_tests(workspace: &Workspace) -> anyhow::Result<Command> {
    let source = workspace.path("e2e/js");
    let folder = workspace.target.join("e2e/js");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for file in files(&folder)? {
        if file.extension().is_some_and(|extension| extension == "mjs") {
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
    }
    for file in files(&source)? {
        let name = file.file_name().context("a listed file has a name")?;
        let copy = folder.join(name);
        fs::copy(&file, &copy).with_context(|| format!("cannot write {}", copy.display()))?;
    }
    install(&folder, &read(&source.join("package-lock.json"))?, || {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&folder);
        process::run(npm).map(drop)
    })?;
    let mut node = Command::new("node");
    node.args(["--test", "--test-force-exit", "--test-reporter=spec"])
        .arg(format!("--test-timeout={JS_TEST_MS_MAX}"))
        .current_dir(&folder);
    Ok(node)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= NODE_VERSION_MIN,
        _ => false,
    }
}

/// Reads a number from the last lines of Node's reporter (`pass 25`) or pytest's (`33 passed`).
fn summary(output: &str, node: &str, pytest: &str) -> u64 {
    let number = |line: &str| {
        let words: Vec<_> = line
            .split_whitespace()
            .map(|word| word.trim_end_matches(','))
            .collect();
        words.windows(2).find_map(|pair| match pair {
            [word, number] if *word == node => number.parse().ok(),
            [number, word] if *word == pytest => number.parse().ok(),
            _ => None,
        })
    };
    output.lines().rev().find_map(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_of_pytest_is_read() {
        let output = "test_nio.py::a PASSED\n=== 1 failed, 32 passed, 2 skipped in 1.60s ===\n";
        assert_eq!(summary(output, "pass", "passed"), 32);
        assert_eq!(summary(output, "skipped", "skipped"), 2);
    }

    #[test]
    fn summary_of_node_is_read() {
        let output = "ℹ tests 26\nℹ pass 25\nℹ fail 1\nℹ skipped 3\n";
        assert_eq!(summary(output, "pass", "passed"), 25);
        assert_eq!(summary(output, "skipped", "skipped"), 3);
    }

    #[test]
    fn summary_of_nothing_is_zero() {
        assert_eq!(summary("collected 0 items\n", "pass", "passed"), 0);
    }

    #[test]
    fn node_before_the_needed_option_is_too_old() {
        assert!(!is_new_enough("v18.20.0") && !is_new_enough("v20.13.1"));
        assert!(is_new_enough("v20.14.0") && is_new_enough("v22.1.0"));
        assert!(!is_new_enough("nonsense"));
    }
}
