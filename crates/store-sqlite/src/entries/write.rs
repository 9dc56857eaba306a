//! Writing entries: the user's row is read first and written last, in one transaction.

use kitbag_domain::{
    Applied, ApplyError, Before, Change, Content, Decision, DeviceId, Entry, Guard, Incarnation,
    Key, Op, Position, Refusal, Scope, UnixMs, UpdateFn, Usage, UserId, Write, conflicts, decide,
};

use crate::cache::Touched;
use crate::error::{Failure, Halt};
use crate::rows::{self, ContentParam, SCOPE_DEVICE, WriterColumns, all, first, int, run};
use crate::writer::Tx;

/// What every change of a user's data moves.
#[derive(Clone, Debug)]
pub(crate) struct UserRow {
    pub(crate) id: i64,
    pub(crate) position: Position,
    horizon: Position,
    usage: Usage,
    has_new_tombstones: bool,
}

/// Returns the user's row where the guard holds.
pub(crate) fn user_row(
    tx: &Tx<'_>,
    user: &UserId,
    guard: &Guard,
) -> Result<Option<UserRow>, Failure> {
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
            has_new_tombstones: false,
        })
    })?;
    match (row, guard) {
        (Some(row), Guard::Device(device, expected)) => {
            let incarnation = incarnation(tx, row.id, device)?;
            Ok((incarnation == Some(*expected)).then_some(row))
        }
        (row, _) => Ok(row),
    }
}

/// Returns which device of that ID the user has.
fn incarnation(tx: &Tx<'_>, user: i64, device: &DeviceId) -> Result<Option<Incarnation>, Failure> {
    const SQL: &str = "SELECT incarnation FROM devices WHERE user = ?1 AND name = ?2";
    first(tx.connection, SQL, (user, device.as_str()), |row| {
        Ok(Incarnation(row.get(0)?))
    })
}

pub(super) fn apply(
    tx: &mut Tx<'_>,
    user: &UserId,
    write: &Write,
    ops: Vec<Op>,
) -> Result<Applied, Halt<ApplyError>> {
    let mut row = user_row(tx, user, &write.guard)?.ok_or(Refusal::SessionGone)?;
    let mut positions = Vec::with_capacity(ops.len());
    let keys = ops.iter().map(|op| op.key().clone()).collect();
    tx.touched = Touched::Entries(user.clone(), keys);
    for op in ops {
        let stored = stored(tx, row.id, op.key())?;
        let (key, content) = admit(tx, row.id, op, stored.as_ref())?;
        positions.push(row.write_entry(tx, write, key, stored, content)?);
    }
    row.save(tx, user, write.at)?;
    Ok(Applied { positions })
}

pub(super) fn update(
    tx: &mut Tx<'_>,
    user: &UserId,
    write: &Write,
    key: Key,
    update: UpdateFn,
) -> Result<Applied, Halt<ApplyError>> {
    let mut row = user_row(tx, user, &write.guard)?.ok_or(Refusal::SessionGone)?;
    check_device(tx, row.id, &key)?;
    tx.touched = Touched::Entries(user.clone(), vec![key.clone()]);
    let stored = stored(tx, row.id, &key)?;
    let content = match update(stored.as_ref().and_then(Stored::live)) {
        Change::Keep => {
            let positions = vec![None];
            return Ok(Applied { positions });
        }
        Change::Delete => None,
        Change::Put(content) => Some(content),
    };
    let positions = vec![row.write_entry(tx, write, key, stored, content)?];
    row.save(tx, user, write.at)?;
    Ok(Applied { positions })
}

/// Checks what must hold before an operation; returns what it writes, `None` being deletion.
fn admit(
    tx: &Tx<'_>,
    user: i64,
    op: Op,
    stored: Option<&Stored>,
) -> Result<(Key, Option<Content>), Halt<ApplyError>> {
    let (key, content, expectation) = match op {
        Op::Delete(key) => return Ok((key, None)),
        Op::Put(key, content, expectation) => (key, content, expectation),
    };
    check_device(tx, user, &key)?;
    let current = stored
        .and_then(Stored::live)
        .and_then(|entry| entry.content.clone());
    match current {
        Some(current) if conflicts(Some(&current), &expectation) => {
            Err(Refusal::Conflict { current }.into())
        }
        _ => Ok((key, Some(content))),
    }
}

fn check_device(tx: &Tx<'_>, user: i64, key: &Key) -> Result<(), Halt<ApplyError>> {
    match &key.scope {
        Scope::Device(device) if incarnation(tx, user, device)?.is_none() => {
            Err(Refusal::NoSuchDevice.into())
        }
        _ => Ok(()),
    }
}

/// An entry or tombstone and the number of its row.
struct Stored {
    row: i64,
    entry: Entry,
}

impl Stored {
    fn live(&self) -> Option<&Entry> {
        Some(&self.entry).filter(|entry| entry.content.is_some())
    }
}

fn stored(tx: &Tx<'_>, user: i64, key: &Key) -> Result<Option<Stored>, Failure> {
    const SQL: &str = "
        SELECT position, written_at, writer, writer_device, writer_user_agent, content, id
        FROM entries WHERE user = ?1 AND scope = ?2 AND place = ?3 AND type = ?4";
    let scope = rows::scope_number(&key.scope);
    let params = (user, scope, key.scope.place(), key.event_type.as_str());
    first(tx.connection, SQL, params, |row| {
        Ok(Stored {
            row: row.get(6)?,
            entry: rows::entry(key.clone(), row)?,
        })
    })
}

/// The user's tombstones, the oldest first.
const TOMBSTONES: &str = "
    SELECT position, written_at FROM entries INDEXED BY tombstones
    WHERE user = ?1 AND content IS NULL ORDER BY position";

impl UserRow {
    /// Returns the next position, which is thereby taken.
    pub(crate) fn take_position(&mut self) -> Position {
        self.position = self.position.next();
        self.position
    }

    /// Deletes the live entries under `keys`.
    pub(crate) fn delete_entries(
        &mut self,
        tx: &Tx<'_>,
        write: &Write,
        keys: impl IntoIterator<Item = Key>,
    ) -> Result<(), Halt<ApplyError>> {
        for key in keys {
            let stored = stored(tx, self.id, &key)?;
            self.write_entry(tx, write, key, stored, None)?;
        }
        Ok(())
    }

    /// Decides on one write and makes it; `None` deletes.
    fn write_entry(
        &mut self,
        tx: &Tx<'_>,
        write: &Write,
        key: Key,
        stored: Option<Stored>,
        content: Option<Content>,
    ) -> Result<Option<Position>, Halt<ApplyError>> {
        let live = stored.as_ref().and_then(Stored::live);
        self.check_usage(live)?;
        let device_entries = match &key.scope {
            Scope::Device(device) if live.is_none() && content.is_some() => {
                device_entries(tx, self.id, device)?
            }
            _ => 0,
        };
        let before = Before {
            entry: live,
            usage: self.usage,
            device_entries,
        };
        let decision = decide(&key, content, write.allowance, &tx.limits.quota, before);
        let (content, usage) = match decision.map_err(Refusal::from)? {
            Decision::Nothing => return Ok(None),
            Decision::Delete(usage) => (None, usage),
            Decision::Put(content, usage) => (Some(content), usage),
        };
        self.usage = usage;
        self.has_new_tombstones |= content.is_none();
        let entry = Entry {
            key,
            content,
            position: self.take_position(),
            writer: write.writer.clone(),
            written_at: write.at,
        };
        let number = match entry.key.scope {
            Scope::Global | Scope::Room(_) => None,
            Scope::Device(_) => Some(tx.feed.take_number(tx.connection)?),
        };
        match stored {
            Some(stored) => replace(tx, stored.row, &entry, number)?,
            None => insert(tx, self.id, &entry, number)?,
        }
        Ok(Some(entry.position))
    }

    /// Checks that a live entry is counted: the arithmetic of the domain relies on it.
    fn check_usage(&self, live: Option<&Entry>) -> Result<(), Failure> {
        match live {
            Some(live) if self.usage.entries < 1 || self.usage.bytes < live.size_bytes() => {
                let what = "a user's usage is less than one of the entries";
                Err(Failure::Row(what.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Collects tombstones, writes the row and notes whom to wake, if anything moved.
    pub(crate) fn save(
        mut self,
        tx: &mut Tx<'_>,
        user: &UserId,
        now: UnixMs,
    ) -> Result<(), Failure> {
        const SQL: &str = "
            UPDATE users SET position = ?2, horizon = ?3, entries = ?4, bytes = ?5
            WHERE id = ?1 AND position < ?2";
        if self.has_new_tombstones {
            self.collect_tombstones(tx, now)?;
        }
        let (position, horizon) = (int(self.position.0), int(self.horizon.0));
        let (entries, bytes) = (int(self.usage.entries), int(self.usage.bytes));
        let params = (self.id, position, horizon, entries, bytes);
        if run(tx.connection, SQL, params)? > 0 {
            tx.changed = Some((user.clone(), self.position));
        }
        Ok(())
    }

    /// Drops tombstones that are too old or too many, the oldest first; the horizon follows.
    ///
    /// All that it looks at stands in an index of the tombstones alone, which are bounded.
    fn collect_tombstones(&mut self, tx: &Tx<'_>, now: UnixMs) -> Result<(), Failure> {
        const DROP: &str = "
            DELETE FROM entries WHERE user = ?1 AND position = ?2 AND content IS NULL
            RETURNING feed";
        let tombstones = all(tx.connection, TOMBSTONES, [self.id], |row| {
            Ok((Position(row.get(0)?), row.get::<_, UnixMs>(1)?))
        })?;
        let surplus = (tombstones.len() as u64).saturating_sub(tx.limits.tombstones_max);
        let oldest = now.saturating_sub(tx.limits.tombstone_age_ms_max);
        for (index, (position, written_at)) in (0_u64..).zip(tombstones) {
            if index < surplus || written_at < oldest {
                let params = (self.id, int(position.0));
                let number = first(tx.connection, DROP, params, |row| Ok(row.get(0)?))?;
                if let Some(number) = number.flatten() {
                    tx.feed.collect(tx.connection, number)?;
                }
                self.horizon = self.horizon.max(position);
            }
        }
        Ok(())
    }
}

/// Counts the live entries of a device, which are few.
fn device_entries(tx: &Tx<'_>, user: i64, device: &DeviceId) -> Result<u64, Failure> {
    const SQL: &str = "
        SELECT count(*) FROM entries
        WHERE user = ?1 AND scope = ?2 AND place = ?3 AND content IS NOT NULL";
    let params = (user, SCOPE_DEVICE, device.as_str());
    let count = first(tx.connection, SQL, params, |row| Ok(row.get(0)?))?;
    Ok(count.unwrap_or_default())
}

/// `number` is that of the change among those of device account data.
fn insert(tx: &Tx<'_>, user: i64, entry: &Entry, number: Option<i64>) -> Result<(), Failure> {
    const SQL: &str = "
        INSERT INTO entries (user, scope, place, type, position, written_at, writer,
            writer_device, writer_user_agent, content, feed)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let (scope, place) = (
        rows::scope_number(&entry.key.scope),
        entry.key.scope.place(),
    );
    let writer = WriterColumns::from(&entry.writer);
    let params = (
        user,
        scope,
        place,
        entry.key.event_type.as_str(),
        int(entry.position.0),
        int(entry.written_at),
        writer.kind,
        writer.device,
        writer.user_agent,
        entry.content.as_ref().map(ContentParam),
        number,
    );
    run(tx.connection, SQL, params).map(drop)
}

/// Replaces what is in a row, and at device scope its number.
macro_rules! replace_sql {
    ($number:literal) => {
        concat!(
            "UPDATE entries SET position = ?2, written_at = ?3, writer = ?4, writer_device = ?5,
                writer_user_agent = ?6, content = ?7",
            $number,
            " WHERE id = ?1"
        )
    };
}

fn replace(tx: &Tx<'_>, row: i64, entry: &Entry, number: Option<i64>) -> Result<(), Failure> {
    // Without the number the index of numbers is not touched.
    const SQL: &str = replace_sql!("");
    const SQL_NUMBERED: &str = replace_sql!(", feed = ?8");
    let writer = WriterColumns::from(&entry.writer);
    let (position, written_at) = (int(entry.position.0), int(entry.written_at));
    let (kind, device, user_agent) = (writer.kind, writer.device, writer.user_agent);
    let content = entry.content.as_ref().map(ContentParam);
    match number {
        None => {
            let params = (row, position, written_at, kind, device, user_agent, content);
            run(tx.connection, SQL, params)?;
        }
        Some(number) => {
            let params = (
                row, position, written_at, kind, device, user_agent, content, number,
            );
            run(tx.connection, SQL_NUMBERED, params)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kitbag_domain::ServerName;

    use super::*;
    use crate::{Options, open};

    #[test]
    fn tombstones_are_found_without_the_live_entries() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        let connection = open::open(dir.path(), &options).unwrap().connection;
        let sql = format!("EXPLAIN QUERY PLAN {TOMBSTONES}");
        let plan = all(&connection, &sql, [1], |row| Ok(row.get::<_, String>(3)?)).unwrap();
        let expected = "SEARCH entries USING COVERING INDEX tombstones (user=? AND content=?)";
        assert_eq!(plan, [expected]);
    }
}
