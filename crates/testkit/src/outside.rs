//! The second judge of histories: what a client sees, by [`crate::linear`] alone.
//!
//! The oracle trusts positions and knows every rule. This judge reads positions only to know what a
//! token had told before, and knows but three things: entries, devices, and that a sync tells all of
//! a user at one moment. What both accept is not accepted by a mistake that they share.
//!
//! Along a chain of tokens what was told adds up to all that the user has. So each sync is a
//! snapshot: it saw every entry, those too that it did not tell because they had not changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kitbag_domain::{
    DeviceId, DeviceSelection, Expectation, Incarnation, Key, RevisionNames, Scope, UserId,
};

use crate::history::{Answer, Call, Event, History, Told, Why, revision};
use crate::linear::{self, Marks, Operation};
use crate::ops::{DEVICES, device_name};

/// Checks a history of each user for an order that explains what was seen.
/// # Errors
/// What shows that there is none, for people to read.
pub fn check(history: &History) -> Result<(), String> {
    let mut by_user: BTreeMap<&UserId, Vec<&Event>> = BTreeMap::new();
    for event in &history.events {
        by_user.entry(&event.user).or_default().push(event);
    }
    for (user, mut events) in by_user {
        events.sort_by_key(|event| event.began);
        let operations = operations(&events)?;
        linear::check(&operations).map_err(|verdict| format!("{user}: {verdict}"))?;
    }
    Ok(())
}

/// Everything live, as a chain of tokens told it.
type Fold = BTreeMap<Key, Arc<str>>;

fn operations(events: &[&Event]) -> Result<Vec<Operation>, String> {
    let keys = keys(events);
    let mut folds: BTreeMap<u64, Fold> = BTreeMap::from([(0, Fold::new())]);
    let mut operations = Vec::new();
    for event in events {
        let plain = Operation::new(event.to_string(), event.began, event.ended);
        match (&event.call, &event.answer) {
            (Call::Sync(since), Answer::Told(told)) => {
                let Some(fold) = folded(&folds, *since, told) else {
                    operations.push(glimpse(plain, told));
                    continue;
                };
                operations.push(snapshot(plain, &keys, &fold));
                match folds.get(&told.head) {
                    Some(other) if *other != fold => {
                        return Err(format!("{event}: the same head stood for {other:?}"));
                    }
                    _ => drop(folds.insert(told.head, fold)),
                }
            }
            (Call::Get(key), Answer::Value(value)) if !is_served(key) => {
                operations.push(plain.sees(&cell(key), value.as_deref()));
            }
            (Call::Put(key, text, expected), answer) => {
                operations.extend(put(plain, event, key, Some(text), expected, answer));
            }
            (Call::Everything(_), Answer::Told(told)) => {
                // Its token stands before what it told, so nothing adds up from there.
                let fold = folded(&folds, None, told).unwrap_or_default();
                operations.push(snapshot(plain, &keys, &fold));
            }
            (Call::Erase(key, expected), answer) => {
                operations.extend(put(plain, event, key, None, expected, answer));
            }
            (Call::Refresh, Answer::Done) => operations.push(guarded(plain, event)),
            (Call::Delete(key), Answer::Written(position)) => {
                let (plain, cell) = (guarded(plain, event), cell(key));
                operations.push(match position {
                    Some(_) => plain.sees_some(&cell).clears(&cell),
                    None => plain.sees(&cell, None),
                });
            }
            (Call::Login(device), Answer::LoggedIn(incarnation)) => {
                let incarnation = incarnation.0.to_string();
                operations.push(plain.puts(&device_cell(device), &incarnation, Marks::new()));
            }
            (Call::Remove(selection), Answer::Removed(removed)) => {
                operations.extend(remove(&plain, event, &keys, selection, removed.as_deref()));
            }
            (Call::Deactivate, Answer::Done) => {
                let devices = (0..DEVICES).map(|number| device_cell(&device_name(number)));
                let cells = keys.iter().map(cell).chain(devices);
                operations.push(cells.fold(plain, |plain, cell| plain.clears(&cell)));
            }
            (_, Answer::Refused(Why::SessionGone)) => {
                if let Some((device, incarnation)) = &event.who {
                    let (cell, own) = (device_cell(device), incarnation.0.to_string());
                    operations.push(plain.sees_other(&cell, &own));
                }
            }
            // Who may write what, and how much, is the oracle's business.
            _ => {}
        }
    }
    Ok(operations)
}

/// Returns what adds up behind a sync; `None` where it is not known what its token had told.
fn folded(folds: &BTreeMap<u64, Fold>, since: Option<u64>, told: &Told) -> Option<Fold> {
    let mut fold = match since.filter(|_| !told.is_full) {
        Some(since) => folds.get(&since)?.clone(),
        None => Fold::new(),
    };
    for entry in &told.entries {
        match &entry.text {
            Some(text) => fold.insert(entry.key.clone(), Arc::clone(text)),
            None => fold.remove(&entry.key),
        };
    }
    Some(fold)
}

fn snapshot(plain: Operation, keys: &BTreeSet<Key>, fold: &Fold) -> Operation {
    let keys = keys.iter().filter(|key| !is_served(key));
    keys.fold(plain, |plain, key| {
        plain.sees(&cell(key), fold.get(key).map(|text| &**text))
    })
}

/// What a sync saw whose token nobody is known to have been handed: only what it told.
fn glimpse(plain: Operation, told: &Told) -> Operation {
    let entries = told.entries.iter();
    entries.fold(plain, |plain, entry| {
        plain.sees(&cell(&entry.key), entry.text.as_deref())
    })
}

fn put(
    plain: Operation,
    event: &Event,
    key: &Key,
    text: Option<&Arc<str>>,
    expected: &Expectation,
    answer: &Answer,
) -> Option<Operation> {
    let cell = cell(key);
    let expected = pairs(|names| match names {
        RevisionNames::Stable => expected.stable.clone(),
        RevisionNames::Unstable => expected.unstable.clone(),
    });
    let written = |plain| {
        let allowed = guarded(plain, event).finds_allowed(&cell, expected.clone());
        match text {
            Some(text) => allowed.puts(&cell, text, pairs(|names| revision(text, names))),
            None => allowed.clears(&cell),
        }
    };
    match answer {
        Answer::Written(_) => Some(written(plain)),
        Answer::Unknown => Some(written(plain).maybe()),
        Answer::Refused(Why::Conflict(current)) => {
            let refused = guarded(plain, event).sees(&cell, Some(current));
            Some(refused.finds_refused(&cell, expected.clone()))
        }
        Answer::Refused(Why::SessionGone) => {
            let (device, Incarnation(own)) = event.who.as_ref()?;
            Some(plain.sees_other(&device_cell(device), &own.to_string()))
        }
        _ => None,
    }
}

/// A removal, and where it did not say which devices there were, what that leaves open.
fn remove(
    plain: &Operation,
    event: &Event,
    keys: &BTreeSet<Key>,
    selection: &DeviceSelection,
    removed: Option<&[DeviceId]>,
) -> Vec<Operation> {
    let devices = (0..DEVICES).map(device_name);
    let is_removed = |device: &DeviceId| match removed {
        Some(removed) => removed.contains(device),
        None => selection.contains(device),
    };
    let devices: Vec<DeviceId> = devices.filter(is_removed).collect();
    let mut sure = guarded(plain.clone(), event);
    let mut operations = Vec::new();
    for device in &devices {
        sure = sure.clears(&device_cell(device));
        // What only names the device stays where the device was gone already.
        let mut maybe = plain.clone().maybe();
        for key in keys {
            let names_it = is_notification_of(key, device);
            if key.scope.device() == Some(device) || names_it && removed.is_some() {
                sure = sure.clears(&cell(key));
            } else if names_it {
                maybe = maybe.clears(&cell(key));
            }
        }
        operations.extend(removed.is_none().then_some(maybe));
    }
    operations.push(sure);
    operations
}

/// The device of the session was there when it wrote (law 6).
fn guarded(plain: Operation, event: &Event) -> Operation {
    match &event.who {
        Some((device, incarnation)) => {
            let own = incarnation.0.to_string();
            plain.sees(&device_cell(device), Some(&own))
        }
        None => plain,
    }
}

fn keys(events: &[&Event]) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    for event in events {
        if let Call::Put(key, ..) | Call::Erase(key, _) | Call::Delete(key) | Call::Get(key) =
            &event.call
        {
            keys.insert(key.clone());
        }
        if let Answer::Told(told) = &event.answer {
            keys.extend(told.entries.iter().map(|entry| entry.key.clone()));
        }
    }
    keys
}

/// The push rules are the server's: what is served is not what is stored.
fn is_served(key: &Key) -> bool {
    key.scope == Scope::Global && key.event_type.as_str() == "m.push_rules"
}

/// MSC3890: a global entry that goes with the device that it names.
fn is_notification_of(key: &Key, device: &DeviceId) -> bool {
    let name = key.event_type.as_str();
    let named = name.split_once(".local_notification_settings.");
    let is_namespace = |name: &str| name == "m" || name == "org.matrix.msc3890";
    key.scope == Scope::Global
        && named.is_some_and(|(space, of)| is_namespace(space) && of == device.as_str())
}

fn pairs(of: impl Fn(RevisionNames) -> Option<String>) -> Marks {
    let names = [
        ("stable", RevisionNames::Stable),
        ("unstable", RevisionNames::Unstable),
    ];
    let pairs = names
        .into_iter()
        .filter_map(|(word, names)| Some((word, of(names)?.into())));
    pairs.collect()
}

fn cell(key: &Key) -> String {
    format!("entry {key:?}")
}

fn device_cell(device: &DeviceId) -> String {
    format!("device {device}")
}
