//! How much is measured, and with what.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::BenchArguments;

/// Enough for a median that two disturbed pairs on either side cannot move.
pub(crate) const PAIRS_DEFAULT: usize = 9;
/// Some ten thousand requests: enough for a p99, and for the clock of threads.
pub(crate) const MEASURE_MS_DEFAULT: u64 = 1_000;
/// As many as the budget of their memory speaks of.
pub(crate) const WAITING_DEFAULT: usize = 9_000;

/// What the listeners of gateway and reference take by default, less those that come and go. The
/// ports of a client are more, some 28,000 to each listener.
const WAITING_THROUGH_MAX: usize = 16_384 - 100;

/// Files that a process has open beside its connections, with much to spare.
const OTHER_FILES: usize = 100;
/// Rounds of a workload that starts its servers anew each time.
const ROUNDS_MAX: usize = 5;

/// What every workload is told.
pub(crate) struct Plan {
    /// Pairs of measurements.
    pub(crate) pairs: usize,
    /// Rounds where each starts its servers anew.
    pub(crate) rounds: usize,
    /// How long each measurement takes.
    pub(crate) measure: Duration,
    /// How long each side runs before the first one.
    pub(crate) warm_up: Duration,
    /// How long memory is given to settle before it is read.
    pub(crate) settle: Duration,
    /// How long memory may take to come back, with [`Plan::settle`] in it.
    pub(crate) settle_long: Duration,
    /// Connections that a process may have.
    pub(crate) connections_max: usize,
    /// Syncs that wait at once.
    pub(crate) waiting: usize,
    /// The same through the gateway.
    pub(crate) waiting_through: usize,
    /// Most users of one workload: each costs a password hash.
    pub(crate) users_max: usize,
    /// Entries that a server starts on.
    pub(crate) start_entries: usize,
    /// Devices that a report counts.
    pub(crate) report_devices: usize,
    /// Members of the room whose push rules are evaluated.
    pub(crate) members: usize,
    /// Whether this run only shows that everything runs.
    pub(crate) is_short: bool,
    /// The program that is measured.
    pub(crate) kitbag: PathBuf,
    /// The Python that has Synapse, where that is measured beside it.
    pub(crate) synapse: Option<PathBuf>,
    /// The program of the references: this one.
    pub(crate) reference: PathBuf,
    /// Where servers keep their data; goes with the plan.
    pub(crate) dir: TempDir,
}

impl Plan {
    /// Checks the arguments and makes the directory.
    pub(crate) fn new(arguments: &BenchArguments) -> Result<Self> {
        ensure!(arguments.pairs > 0, "there must be at least one pair");
        ensure!(arguments.measure_ms > 0, "a measurement must take time");
        let reference = env::current_exe().context("cannot find this program")?;
        let beside = reference.parent().unwrap_or(Path::new("."));
        let kitbag = match &arguments.kitbag {
            Some(path) => path.clone(),
            None => beside.join("kitbag"),
        };
        ensure!(
            kitbag.try_exists()?,
            "there is no `{}`; build it with `cargo build{} -p kitbag-server`",
            kitbag.display(),
            if cfg!(debug_assertions) {
                ""
            } else {
                " --release"
            },
        );
        let parent = match &arguments.dir {
            Some(dir) => dir.clone(),
            None => beside.parent().unwrap_or(beside).join("bench"),
        };
        fs::create_dir_all(&parent)
            .with_context(|| format!("cannot make `{}`", parent.display()))?;
        let dir = tempfile::Builder::new().prefix("run-").tempdir_in(&parent);
        let dir =
            dir.with_context(|| format!("cannot make a directory in `{}`", parent.display()))?;
        let connections_max = connections_max();
        let waiting = arguments.waiting.unwrap_or(WAITING_DEFAULT);
        let waiting_through = arguments.waiting.unwrap_or(WAITING_THROUGH_MAX);
        let plan = Self {
            pairs: arguments.pairs,
            rounds: arguments.pairs.min(ROUNDS_MAX),
            measure: Duration::from_millis(arguments.measure_ms),
            warm_up: Duration::from_millis(arguments.measure_ms),
            settle: Duration::from_secs(2),
            settle_long: Duration::from_secs(10),
            connections_max,
            waiting: waiting.min(connections_max),
            // The gateway has two files open for each.
            waiting_through: waiting_through.min(connections_max / 2),
            users_max: 512,
            start_entries: 1_000_000,
            report_devices: 100_000,
            members: 10_000,
            is_short: false,
            kitbag,
            synapse: arguments.synapse.clone(),
            reference,
            dir,
        };
        Ok(if arguments.short {
            plan.shortened()
        } else {
            plan
        })
    }

    fn shortened(self) -> Self {
        Self {
            pairs: 1,
            rounds: 1,
            measure: Duration::from_millis(100),
            warm_up: Duration::from_millis(20),
            settle: Duration::from_millis(100),
            settle_long: Duration::from_millis(200),
            waiting: self.waiting.min(20),
            waiting_through: self.waiting_through.min(20),
            users_max: 4,
            start_entries: 1_000,
            report_devices: 100,
            members: 20,
            is_short: true,
            ..self
        }
    }
}

/// How many connections this process may open, which its children may accept too: the soft limit of
/// open files is raised to the hard one.
fn connections_max() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let allowed = allowed.unwrap_or(u64::MAX);
    usize::try_from(allowed)
        .unwrap_or(usize::MAX)
        .saturating_sub(OTHER_FILES)
}
