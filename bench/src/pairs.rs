//! Measuring two servers by turns, so that what disturbs the machine disturbs both.

use anyhow::{Result, ensure};

use crate::budgets::{CPU, RATIO, REQUESTS};
use crate::load::{Connection, Sample, Target};
use crate::plan::Plan;
use crate::report::Row;
use crate::stats::Spread;

/// The columns of the rows that [`compare`] makes.
pub(crate) const COLUMNS: [&str; 5] = [REQUESTS, CPU, "p50 us", "p99 us", "load %"];

/// How the rows of a comparison are named and which way its ratio goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside {
    other: &'static str,
    ratio: &'static str,
    /// Whether the ratio is the other's figure through Kitbag's.
    is_inverse: bool,
}

/// How much more than the least Kitbag takes.
pub(crate) const BESIDE_REFERENCE: Beside = Beside {
    other: "reference",
    ratio: RATIO,
    is_inverse: false,
};

/// How much more than Kitbag Synapse takes.
pub(crate) const BESIDE_SYNAPSE: Beside = Beside {
    other: "synapse",
    ratio: SYNAPSE_RATIO,
    is_inverse: true,
};

/// The row of what is waited longer for Kitbag than for the other.
pub(crate) const ADDED: &str = "added";

/// The row of Synapse's figures through Kitbag's.
pub(crate) const SYNAPSE_RATIO: &str = "synapse / kitbag";

/// Measures both by turns; returns their rows and that of the ratios.
pub(crate) async fn compare(
    plan: &Plan,
    kitbag: &mut Target<'_>,
    other: &mut Target<'_>,
    beside: Beside,
) -> Result<Vec<Row>> {
    Ok(rows(&measured(plan, kitbag, other).await?, beside))
}

/// What one turn found of Kitbag and of the other.
pub(crate) type Pair = (Sample, Sample);

/// Measures both by turns.
pub(crate) async fn measured(
    plan: &Plan,
    kitbag: &mut Target<'_>,
    other: &mut Target<'_>,
) -> Result<Vec<Pair>> {
    kitbag.measure(plan.warm_up).await?;
    other.measure(plan.warm_up).await?;
    let mut pairs = Vec::with_capacity(plan.pairs);
    for number in 0..plan.pairs {
        // Whoever comes second may find the machine warmer: each is second half of the times.
        let pair = if number % 2 == 0 {
            let ours = kitbag.measure(plan.measure).await?;
            (ours, other.measure(plan.measure).await?)
        } else {
            let theirs = other.measure(plan.measure).await?;
            (kitbag.measure(plan.measure).await?, theirs)
        };
        pairs.push(pair);
    }
    Ok(pairs)
}

/// Headers whose values differ from answer to answer.
const CHANGING_HEADERS: [&str; 2] = ["date", "x-request-id"];

/// Checks that the reference's last answer had the headers of Kitbag's: who sends fewer does less.
pub(crate) fn ensure_same_headers(kitbag: &Connection, reference: &Connection) -> Result<()> {
    let [ours, theirs] = [kitbag, reference].map(|connection| {
        let mut headers = connection.headers();
        for (name, value) in &mut headers {
            if CHANGING_HEADERS.contains(&name.as_str()) {
                value.clear();
            }
        }
        headers
    });
    ensure!(
        ours == theirs,
        "Kitbag's answer has the headers {ours:?}, the reference's {theirs:?}"
    );
    Ok(())
}

type Figure = fn(&Sample) -> Option<f64>;

const FIGURES: [Figure; 5] = [
    |sample| Some(sample.requests_per_second),
    |sample| sample.cpu_us,
    |sample| Some(sample.p50_us),
    |sample| Some(sample.p99_us),
    |sample| sample.load_percent,
];

/// Returns the row of both and that of the ratios.
pub(crate) fn rows(pairs: &[Pair], beside: Beside) -> Vec<Row> {
    let row =
        |name, cell: &dyn Fn(Figure) -> Option<Spread>| Row::new(name, FIGURES.map(cell).to_vec());
    let mut rows = vec![
        row("kitbag", &|figure| {
            Spread::of_all(pairs.iter().map(|(ours, _)| figure(ours)))
        }),
        row(beside.other, &|figure| {
            Spread::of_all(pairs.iter().map(|(_, theirs)| figure(theirs)))
        }),
        // The ratio of each pair, not of the medians: a slow minute slows both of a pair.
        row(beside.ratio, &|figure| {
            let ratios = pairs.iter().map(|(ours, theirs)| {
                let ratio = figure(ours)? / figure(theirs)?;
                Some(if beside.is_inverse {
                    1.0 / ratio
                } else {
                    ratio
                })
            });
            Spread::of_all(ratios)
        }),
    ];
    // How busy the load was belongs to no server.
    rows[2].cells[FIGURES.len() - 1] = None;
    rows
}

/// Returns the row of what Kitbag takes more than the other: of a server in between, what it adds.
pub(crate) fn added(pairs: &[Pair]) -> Row {
    let mut cells = FIGURES.map(|figure| {
        let differences = pairs.iter();
        Spread::of_all(differences.map(|(ours, theirs)| Some(figure(ours)? - figure(theirs)?)))
    });
    // Of the CPU time Kitbag's is all that is added, and of the others the difference says nothing.
    for column in [0, 1, FIGURES.len() - 1] {
        cells[column] = None;
    }
    Row::new(ADDED, cells.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(figure: f64) -> Sample {
        Sample {
            requests_per_second: figure,
            cpu_us: None,
            p50_us: figure,
            p99_us: figure,
            load_percent: None,
        }
    }

    #[test]
    fn ratio_is_the_median_of_the_ratios_of_pairs() {
        // Both sides of the second pair were slowed down alike.
        let pairs = [(2.0, 1.0), (20.0, 10.0), (3.0, 1.0)];
        let pairs = pairs.map(|(ours, theirs)| (sample(ours), sample(theirs)));
        let inverse = rows(&pairs, BESIDE_SYNAPSE);
        assert_eq!(inverse[2].cells[0].unwrap().median, 0.5);
        let rows = rows(&pairs, BESIDE_REFERENCE);
        let cell = |row: usize, column: usize| rows[row].cells[column];
        assert_eq!(cell(2, 0).unwrap().median, 2.0);
        assert_eq!(cell(0, 0).unwrap().median, 3.0);
        assert_eq!(cell(2, 1), None, "no CPU time is known");
        let added = added(&pairs);
        assert_eq!(
            added.cells[2].unwrap().median,
            2.0,
            "the median of the differences"
        );
        assert_eq!(added.cells[0], None, "nobody adds requests");
    }
}
