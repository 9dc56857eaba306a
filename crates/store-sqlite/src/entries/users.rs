//! The rows of users, and what the writer remembers of them.
//!
//! One thread writes, so what a write read or changed of a user the next one need not ask the file:
//! a put finds its user's row, its own device and often the row of its entry in the [`Ledger`], and
//! a user who puts often has the user's row written once in a batch.

use std::collections::HashMap;
use std::mem;

use kitbag_domain::{DeviceId, Guard, Incarnation, Key, Position, Usage, UserId};
use rusqlite::Connection;

use crate::error::Failure;
use crate::options::limit;
use crate::rows::{first, int, run};
use crate::writer::Tx;

/// What every change of a user's data moves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UserRow {
    pub(crate) id: i64,
    pub(crate) position: Position,
    pub(super) horizon: Position,
    pub(super) usage: Usage,
    /// Whether the write under way has taken a position.
    is_moved: bool,
    /// Whether the write under way has deleted something.
    pub(super) has_new_tombstones: bool,
}

/// What the writer knows of users without asking the file.
///
/// It belongs to the writes of entries. Whatever else writes finds all of it in the file, and leaves
/// it empty; so does a batch that is not committed.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    users: HashMap<UserId, Known>,
    /// Whose rows are newer here than in the file.
    unsaved: Vec<UserId>,
    /// Entries that were added since nothing was known; some may have been forgotten.
    entries: usize,
    /// What SQLite counts up where another program has written.
    version: i64,
}

#[derive(Debug)]
struct Known {
    row: UserRow,
    is_saved: bool,
    /// Devices that are there, some of them.
    devices: Vec<(DeviceId, Incarnation)>,
    /// Live entries that are there, some of them.
    entries: HashMap<Key, Stored>,
}

/// What a write must know of the entry or tombstone in whose place it comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    /// The number of its row.
    pub(super) row: i64,
    /// What it counts towards the quota; `None` for a tombstone.
    pub(super) live_bytes: Option<u64>,
}

impl Ledger {
    /// Begins a batch: forgets what another program may have changed, and what is too much.
    pub(crate) fn begin(&mut self, connection: &Connection) -> Result<(), Failure> {
        let version = first(connection, "PRAGMA data_version", [], |row| Ok(row.get(0)?))?;
        let version = version.unwrap_or_default();
        let is_full = self.users.len() > limit::LEDGER_USERS_MAX;
        if self.version != version || is_full || self.entries > limit::LEDGER_ENTRIES_MAX {
            self.clear();
            self.version = version;
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.users.clear();
        self.entries = 0;
    }

    /// Brings the file up to date; returns whose streams have moved since, and where to.
    pub(crate) fn settle(
        &mut self,
        connection: &Connection,
    ) -> Result<Vec<(UserId, Position)>, Failure> {
        let unsaved = mem::take(&mut self.unsaved);
        let mut moved = Vec::with_capacity(unsaved.len());
        for user in unsaved {
            if let Some(known) = self.users.get_mut(&user) {
                known.row.write(connection)?;
                known.is_saved = true;
                moved.push((user, known.row.position));
            }
        }
        Ok(moved)
    }

    /// Brings the file up to date and forgets everything, since rows are about to change unseen.
    pub(crate) fn close(
        &mut self,
        connection: &Connection,
    ) -> Result<Vec<(UserId, Position)>, Failure> {
        let moved = self.settle(connection);
        self.clear();
        moved
    }

    fn keep(&mut self, user: &UserId, row: UserRow) {
        let known = Known {
            row,
            is_saved: true,
            devices: Vec::new(),
            entries: HashMap::new(),
        };
        self.users.insert(user.clone(), known);
    }

    fn change(&mut self, user: &UserId, row: UserRow) {
        if let Some(known) = self.users.get_mut(user) {
            known.row = row;
            if mem::replace(&mut known.is_saved, false) {
                self.unsaved.push(user.clone());
            }
        }
    }

    /// Returns the row of a live entry, if it is known.
    pub(super) fn entry(&self, user: &UserId, key: &Key) -> Option<Stored> {
        self.users.get(user)?.entries.get(key).copied()
    }

    /// Keeps what became of an entry that was written. What is a tombstone now is forgotten: it may
    /// be collected.
    pub(super) fn keep_entry(&mut self, user: &UserId, key: &Key, stored: Stored) {
        let Some(known) = self.users.get_mut(user) else {
            return;
        };
        if stored.live_bytes.is_none() {
            known.entries.remove(key);
        } else if let Some(kept) = known.entries.get_mut(key) {
            *kept = stored;
        } else {
            known.entries.insert(key.clone(), stored);
            self.entries += 1;
        }
    }

    fn incarnation(&self, user: &UserId, device: &DeviceId) -> Option<Incarnation> {
        let mut devices = self.users.get(user)?.devices.iter();
        let (_, incarnation) = devices.find(|(id, _)| id == device)?;
        Some(*incarnation)
    }

    fn keep_device(&mut self, user: &UserId, device: &DeviceId, incarnation: Incarnation) {
        if let Some(known) = self.users.get_mut(user) {
            if known.devices.len() >= limit::LEDGER_DEVICES_MAX {
                known.devices.clear();
            }
            known.devices.push((device.clone(), incarnation));
        }
    }
}

/// Returns the user's row where the guard holds.
pub(crate) fn user_row(
    tx: &mut Tx<'_>,
    user: &UserId,
    guard: &Guard,
) -> Result<Option<UserRow>, Failure> {
    let known = tx.ledger.as_ref().and_then(|ledger| ledger.users.get(user));
    let row = match known {
        Some(known) => Some(known.row),
        None => read(tx, user)?,
    };
    match (row, guard) {
        (Some(row), Guard::Device(device, expected)) => {
            let incarnation = incarnation(tx, user, row.id, device)?;
            Ok((incarnation == Some(*expected)).then_some(row))
        }
        (row, _) => Ok(row),
    }
}

fn read(tx: &mut Tx<'_>, user: &UserId) -> Result<Option<UserRow>, Failure> {
    const SQL: &str = "
        SELECT id, position, horizon, entries, bytes FROM users
        WHERE name = ?1 AND deactivated_at IS NULL";
    let row = first(tx.connection, SQL, [user.as_str()], |row| {
        Ok(UserRow {
            id: row.get(0)?,
            position: Position(row.get(1)?),
            horizon: Position(row.get(2)?),
            usage: Usage {
                entries: row.get(3)?,
                bytes: row.get(4)?,
            },
            is_moved: false,
            has_new_tombstones: false,
        })
    })?;
    if let (Some(row), Some(ledger)) = (row, &mut tx.ledger) {
        ledger.keep(user, row);
    }
    Ok(row)
}

/// Returns which device of that ID the user has.
pub(super) fn incarnation(
    tx: &mut Tx<'_>,
    user: &UserId,
    id: i64,
    device: &DeviceId,
) -> Result<Option<Incarnation>, Failure> {
    const SQL: &str = "SELECT incarnation FROM devices WHERE user = ?1 AND name = ?2";
    let known = tx.ledger.as_ref();
    if let Some(known) = known.and_then(|ledger| ledger.incarnation(user, device)) {
        return Ok(Some(known));
    }
    let found = first(tx.connection, SQL, (id, device.as_str()), |row| {
        Ok(Incarnation(row.get(0)?))
    })?;
    if let (Some(found), Some(ledger)) = (found, &mut tx.ledger) {
        ledger.keep_device(user, device, found);
    }
    Ok(found)
}

impl UserRow {
    /// Returns the next position, which is thereby taken.
    pub(crate) fn take_position(&mut self) -> Position {
        self.position = self.position.next();
        self.is_moved = true;
        self.position
    }

    /// Keeps what the write has changed, if anything moved, and notes whom to wake.
    pub(super) fn put_back(mut self, tx: &mut Tx<'_>, user: &UserId) -> Result<(), Failure> {
        self.has_new_tombstones = false;
        if mem::take(&mut self.is_moved) {
            match &mut tx.ledger {
                Some(ledger) => ledger.change(user, self),
                None => {
                    self.write(tx.connection)?;
                    tx.changed = Some((user.clone(), self.position));
                }
            }
        }
        Ok(())
    }

    fn write(&self, connection: &Connection) -> Result<(), Failure> {
        const SQL: &str = "
            UPDATE users SET position = ?2, horizon = ?3, entries = ?4, bytes = ?5
            WHERE id = ?1 AND position < ?2";
        let (position, horizon) = (int(self.position.0), int(self.horizon.0));
        let (entries, bytes) = (int(self.usage.entries), int(self.usage.bytes));
        let params = (self.id, position, horizon, entries, bytes);
        match run(connection, SQL, params)? {
            1 => Ok(()),
            _ => Err(Failure::Row("a user's position would go back".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use kitbag_domain::{EventType, Scope, ServerName};

    use super::*;
    use crate::{Options, open};

    fn user(number: usize) -> UserId {
        UserId::parse(format!("@{number}:localhost")).unwrap()
    }

    fn row(position: u64) -> UserRow {
        UserRow {
            id: 1,
            position: Position(position),
            horizon: Position::ZERO,
            usage: Usage::default(),
            is_moved: false,
            has_new_tombstones: false,
        }
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        let connection = open::open(dir.path(), &options).unwrap().connection;
        let mut ledger = Ledger::default();
        ledger.begin(&connection).unwrap();
        for number in 0..=limit::LEDGER_USERS_MAX {
            ledger.begin(&connection).unwrap();
            assert_eq!(ledger.users.len(), number);
            ledger.keep(&user(number), row(1));
        }
        ledger.begin(&connection).unwrap();
        assert_eq!(ledger.users.len(), 0);
        ledger.keep(&user(1), row(1));
        for number in 0..=limit::LEDGER_DEVICES_MAX {
            let device = DeviceId::parse(format!("D{number}")).unwrap();
            ledger.keep_device(&user(1), &device, Incarnation(1));
        }
        let devices = ledger.users[&user(1)].devices.len();
        assert!(devices <= limit::LEDGER_DEVICES_MAX, "{devices}");
        for number in 0..=limit::LEDGER_ENTRIES_MAX {
            ledger.begin(&connection).unwrap();
            assert_eq!(ledger.users[&user(1)].entries.len(), number);
            let key = Key::new(
                Scope::Global,
                EventType::parse(format!("{number}")).unwrap(),
            );
            let (row, live_bytes) = (1, Some(1));
            ledger.keep_entry(&user(1), &key, Stored { row, live_bytes });
            ledger.keep_entry(&user(1), &key, Stored { row, live_bytes });
        }
        ledger.begin(&connection).unwrap();
        assert_eq!((ledger.users.len(), ledger.entries), (0, 0));
    }

    #[test]
    fn a_position_that_would_go_back_ends_the_batch() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        let connection = open::open(dir.path(), &options).unwrap().connection;
        let sql =
            "INSERT INTO users (id, name, position, created_at) VALUES (1, '@1:localhost', 5, 1)";
        run(&connection, sql, []).unwrap();
        let settle = |position| {
            let mut ledger = Ledger::default();
            ledger.keep(&user(1), row(position));
            ledger.change(&user(1), row(position));
            ledger.settle(&connection)
        };
        assert!(settle(5).is_err());
        assert_eq!(settle(6).unwrap(), [(user(1), Position(6))]);
    }
}
