//! A judge of black boxes: is there one order of all operations that explains every answer?
//!
//! It knows nothing of positions, stores or HTTP. An [`Operation`] says when it ran, what it saw of
//! some cells and what it made of them. A history is linearizable if each operation can be given
//! one moment between its beginning and its end, so that in the order of these moments every
//! operation saw what those before it had made (Herlihy and Wing). The search is that of Wing and
//! Gong with the memory of Lowe: what was tried once from the same set of operations and the same
//! cells is not tried again.
//!
//! An operation that got no answer is a *maybe*: it took effect at one moment behind its beginning,
//! or never. Where it is known when it cannot take effect any more, since the process that had it
//! is dead, that is its end.

mod cells;
mod excerpt;
mod search;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use cells::Cells;
use search::{Outcome, Search};

/// What a writer may expect of the stored value: pairs of a name and a revision.
///
/// A value allows them unless it bears one of these names with another revision; an empty cell
/// allows all (MSC4547).
pub type Marks = Vec<(&'static str, Arc<str>)>;

/// One operation: its time, what it saw and what it did.
#[derive(Clone, Debug)]
pub struct Operation {
    /// What people read in an excerpt.
    pub label: String,
    /// Drawn from one counter before the invocation.
    pub began: u64,
    /// Drawn from the same counter after the answer; of a maybe, after which it is over.
    pub ended: u64,
    /// Whether it certainly happened.
    pub is_sure: bool,
    acts: Vec<(Arc<str>, Act)>,
}

/// What an operation saw of a cell or made of it.
#[derive(Clone, Debug)]
enum Act {
    Allows(Marks),
    Clears,
    Puts(Arc<str>, Marks),
    Refuses(Marks),
    Sees(Option<Arc<str>>),
    SeesOther(Arc<str>),
    SeesSome,
}

impl Operation {
    /// Returns an operation that happened between two moments; what it did is added to it.
    #[must_use]
    pub fn new(label: impl Into<String>, began: u64, ended: u64) -> Self {
        Self {
            label: label.into(),
            began,
            ended,
            is_sure: true,
            acts: Vec::new(),
        }
    }

    /// Makes it one that may have happened, up to its end, or never.
    #[must_use]
    pub fn maybe(self) -> Self {
        Self {
            is_sure: false,
            ..self
        }
    }

    /// Saw this value in a cell; `None` is an empty cell.
    #[must_use]
    pub fn sees(self, cell: &str, value: Option<&str>) -> Self {
        self.with(cell, Act::Sees(value.map(Arc::from)))
    }

    /// Saw that a cell does not hold this value.
    #[must_use]
    pub fn sees_other(self, cell: &str, than: &str) -> Self {
        self.with(cell, Act::SeesOther(than.into()))
    }

    /// Saw that a cell is not empty.
    #[must_use]
    pub fn sees_some(self, cell: &str) -> Self {
        self.with(cell, Act::SeesSome)
    }

    /// Found the stored value to allow what was expected.
    #[must_use]
    pub fn finds_allowed(self, cell: &str, expected: Marks) -> Self {
        self.with(cell, Act::Allows(expected))
    }

    /// Found the stored value not to allow what was expected.
    #[must_use]
    pub fn finds_refused(self, cell: &str, expected: Marks) -> Self {
        self.with(cell, Act::Refuses(expected))
    }

    /// Put a value that bears these marks.
    #[must_use]
    pub fn puts(self, cell: &str, value: &str, marks: Marks) -> Self {
        self.with(cell, Act::Puts(value.into(), marks))
    }

    /// Emptied a cell.
    #[must_use]
    pub fn clears(self, cell: &str) -> Self {
        self.with(cell, Act::Clears)
    }

    fn with(mut self, cell: &str, act: Act) -> Self {
        self.acts.push((cell.into(), act));
        self
    }

    fn cells(&self) -> impl Iterator<Item = &Arc<str>> {
        self.acts.iter().map(|(cell, _)| cell)
    }

    fn changes_something(&self) -> bool {
        let mut acts = self.acts.iter();
        acts.any(|(_, act)| matches!(act, Act::Clears | Act::Puts(..)))
    }

    /// Returns what it saw and did of one cell, if anything.
    fn of(&self, cell: &str) -> Option<Self> {
        let acts = self.acts.iter().filter(|(other, _)| **other == *cell);
        let acts: Vec<_> = acts.cloned().collect();
        (!acts.is_empty()).then(|| Self {
            acts,
            label: self.label.clone(),
            ..*self
        })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            label,
            began,
            ended,
            is_sure,
            ..
        } = self;
        match (is_sure, *ended) {
            (true, ended) => write!(f, "[{began}, {ended}] {label}"),
            (false, u64::MAX) => write!(f, "[{began}, never?] {label}"),
            (false, ended) => write!(f, "[{began}, {ended}?] {label}"),
        }
    }
}

/// Why a history was not found linearizable.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// No order explains it; these operations show it, in the order of time.
    Broken {
        /// The cell, where one alone shows it.
        cell: Option<Arc<str>>,
        /// The operation with whose answer the last order was gone.
        culprit: Operation,
        /// The others that matter.
        around: Vec<Operation>,
    },
    /// The search gave up; nothing is known.
    Undecided {
        /// The cell, where it is one.
        cell: Option<Arc<str>>,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |cell: &Option<Arc<str>>| cell.as_deref().unwrap_or("several cells").to_owned();
        match self {
            Self::Broken {
                cell,
                culprit,
                around,
            } => {
                writeln!(f, "no order of {} explains", of(cell))?;
                writeln!(f, "    {culprit}\nbeside")?;
                around.iter().try_for_each(|op| writeln!(f, "    {op}"))
            }
            Self::Undecided { cell } => write!(f, "too many orders of {} to try", of(cell)),
        }
    }
}

/// Checks that one order of the operations explains what each of them saw.
///
/// All cells are empty at the start. Each cell is looked at alone first, for the shortest excerpt,
/// then all together where an operation touches several.
/// # Errors
/// [`Verdict`], of the first cell that shows one.
pub fn check(operations: &[Operation]) -> Result<(), Verdict> {
    let mut by_cell: BTreeMap<&Arc<str>, Vec<Operation>> = BTreeMap::new();
    for operation in operations {
        let mut cells: Vec<_> = operation.cells().collect();
        cells.sort();
        cells.dedup();
        for cell in cells {
            let of = by_cell.entry(cell).or_default();
            of.extend(operation.of(cell));
        }
    }
    for (cell, of) in by_cell {
        check_together(&of, Some(cell))?;
    }
    // Where no operation touches two cells, orders of the cells can always be merged into one.
    let touches_two = |operation: &Operation| {
        let mut cells = operation.cells();
        let first = cells.next();
        cells.any(|other| Some(other) != first)
    };
    if operations.iter().any(touches_two) {
        check_together(operations, None)?;
    }
    Ok(())
}

fn check_together(operations: &[Operation], cell: Option<&Arc<str>>) -> Result<(), Verdict> {
    match judge(operations) {
        Outcome::Ordered => Ok(()),
        Outcome::Undecided => Err(Verdict::Undecided {
            cell: cell.cloned(),
        }),
        Outcome::Broken => {
            let (culprit, around) = excerpt::of(operations);
            Err(Verdict::Broken {
                cell: cell.cloned(),
                culprit,
                around,
            })
        }
    }
}

fn judge(operations: &[Operation]) -> Outcome {
    Search::new(&Cells::of(operations)).run()
}
