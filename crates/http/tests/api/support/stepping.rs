//! The real store, whose commits a test can stop at each step.

use std::sync::Arc;

use kitbag_domain::{Limits, ServerName};
use kitbag_store_sqlite::{Durability, Observer, Options, SqliteStore, Step};
use kitbag_testkit::gate::{Gate, Stop};
use tempfile::TempDir;

/// A store in a directory of its own, and the gates at the steps of its commits.
pub(crate) struct SteppingStore {
    pub(crate) store: Arc<SqliteStore>,
    gates: [Gate; 3],
    pub(crate) dir: TempDir,
}

/// The steps in their order.
pub(crate) const STEPS: [Step; 3] = [
    Step::BeforeCommit,
    Step::BeforeWakeUp,
    Step::BeforeAcknowledgement,
];

impl SteppingStore {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let gates = STEPS.map(|step| Gate::new(format!("{step:?}")));
        let mut options = options();
        options.observer = Some(Observer::new({
            let gates = gates.clone();
            move |step| gate(&gates, step).pass_blocking()
        }));
        let store = Arc::new(SqliteStore::open(dir.path(), options).unwrap());
        Self { store, gates, dir }
    }

    /// Stops the next batch at a step.
    pub(crate) fn stop_at(&self, step: Step) -> Stop {
        gate(&self.gates, step).stop_next()
    }

    /// Closes the store and opens its directory again, with open gates.
    pub(crate) fn reopened(&self) -> Arc<SqliteStore> {
        self.store.close();
        Arc::new(SqliteStore::open(self.dir.path(), options()).unwrap())
    }
}

fn options() -> Options {
    let mut options = Options::new(ServerName::parse("localhost").unwrap(), 1);
    options.limits = Limits::default();
    // The steps are the same, and the disk has no part in what is tested with it.
    options.durability = Durability::None;
    options
}

fn gate(gates: &[Gate; 3], step: Step) -> &Gate {
    let place = STEPS.iter().position(|known| *known == step);
    &gates[place.expect("every step is listed")]
}
