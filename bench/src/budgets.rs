//! The budgets: what each work may cost. This is their one place; reports and documents print them.

use serde::{Deserialize, Serialize};

use crate::stats::Spread;
use crate::workloads::push::{CPU_A_MEMBER, MESSAGE};
use crate::workloads::{gateway, storm};

/// Fewer figures than this have no quartiles worth the name.
const FIGURES_TRUSTED_MIN: usize = 5;

/// The row of Kitbag's figures through the reference's.
pub(crate) const RATIO: &str = "ratio";
/// The column of CPU time a request.
pub(crate) const CPU: &str = "CPU us";
/// The column of what is answered in a second.
pub(crate) const REQUESTS: &str = "requests/s";

/// On which side of the gate and of the goal a figure must lie.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    /// A price.
    AtMost,
    /// A yield.
    AtLeast,
}

/// What the median in one cell of a workload's table must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) workload: &'static str,
    pub(crate) row: &'static str,
    pub(crate) column: &'static str,
    /// What is done, for readers of the documents.
    work: &'static str,
    bound: Bound,
    /// What must be kept.
    gate: f64,
    /// What is aimed at.
    goal: f64,
}

const fn cpu(workload: &'static str, work: &'static str, gate: f64, goal: f64) -> Budget {
    at_most([workload, RATIO, CPU], work, gate, goal)
}

const fn at_most(cell: [&'static str; 3], work: &'static str, gate: f64, goal: f64) -> Budget {
    let [workload, row, column] = cell;
    Budget {
        workload,
        row,
        column,
        work,
        bound: Bound::AtMost,
        gate,
        goal,
    }
}

const fn puts(workload: &'static str, work: &'static str) -> Budget {
    Budget {
        bound: Bound::AtLeast,
        ..at_most([workload, RATIO, REQUESTS], work, 0.65, 0.85)
    }
}

const fn report(row: &'static str, work: &'static str) -> Budget {
    at_most(["report", row, "ms"], work, 1_000.0, 1_000.0)
}

/// Memory that holds at any size of a body, which has 10 MiB here: some buffers of 64 KiB, which is
/// what is read at once, and what each thread of a process keeps once it has worked.
const fn body(row: &'static str, work: &'static str) -> Budget {
    at_most(
        ["gateway/bodies", row, gateway::BODY_KIB],
        work,
        1_024.0,
        512.0,
    )
}

/// Every budget. Ratios are those to the reference in the same run.
pub(crate) const BUDGETS: [Budget; 32] = [
    cpu("get/1", "GET of an entry, 1 connection", 1.3, 1.15),
    cpu("get/16", "GET of an entry, 16 connections", 1.3, 1.15),
    cpu(
        "get/16/many_users",
        "GET of an entry each, 16 connections",
        1.3,
        1.15,
    ),
    cpu("get/uncached", "GET of an entry, uncached", 2.5, 2.0),
    cpu("push_rules", "GET /pushrules/", 1.6, 1.3),
    cpu("sync/nothing_new", "sync with nothing new", 1.6, 1.3),
    cpu("sync/initial", "initial sync", 1.6, 1.2),
    // As `get/uncached` beside `get`: the file is read, so it has bounds of its own.
    cpu("sync/changed_initial", "initial sync, made anew", 5.0, 2.5),
    at_most(
        ["push/evaluate", MESSAGE, CPU_A_MEMBER],
        "push rules of a member",
        2.0,
        0.5,
    ),
    puts("put/64/one_user", "durable PUT, 64 clients of one user"),
    puts("put/64/many_users", "durable PUT, 64 clients of 64 users"),
    at_most(
        ["wake_up", "sync - alone", "p50 us"],
        "wake-up, beyond the PUT",
        500.0,
        200.0,
    ),
    at_most(
        ["waiting", "kitbag", "KiB a sync"],
        "memory of a waiting sync",
        16.0,
        12.0,
    ),
    cpu(
        "gateway/get/1",
        "gateway, GET handed on, 1 connection",
        2.5,
        1.8,
    ),
    cpu(
        "gateway/get/16",
        "gateway, GET handed on, 16 connections",
        2.5,
        1.8,
    ),
    body(gateway::DOWN, "gateway, memory of a body of 10 MiB down"),
    body(gateway::UP, "gateway, memory of a body of 10 MiB up"),
    body(
        gateway::DOWN_STALLED,
        "the same of one that nobody reads on",
    ),
    body(
        gateway::UP_STALLED,
        "the same of one that the homeserver does not read",
    ),
    at_most(
        ["gateway/waiting", gateway::ANSWERED, "KiB a sync"],
        "gateway, memory of a waiting sync",
        48.0,
        32.0,
    ),
    // Ceilings: the load is one thread at its limit here, whose own queue is in these waits.
    at_most(
        ["storm", storm::OWN, storm::PUT_P99],
        "durable PUT that wakes thousands, p99",
        500_000.0,
        250_000.0,
    ),
    at_most(
        ["storm", storm::OWN, storm::WAKE_UP_P99],
        "wake-up among thousands, p99",
        1_000_000.0,
        500_000.0,
    ),
    at_most(
        ["storm", storm::LATE, storm::RSS_OF_IDLE],
        "memory 10 s after the storm",
        4.0,
        3.0,
    ),
    at_most(
        ["start", "after a stop", "first answer ms"],
        "start with a million entries",
        150.0,
        50.0,
    ),
    at_most(
        ["start", "after kill -9", "first answer ms"],
        "the same after kill -9",
        150.0,
        50.0,
    ),
    at_most(
        ["start", "after a stop", "idle MiB"],
        "idle memory with a million entries",
        40.0,
        20.0,
    ),
    at_most(
        ["start", "after kill -9", "idle MiB"],
        "the same after kill -9",
        40.0,
        20.0,
    ),
    report("over HTTP", "report over 100,000 devices, admin API"),
    report("beside a server", "the same by `kitbag devices report`"),
    report("without one", "the same with no server running"),
    report(
        "who lacks, over HTTP",
        "which of them lack a value, admin API",
    ),
    report(
        "who lacks, beside a server",
        "the same by `kitbag devices report --lacks`",
    ),
];

/// How a median stands to its budget.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) work: String,
    pub(crate) row: String,
    pub(crate) column: String,
    pub(crate) bound: Bound,
    pub(crate) gate: f64,
    pub(crate) goal: f64,
    pub(crate) figure: Spread,
    pub(crate) is_gate_kept: bool,
    pub(crate) is_goal_kept: bool,
    /// Why the median and the gate cannot be told apart, where that is so.
    pub(crate) doubt: Option<String>,
}

impl Verdict {
    /// Tells whether a run has failed by this: a gate is missed that does not hang on a reference,
    /// whose ratios move with the machine.
    pub(crate) fn is_failure(&self) -> bool {
        !self.is_gate_kept && self.row != RATIO
    }
}

impl Budget {
    /// Judges the figures of the cell.
    pub(crate) fn judge(&self, figure: Spread) -> Verdict {
        let keeps = |limit: f64| match self.bound {
            Bound::AtMost => figure.median <= limit,
            Bound::AtLeast => figure.median >= limit,
        };
        Verdict {
            work: self.work.to_owned(),
            row: self.row.to_owned(),
            column: self.column.to_owned(),
            bound: self.bound,
            gate: self.gate,
            goal: self.goal,
            figure,
            is_gate_kept: keeps(self.gate),
            is_goal_kept: keeps(self.goal),
            doubt: self.doubt(figure),
        }
    }

    fn doubt(&self, figure: Spread) -> Option<String> {
        if figure.count < FIGURES_TRUSTED_MIN {
            return Some(format!(
                "{} measurements are too few to tell how far they spread",
                figure.count
            ));
        }
        let middle = figure.first_quartile..=figure.third_quartile;
        middle.contains(&self.gate).then(|| {
            "the gate lies between the quartiles: this run cannot tell it from the median"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: Budget = at_most(["a", "b", "c"], "work", 1.5, 1.2);
    const YIELD: Budget = puts("a", "work");

    fn figure(first_quartile: f64, median: f64, third_quartile: f64) -> Spread {
        Spread {
            median,
            first_quartile,
            third_quartile,
            min: first_quartile,
            max: third_quartile,
            count: FIGURES_TRUSTED_MIN,
        }
    }

    fn kept(verdict: &Verdict) -> (bool, bool) {
        (verdict.is_gate_kept, verdict.is_goal_kept)
    }

    #[test]
    fn price_is_kept_up_to_its_limit_and_yield_from_it_on() {
        assert_eq!(kept(&PRICE.judge(figure(1.5, 1.5, 1.5))), (true, false));
        assert_eq!(kept(&PRICE.judge(figure(1.6, 1.6, 1.6))), (false, false));
        assert_eq!(kept(&PRICE.judge(figure(1.1, 1.1, 1.1))), (true, true));
        assert_eq!(kept(&YIELD.judge(figure(0.65, 0.65, 0.65))), (true, false));
        assert_eq!(kept(&YIELD.judge(figure(0.6, 0.6, 0.6))), (false, false));
        assert_eq!(kept(&YIELD.judge(figure(0.9, 0.9, 0.9))), (true, true));
    }

    #[test]
    fn a_run_fails_by_a_missed_gate_that_is_no_ratio() {
        let missed = figure(1.6, 1.6, 1.6);
        assert!(PRICE.judge(missed).is_failure());
        assert!(!PRICE.judge(figure(1.5, 1.5, 1.5)).is_failure());
        let ratio = cpu("a", "work", 1.5, 1.2).judge(missed);
        assert!(!ratio.is_gate_kept && !ratio.is_failure());
    }

    #[test]
    fn spread_that_holds_the_gate_is_doubted() {
        assert!(PRICE.judge(figure(1.4, 1.45, 1.6)).doubt.is_some());
        assert!(PRICE.judge(figure(1.4, 1.55, 1.6)).doubt.is_some());
        assert_eq!(PRICE.judge(figure(1.2, 1.3, 1.4)).doubt, None);
        assert_eq!(PRICE.judge(figure(1.6, 1.7, 1.8)).doubt, None);
    }

    #[test]
    fn few_figures_are_doubted() {
        let few = Spread {
            count: FIGURES_TRUSTED_MIN - 1,
            ..figure(1.2, 1.3, 1.4)
        };
        assert!(PRICE.judge(few).doubt.unwrap().starts_with("4 "));
    }

    #[test]
    fn goal_asks_for_no_less_than_its_gate() {
        for budget in BUDGETS {
            let is_stricter = match budget.bound {
                Bound::AtMost => budget.goal <= budget.gate,
                Bound::AtLeast => budget.goal >= budget.gate,
            };
            assert!(is_stricter, "{budget:?}");
        }
    }
}
