//! Where in the user's stream each write stands.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Answer, Call, Event};

/// Places that are tried for one write: more than the writes that overlap it take.
const CANDIDATES_MAX: usize = 64;

/// A place for each write, by the number of its event.
#[derive(Clone)]
pub(super) struct Placement {
    fixed: BTreeMap<usize, u64>,
    /// Every position of which it is known who took it.
    taken: BTreeSet<u64>,
    /// Writes that answered no position; `None` where it is taken for never made.
    floating: BTreeMap<usize, Option<u64>>,
}

impl Placement {
    /// Places what answers and tombstones tell; returns those too whose place was taken.
    pub(super) fn of(events: &[&Event]) -> (Self, Vec<usize>) {
        let mut placement = Self {
            fixed: BTreeMap::new(),
            taken: BTreeSet::new(),
            floating: BTreeMap::new(),
        };
        let mut doubles = Vec::new();
        let mut devices = BTreeSet::new();
        let mut fix = |placement: &mut Self, index, place| {
            placement.fixed.insert(index, place);
            if !placement.taken.insert(place) {
                doubles.push(index);
            }
        };
        let mut ends = None;
        for (index, event) in events.iter().enumerate() {
            match (&event.call, &event.answer) {
                (_, Answer::Written(Some(place))) => fix(&mut placement, index, *place),
                // Later logins of the same incarnation found the device.
                (Call::Login(device), Answer::LoggedIn(incarnation))
                    if devices.insert((device.clone(), *incarnation)) =>
                {
                    fix(&mut placement, index, incarnation.0);
                }
                (_, Answer::Removed(_)) => match tombstone_of(events, event) {
                    Some(place) => fix(&mut placement, index, place),
                    None => drop(placement.floating.insert(index, None)),
                },
                (Call::Put(_, text, _), Answer::Unknown) => match position_of(events, text) {
                    Some(place) => fix(&mut placement, index, place),
                    None => drop(placement.floating.insert(index, None)),
                },
                (_, Answer::Unknown) => drop(placement.floating.insert(index, None)),
                (Call::Deactivate, Answer::Done) => ends = Some(index),
                _ => {}
            }
        }
        let told = told_entries(events).map(|entry| entry.position);
        placement.taken.extend(told);
        for index in placement.floating() {
            let earlier = placement.floating.iter();
            let earlier = earlier.filter(|(other, _)| events[**other].ended < events[index].began);
            let low = earlier.filter_map(|(_, place)| *place).max();
            let mut candidates = placement.candidates(events, index).into_iter();
            let first = candidates.find(|place| place.is_none() || *place > low);
            placement.set(index, first.flatten());
        }
        if let Some(index) = ends {
            // No write of the user's comes behind it, and what was told before it stands before it.
            let (began, writes) = (events[index].began, placement.order());
            let last = writes.last().map_or(0, |(place, _)| *place);
            let heads = heads(events).filter(|(event, _)| event.ended < began);
            let last = heads.map(|(_, head)| head).fold(last, u64::max);
            placement.fixed.insert(index, last + 1);
        }
        (placement, doubles)
    }

    /// Returns the writes by place.
    pub(super) fn order(&self) -> Vec<(u64, usize)> {
        let fixed = self.fixed.iter().map(|(index, place)| (*place, *index));
        let floating = self.floating.iter();
        let floating = floating.filter_map(|(index, place)| Some(((*place)?, *index)));
        let mut order: Vec<_> = fixed.chain(floating).collect();
        order.sort_unstable();
        order
    }

    pub(super) fn floating(&self) -> Vec<usize> {
        self.floating.keys().copied().collect()
    }

    pub(super) fn place(&self, index: usize) -> Option<u64> {
        self.floating[&index]
    }

    pub(super) fn set(&mut self, index: usize, place: Option<u64>) {
        self.floating.insert(index, place);
    }

    /// Returns where a floating write may begin: at positions that nobody else took, as time allows.
    pub(super) fn candidates(&self, events: &[&Event], index: usize) -> Vec<Option<u64>> {
        let event = events[index];
        let (mut low, mut high) = (0, u64::MAX);
        // Floating ones do not bound each other: they have to pass on the way to their places.
        for (other, place) in &self.fixed {
            if events[*other].ended < event.began {
                low = low.max(*place);
            } else if events[*other].began > event.ended {
                high = high.min(*place);
            }
        }
        for (sync, head) in heads(events) {
            if sync.ended < event.began {
                low = low.max(head);
            } else if sync.began > event.ended {
                high = high.min(head + 1);
            }
        }
        let free = (low + 1..high).filter(|place| !self.taken.contains(place));
        let never = (event.answer == Answer::Unknown).then_some(None);
        let places = free.take(CANDIDATES_MAX).map(Some);
        never.into_iter().chain(places).collect()
    }
}

/// Returns the syncs and where they were told that the stream stands.
fn heads<'a>(events: &'a [&Event]) -> impl Iterator<Item = (&'a Event, u64)> + use<'a> {
    events.iter().filter_map(|event| match &event.answer {
        Answer::Told(told) => Some((*event, told.head)),
        _ => None,
    })
}

/// Returns the lowest position of the tombstones that a removal left: they bear its time.
fn tombstone_of(events: &[&Event], removal: &Event) -> Option<u64> {
    let told = told_entries(events);
    let tombstones = told.filter(|entry| entry.text.is_none() && entry.at == removal.at);
    tombstones.map(|entry| entry.position).min()
}

/// Returns the position at which a content was told that only one write brought.
fn position_of(events: &[&Event], text: &str) -> Option<u64> {
    let mut told = told_entries(events).filter(|entry| entry.text.as_deref() == Some(text));
    told.next().map(|entry| entry.position)
}

fn told_entries<'a>(
    events: &'a [&Event],
) -> impl Iterator<Item = &'a crate::history::ToldEntry> + use<'a> {
    events.iter().flat_map(|event| match &event.answer {
        Answer::Told(told) => told.entries.as_slice(),
        _ => &[],
    })
}
