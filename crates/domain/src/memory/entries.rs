use super::{MemoryStore, UserState};
use crate::{
    Applied, ApplyError, Before, BoxFuture, Change, Changes, Content, Decision, Entry,
    EntryDescription, EntryStore, Key, Limits, Live, LiveEntry, Op, Position, Refusal, Scope,
    Selector, SessionAndEntry, StoreError, StoreInfo, Subscription, TokenHash, UpdateFn, UserId,
    Write, conflicts, decide,
};

impl EntryStore for MemoryStore {
    fn info(&self) -> StoreInfo {
        StoreInfo { epoch: self.epoch }
    }

    fn peek_head(&self, user: &UserId) -> Option<Position> {
        self.users().get(user).map(|state| state.position)
    }

    fn get(&self, user: &UserId, key: &Key) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        let entry = self
            .users()
            .get(user)
            .and_then(|state| state.live(key).cloned());
        Box::pin(async { Ok(entry) })
    }

    fn get_in_session(
        &self,
        user: &UserId,
        access: TokenHash,
        key: &Key,
    ) -> BoxFuture<'_, Result<Option<SessionAndEntry>, StoreError>> {
        let users = self.users();
        let found = users.get(user).and_then(|state| {
            let session = state.session(access)?;
            Some((session, state.live(key).cloned()))
        });
        Box::pin(async { Ok(found) })
    }

    fn list(
        &self,
        user: &UserId,
        selector: Selector,
    ) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        let users = self.users();
        let entries = users
            .get(user)
            .into_iter()
            .flat_map(|state| state.entries.values());
        let selected =
            |entry: &&Entry| entry.content.is_some() && selector.matches(&entry.key.scope);
        let entries = entries.filter(selected).cloned().collect();
        drop(users);
        Box::pin(async { Ok(entries) })
    }

    fn describe(
        &self,
        user: &UserId,
        selector: Selector,
        after: Option<Key>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<EntryDescription>, StoreError>> {
        let users = self.users();
        let entries = users
            .get(user)
            .into_iter()
            .flat_map(|state| state.entries.values());
        let selected = |entry: &&Entry| {
            let is_behind = after.as_ref().is_none_or(|after| entry.key > *after);
            is_behind && entry.content.is_some() && selector.matches(&entry.key.scope)
        };
        let entries = entries.filter(selected).take(limit);
        let described = entries.map(EntryDescription::from).collect();
        drop(users);
        Box::pin(async { Ok(described) })
    }

    fn changes(
        &self,
        user: &UserId,
        after: Option<Position>,
    ) -> BoxFuture<'_, Result<Changes, StoreError>> {
        let nothing = Changes {
            head: Position::ZERO,
            is_full: true,
            entries: Vec::new(),
        };
        let changes = self
            .users()
            .get(user)
            .map_or(nothing, |state| state.changes(after));
        Box::pin(async { Ok(changes) })
    }

    fn live(&self, user: &UserId) -> BoxFuture<'_, Result<Live, StoreError>> {
        let users = self.users();
        let changes = users.get(user).map(|state| state.changes(None));
        drop(users);
        let live = changes.map_or_else(Live::default, |changes| {
            let mut live = Live::with_capacity(changes.head, changes.entries.len(), 0);
            let entries = changes.entries.iter().map(LiveEntry::of);
            entries.for_each(|entry| live.push(entry));
            live
        });
        Box::pin(async { Ok(live) })
    }

    fn apply(
        &self,
        user: &UserId,
        write: Write,
        ops: Vec<Op>,
    ) -> BoxFuture<'_, Result<Applied, ApplyError>> {
        let applied = self.write(user, &write.guard, |state| {
            // All or nothing: a copy takes the changes until the last operation was admitted.
            let mut draft = state.draft();
            let mut positions = Vec::with_capacity(ops.len());
            for op in ops {
                let (key, content) = draft.admit(op)?;
                positions.push(draft.write_entry(&self.limits, &write, key, content)?);
            }
            state.adopt(draft);
            Ok(Applied { positions })
        });
        Box::pin(async { applied })
    }

    fn update(
        &self,
        user: &UserId,
        write: Write,
        key: Key,
        update: UpdateFn,
    ) -> BoxFuture<'_, Result<Applied, ApplyError>> {
        let applied = self.write(user, &write.guard, |state| {
            state.check_device(&key)?;
            let content = match update(state.live(&key)) {
                Change::Keep => {
                    return Ok(Applied {
                        positions: vec![None],
                    });
                }
                Change::Delete => None,
                Change::Put(content) => Some(content),
            };
            let position = state.write_entry(&self.limits, &write, key, content)?;
            Ok(Applied {
                positions: vec![position],
            })
        });
        Box::pin(async { applied })
    }

    fn subscribe(&self, user: &UserId) -> Subscription {
        self.wakeups.subscribe(user)
    }
}

impl UserState {
    pub(super) fn live(&self, key: &Key) -> Option<&Entry> {
        self.entries
            .get(key)
            .filter(|entry| entry.content.is_some())
    }

    /// Checks what must hold before an operation; returns what it writes, `None` being deletion.
    fn admit(&self, op: Op) -> Result<(Key, Option<Content>), Refusal> {
        match op {
            Op::Delete(key) => Ok((key, None)),
            Op::Put(key, content, expectation) => {
                self.check_device(&key)?;
                let stored = self.live(&key).and_then(|entry| entry.content.as_ref());
                match stored.filter(|_| conflicts(stored, &expectation)) {
                    Some(current) => Err(Refusal::Conflict {
                        current: current.clone(),
                    }),
                    None => Ok((key, Some(content))),
                }
            }
        }
    }

    fn check_device(&self, key: &Key) -> Result<(), Refusal> {
        match &key.scope {
            Scope::Device(device) if self.incarnation(device).is_none() => {
                Err(Refusal::NoSuchDevice)
            }
            _ => Ok(()),
        }
    }

    fn changes(&self, after: Option<Position>) -> Changes {
        let known = |after: &Position| *after >= self.horizon && *after <= self.position;
        let after = after.filter(known);
        let wanted = |entry: &&Entry| match after {
            Some(after) => entry.position > after,
            None => entry.content.is_some(),
        };
        let mut entries: Vec<Entry> = self.entries.values().filter(wanted).cloned().collect();
        entries.sort_by_key(|entry| entry.position);
        Changes {
            head: self.position,
            is_full: after.is_none(),
            entries,
        }
    }

    /// Decides on one write and makes it; `None` deletes.
    pub(super) fn write_entry(
        &mut self,
        limits: &Limits,
        write: &Write,
        key: Key,
        content: Option<Content>,
    ) -> Result<Option<Position>, ApplyError> {
        let in_scope = |entry: &&Entry| entry.content.is_some() && entry.key.scope == key.scope;
        let before = Before {
            live_bytes: self.live(&key).map(Entry::size_bytes),
            usage: self.usage,
            device_entries: self.entries.values().filter(in_scope).count() as u64,
        };
        let decision = decide(&key, content, write.allowance, &limits.quota, before);
        let (content, usage) = match decision.map_err(Refusal::from)? {
            Decision::Nothing => return Ok(None),
            Decision::Delete(usage) => (None, usage),
            Decision::Put(content, usage) => (Some(content), usage),
        };
        self.usage = usage;
        let position = self.take_position();
        let is_tombstone = content.is_none();
        let (writer, written_at) = (write.writer.clone(), write.at);
        let entry = Entry {
            key: key.clone(),
            content,
            position,
            writer,
            written_at,
        };
        self.entries.insert(key, entry);
        if is_tombstone {
            self.collect_tombstones(limits, write.at);
        }
        Ok(Some(position))
    }

    /// Returns a copy of what [`UserState::write_entry`] changes.
    fn draft(&self) -> Self {
        let mut draft = Self::new(self.account.clone());
        draft.position = self.position;
        draft.horizon = self.horizon;
        draft.usage = self.usage;
        draft.entries = self.entries.clone();
        draft.devices = self.devices.clone();
        draft
    }

    fn adopt(&mut self, draft: Self) {
        self.position = draft.position;
        self.horizon = draft.horizon;
        self.usage = draft.usage;
        self.entries = draft.entries;
    }
}
