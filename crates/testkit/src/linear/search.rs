//! The search for an order, with what keeps it short:
//!
//! - What only sees, and sees what stands there, is taken at once, without another try.
//! - No value is replaced that somebody has yet to see and nobody can bring again.
//! - Of those that do the same only the one that ends first is tried.
//! - A maybe is tried only right before something that goes otherwise without it.

use std::collections::HashMap;

use super::cells::{Cells, EMPTY, Move, Need};

/// Orders that are tried before the search gives up: some ten seconds.
const TRIES_MAX: usize = 3_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Ordered,
    Broken,
    Undecided,
}

pub(super) struct Search<'a> {
    cells: &'a Cells,
    /// The sure moves by beginning, and the maybes.
    sure: Vec<usize>,
    maybes: Vec<usize>,
    /// For each maybe the latest end of it and of those before it.
    maybes_ended: Vec<u64>,
    is_taken: Vec<bool>,
    /// What the cells hold.
    held: Vec<u32>,
    /// For each value of each cell, who has yet to see it and who may yet bring it.
    unseen: Vec<Vec<u32>>,
    unmade: Vec<Vec<u32>>,
    /// Before this one of `sure` all are taken.
    low: usize,
    left: usize,
    /// The latest beginning of what is taken: a maybe that ended before it is over.
    latest: u64,
    stack: Vec<Step>,
    /// Where it was before, each with the fewest maybes that were taken there.
    tried: HashMap<Box<[u32]>, Vec<Box<[u32]>>>,
}

/// A taken move, and how to take it back.
struct Step {
    taken: usize,
    before: Vec<(usize, u32)>,
    low: usize,
    latest: u64,
    /// What could be taken behind it and was not tried yet, the best one last.
    choices: Vec<usize>,
}

impl<'a> Search<'a> {
    pub(super) fn new(cells: &'a Cells) -> Self {
        let moves = &cells.moves;
        let of_kind = |is_sure| (0..moves.len()).filter(move |at| moves[*at].is_sure == is_sure);
        let sure = of_kind(true).collect::<Vec<_>>();
        let maybes = of_kind(false).filter(|at| !cells.is_vain(&moves[*at]));
        let maybes = maybes.collect::<Vec<_>>();
        let ended = maybes.iter().scan(0, |latest, at| {
            *latest = moves[*at].ended.max(*latest);
            Some(*latest)
        });
        let maybes_ended = ended.collect();
        let zeros = || -> Vec<Vec<u32>> {
            let cells = (0..cells.count()).map(|cell| vec![0; cells.values(cell)]);
            cells.collect()
        };
        let mut search = Self {
            cells,
            maybes_ended,
            is_taken: vec![false; moves.len()],
            held: vec![EMPTY; cells.count()],
            unseen: zeros(),
            unmade: zeros(),
            low: 0,
            left: sure.len(),
            latest: 0,
            stack: Vec::new(),
            tried: HashMap::new(),
            sure,
            maybes,
        };
        for at in 0..moves.len() {
            search.count(at, 1);
        }
        search
    }

    pub(super) fn run(mut self) -> Outcome {
        let mut tries = 0;
        let mut first = self.choices();
        loop {
            if self.left == 0 {
                return Outcome::Ordered;
            }
            let choices = match self.stack.last_mut() {
                Some(step) => &mut step.choices,
                None => &mut first,
            };
            match choices.pop() {
                Some(at) => {
                    tries += 1;
                    self.take(at);
                    let choices = self.choices();
                    let is_new = choices.len() < 2 || self.is_new();
                    let step = self.stack.last_mut().expect("a step was just taken");
                    step.choices = if is_new { choices } else { Vec::new() };
                }
                None if self.stack.is_empty() => return Outcome::Broken,
                None => self.take_back(),
            }
            if tries > TRIES_MAX {
                return Outcome::Undecided;
            }
        }
    }

    /// Returns what may come next, the best one last.
    fn choices(&self) -> Vec<usize> {
        let moves = &self.cells.moves;
        // Whatever is taken next must not have begun behind the end of what is left.
        let mut bound = u64::MAX;
        let mut open = Vec::new();
        for at in &self.sure[self.low..] {
            let one = &moves[*at];
            if one.began > bound {
                break;
            }
            if !self.is_taken[*at] {
                bound = bound.min(one.ended);
                open.push(*at);
            }
        }
        open.retain(|at| moves[*at].began <= bound);
        let maybes = self.open_maybes(bound);
        let ends_first = maybes.iter().map(|at| moves[*at].ended).min();
        let mut choices: Vec<usize> = Vec::new();
        for at in open.iter().copied().filter(|at| self.can_take(*at)) {
            let one = &moves[at];
            if one.sets.is_empty() && ends_first.is_none_or(|ended| one.began <= ended) {
                return vec![at];
            }
            // Of those that do the same, the one that ends first.
            match choices
                .iter_mut()
                .find(|other| moves[**other].class == one.class)
            {
                Some(other) if one.ended < moves[*other].ended => *other = at,
                Some(_) => {}
                None => choices.push(at),
            }
        }
        choices.sort_by_key(|at| std::cmp::Reverse(moves[*at].ended));
        let maybes = maybes.into_iter().filter(|at| self.can_take(*at));
        let mut all: Vec<usize> = maybes.collect();
        all.append(&mut choices);
        let is_early = |at: &usize| ends_first.is_none_or(|ended| moves[*at].began <= ended);
        let idle = all.iter().rev().copied().filter(is_early).find_map(|at| {
            let cell = self
                .cells
                .is_idle(&moves[at])
                .filter(|_| moves[at].is_sure)?;
            Some((at, cell))
        });
        if let Some((idle, cell)) = idle {
            let sets = |one: &Move| one.sets.iter().any(|set| set.0 == cell);
            let needs = |one: &Move| one.needs.iter().any(|need| need.0 == cell);
            all.retain(|at| *at == idle || needs(&moves[*at]) || !sets(&moves[*at]));
        }
        if self.is_stuck(&open) {
            Vec::new()
        } else {
            all
        }
    }

    /// Tells whether one that must come soon needs what nobody can bring in time.
    fn is_stuck(&self, open: &[usize]) -> bool {
        open.iter().any(|at| {
            let one = &self.cells.moves[*at];
            one.needs.iter().any(|(cell, need)| {
                !self.cells.holds(*cell, self.held[*cell], need)
                    && !self.can_come(*cell, need, one.ended)
            })
        })
    }

    /// Tells whether something that is left and begins in time brings what is needed.
    fn can_come(&self, cell: usize, need: &Need, ended: u64) -> bool {
        let moves = &self.cells.moves;
        let brings = |at: &usize| {
            let mut sets = moves[*at].sets.iter();
            !self.is_taken[*at]
                && sets.any(|set| set.0 == cell && self.cells.holds(cell, set.1, need))
        };
        let begins = |at: &&usize| moves[**at].began <= ended;
        let first = self.maybes_ended.partition_point(|end| *end < self.latest);
        self.sure[self.low..].iter().take_while(begins).any(brings)
            || self.maybes[first..].iter().take_while(begins).any(brings)
    }

    /// Returns the maybes that have begun and are not over, of each class the one that ends first.
    fn open_maybes(&self, bound: u64) -> Vec<usize> {
        let moves = &self.cells.moves;
        let first = self.maybes_ended.partition_point(|end| *end < self.latest);
        let mut open: Vec<usize> = Vec::new();
        for at in &self.maybes[first..] {
            let one = &moves[*at];
            if one.began > bound {
                break;
            }
            if self.is_taken[*at] || one.ended < self.latest {
                continue;
            }
            match open
                .iter_mut()
                .find(|other| moves[**other].class == one.class)
            {
                Some(other) if one.ended < moves[*other].ended => *other = *at,
                Some(_) => {}
                None => open.push(*at),
            }
        }
        open
    }

    fn can_take(&self, at: usize) -> bool {
        let one = &self.cells.moves[at];
        self.is_enabled(one, &self.held) && !self.buries(one) && !self.makes_maybe_needless(at)
    }

    fn is_enabled(&self, one: &Move, held: &[u32]) -> bool {
        let mut needs = one.needs.iter();
        needs.all(|(cell, need)| self.cells.holds(*cell, held[*cell], need))
    }

    /// Tells whether a move replaces a value that another one has yet to see, for ever.
    fn buries(&self, one: &Move) -> bool {
        one.sets.iter().any(|(cell, value)| {
            let old = self.held[*cell];
            let sees = (*cell, Need::Is(old));
            let own = u32::from(one.is_sure && one.needs.contains(&sees));
            let at = old as usize;
            old != *value && self.unseen[*cell][at] > own && self.unmade[*cell][at] == 0
        })
    }

    /// Tells whether the maybe that was just taken could as well come later, or not at all.
    fn makes_maybe_needless(&self, at: usize) -> bool {
        let moves = &self.cells.moves;
        let Some(last) = self.stack.last() else {
            return false;
        };
        let (maybe, one) = (&moves[last.taken], &moves[at]);
        if maybe.is_sure {
            return false;
        }
        let sets = |one: &Move, cell: usize| one.sets.iter().any(|set| set.0 == cell);
        let touches = |cell| sets(one, cell) || one.needs.iter().any(|need| need.0 == cell);
        let can_be_later = (one.is_sure || maybe.class > one.class)
            && one.began <= maybe.ended
            && !maybe.sets.iter().any(|set| touches(set.0))
            && !maybe.needs.iter().any(|need| sets(one, need.0));
        if can_be_later {
            return true;
        }
        let is_replaced = maybe.sets.iter().all(|set| sets(one, set.0));
        let mut without = self.held.clone();
        for (cell, value) in last.before.iter().rev() {
            without[*cell] = *value;
        }
        is_replaced && self.is_enabled(one, &without)
    }

    fn take(&mut self, at: usize) {
        let one = &self.cells.moves[at];
        let before = one.sets.iter().map(|set| (set.0, self.held[set.0]));
        let before = before.collect();
        for (cell, value) in &one.sets {
            self.held[*cell] = *value;
        }
        let step = Step {
            taken: at,
            before,
            low: self.low,
            latest: self.latest,
            choices: Vec::new(),
        };
        self.stack.push(step);
        self.is_taken[at] = true;
        self.latest = self.latest.max(one.began);
        self.left -= usize::from(one.is_sure);
        self.count(at, -1);
        while self.sure.get(self.low).is_some_and(|at| self.is_taken[*at]) {
            self.low += 1;
        }
    }

    fn take_back(&mut self) {
        let Some(step) = self.stack.pop() else { return };
        for (cell, value) in step.before.iter().rev() {
            self.held[*cell] = *value;
        }
        self.is_taken[step.taken] = false;
        self.left += usize::from(self.cells.moves[step.taken].is_sure);
        (self.low, self.latest) = (step.low, step.latest);
        self.count(step.taken, 1);
    }

    fn count(&mut self, at: usize, by: i32) {
        let one = &self.cells.moves[at];
        let add = |count: &mut u32| *count = count.wrapping_add_signed(by);
        for (cell, value) in &one.sets {
            add(&mut self.unmade[*cell][*value as usize]);
        }
        for (cell, need) in one.needs.iter().filter(|_| one.is_sure) {
            if let Need::Is(value) = need {
                add(&mut self.unseen[*cell][*value as usize]);
            }
        }
    }

    /// Tells whether it was not here before with as few maybes taken, and remembers that it was.
    fn is_new(&mut self) -> bool {
        let taken = self.taken_maybes();
        let before = self.tried.entry(self.key()).or_default();
        let is_among = |one: &u32, all: &[u32]| all.binary_search(one).is_ok();
        if before
            .iter()
            .any(|fewer| fewer.iter().all(|one| is_among(one, &taken)))
        {
            return false;
        }
        before.retain(|more| !taken.iter().all(|one| is_among(one, more)));
        before.push(taken);
        true
    }

    /// Returns what decides whether it can go on from here, but for the maybes: what is taken, as
    /// far as that is not plain from `low`, what is held, and the maybe before, which bears on the
    /// next one.
    fn key(&self) -> Box<[u32]> {
        let moves = &self.cells.moves;
        let mut key = self.held.clone();
        key.push(short(self.low));
        let last = self.stack.last().map(|step| step.taken);
        let last = last.filter(|at| !moves[*at].is_sure);
        key.push(last.map_or(u32::MAX, short));
        // What was taken beyond `low` began before the latest that was taken.
        let beyond = self.sure[self.low..].iter();
        let beyond = beyond.take_while(|at| moves[**at].began <= self.latest);
        key.extend(beyond.filter(|at| self.is_taken[**at]).map(|at| short(*at)));
        key.into()
    }

    /// Returns the maybes that are taken and could still come now.
    fn taken_maybes(&self) -> Box<[u32]> {
        let moves = &self.cells.moves;
        let first = self.maybes_ended.partition_point(|end| *end < self.latest);
        let open = self.maybes[first..].iter();
        let taken = open.filter(|at| self.is_taken[**at] && moves[**at].ended >= self.latest);
        taken.map(|at| short(*at)).collect()
    }
}

fn short(at: usize) -> u32 {
    u32::try_from(at).expect("a history has less than 2^32 moves")
}
