//! Operations in numbers: cells, values and what each operation needs and sets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{Act, Marks, Operation};

/// The number of an empty cell.
pub(super) const EMPTY: u32 = 0;

/// A history in numbers.
pub(super) struct Cells {
    /// Sorted by beginning.
    pub(super) moves: Vec<Move>,
    /// For each cell the marks of each value, by its number.
    marks: Vec<Vec<Marks>>,
    /// For each cell the values that let nothing happen but what needs nothing of the cell.
    idle: Vec<BTreeSet<u32>>,
    /// For each cell whether each value was ever read.
    is_read: Vec<Vec<bool>>,
}

/// An operation in numbers.
#[derive(Clone, Debug)]
pub(super) struct Move {
    pub(super) began: u64,
    pub(super) ended: u64,
    pub(super) is_sure: bool,
    pub(super) needs: Vec<(usize, Need)>,
    pub(super) sets: Vec<(usize, u32)>,
    /// Equal where they need and set the same, and are both sure or both maybes.
    pub(super) class: usize,
}

/// What must hold of a cell before a move.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Need {
    Allows(Marks),
    Is(u32),
    Not(u32),
    Refuses(Marks),
    Some,
}

/// A value by what can be told of it: its text, or where nobody ever read it, its marks alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Face {
    Read(Arc<str>),
    Unread(Vec<(&'static str, Option<Arc<str>>)>),
}

/// What is known of one cell before its values are numbered.
#[derive(Default)]
struct Known<'a> {
    read: BTreeSet<&'a str>,
    expected: BTreeSet<&'a (&'static str, Arc<str>)>,
}

impl Cells {
    pub(super) fn of(operations: &[Operation]) -> Self {
        let mut known: BTreeMap<&str, Known<'_>> = BTreeMap::new();
        for (cell, act) in operations.iter().flat_map(|operation| &operation.acts) {
            let known = known.entry(cell).or_default();
            match act {
                Act::Sees(Some(text)) | Act::SeesOther(text) => drop(known.read.insert(text)),
                Act::Allows(marks) | Act::Refuses(marks) => known.expected.extend(marks),
                _ => {}
            }
        }
        let numbers = known.keys().enumerate();
        let numbers: HashMap<&str, usize> = numbers.map(|(number, cell)| (*cell, number)).collect();
        let mut numbering = Numbering {
            faces: vec![HashMap::new(); numbers.len()],
            marks: vec![vec![Marks::new()]; numbers.len()],
            is_read: vec![vec![true]; numbers.len()],
        };
        let mut moves: Vec<Move> = Vec::with_capacity(operations.len());
        for operation in operations {
            let (mut needs, mut sets) = (Vec::new(), Vec::new());
            for (cell, act) in &operation.acts {
                let known = &known[&**cell];
                let cell = numbers[&**cell];
                match act {
                    Act::Allows(marks) => needs.push((cell, Need::Allows(marks.clone()))),
                    Act::Refuses(marks) => needs.push((cell, Need::Refuses(marks.clone()))),
                    Act::Sees(None) => needs.push((cell, Need::Is(EMPTY))),
                    Act::Sees(Some(text)) => {
                        let value = numbering.number(cell, Face::Read(Arc::clone(text)));
                        needs.push((cell, Need::Is(value)));
                    }
                    Act::SeesOther(text) => {
                        let value = numbering.number(cell, Face::Read(Arc::clone(text)));
                        needs.push((cell, Need::Not(value)));
                    }
                    Act::SeesSome => needs.push((cell, Need::Some)),
                    Act::Clears => sets.push((cell, EMPTY)),
                    Act::Puts(text, marks) => {
                        let value = numbering.number(cell, known.face(text, marks));
                        numbering.marks[cell][value as usize].clone_from(marks);
                        sets.push((cell, value));
                    }
                }
            }
            let Operation {
                began,
                ended,
                is_sure,
                ..
            } = *operation;
            moves.push(Move {
                began,
                ended,
                is_sure,
                needs,
                sets,
                class: 0,
            });
        }
        moves.sort_by_key(|one| one.began);
        let mut cells = Self {
            moves,
            marks: numbering.marks,
            idle: Vec::new(),
            is_read: numbering.is_read,
        };
        cells.make_sure();
        cells.classify();
        cells.idle = cells.find_idle();
        cells
    }

    pub(super) fn count(&self) -> usize {
        self.marks.len()
    }

    pub(super) fn values(&self, cell: usize) -> usize {
        self.marks[cell].len()
    }

    /// Tells whether a cell with `value` fulfils a need.
    pub(super) fn holds(&self, cell: usize, value: u32, need: &Need) -> bool {
        let allows = |expected: &Marks| {
            let marks = &self.marks[cell][value as usize];
            let differs = |(name, revision): &(&str, Arc<str>)| {
                let mut known = marks.iter().filter(|(other, _)| other == name);
                known.any(|(_, other)| other != revision)
            };
            value == EMPTY || !expected.iter().any(differs)
        };
        match need {
            Need::Allows(expected) => allows(expected),
            Need::Refuses(expected) => !allows(expected),
            Need::Is(other) => value == *other,
            Need::Not(other) => value != *other,
            Need::Some => value != EMPTY,
        }
    }

    /// A maybe did happen where somebody saw what nobody else brought, and before that was seen.
    fn make_sure(&mut self) {
        let mut seen: HashMap<(usize, u32), u64> = HashMap::new();
        for one in self.moves.iter().filter(|one| one.is_sure) {
            for (cell, need) in &one.needs {
                if let Need::Is(value) = need {
                    let ended = seen.entry((*cell, *value)).or_insert(u64::MAX);
                    *ended = one.ended.min(*ended);
                }
            }
        }
        let mut makers: HashMap<(usize, u32), usize> = HashMap::new();
        for set in self.moves.iter().flat_map(|one| &one.sets) {
            *makers.entry(*set).or_default() += 1;
        }
        for one in self.moves.iter_mut().filter(|one| !one.is_sure) {
            // A cell is empty at the start, without anybody's doing.
            let alone = one.sets.iter();
            let alone = alone.filter(|set| set.1 != EMPTY && makers[*set] == 1);
            let seen = alone.filter_map(|set| seen.get(set)).min();
            if let Some(seen) = seen {
                one.is_sure = true;
                one.ended = one.ended.min(*seen);
            }
        }
    }

    /// Tells whether nothing at all can come of a move: then a maybe is as well left out.
    pub(super) fn is_vain(&self, one: &Move) -> bool {
        let mut sets = one.sets.iter();
        sets.all(|(cell, value)| self.idle[*cell].contains(value))
    }

    /// Tells whether a move only puts something there that nothing can come of.
    pub(super) fn is_idle(&self, one: &Move) -> Option<usize> {
        match one.sets[..] {
            [(cell, value)] if one.needs.is_empty() && self.idle[cell].contains(&value) => {
                Some(cell)
            }
            _ => None,
        }
    }

    fn find_idle(&self) -> Vec<BTreeSet<u32>> {
        let is_useful = |cell: usize, value: u32| {
            self.moves.iter().any(|one| {
                let mut needs = one.needs.iter().filter(|need| need.0 == cell).peekable();
                needs.peek().is_some() && needs.all(|(_, need)| self.holds(cell, value, need))
            })
        };
        let cells = 0..self.count();
        let idle = cells.map(|cell| {
            let sets = self.moves.iter().flat_map(|one| &one.sets);
            let values = sets.filter(|set| set.0 == cell && set.1 != EMPTY);
            let values: BTreeSet<u32> = values.map(|set| set.1).collect();
            let unread = values
                .into_iter()
                .filter(|value| !self.is_read[cell][*value as usize]);
            unread.filter(|value| !is_useful(cell, *value)).collect()
        });
        idle.collect()
    }

    fn classify(&mut self) {
        let mut classes = HashMap::new();
        for one in &mut self.moves {
            let next = classes.len();
            let like = (one.is_sure, one.needs.clone(), one.sets.clone());
            one.class = *classes.entry(like).or_insert(next);
        }
    }
}

impl Known<'_> {
    /// What nobody read can be told from others only by the marks that somebody expected.
    fn face(&self, text: &Arc<str>, marks: &Marks) -> Face {
        if self.read.contains(&**text) {
            return Face::Read(Arc::clone(text));
        }
        let marks = marks.iter().map(|mark| {
            let is_expected = self.expected.contains(mark);
            (mark.0, is_expected.then(|| Arc::clone(&mark.1)))
        });
        Face::Unread(marks.collect())
    }
}

struct Numbering {
    faces: Vec<HashMap<Face, u32>>,
    marks: Vec<Vec<Marks>>,
    is_read: Vec<Vec<bool>>,
}

impl Numbering {
    fn number(&mut self, cell: usize, face: Face) -> u32 {
        let (faces, marks) = (&mut self.faces[cell], &mut self.marks[cell]);
        let is_read = matches!(face, Face::Read(_));
        *faces.entry(face).or_insert_with(|| {
            marks.push(Marks::new());
            self.is_read[cell].push(is_read);
            u32::try_from(marks.len() - 1).expect("a history has less than 2^32 values")
        })
    }
}
