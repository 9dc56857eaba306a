//! The tables of documents, made from the JSON of a run: so that figures are pasted and not typed.

use crate::budgets::{Bound, CPU, RATIO, REQUESTS, Verdict};
use crate::pairs::SYNAPSE_RATIO;
use crate::report::{Report, SYNAPSE_NOTE, Table, figure, shown};

const P50: &str = "p50 us";

/// Returns all tables of a run.
pub(crate) fn tables(report: &Report) -> String {
    let mut text = measured(report);
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
        "Gate",
        "Goal",
    ];
    push_table(&mut text, &heads, verdicts);
    let (compared, others): (Vec<&Table>, Vec<&Table>) = report
        .tables
        .iter()
        .partition(|table| table.cell(RATIO, CPU).is_some());
    let (beside_synapse, others): (Vec<&Table>, Vec<&Table>) = others
        .into_iter()
        .partition(|table| table.cell("synapse", P50).is_some());
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
    push_table(&mut text, &heads, compared.into_iter().map(compared_cells));
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
    let rows = beside_synapse.into_iter().map(synapse_cells);
    push_table(&mut text, &heads, rows);
    for table in others {
        text += &format!("\n`{}`: {}.\n", table.workload, table.what);
        let heads = [""]
            .into_iter()
            .chain(table.columns.iter().map(String::as_str));
        let rows = table.rows.iter().map(|row| {
            let cells = row.cells.iter().map(|cell| shown(*cell));
            [row.name.clone()].into_iter().chain(cells).collect()
        });
        push_table(&mut text, &heads.collect::<Vec<_>>(), rows);
    }
    text
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
        "{machine}; {pairs} interleaved pairs of {measure_ms} ms; \
         `{command}`.{synapse}{short}\n"
    )
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
        median("kitbag", "p99 us"),
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

fn push_table(text: &mut String, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    *text += &format!(
        "\n| {} |\n|{}\n",
        heads.join(" | "),
        "---|".repeat(heads.len())
    );
    for row in rows {
        *text += &format!("| {} |\n", row.join(" | "));
    }
}

#[cfg(test)]
mod tests {
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
    fn table_without_rows_is_left_out() {
        let mut text = String::new();
        push_table(&mut text, &["a", "b"], [].into_iter());
        assert_eq!(text, "");
        push_table(
            &mut text,
            &["a", "b"],
            [vec!["1".to_owned(), "2".to_owned()]].into_iter(),
        );
        assert_eq!(text, "\n| a | b |\n|---|---|\n| 1 | 2 |\n");
    }
}
