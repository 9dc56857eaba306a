//! Where and of what a run was made.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// What must be known to compare two runs.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    /// With a `+` where the working tree differed.
    pub(crate) commit: String,
    pub(crate) profile: String,
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) system: String,
    /// Of the data directory: one in memory makes every fsync free.
    pub(crate) file_system: String,
    /// At the start, over 1, 5 and 15 minutes: above 0 somebody else was at work.
    pub(crate) load: String,
    /// The version of the Synapse that was measured beside, and of its Python.
    pub(crate) synapse: Option<String>,
    /// How such a run is made.
    pub(crate) command: String,
}

const UNKNOWN: &str = "unknown";

impl Machine {
    pub(crate) fn look(dir: &TempDir, synapse: Option<&Path>, command: String) -> Result<Self> {
        let commit = output("git", &["rev-parse", "--short=10", "HEAD"]);
        let changes = output("git", &["status", "--porcelain", "--untracked-files=no"]);
        let mark = if changes.is_none_or(|changes| changes.is_empty()) {
            ""
        } else {
            "+"
        };
        let load = read("/proc/loadavg").map(|text| {
            let words: Vec<_> = text.split(' ').take(3).collect();
            words.join(" ")
        });
        Ok(Self {
            date: or_unknown(output("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"])),
            commit: or_unknown(commit) + mark,
            profile: if cfg!(debug_assertions) {
                "debug".to_owned()
            } else {
                "release".to_owned()
            },
            processor: or_unknown(processor()),
            processors: thread::available_parallelism()?.into(),
            system: or_unknown(output("uname", &["-sm"])),
            file_system: or_unknown(file_system(dir.path())),
            load: or_unknown(load),
            synapse: synapse.map(|python| or_unknown(synapse_version(python))),
            command,
        })
    }
}

impl fmt::Display for Machine {
    /// Writes all but the load, Synapse and the command.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            date,
            commit,
            profile,
            processor,
            processors,
            system,
            file_system,
            ..
        } = self;
        write!(
            f,
            "{date}, commit {commit}, {profile} build, {processors} x {processor}, {system}, \
             data on {file_system}"
        )
    }
}

fn or_unknown(text: Option<String>) -> String {
    text.unwrap_or_else(|| UNKNOWN.to_owned())
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn synapse_version(python: &Path) -> Option<String> {
    let question = "import platform, importlib.metadata as packages
print(packages.version('matrix-synapse'), 'on Python', platform.python_version())";
    output(python.to_str()?, &["-c", question])
}

fn processor() -> Option<String> {
    let Some(text) = read("/proc/cpuinfo") else {
        return output("sysctl", &["-n", "machdep.cpu.brand_string"]);
    };
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Returns the type of the file system of `dir`: that of the longest mount point above it.
fn file_system(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = read("/proc/self/mounts")?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let above = mounts.filter(|(point, _)| dir.starts_with(point));
    let (_, kind) = above.max_by_key(|(point, _)| point.len())?;
    Some(kind.to_owned())
}
