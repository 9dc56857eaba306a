//! What a run came to, for people and for machines.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::expect::Failure;
use crate::scenario::{Feature, Scenario};

/// One scenario's result.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The scenario's name.
    pub name: String,
    /// Where its fact comes from.
    pub reference: String,
    /// What it needs of the server.
    pub features: Vec<Feature>,
    /// Whether the server behaved as it should.
    pub passed: bool,
    /// How long it took.
    pub duration_ms: u128,
    /// What should have come, of a failed scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What came, of a failed scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub got: Option<String>,
}

impl Row {
    pub(crate) fn new(scenario: &Scenario, took: Duration, failure: Option<Failure>) -> Self {
        let passed = failure.is_none();
        let (expected, got) = failure.map(|f| (f.expected, f.got)).unzip();
        Self {
            name: scenario.name().to_owned(),
            reference: scenario.reference().to_owned(),
            features: scenario.features().to_vec(),
            passed,
            duration_ms: took.as_millis(),
            expected,
            got,
        }
    }

    /// The row of a scenario that broke instead of failing.
    pub(crate) fn panicked(error: &str) -> Self {
        Self {
            name: "(a scenario panicked)".to_owned(),
            reference: String::new(),
            features: Vec::new(),
            passed: false,
            duration_ms: 0,
            expected: Some("a result".to_owned()),
            got: Some(error.to_owned()),
        }
    }
}

/// All results of a run. `Display` is the table for people.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The results, in the order of the list.
    pub rows: Vec<Row>,
    /// How many writes that carried the canary the server accepted: with none, the search of its
    /// log for the canary shows nothing.
    pub canary_stored: u64,
}

impl Report {
    /// How many scenarios passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.rows.iter().filter(|row| row.passed).count()
    }

    /// How many scenarios failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.rows.len() - self.passed()
    }

    /// The results as JSON: `{"passed", "failed", "canary_stored", "rows": [...]}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "passed": self.passed(),
            "failed": self.failed(),
            "canary_stored": self.canary_stored,
            "rows": self.rows,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .rows
            .iter()
            .map(|row| row.name.len())
            .max()
            .unwrap_or(0);
        for row in &self.rows {
            let verdict = if row.passed { "ok" } else { "FAIL" };
            writeln!(
                f,
                "{:width$}  {verdict:4}  {:>6} ms",
                row.name, row.duration_ms
            )?;
            if let (Some(expected), Some(got)) = (&row.expected, &row.got) {
                writeln!(f, "    expected  {expected}\n    got       {got}")?;
                writeln!(f, "    by        {}", row.reference)?;
            }
        }
        writeln!(f, "{} passed, {} failed", self.passed(), self.failed())?;
        write!(f, "canary stored {} times", self.canary_stored)
    }
}
