//! The report: tables for people, JSON for programs.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::machine::Machine;
use crate::plan::Plan;
use crate::reference::FIXED_SOURCE;
use crate::stats::Spread;

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    is_short: bool,
    pairs: usize,
    measure_ms: u128,
    pub(crate) tables: Vec<Table>,
    /// The handler that the figures of reading are compared with.
    reference_source: &'static str,
}

impl Report {
    pub(crate) fn new(machine: Machine, plan: &Plan) -> Self {
        Self {
            machine,
            is_short: plan.is_short,
            pairs: plan.pairs,
            measure_ms: plan.measure.as_millis(),
            tables: Vec::new(),
            reference_source: FIXED_SOURCE,
        }
    }

    /// What stands above the tables.
    pub(crate) fn heading(&self) -> String {
        let Machine {
            date,
            commit,
            profile,
            processor,
            processors,
            system,
            file_system,
            load,
        } = &self.machine;
        let Self {
            pairs, measure_ms, ..
        } = self;
        let short = if self.is_short {
            "\nA short run: it shows that the workloads run, and its figures mean nothing."
        } else {
            ""
        };
        format!(
            "{date}, commit {commit}, {profile} build, {processors} x {processor}, {system}, \
             data on {file_system}, load average {load}\n\
             {pairs} interleaved pairs of {measure_ms} ms; median (min..max); \
             `ratio` is Kitbag through the reference, pair by pair{short}\n"
        )
    }

    /// What stands below the tables.
    pub(crate) fn ending(&self) -> String {
        format!(
            "The reference of edge, identity, get, push_rules and sync is this handler, behind a \
             listener with Kitbag's settings:\n\n{}",
            self.reference_source
        )
    }

    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
    }
}

/// What one workload found.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    workload: String,
    /// What was done, in a sentence.
    what: String,
    /// What DESIGN.md allows, where it says something.
    budget: Option<&'static str>,
    columns: Vec<&'static str>,
    rows: Vec<Row>,
}

/// The figures of one side.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    name: &'static str,
    pub(crate) cells: Vec<Option<Spread>>,
}

impl Row {
    pub(crate) fn new(name: &'static str, cells: Vec<Option<Spread>>) -> Self {
        Self { name, cells }
    }
}

const NAME_WIDTH: usize = 16;
const CELL_WIDTH: usize = 30;

impl Table {
    pub(crate) fn new(workload: &str, what: impl Into<String>, columns: &[&'static str]) -> Self {
        Self {
            workload: workload.to_owned(),
            what: what.into(),
            budget: None,
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn budget(mut self, budget: &'static str) -> Self {
        self.budget = Some(budget);
        self
    }

    pub(crate) fn rows(mut self, rows: Vec<Row>) -> Self {
        for row in &rows {
            assert_eq!(row.cells.len(), self.columns.len(), "a row fits its table");
        }
        self.rows = rows;
        self
    }

    /// The table for people.
    pub(crate) fn render(&self) -> String {
        let mut text = format!("{}: {}\n", self.workload, self.what);
        if let Some(budget) = self.budget {
            text += &format!("  budget: {budget}\n");
        }
        text += &line("", self.columns.iter().map(|column| (*column).to_owned()));
        for row in &self.rows {
            text += &line(row.name, row.cells.iter().map(|cell| render(*cell)));
        }
        text
    }
}

fn line(name: &str, cells: impl Iterator<Item = String>) -> String {
    let mut line = format!("  {name:NAME_WIDTH$}");
    for cell in cells {
        line += &format!("{cell:CELL_WIDTH$}");
    }
    line.truncate(line.trim_end().len());
    line + "\n"
}

fn render(cell: Option<Spread>) -> String {
    let Some(Spread { median, min, max }) = cell else {
        return "-".to_owned();
    };
    let figure = |figure: f64| match figure.abs() {
        large if large >= 100.0 => format!("{figure:.0}"),
        middle if middle >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    };
    format!("{} ({}..{})", figure(median), figure(min), figure(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_shows_medians_with_their_spread() {
        let spread = |median| {
            Some(Spread {
                median,
                min: 1.0,
                max: 1234.5,
            })
        };
        let table = Table::new("get", "reads", &["us", "MiB"])
            .budget("little")
            .rows(vec![Row::new("kitbag", vec![spread(12.34), None])]);
        let lines: Vec<_> = table.render().lines().map(str::to_owned).collect();
        assert_eq!(lines[..2], ["get: reads", "  budget: little"]);
        let cell = format!("{:CELL_WIDTH$}-", "12.3 (1.00..1234)");
        assert_eq!(lines[3], format!("  {:NAME_WIDTH$}{cell}", "kitbag"));
    }
}
