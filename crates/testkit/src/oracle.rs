//! The judge of histories: a naive model of its own, which shares types with the product, never code.
//!
//! For each user the acknowledged writes are sorted by position and replayed on a model: each
//! must be what the model does at that place. Of every other answer (reads, syncs, refusals, and
//! operations that changed nothing) some state between its beginning and its end must give it, and
//! no operation may see an older state than one that ended before it began. That is linearizability
//! (laws 1, 4, 6, 8, 9, 10, 11), for one object a user, whose writes are ordered by their positions.
//! A sync names its state by its head, so that what it tells is determined to the last entry (laws
//! 2 and 4). Users are judged apart: nothing of one may be explained by another (law 5).
//!
//! Removals of devices answer no position and unknown outcomes may be none: these *float*. Tombstones
//! pin a removal, since they bear its time; the rest is tried wherever the positions of others leave
//! room, unknown ones also as never made.

mod placing;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kitbag_domain::{Limits, UserId};

use crate::dice::Dice;
use crate::history::{Answer, Call, Event, History};
use placing::Placement;
use state::State;

/// How often the search for the places of floating writes goes on where it stands still.
const RESTARTS: usize = 60;

/// An answer that no law-abiding store gives.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What was asked and answered.
    pub event: Event,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.event, self.why)
    }
}

/// Checks a history against the laws.
/// # Errors
/// The violations of the first user who has some, in the order of time.
pub fn check(history: &History) -> Result<(), Vec<Violation>> {
    let mut by_user: BTreeMap<&UserId, Vec<&Event>> = BTreeMap::new();
    for event in &history.events {
        by_user.entry(&event.user).or_default().push(event);
    }
    for mut events in by_user.into_values() {
        events.sort_by_key(|event| event.began);
        let violations = Trial::new(&history.limits, &events).judge();
        if !violations.is_empty() {
            return Err(violations);
        }
    }
    Ok(())
}

/// The judging of one user's events, which are sorted by their beginning.
struct Trial<'a> {
    limits: &'a Limits,
    events: &'a [&'a Event],
}

impl<'a> Trial<'a> {
    fn new(limits: &'a Limits, events: &'a [&'a Event]) -> Self {
        Self { limits, events }
    }

    fn judge(&self) -> Vec<Violation> {
        let (mut placement, doubles) = Placement::of(self.events);
        if let Some(index) = doubles.first() {
            return vec![self.violation(*index, "a position was taken twice".to_owned())];
        }
        let mut order = placement.floating();
        let mut found = self.improve(&mut placement, &order);
        // Floating writes that overlap may only be right together: those near what is wrong are
        // shaken, and what is no worse is gone on from.
        let mut dice = Dice::new(1);
        for _ in 0..RESTARTS {
            if found.is_empty() || order.is_empty() {
                break;
            }
            for at in (1..order.len()).rev() {
                order.swap(at, dice.below(at + 1));
            }
            let mut other = placement.clone();
            self.shake(&mut other, &found, &mut dice);
            let fewer = self.improve(&mut other, &order);
            if fewer.len() <= found.len() {
                (placement, found) = (other, fewer);
            }
        }
        found
    }

    /// Puts the removals that overlap what is wrong anywhere that they may stand.
    fn shake(&self, placement: &mut Placement, found: &[Violation], dice: &mut Dice) {
        for index in placement.floating() {
            let event = self.events[index];
            let is_near = |other: &Violation| {
                other.event.began <= event.ended && event.began <= other.event.ended
            };
            if event.answer != Answer::Unknown && found.iter().any(is_near) {
                let candidates = placement.candidates(self.events, index);
                let drawn = (!candidates.is_empty()).then(|| dice.below(candidates.len()));
                placement.set(index, drawn.and_then(|drawn| candidates[drawn]));
            }
        }
    }

    /// Moves each floating write in turn to where it explains the most, until nothing gets better.
    fn improve(&self, placement: &mut Placement, order: &[usize]) -> Vec<Violation> {
        let mut found = self.replay(placement);
        loop {
            let before = found.len();
            for index in order {
                found = self.move_one(placement, *index, found);
            }
            if found.is_empty() || found.len() == before {
                return found;
            }
        }
    }

    fn move_one(
        &self,
        placement: &mut Placement,
        index: usize,
        mut found: Vec<Violation>,
    ) -> Vec<Violation> {
        let event = self.events[index];
        let mut best = placement.place(index);
        for candidate in placement.candidates(self.events, index) {
            if found.is_empty() {
                break;
            }
            placement.set(index, candidate);
            let fewer = self.replay(placement);
            // What would have been refused was not made, whatever else it might explain.
            let is_refused = event.answer == Answer::Unknown
                && fewer.iter().any(|other| other.event.began == event.began);
            if fewer.len() < found.len() && !is_refused {
                (best, found) = (candidate, fewer);
            }
        }
        placement.set(index, best);
        found
    }

    /// Replays the writes as placed and judges every event against the states in between.
    fn replay(&self, placement: &Placement) -> Vec<Violation> {
        let order = placement.order();
        let mut violations = Vec::new();
        let mut states = vec![State::default()];
        for (at, (place, index)) in order.iter().enumerate() {
            let next = order.get(at + 1).map_or(u64::MAX, |(place, _)| *place);
            let mut state = states[at].clone();
            if let Err(why) = state.commit(self.events[*index], *place, next, self.limits) {
                violations.push(self.violation(*index, why));
            }
            states.push(state);
        }
        self.order_in_time(&order, &states, &mut violations);
        violations.sort_by_key(|violation| violation.event.began);
        violations
    }

    /// Gives each event the earliest state that explains it and is not older than what was seen
    /// before; if any such choice exists, this one does.
    fn order_in_time(
        &self,
        order: &[(u64, usize)],
        states: &[State],
        violations: &mut Vec<Violation>,
    ) {
        let made_at: BTreeMap<usize, usize> = order
            .iter()
            .enumerate()
            .map(|(at, (_, i))| (*i, at))
            .collect();
        // Ended events in the order of their end, with the newest state seen up to there.
        let mut running = BTreeSet::new();
        let mut seen = vec![0; self.events.len()];
        let mut newest = 0;
        for (index, event) in self.events.iter().enumerate() {
            while let Some((ended, earlier)) = running.first().copied()
                && ended < event.began
            {
                running.remove(&(ended, earlier));
                newest = newest.max(seen[earlier]);
            }
            seen[index] = newest;
            if event.ended != u64::MAX {
                running.insert((event.ended, index));
            }
            if let Some(at) = made_at.get(&index) {
                if *at < newest {
                    let why = "it stands before what was seen before it began";
                    violations.push(self.violation(index, why.to_owned()));
                }
                seen[index] = at + 1;
            } else if event.answer != Answer::Unknown {
                let last = self.last_state(index, order);
                match self.explain(event, order, states, newest, last) {
                    Ok(state) => seen[index] = state,
                    Err(why) => violations.push(self.violation(index, why)),
                }
            }
        }
    }

    /// Returns the newest state that an event may have seen: that before the first later write.
    fn last_state(&self, index: usize, order: &[(u64, usize)]) -> usize {
        let ended = self.events[index].ended;
        let later = |(_, write): &(u64, usize)| self.events[*write].began > ended;
        order.iter().position(later).unwrap_or(order.len())
    }

    /// Returns the earliest state in the window that gives the answer.
    fn explain(
        &self,
        event: &Event,
        order: &[(u64, usize)],
        states: &[State],
        first: usize,
        last: usize,
    ) -> Result<usize, String> {
        if let (Call::Sync(since) | Call::Everything(since), Answer::Told(told)) =
            (&event.call, &event.answer)
        {
            let at = order
                .iter()
                .filter(|(place, _)| *place <= told.head)
                .count();
            if at < first {
                return Err(format!(
                    "it is stale: state {at}, and {first} was seen before"
                ));
            }
            if at > last {
                return Err(format!(
                    "it is from the future: state {at}, {last} was the last"
                ));
            }
            if matches!(event.call, Call::Everything(_)) {
                let mut why = String::new();
                for later in at..=last {
                    let later_on = &states[later..=last];
                    match states[at].told_everything(&event.user, later_on, *since, told) {
                        Ok(()) => return Ok(later),
                        Err(reason) => why = reason,
                    }
                }
                return Err(why);
            }
            let told = State::told(&event.user, &states[at..=last], *since, told);
            told.map(|()| at)
        } else {
            let mut why = format!("no state from {first} to {last}");
            let window = states.iter().enumerate().take(last + 1).skip(first);
            for (at, state) in window {
                match state.answers(event, self.limits) {
                    Ok(()) => return Ok(at),
                    Err(reason) => why = format!("in none of {first}..={last}: {reason}"),
                }
            }
            Err(why)
        }
    }

    fn violation(&self, index: usize, why: String) -> Violation {
        Violation {
            event: self.events[index].clone(),
            why,
        }
    }
}
