//! The parts of `ci` and what became of each.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// How a part ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// It broke, with the reason.
    Failed(String),
    /// It could not run here, with the reason and what to do.
    NotRun(String),
    /// All was well; how many things it looked at, where it counts.
    Passed(Option<u64>),
}

/// One line of the final table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// What a part comes to when it does not break.
pub(crate) type PartResult = anyhow::Result<Outcome>;

/// All parts so far.
#[derive(Debug)]
pub(crate) struct Parts {
    rows: Vec<Row>,
    keep_going: bool,
}

impl Parts {
    /// `keep_going`: whether the parts behind a failed one still run.
    pub(crate) fn new(keep_going: bool) -> Self {
        Self {
            rows: Vec::new(),
            keep_going,
        }
    }

    /// Runs one part, or notes that an earlier failure keeps it from running.
    pub(crate) fn part(&mut self, name: &'static str, run: impl FnOnce() -> PartResult) {
        let started = Instant::now();
        let outcome = if self.ended_early() {
            Outcome::NotRun("an earlier part failed".to_owned())
        } else {
            println!("== {name}: run");
            run().unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")))
        };
        match &outcome {
            Outcome::Failed(why) => println!("== {name}: failed\n{why}"),
            Outcome::NotRun(why) => println!("== {name}: not run ({why})"),
            Outcome::Passed(_) => {}
        }
        self.rows.push(Row {
            name,
            outcome,
            took: started.elapsed(),
        });
    }

    /// Whether every part ran and passed: a part that did not run has shown nothing.
    pub(crate) fn good(&self) -> bool {
        let passed = |row: &Row| matches!(row.outcome, Outcome::Passed(_));
        self.rows.iter().all(passed)
    }

    /// The table of all parts.
    pub(crate) fn table(&self) -> String {
        let mut table = format!("{:<12} {:>8} {:>8}  result\n", "part", "count", "seconds");
        for row in &self.rows {
            let (count, result) = match &row.outcome {
                Outcome::Failed(why) => (None, format!("FAILED: {}", first_line(why))),
                Outcome::NotRun(why) => (None, format!("NOT RUN: {}", first_line(why))),
                Outcome::Passed(count) => (*count, "passed".to_owned()),
            };
            let count = count.map_or_else(|| "-".to_owned(), |count| count.to_string());
            let seconds = row.took.as_secs_f64();
            let name = row.name;
            writeln!(table, "{name:<12} {count:>8} {seconds:>8.1}  {result}")
                .expect("writing to a String cannot fail");
        }
        table
    }

    fn ended_early(&self) -> bool {
        let failed = |row: &Row| matches!(row.outcome, Outcome::Failed(_));
        !self.keep_going && self.rows.iter().any(failed)
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn failed_part_keeps_the_next_from_running() {
        let mut parts = Parts::new(false);
        parts.part("one", || bail!("broken"));
        parts.part("two", || panic!("must not run"));
        assert!(!parts.good());
        let table = parts.table();
        assert!(table.contains("FAILED: broken"), "{table}");
        assert!(table.contains("NOT RUN: an earlier part failed"), "{table}");
    }

    #[test]
    fn keep_going_runs_the_parts_behind_a_failed_one() {
        let mut parts = Parts::new(true);
        parts.part("one", || bail!("broken"));
        parts.part("two", || Ok(Outcome::Passed(Some(7))));
        assert!(!parts.good());
        assert!(parts.table().contains('7'));
    }

    #[test]
    fn part_not_run_is_not_good_but_stops_nothing() {
        let mut parts = Parts::new(false);
        parts.part("one", || Ok(Outcome::NotRun("no Node".to_owned())));
        parts.part("two", || Ok(Outcome::Passed(None)));
        assert!(!parts.good());
        assert!(parts.table().contains("passed"));
    }

    #[test]
    fn all_passed_is_good() {
        let mut parts = Parts::new(false);
        parts.part("one", || Ok(Outcome::Passed(None)));
        assert!(parts.good());
    }
}
