//! The report: tables for people, JSON for programs.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::budgets::{BUDGETS, Bound, Verdict};
use crate::machine::Machine;
use crate::plan::Plan;
use crate::reference::FIXED_SOURCE;
use crate::stats::Spread;

/// How the Synapse was set up that was measured beside.
pub(crate) const SYNAPSE_NOTE: &str = "\
Synapse runs as one process on SQLite, on the same disk, with rate limits, presence and federation \
off; large sites run it on PostgreSQL and with workers, which take more memory and processors.";

/// Everything that a run found.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) is_short: bool,
    pub(crate) pairs: usize,
    pub(crate) measure_ms: u128,
    pub(crate) tables: Vec<Table>,
    /// The handler that the figures of reading are compared with.
    reference_source: String,
}

impl Report {
    pub(crate) fn new(machine: Machine, plan: &Plan) -> Self {
        Self {
            machine,
            is_short: plan.is_short,
            pairs: plan.pairs,
            measure_ms: plan.measure.as_millis(),
            tables: Vec::new(),
            reference_source: FIXED_SOURCE.to_owned(),
        }
    }

    /// What stands above the tables.
    pub(crate) fn heading(&self) -> String {
        let Self {
            machine,
            pairs,
            measure_ms,
            ..
        } = self;
        let short = if self.is_short {
            "\nA short run: it shows that the workloads run, and its figures mean nothing."
        } else {
            ""
        };
        let ratio = match &machine.synapse {
            None => "`ratio` is Kitbag through the reference".to_owned(),
            Some(version) => format!("Synapse {version}, through Kitbag"),
        };
        format!(
            "{machine}, load average {}\n\
             {pairs} interleaved pairs of {measure_ms} ms; median (first..third quartile); \
             {ratio}, pair by pair{short}\n",
            machine.load
        )
    }

    /// What stands below the tables.
    pub(crate) fn ending(&self) -> String {
        if self.machine.synapse.is_some() {
            return SYNAPSE_NOTE.to_owned();
        }
        format!(
            "The reference of edge, identity, get, push_rules, sync and gateway/get is this \
             handler, behind a listener with Kitbag's settings:\n\n{}",
            self.reference_source
        )
    }

    /// Returns, in words, the budgets by which the run has failed; a short run fails by none.
    pub(crate) fn missed(&self) -> Vec<String> {
        let tables = self.tables.iter().filter(|_| !self.is_short);
        let failures = tables.flat_map(|table| {
            let failures = table.verdicts.iter().filter(|one| one.is_failure());
            failures.map(|verdict| format!("{}: {verdict}", table.workload))
        });
        failures.collect()
    }

    pub(crate) fn read_json(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("`{}` is no report", path.display()))
    }

    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
    }
}

/// What one workload found.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Table {
    pub(crate) workload: String,
    /// What was done, in a sentence.
    pub(crate) what: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Row>,
    /// How the medians stand to their budgets, where there are any.
    pub(crate) verdicts: Vec<Verdict>,
}

/// The figures of one side.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) cells: Vec<Option<Spread>>,
}

impl Row {
    pub(crate) fn new(name: &str, cells: Vec<Option<Spread>>) -> Self {
        Self {
            name: name.to_owned(),
            cells,
        }
    }
}

impl Table {
    /// Makes a table, and judges its medians by the budgets of the workload.
    pub(crate) fn new(
        workload: &str,
        what: impl Into<String>,
        columns: &[&str],
        rows: Vec<Row>,
    ) -> Self {
        for row in &rows {
            assert_eq!(row.cells.len(), columns.len(), "a row fits its table");
        }
        let cell = |row: &str, column: &str| {
            let row = rows.iter().find(|other| other.name == row)?;
            let column = columns.iter().position(|other| *other == column)?;
            Some(row.cells[column])
        };
        let budgets = BUDGETS.iter().filter(|budget| budget.workload == workload);
        let verdicts = budgets.filter_map(|budget| {
            let figure =
                cell(budget.row, budget.column).expect("a budget names a cell of its table");
            // Where the system does not tell a figure, nothing can be said.
            Some(budget.judge(figure?))
        });
        Self {
            workload: workload.to_owned(),
            what: what.into(),
            verdicts: verdicts.collect(),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
            rows,
        }
    }

    /// The figure in a cell, where there is one.
    pub(crate) fn cell(&self, row: &str, column: &str) -> Option<Spread> {
        let row = self.rows.iter().find(|other| other.name == row)?;
        let column = self.columns.iter().position(|other| other == column)?;
        row.cells[column]
    }

    /// The table for people; a short run's figures are not judged.
    pub(crate) fn render(&self, is_short: bool) -> String {
        let mut text = format!("{}: {}\n", self.workload, self.what);
        let heads = self.columns.iter().map(String::clone);
        let mut lines = vec![[String::new()].into_iter().chain(heads).collect::<Vec<_>>()];
        for row in &self.rows {
            let cells = row.cells.iter().map(|cell| shown(*cell));
            lines.push([row.name.clone()].into_iter().chain(cells).collect());
        }
        text += &aligned(&lines);
        for verdict in self.verdicts.iter().filter(|_| !is_short) {
            text += &format!("  {verdict}\n");
            if let Some(doubt) = &verdict.doubt {
                text += &format!("  warning: {doubt}\n");
            }
        }
        text
    }
}

/// Lines of as many cells each, in columns as wide as they need.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max();
    let widths: Vec<_> = (0..columns).filter_map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut cells = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            cells += &format!("  {cell:width$}");
        }
        text += cells.trim_end();
        text.push('\n');
    }
    text
}

/// A median with its quartiles, where there are more figures than one; `-` where there is none.
pub(crate) fn shown(cell: Option<Spread>) -> String {
    let Some(spread) = cell else {
        return "-".to_owned();
    };
    let [median, first, third] =
        [spread.median, spread.first_quartile, spread.third_quartile].map(figure);
    if spread.count == 1 {
        return median;
    }
    format!("{median} ({first}..{third})")
}

/// A figure with three digits.
pub(crate) fn figure(figure: f64) -> String {
    match figure.abs() {
        large if large >= 100.0 => format!("{figure:.0}"),
        middle if middle >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            row,
            column,
            gate,
            goal,
            ..
        } = self;
        let bound = match self.bound {
            Bound::AtMost => "at most",
            Bound::AtLeast => "at least",
        };
        let kept = |is_kept| if is_kept { "kept" } else { "missed" };
        let (gate_kept, goal_kept) = (kept(self.is_gate_kept), kept(self.is_goal_kept));
        let median = figure(self.figure.median);
        write!(
            f,
            "budget: {column} of `{row}` {bound} {gate}: {median}, {gate_kept}; \
             goal {goal}: {goal_kept}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budgets::{CPU, RATIO};

    fn spread(median: f64) -> Option<Spread> {
        Some(Spread {
            median,
            first_quartile: 1.0,
            third_quartile: 1234.5,
            min: 0.5,
            max: 2000.0,
            count: 9,
        })
    }

    #[test]
    fn table_shows_medians_with_their_quartiles() {
        let rows = vec![Row::new("kitbag", vec![spread(12.34), None])];
        let table = Table::new("other", "reads", &["us", "MiB"], rows);
        let lines: Vec<_> = table.render(false).lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "other: reads");
        assert_eq!(lines[1], "          us                 MiB");
        assert_eq!(lines[2], "  kitbag  12.3 (1.00..1234)  -");
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn table_judges_the_medians_that_have_a_budget() {
        let rows = vec![Row::new(RATIO, vec![spread(1.2)])];
        let table = Table::new("get/1", "reads", &[CPU], rows);
        let text = table.render(false);
        let budget = "budget: CPU us of `ratio` at most 1.3: 1.20, kept; goal 1.15: missed\n";
        assert!(text.contains(budget), "{text}");
        assert!(text.contains("warning: the gate lies between"), "{text}");
        assert!(
            !table.render(true).contains("budget"),
            "a short run is not judged"
        );
    }

    #[test]
    fn a_full_run_tells_the_budgets_by_which_it_failed() {
        let row = |name: &str, ms| Row::new(name, vec![spread(ms)]);
        let names = BUDGETS.iter().filter(|budget| budget.workload == "report");
        let mut rows: Vec<_> = names.map(|budget| row(budget.row, 999.0)).collect();
        rows[0] = row("over HTTP", 1_001.0);
        let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("runs/references.json");
        let mut report = Report::read_json(&run).unwrap();
        report.tables = vec![Table::new("report", "counts", &["ms"], rows)];
        let missed = report.missed();
        assert_eq!(missed.len(), 1, "{missed:?}");
        assert!(
            missed[0].starts_with("report: budget: ms of `over HTTP`"),
            "{missed:?}"
        );
        report.is_short = true;
        assert_eq!(report.missed(), [""; 0]);
    }

    #[test]
    #[should_panic(expected = "a budget names a cell")]
    fn table_without_the_cell_of_its_budget_is_a_mistake() {
        Table::new(
            "get/1",
            "reads",
            &["other"],
            vec![Row::new(RATIO, vec![None])],
        );
    }

    #[test]
    fn report_is_read_as_it_was_written() {
        let rows = vec![Row::new(RATIO, vec![spread(1.2)])];
        let table = Table::new("get/1", "reads", &[CPU], rows);
        let text = serde_json::to_string(&table).unwrap();
        let read: Table = serde_json::from_str(&text).unwrap();
        assert_eq!(read.render(false), table.render(false));
    }
}
