//! [`EntryStore`]: each call is one job of a reader or of the writer.

mod read;
mod write;

use std::sync::atomic::Ordering;

use kitbag_domain::{
    Applied, ApplyError, BoxFuture, Changes, Entry, EntryStore, Key, Op, Position, Selector,
    StoreError, StoreInfo, Subscription, UpdateFn, UserId, Write,
};

use crate::SqliteStore;
use crate::writer::Weight;
pub(crate) use write::{UserRow, user_row};

impl EntryStore for SqliteStore {
    fn info(&self) -> StoreInfo {
        StoreInfo { epoch: self.epoch }
    }

    fn takes_writes(&self) -> bool {
        !self.counters.is_mending.load(Ordering::Relaxed)
    }

    fn get(&self, user: &UserId, key: &Key) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        let (user, key) = (user.clone(), key.clone());
        self.reads
            .submit(move |connection| read::live(connection, &user, &key))
    }

    fn list(
        &self,
        user: &UserId,
        selector: Selector,
    ) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        let user = user.clone();
        self.reads
            .submit(move |connection| read::list(connection, &user, &selector))
    }

    fn changes(
        &self,
        user: &UserId,
        after: Option<Position>,
    ) -> BoxFuture<'_, Result<Changes, StoreError>> {
        let user = user.clone();
        self.reads
            .submit(move |connection| read::changes(connection, &user, after))
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
        self.writes.submit(Weight::default(), move |tx| {
            write::update(tx, &user, &write, key, update)
        })
    }

    fn subscribe(&self, user: &UserId) -> Subscription {
        self.wakeups.subscribe(user)
    }
}

fn content_bytes(op: &Op) -> u64 {
    match op {
        Op::Delete(_) => 0,
        Op::Put(_, content, _) => content.size_bytes(),
    }
}
