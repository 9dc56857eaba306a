//! Runs scenarios side by side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::expect::Failure;
use crate::lab::Lab;
use crate::report::{Report, Row};
use crate::scenario::Selection;
use crate::scenarios;

/// How many scenarios run at once if nothing else is said. They mostly wait.
pub const PARALLEL_DEFAULT: usize = 8;

/// How long one scenario may take: the slowest hash a dozen passwords on a busy machine.
pub const SCENARIO_TIMEOUT: Duration = Duration::from_secs(90);

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which scenarios.
    pub selection: Selection,
    /// How many at once; at least one.
    pub parallel: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            selection: Selection::default(),
            parallel: PARALLEL_DEFAULT,
        }
    }
}

/// Runs the selected scenarios and reports them in the order of the list.
pub async fn run(lab: &Lab, options: &Options) -> Report {
    let permits = Arc::new(Semaphore::new(options.parallel.max(1)));
    let mut tasks = JoinSet::new();
    let selected = scenarios::all()
        .into_iter()
        .filter(|scenario| options.selection.keeps(scenario));
    for (order, scenario) in selected.enumerate() {
        let (lab, permits) = (lab.clone(), Arc::clone(&permits));
        tasks.spawn(async move {
            // The semaphore is never closed; without a permit it would only run sooner.
            let _permit = permits.acquire_owned().await;
            let start = Instant::now();
            let outcome = match tokio::time::timeout(SCENARIO_TIMEOUT, scenario.run(lab)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Failure::new(
                    format!("an end within {} s", SCENARIO_TIMEOUT.as_secs()),
                    "none",
                )),
            };
            (order, Row::new(&scenario, start.elapsed(), outcome.err()))
        });
    }
    let mut rows = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok(row) => rows.push(row),
            Err(error) => rows.push((usize::MAX, Row::panicked(&error.to_string()))),
        }
    }
    rows.sort_by_key(|(order, _)| *order);
    Report {
        rows: rows.into_iter().map(|(_, row)| row).collect(),
        canary_stored: lab.canary_stored(),
    }
}
