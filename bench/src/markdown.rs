//! The tables of documents, made from the JSON of a run: so that figures are pasted and not typed.

use anyhow::{Context as _, Result, ensure};

use crate::budgets::{Bound, CPU, RATIO, REQUESTS, Verdict};
use crate::pairs::{ADDED, SYNAPSE_RATIO};
use crate::report::{Report, SYNAPSE_NOTE, Table, figure, shown};

const P50: &str = "p50 us";
const P99: &str = "p99 us";

/// One of the tables.
type View = fn(&Report) -> String;

/// By the names that documents ask for them.
const VIEWS: [(&str, View); 6] = [
    ("measured", measured),
    ("budgets", budgets),
    ("workloads", workloads),
    ("gateway", through_gateway),
    ("synapse", beside_synapse),
    ("others", others),
];

/// Returns all tables of a run.
pub(crate) fn tables(report: &Report) -> String {
    VIEWS.iter().map(|(_, view)| view(report)).collect()
}

/// What stands around the figures of a document, in lines of their own: `<!-- figures: VIEW of RUN -->`
/// and this.
const END: &str = "<!-- end of figures -->";

/// Returns `document` with the figures of `runs`, which reads a report by its name there.
pub(crate) fn filled(document: &str, runs: impl Fn(&str) -> Result<Report>) -> Result<String> {
    let mut text = String::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        text += line;
        text.push('\n');
        let Some((name, run)) = asked(line) else {
            continue;
        };
        let view = VIEWS.iter().find(|(view, _)| *view == name);
        let (_, view) = view.with_context(|| format!("there is no table `{name}`"))?;
        let figures = view(&runs(run)?);
        ensure!(
            lines.any(|line| line == END),
            "`{END}` does not stand behind `{line}`"
        );
        // Of a run from before a workload there is nothing to show.
        if !figures.is_empty() {
            text += &format!("\n{}\n", figures.trim());
        }
        text += &format!("\n{END}\n");
    }
    Ok(text)
}

/// The table and the run that a line asks for.
fn asked(line: &str) -> Option<(&str, &str)> {
    let asked = line.strip_prefix("<!-- figures: ")?.strip_suffix(" -->")?;
    asked.split_once(" of ")
}

fn measured(report: &Report) -> String {
    let Report {
        machine,
        pairs,
        measure_ms,
        ..
    } = report;
    let command = &machine.command;
    let short = if report.is_short {
        " A short run: its figures mean nothing."
    } else {
        ""
    };
    let synapse = match &machine.synapse {
        Some(version) => format!(" Synapse {version}. {SYNAPSE_NOTE}"),
        None => String::new(),
    };
    format!(
        "{machine}, load average {}; {pairs} interleaved pairs of {measure_ms} ms; \
         `{command}`.{synapse}{short}\n",
        machine.load
    )
}

fn budgets(report: &Report) -> String {
    let verdicts = report.tables.iter().flat_map(|table| {
        let verdicts = table.verdicts.iter();
        verdicts.map(|verdict| verdict_cells(table, verdict))
    });
    let heads = [
        "Work",
        "Figure",
        "Gate",
        "Goal",
        "Median (quartiles)",
        "Gate is",
        "Goal is",
    ];
    table(&heads, verdicts)
}

fn workloads(report: &Report) -> String {
    let heads = [
        "Workload",
        "CPU µs",
        "reference",
        "ratio",
        "requests/s",
        "reference",
        "ratio",
        "p50 µs",
        "p99 µs",
    ];
    let tables = report.tables.iter();
    let compared = tables.filter(|table| is_compared(table) && !is_of_gateway(table));
    table(&heads, compared.map(compared_cells))
}

fn through_gateway(report: &Report) -> String {
    let heads = [
        "Workload",
        "CPU µs: gateway",
        "homeserver alone",
        "ratio",
        "requests/s: through",
        "alone",
        "p50 µs: through",
        "alone",
        "added",
        "p99 µs: added",
    ];
    let tables = report.tables.iter();
    let compared = tables.filter(|table| is_compared(table) && is_of_gateway(table));
    let rows = compared.map(through_cells);
    table(&heads, rows)
}

fn beside_synapse(report: &Report) -> String {
    let heads = [
        "Work",
        "CPU µs: Kitbag",
        "Synapse",
        "Synapse / Kitbag",
        "requests/s: Kitbag",
        "Synapse",
        "p50 µs: Kitbag",
        "Synapse",
    ];
    let tables = report.tables.iter().filter(|table| is_of_synapse(table));
    table(&heads, tables.map(synapse_cells))
}

/// The tables that have a form of their own.
fn others(report: &Report) -> String {
    let mut text = String::new();
    for other in &report.tables {
        if is_compared(other) || is_of_synapse(other) {
            continue;
        }
        text += &format!("\n`{}`: {}.\n", other.workload, other.what);
        let heads = [""]
            .into_iter()
            .chain(other.columns.iter().map(String::as_str));
        let rows = other.rows.iter().map(|row| {
            let cells = row.cells.iter().map(|cell| shown(*cell));
            [row.name.clone()].into_iter().chain(cells).collect()
        });
        text += &table(&heads.collect::<Vec<_>>(), rows);
    }
    text
}

fn is_compared(table: &Table) -> bool {
    table.cell(RATIO, CPU).is_some()
}

fn is_of_gateway(table: &Table) -> bool {
    table.cell(ADDED, P50).is_some()
}

fn is_of_synapse(table: &Table) -> bool {
    table.cell("synapse", P50).is_some()
}

fn verdict_cells(table: &Table, verdict: &Verdict) -> Vec<String> {
    let sign = match verdict.bound {
        Bound::AtMost => '≤',
        Bound::AtLeast => '≥',
    };
    let kept = |is_kept| if is_kept { "kept" } else { "missed" };
    let doubt = if verdict.doubt.is_some() {
        ", in doubt"
    } else {
        ""
    };
    vec![
        format!("{} (`{}`)", verdict.work, table.workload),
        format!("{}, {}", verdict.column, verdict.row),
        format!("{sign} {}", verdict.gate),
        format!("{sign} {}", verdict.goal),
        shown(Some(verdict.figure)),
        format!("{}{doubt}", kept(verdict.is_gate_kept)),
        kept(verdict.is_goal_kept).to_owned(),
    ]
}

fn compared_cells(table: &Table) -> Vec<String> {
    let median = |row, column| median(table, row, column);
    vec![
        format!("`{}`", table.workload),
        median("kitbag", CPU),
        median("reference", CPU),
        shown(table.cell(RATIO, CPU)),
        median("kitbag", REQUESTS),
        median("reference", REQUESTS),
        shown(table.cell(RATIO, REQUESTS)),
        median("kitbag", P50),
        median("kitbag", P99),
    ]
}

fn through_cells(table: &Table) -> Vec<String> {
    let median = |row, column| median(table, row, column);
    vec![
        format!("`{}`", table.workload),
        median("kitbag", CPU),
        median("reference", CPU),
        shown(table.cell(RATIO, CPU)),
        median("kitbag", REQUESTS),
        median("reference", REQUESTS),
        median("kitbag", P50),
        median("reference", P50),
        shown(table.cell(ADDED, P50)),
        shown(table.cell(ADDED, P99)),
    ]
}

fn synapse_cells(table: &Table) -> Vec<String> {
    let median = |row, column| median(table, row, column);
    vec![
        table.what.clone(),
        median("kitbag", CPU),
        median("synapse", CPU),
        shown(table.cell(SYNAPSE_RATIO, CPU)),
        median("kitbag", REQUESTS),
        median("synapse", REQUESTS),
        median("kitbag", P50),
        median("synapse", P50),
    ]
}

fn median(table: &Table, row: &str, column: &str) -> String {
    let cell = table.cell(row, column);
    cell.map_or_else(|| "-".to_owned(), |spread| figure(spread.median))
}

/// A table in Markdown with an empty line before it; nothing where there are no rows.
fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return String::new();
    }
    let rule = "---|".repeat(heads.len());
    let mut text = format!("\n| {} |\n|{rule}\n", heads.join(" | "));
    for row in rows {
        text += &format!("| {} |\n", row.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::report::Row;
    use crate::stats::Spread;

    #[test]
    fn figures_stand_beside_their_budget() {
        let rows = vec![
            Row::new("kitbag", vec![Spread::of([5.0])]),
            Row::new("reference", vec![Spread::of([4.0])]),
            Row::new(RATIO, vec![Spread::of([1.25; 5])]),
        ];
        let table = Table::new("get/1", "reads", &[CPU], rows);
        let cells = verdict_cells(&table, &table.verdicts[0]);
        let expected = "GET of an entry, 1 connection (`get/1`)|CPU us, ratio|≤ 1.3|≤ 1.15|\
                        1.25 (1.25..1.25)|kept|missed";
        assert_eq!(cells.join("|"), expected);
        assert_eq!(
            compared_cells(&table)[..4],
            ["`get/1`", "5.00", "4.00", "1.25 (1.25..1.25)"]
        );
    }

    #[test]
    fn figures_of_both_servers_stand_in_one_row() {
        let rows = vec![
            Row::new("kitbag", vec![Spread::of([5.0]), Spread::of([10.0])]),
            Row::new("synapse", vec![Spread::of([250.0]), Spread::of([500.0])]),
            Row::new(SYNAPSE_RATIO, vec![Spread::of([50.0]), None]),
        ];
        let table = Table::new("synapse/get", "reads", &[CPU, P50], rows);
        let expected = "reads|5.00|250|50.0|-|-|10.0|500";
        assert_eq!(synapse_cells(&table).join("|"), expected);
    }

    #[test]
    fn what_the_gateway_adds_has_a_table_of_its_own() {
        let cells = |figures: [f64; 4]| figures.map(|figure| Spread::of([figure])).to_vec();
        let rows = vec![
            Row::new("kitbag", cells([100.0, 12.0, 200.0, 900.0])),
            Row::new("reference", cells([200.0, 6.0, 100.0, 300.0])),
            Row::new(RATIO, cells([0.5, 2.0, 2.0, 3.0])),
            Row::new(ADDED, cells([0.0, 0.0, 100.0, 600.0])),
        ];
        let table = Table::new("through", "reads", &[REQUESTS, CPU, P50, P99], rows);
        let expected = "`through`|12.0|6.00|2.00|100|200|200|100|100|600";
        assert_eq!(through_cells(&table).join("|"), expected);
        assert!(is_compared(&table) && is_of_gateway(&table));
    }

    #[test]
    fn table_without_rows_is_left_out() {
        assert_eq!(table(&["a", "b"], [].into_iter()), "");
        let row = vec!["1".to_owned(), "2".to_owned()];
        let text = table(&["a", "b"], [row].into_iter());
        assert_eq!(text, "\n| a | b |\n|---|---|\n| 1 | 2 |\n");
    }

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    #[test]
    fn figures_of_the_documents_are_those_of_their_runs() {
        for name in ["README.md", "docs/performance.md"] {
            let document = fs::read_to_string(root().join(name)).unwrap();
            let asked = document.lines().filter_map(asked).count();
            assert!(asked > 0, "{name} shows no figures");
            let filled = filled(&document, |run| Report::read_json(&root().join(run)));
            let advice = "run `kitbag-bench fill` on it, at the root";
            assert_eq!(filled.unwrap(), document, "{name}: {advice}");
        }
    }

    #[test]
    fn document_gets_the_figures_that_it_asks_for() {
        let read = |run: &str| Report::read_json(&root().join("bench/runs").join(run));
        let asks = |view: &str| format!("a\n<!-- figures: {view} of synapse.json -->");
        let document = format!("{}\nold\n{END}\nb\n", asks("measured"));
        let text = filled(&document, read).unwrap();
        assert!(text.starts_with("a\n<!-- figures") && text.ends_with(&format!("\n\n{END}\nb\n")));
        assert!(
            text.contains("interleaved pairs") && !text.contains("old"),
            "{text}"
        );
        assert!(filled(&format!("{}\n{END}\n", asks("nothing")), read).is_err());
        assert!(
            filled(&asks("measured"), read).is_err(),
            "the end is missing"
        );
    }
}
