//! A running program, a command that ends by itself, and a client of few words.

mod http;
mod process;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

pub(crate) use http::{Answer, Client, entry};
pub(crate) use process::{Ended, Server, run, run_with_input};

/// What every wait ends with at last: far more than any of them needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A directory of a test's own, gone with it.
pub(crate) fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Returns the program, run in `dir` and with nothing of the test's environment.
pub(crate) fn kitbag(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kitbag"));
    command.current_dir(dir).env_clear();
    command
}
