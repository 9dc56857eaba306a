//! [`EntryStore`]: each call is one job of a reader or of the writer.

mod describe;
mod read;
mod users;
mod write;

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kitbag_domain::{
    Applied, ApplyError, BoxFuture, Changes, Content, Entry, EntryDescription, EntryStore, Key,
    Live, Op, Position, Selector, SessionAndEntry, StoreError, StoreInfo, Subscription, TokenHash,
    UpdateFn, UserId, Write,
};

use rusqlite::Connection;

use crate::SqliteStore;
use crate::cache::{Item, Value};
use crate::error::Failure;
use crate::writer::Weight;
pub(crate) use read::list;
pub(crate) use users::{Ledger, UserRow, user_row};

impl EntryStore for SqliteStore {
    fn info(&self) -> StoreInfo {
        StoreInfo { epoch: self.epoch }
    }

    fn takes_writes(&self) -> bool {
        !self.counters.is_mending.load(Ordering::Relaxed)
    }

    fn peek(&self, user: &UserId, key: &Key) -> Option<Option<Content>> {
        self.cache.look(user, &Item::Entry(key), Value::content)
    }

    fn peek_head(&self, user: &UserId) -> Option<Position> {
        match self.cache.get(user, &Item::Head) {
            Some(Value::Head(known)) => known,
            _ => None,
        }
    }

    fn get(&self, user: &UserId, key: &Key) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        if let Some(Value::Entry(known)) = self.cache.get(user, &Item::Entry(key)) {
            return Box::pin(ready(Ok(known)));
        }
        let (user, key, cache) = (user.clone(), key.clone(), Arc::clone(&self.cache));
        self.reads.submit(move |connection| {
            let read = || read::live(connection, &user, &key);
            cache.read_through(&user, &Item::Entry(&key), Value::Entry, read)
        })
    }

    fn get_in_session(
        &self,
        user: &UserId,
        access: TokenHash,
        key: &Key,
    ) -> BoxFuture<'_, Result<Option<SessionAndEntry>, StoreError>> {
        let (user, key, cache) = (user.clone(), key.clone(), Arc::clone(&self.cache));
        self.reads.submit(move |connection| {
            let read = || read::live_in_session(connection, &user, access, &key);
            cache.read_with(&user, read, |found, keep| {
                let session = found.as_ref().map(|(session, _)| session.clone());
                keep(&Item::Session(&access), Value::Session(session));
                if let Some((_, entry)) = found {
                    keep(&Item::Entry(&key), Value::Entry(entry.clone()));
                }
            })
        })
    }

    fn list(
        &self,
        user: &UserId,
        selector: Selector,
    ) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        let user = user.clone();
        self.reads
            .submit(move |connection| list(connection, &user, &selector))
    }

    fn describe(
        &self,
        user: &UserId,
        selector: Selector,
        after: Option<Key>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<EntryDescription>, StoreError>> {
        let user = user.clone();
        self.reads.submit(move |connection| {
            describe::page(connection, &user, &selector, after.as_ref(), limit)
        })
    }

    fn changes(
        &self,
        user: &UserId,
        after: Option<Position>,
    ) -> BoxFuture<'_, Result<Changes, StoreError>> {
        let nothing = |value: &Value| match value {
            Value::Head(head) => read::nothing_new(*head, after),
            _ => None,
        };
        if let Some(nothing) = self.cache.look(user, &Item::Head, nothing) {
            return Box::pin(ready(Ok(nothing)));
        }
        self.read_with_head(user, move |connection, user| {
            read::changes(connection, user, after)
        })
    }

    fn live(&self, user: &UserId) -> BoxFuture<'_, Result<Live, StoreError>> {
        self.read_with_head(user, read::all_live)
    }

    fn apply(
        &self,
        user: &UserId,
        write: Write,
        ops: Vec<Op>,
    ) -> BoxFuture<'_, Result<Applied, ApplyError>> {
        let user = user.clone();
        let weight = Weight {
            bytes: ops.iter().map(content_bytes).sum(),
            // A later operation may be refused by what an earlier one did.
            needs_savepoint: ops.len() > 1,
            keeps_ledger: true,
        };
        self.writes
            .submit(weight, move |tx| write::apply(tx, &user, &write, ops))
    }

    fn update(
        &self,
        user: &UserId,
        write: Write,
        key: Key,
        update: UpdateFn,
    ) -> BoxFuture<'_, Result<Applied, ApplyError>> {
        let user = user.clone();
        let weight = Weight {
            keeps_ledger: true,
            ..Weight::default()
        };
        self.writes.submit(weight, move |tx| {
            write::update(tx, &user, &write, key, update)
        })
    }

    fn subscribe(&self, user: &UserId) -> Subscription {
        self.wakeups.subscribe(user)
    }
}

impl SqliteStore {
    /// Reads, and keeps the head of the stream that `read` found, if it cannot be outdated.
    fn read_with_head<T: Send + 'static>(
        &self,
        user: &UserId,
        read: impl FnOnce(&Connection, &UserId) -> Result<(Option<Position>, T), Failure>
        + Send
        + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (user, cache) = (user.clone(), Arc::clone(&self.cache));
        self.reads.submit(move |connection| {
            let read = || read(connection, &user);
            let read = cache.read_with(&user, read, |(head, _), keep| {
                keep(&Item::Head, Value::Head(*head));
            });
            read.map(|(_, found)| found)
        })
    }
}

fn content_bytes(op: &Op) -> u64 {
    match op {
        Op::Delete(_) => 0,
        Op::Put(_, content, _) => content.size_bytes(),
    }
}
