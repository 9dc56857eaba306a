//! The numbers of the changes of device account data, as the writer gives them.
//!
//! One stream for all users, headed by `store.feed_head`. The store's row is written once a batch,
//! and only where device data changed.

use std::cell::Cell;

use rusqlite::Connection;

use crate::error::Failure;
use crate::rows::{first, int, run};

/// Where the stream stands within a batch.
#[derive(Debug, Default)]
pub(crate) struct Feed(Cell<Option<Heads>>);

/// The numbers of the store's row, as they will be written; `None` where nothing moved them.
pub(crate) type Moved = Option<Heads>;

/// The head and the floor of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heads {
    /// The number of the latest change.
    pub(crate) head: u64,
    /// The highest number of a deletion that was collected.
    pub(crate) floor: u64,
}

impl Heads {
    /// Reads them from the store's row.
    pub(crate) fn read(connection: &Connection) -> Result<Self, Failure> {
        const SQL: &str = "SELECT feed_head, feed_floor FROM store WHERE id = 1";
        let heads = first(connection, SQL, [], |row| {
            let (head, floor) = (row.get(0)?, row.get(1)?);
            Ok(Self { head, floor })
        })?;
        heads.ok_or_else(|| Failure::Row("the store has lost its own row".to_owned()))
    }
}

impl Feed {
    /// Returns the number of a change, which is thereby taken.
    pub(crate) fn take_number(&self, connection: &Connection) -> Result<i64, Failure> {
        let mut heads = self.heads(connection)?;
        heads.head += 1;
        self.0.set(Some(heads));
        Ok(int(heads.head))
    }

    /// Notes that the deletion of that number is not told of any more.
    pub(crate) fn collect(&self, connection: &Connection, number: u64) -> Result<(), Failure> {
        let mut heads = self.heads(connection)?;
        heads.floor = heads.floor.max(number);
        self.0.set(Some(heads));
        Ok(())
    }

    /// Returns what moved so far, for [`Self::go_back`].
    pub(crate) fn moved(&self) -> Moved {
        self.0.get()
    }

    /// Forgets what a refused job moved.
    pub(crate) fn go_back(&self, moved: Moved) {
        self.0.set(moved);
    }

    /// Writes what moved into the store's row; returns the head where anything did.
    pub(crate) fn save(&self, connection: &Connection) -> Result<Option<u64>, Failure> {
        const SQL: &str = "UPDATE store SET feed_head = ?1, feed_floor = ?2 WHERE id = 1";
        let Some(Heads { head, floor }) = self.0.get() else {
            return Ok(None);
        };
        run(connection, SQL, (int(head), int(floor)))?;
        Ok(Some(head))
    }

    fn heads(&self, connection: &Connection) -> Result<Heads, Failure> {
        match self.0.get() {
            Some(heads) => Ok(heads),
            None => Heads::read(connection),
        }
    }
}
