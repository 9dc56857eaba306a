//! What the model holds of one user, and what it answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use kitbag_domain::{
    DeviceId, DeviceSelection, Expectation, Incarnation, Key, Limits, RevisionNames, Scope, UnixMs,
    UserId,
};

use crate::global;
use crate::history::{Answer, Call, Event, Told, ToldEntry, Why, revision};
use crate::rules::NOTED_MAX;

/// One user between two writes.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    devices: BTreeMap<DeviceId, Incarnation>,
    cells: BTreeMap<Key, Cell>,
    is_ended: bool,
    head: Range,
    /// Where the collected tombstones end.
    horizon: Range,
}

/// Positions of which one is meant; both ends belong to it.
#[derive(Clone, Copy, Debug, Default)]
struct Range {
    min: u64,
    max: u64,
}

impl Range {
    fn exactly(position: u64) -> Self {
        Self {
            min: position,
            max: position,
        }
    }
}

/// The latest change of one entry.
#[derive(Clone, Debug)]
struct Cell {
    text: Option<Arc<str>>,
    /// The place of the write that made the change.
    place: u64,
    /// The position that it took itself.
    position: Range,
    at: UnixMs,
    writer: Option<DeviceId>,
    /// Whether this is a tombstone that the store may have collected.
    may_be_gone: bool,
}

impl State {
    /// Applies an acknowledged write; the next one stands at `next`.
    pub(super) fn commit(
        &mut self,
        event: &Event,
        place: u64,
        next: u64,
        limits: &Limits,
    ) -> Result<(), String> {
        let accepted = self.accepts(event, limits);
        let position = Range::exactly(place);
        match (&event.call, &event.answer) {
            (Call::Put(key, text, _), _) => {
                self.write(event, key, Some(Arc::clone(text)), place, position);
                self.collect_aged(event.at, limits, false);
            }
            (Call::Delete(key), answer) => {
                let is_live = self.live(key).is_some();
                if is_live {
                    self.write(event, key, None, place, position);
                    self.collect(event.at, limits);
                }
                if !is_live && *answer != Answer::Unknown {
                    return Err("there was nothing to delete".to_owned());
                }
            }
            (Call::Edit(number), _) => {
                let text = self.edited(*number);
                self.write(event, &rules_key(), Some(text.into()), place, position);
                self.collect_aged(event.at, limits, false);
            }
            (Call::Erase(key, _), _) => {
                self.write(event, key, None, place, position);
                self.collect(event.at, limits);
            }
            (Call::Login(device), Answer::LoggedIn(incarnation)) => {
                if self.devices.insert(device.clone(), *incarnation).is_some() {
                    return Err("the device was there already".to_owned());
                }
            }
            (Call::Remove(selection), answer) => {
                let span = Range {
                    min: place,
                    max: next - 1,
                };
                let removed = self.remove(event, selection, place, span, limits);
                self.head = span;
                let expected = Answer::Removed(Some(removed));
                if *answer != Answer::Removed(None) && *answer != expected {
                    return Err(format!("expected {expected:?}"));
                }
                return accepted.map_err(|why| format!("expected one of {why:?}"));
            }
            (Call::Deactivate, _) => self.end(place),
            (call, answer) => return Err(format!("{call:?} answers no {answer:?}")),
        }
        self.head = if self.is_ended { self.head } else { position };
        accepted.map_err(|why| format!("expected one of {why:?}"))
    }

    /// Tells whether an operation that changed nothing may answer so in this state.
    pub(super) fn answers(&self, event: &Event, limits: &Limits) -> Result<(), String> {
        let accepted = self.accepts(event, limits);
        match (&event.call, &event.answer) {
            (_, Answer::Refused(why)) => match accepted {
                Err(reasons) if reasons.contains(why) => Ok(()),
                Err(reasons) => Err(format!("expected one of {reasons:?}")),
                Ok(()) => Err("nothing forbids it".to_owned()),
            },
            (Call::Get(key), Answer::Value(value)) => {
                let live = self.live(key).cloned();
                let expected = if *key == rules_key() {
                    Some(served(&event.user, live.as_deref()).into())
                } else {
                    live
                };
                if expected == *value {
                    return Ok(());
                }
                Err(format!("expected {expected:?}"))
            }
            (Call::Delete(key), Answer::Written(None)) => {
                accepted.map_err(|why| format!("expected one of {why:?}"))?;
                self.live(key)
                    .map_or(Ok(()), |_| Err("it is there".to_owned()))
            }
            (Call::Login(device), Answer::LoggedIn(incarnation)) => {
                let known = self.devices.get(device);
                if known == Some(incarnation) {
                    return Ok(());
                }
                Err(format!("the device is {known:?}"))
            }
            (Call::Password | Call::Refresh, Answer::Done) => {
                accepted.map_err(|why| format!("expected one of {why:?}"))
            }
            (call, answer) => Err(format!("{call:?} answers no {answer:?}")),
        }
    }

    /// Tells whether a sync of a user may be told this in the first of these states; the others are
    /// those that came until it ended.
    pub(super) fn told(
        user: &UserId,
        states: &[Self],
        since: Option<u64>,
        told: &Told,
    ) -> Result<(), String> {
        states[0].told_entries(since, told)?;
        let changed = states[0].cells.get(&rules_key());
        let has_changed = changed.is_some_and(|cell| since.is_some_and(|since| cell.place > since));
        match &told.rules {
            Some(rules) if told.is_full || has_changed => told_rules(user, states, rules),
            Some(_) => Err("push rules are told though they did not change".to_owned()),
            None if told.is_full || has_changed => Err("push rules are missing".to_owned()),
            None => Ok(()),
        }
    }

    fn told_entries(&self, since: Option<u64>, told: &Told) -> Result<(), String> {
        let Range { min, max } = self.head;
        if told.head < min || told.head > max {
            return Err(format!("the head is {:?}", self.head));
        }
        let since = since.filter(|since| *since <= told.head);
        let must_be_full = since.is_none_or(|since| since < self.horizon.min);
        let may_be_full = since.is_none_or(|since| since < self.horizon.max);
        if (told.is_full && !may_be_full) || (!told.is_full && must_be_full) {
            return Err(format!("the horizon is {:?}", self.horizon));
        }
        let mut last = since.filter(|_| !told.is_full).unwrap_or(0);
        for entry in &told.entries {
            if entry.position <= last || entry.position > told.head {
                return Err(format!("{entry:?} is out of order"));
            }
            last = entry.position;
        }
        let since = since.filter(|_| !told.is_full);
        self.expected(since, told)
    }

    /// Tells whether everything may be told so where it was looked for changes in this state, and for
    /// all that is live in the first of the later ones.
    pub(super) fn told_everything(
        &self,
        user: &UserId,
        states: &[Self],
        since: Option<u64>,
        told: &Told,
    ) -> Result<(), String> {
        if told.head < self.head.min || told.head > self.head.max {
            return Err(format!("the head is {:?}", self.head));
        }
        let Some(rules) = told.rules.as_ref().filter(|_| told.is_full) else {
            return Err("it is not everything".to_owned());
        };
        told_rules(user, states, rules)?;
        let later = &states[0];
        let entries = told.entries.iter().cloned();
        let (live, gone): (Vec<_>, Vec<_>) = entries.partition(|entry| entry.text.is_some());
        let live = Told {
            entries: live,
            ..told.clone()
        };
        later.expected(None, &live)?;
        let gone = gone.into_iter().map(|entry| (entry.key.clone(), entry));
        let mut gone: BTreeMap<Key, ToldEntry> = gone.collect();
        let since = since.filter(|since| *since <= told.head && *since >= self.horizon.min);
        for (key, cell) in self.cells.iter().filter(|(_, cell)| cell.text.is_none()) {
            let is_due = since.is_some_and(|since| cell.place > since) && later.live(key).is_none();
            let may_be_left_out =
                cell.may_be_gone || since.is_some_and(|since| since < self.horizon.max);
            match gone.remove(key) {
                Some(entry) if is_due => cell.matches(&entry)?,
                Some(entry) => return Err(format!("{entry:?} is told without need")),
                None if is_due && !may_be_left_out => return Err(format!("{key:?} is missing")),
                None => {}
            }
        }
        let unknown = gone.into_values().next();
        unknown.map_or(Ok(()), |entry| Err(format!("nobody deleted {entry:?}")))
    }

    fn expected(&self, since: Option<u64>, told: &Told) -> Result<(), String> {
        let mut entries: BTreeMap<&Key, &ToldEntry> = BTreeMap::new();
        for entry in &told.entries {
            if entries.insert(&entry.key, entry).is_some() {
                return Err(format!("{entry:?} is told twice"));
            }
        }
        for (key, cell) in self.cells.iter().filter(|(key, _)| **key != rules_key()) {
            let is_due = match since {
                Some(since) => cell.place > since,
                None => cell.text.is_some(),
            };
            match entries.remove(key).filter(|_| is_due) {
                Some(entry) => cell.matches(entry)?,
                None if is_due && !cell.may_be_gone => {
                    return Err(format!("{key:?} is missing: {:?}", cell.text));
                }
                None if told.entries.iter().any(|entry| entry.key == *key) => {
                    return Err(format!("{key:?} is told though it did not change"));
                }
                None => {}
            }
        }
        let unknown = entries.into_values().next();
        unknown.map_or(Ok(()), |entry| Err(format!("nobody wrote {entry:?}")))
    }

    /// Returns why an operation is refused; several reasons where the order is nobody's business.
    fn accepts(&self, event: &Event, limits: &Limits) -> Result<(), Vec<Why>> {
        let refused = |why| Err(vec![why]);
        if let Call::Put(key, ..) | Call::Erase(key, _) | Call::Delete(key) = &event.call {
            let own = event.who.as_ref().map(|(device, _)| device);
            let other = key.scope.device().filter(|device| Some(*device) != own);
            if other.is_some_and(|device| !self.devices.contains_key(device)) {
                return refused(Why::NoSuchDevice);
            }
            if ["m.push_rules", "m.fully_read"].contains(&key.event_type.as_str()) {
                return refused(Why::ServerManaged);
            }
            if other.is_some() {
                return refused(Why::NotOwnDevice);
            }
        }
        match &event.call {
            Call::Get(_) | Call::Sync(_) | Call::Everything(_) => return Ok(()),
            Call::Login(_) if self.is_ended => return refused(Why::LoginRefused),
            Call::Login(_) => return Ok(()),
            _ if !self.admits(event) => return refused(Why::SessionGone),
            _ => {}
        }
        if let Call::Edit(number) = &event.call {
            let over = self.over_quota(&rules_key(), &self.edited(*number), limits);
            return if over.is_empty() { Ok(()) } else { Err(over) };
        }
        let (key, text, expectation) = match &event.call {
            Call::Put(key, text, expectation) => (key, &**text, expectation),
            // It puts the empty object and deletes that.
            Call::Erase(key, expectation) => (key, "{}", expectation),
            _ => return Ok(()),
        };
        if let Some(stored) = self.live(key)
            && differs(stored, expectation)
        {
            return refused(Why::Conflict(Arc::clone(stored)));
        }
        let over = self.over_quota(key, text, limits);
        if over.is_empty() { Ok(()) } else { Err(over) }
    }

    fn admits(&self, event: &Event) -> bool {
        !self.is_ended
            && event
                .who
                .as_ref()
                .is_none_or(|(device, incarnation)| self.devices.get(device) == Some(incarnation))
    }

    fn over_quota(&self, key: &Key, text: &str, limits: &Limits) -> Vec<Why> {
        let sizes = self.cells.iter().filter_map(|(key, cell)| {
            let text = cell.text.as_ref()?;
            Some(size_bytes(key, text))
        });
        let (entries, bytes) = sizes.fold((0, 0), |(n, sum), size| (n + 1, sum + size));
        let old = self.live(key).map(|text| size_bytes(key, text));
        let new = size_bytes(key, text);
        let mut over = Vec::new();
        if old.is_none() && entries >= limits.quota.entries_max {
            over.push(Why::QuotaEntries);
        }
        let old_bytes = old.unwrap_or(0);
        if new > old_bytes && bytes - old_bytes + new > limits.quota.bytes_max {
            over.push(Why::QuotaBytes);
        }
        if old.is_none() && matches!(key.scope, Scope::Device(_)) {
            let siblings = self.cells.iter();
            let siblings = siblings.filter(|(k, c)| k.scope == key.scope && c.text.is_some());
            if siblings.count() as u64 >= limits.quota.device_entries_max {
                over.push(Why::QuotaDevice);
            }
        }
        over
    }

    /// Returns what is stored of the push rules once a number was noted: the last ones stay.
    fn edited(&self, number: u64) -> String {
        let stored = self.live(&rules_key());
        let mut noted: Vec<u64> = stored.map_or_else(Vec::new, |text| {
            let stored: serde_json::Value = serde_json::from_str(text).unwrap();
            let noted = stored["noted"].as_array().unwrap().iter();
            noted.map(|number| number.as_u64().unwrap()).collect()
        });
        noted.push(number);
        let surplus = noted.len().saturating_sub(NOTED_MAX);
        serde_json::json!({"noted": noted[surplus..]}).to_string()
    }

    fn live(&self, key: &Key) -> Option<&Arc<str>> {
        self.cells.get(key)?.text.as_ref()
    }

    fn write(
        &mut self,
        event: &Event,
        key: &Key,
        text: Option<Arc<str>>,
        place: u64,
        position: Range,
    ) {
        let cell = Cell {
            text,
            place,
            position,
            at: event.at,
            writer: event.who.as_ref().map(|(device, _)| device.clone()),
            may_be_gone: false,
        };
        self.cells.insert(key.clone(), cell);
    }

    fn remove(
        &mut self,
        event: &Event,
        selection: &DeviceSelection,
        place: u64,
        span: Range,
        limits: &Limits,
    ) -> Vec<DeviceId> {
        let is_selected = |device: &&DeviceId| match selection {
            DeviceSelection::All => true,
            DeviceSelection::AllExcept(kept) => kept != *device,
            DeviceSelection::These(these) => these.contains(device),
        };
        let removed: Vec<DeviceId> = self.devices.keys().filter(is_selected).cloned().collect();
        let mut has_dropped = false;
        for device in &removed {
            self.devices.remove(device);
            let notifications = [
                format!("m.local_notification_settings.{device}"),
                format!("org.matrix.msc3890.local_notification_settings.{device}"),
            ];
            let goes = |key: &Key| match &key.scope {
                Scope::Global => notifications.contains(&key.event_type.to_string()),
                Scope::Room(_) => false,
                Scope::Device(owner) => owner == device,
            };
            let keys: Vec<Key> = self.cells.keys().filter(|key| goes(key)).cloned().collect();
            for key in keys {
                if self.live(&key).is_some() {
                    self.write(event, &key, None, place, span);
                    has_dropped = true;
                }
            }
        }
        if has_dropped {
            self.collect(event.at, limits);
        }
        removed
    }

    fn end(&mut self, place: u64) {
        let beyond = Range {
            min: place,
            max: u64::MAX,
        };
        *self = Self {
            is_ended: true,
            head: beyond,
            horizon: beyond,
            ..Self::default()
        };
    }

    /// Collects tombstones behind a deletion: those too old, and the oldest of those too many.
    ///
    /// Which of one removal's tombstones is the oldest is not known: any of them may go.
    fn collect(&mut self, now: UnixMs, limits: &Limits) {
        self.collect_aged(now, limits, true);
        let tombstones = self.cells.iter().filter(|(_, cell)| cell.text.is_none());
        let mut all: Vec<(u64, Key, bool)> = tombstones
            .map(|(key, cell)| (cell.place, key.clone(), cell.may_be_gone))
            .collect();
        all.sort();
        let mut certain = all.clone();
        certain.retain(|(.., may_be_gone)| !may_be_gone);
        let kept = usize::try_from(limits.tombstones_max).unwrap();
        let surplus = |list: &[_]| list.len().saturating_sub(kept);
        if let Some(at) = surplus(&all).checked_sub(1) {
            let last = all[at].0;
            for (_, key, _) in all.iter().filter(|(place, ..)| *place <= last) {
                self.drop_tombstone(key, false);
            }
        }
        if let Some(at) = surplus(&certain).checked_sub(1) {
            let last = certain[at].0;
            let is_whole = certain.get(at + 1).is_none_or(|(place, ..)| *place > last);
            for (place, key, _) in certain.iter().filter(|(place, ..)| *place <= last) {
                if *place < last || is_whole {
                    self.drop_tombstone(key, true);
                } else {
                    self.horizon.min = self.horizon.min.max(*place);
                }
            }
        }
    }

    /// Collects tombstones that are too old; where it `must` not happen it may.
    fn collect_aged(&mut self, now: UnixMs, limits: &Limits, must: bool) {
        let aged = |cell: &Cell| {
            cell.text.is_none() && now.saturating_sub(cell.at) > limits.tombstone_age_ms_max
        };
        let aged = self.cells.iter().filter(|(_, cell)| aged(cell));
        let aged: Vec<Key> = aged.map(|(key, _)| key.clone()).collect();
        for key in aged {
            self.drop_tombstone(&key, must);
        }
    }

    fn drop_tombstone(&mut self, key: &Key, certain: bool) {
        let cell = self.cells.get_mut(key).expect("the caller found it");
        let Range { min, max } = cell.position;
        self.horizon.max = self.horizon.max.max(max);
        cell.may_be_gone = true;
        if certain {
            self.horizon.min = self.horizon.min.max(min);
            self.cells.remove(key);
        }
    }
}

impl Cell {
    fn matches(&self, entry: &ToldEntry) -> Result<(), String> {
        let Range { min, max } = self.position;
        let fits = entry.text == self.text
            && (min..=max).contains(&entry.position)
            && entry.writer == self.writer
            && entry.at == self.at;
        if fits {
            return Ok(());
        }
        Err(format!("{entry:?} (by {:?}) is not {self:?}", entry.writer))
    }
}

/// Where the changes of push rules are kept; they are told as they are served, not as an entry.
fn rules_key() -> Key {
    global("m.push_rules")
}

/// What is served of what is stored: by the rules of the driver.
fn served(user: &UserId, stored: Option<&str>) -> String {
    let stored = stored.unwrap_or("null");
    format!("{{\"global\":{{}},\"user\":\"{user}\",\"stored\":{stored}}}")
}

/// Tells whether push rules may be told so. Who has changed none at the moment of the snapshot is
/// looked up once more, perhaps a little later.
fn told_rules(user: &UserId, states: &[State], rules: &str) -> Result<(), String> {
    let in_state = |state: &State| served(user, state.live(&rules_key()).map(|text| &**text));
    let has_changed = states[0].live(&rules_key()).is_some();
    let may_be = if has_changed { &states[..1] } else { states };
    if may_be.iter().any(|state| in_state(state) == rules) {
        return Ok(());
    }
    Err(format!("the push rules are {}", in_state(&states[0])))
}

fn size_bytes(key: &Key, text: &str) -> u64 {
    let place = match &key.scope {
        Scope::Global => 0,
        Scope::Room(room) => room.as_str().len(),
        Scope::Device(device) => device.as_str().len(),
    };
    (place + key.event_type.as_str().len() + text.len()) as u64
}

/// MSC4547: a string revision differs from an expected one.
fn differs(stored: &str, expectation: &Expectation) -> bool {
    let pairs = [
        (RevisionNames::Stable, &expectation.stable),
        (RevisionNames::Unstable, &expectation.unstable),
    ];
    pairs.into_iter().any(|(names, expected)| {
        let revision = revision(stored, names);
        revision.is_some_and(|is| expected.as_ref().is_some_and(|expected| is != *expected))
    })
}
