//! Writing entries: the user's row is taken first and put back last, in one transaction.

use kitbag_domain::{
    Applied, ApplyError, Before, Change, Content, Decision, DeviceId, Entry, Key, Op, Position,
    Refusal, Scope, UnixMs, UpdateFn, UserId, Write, conflicts, decide, entry_size_bytes,
};

use super::users::{Stored, UserRow, incarnation, user_row};
use crate::cache::Touched;
use crate::error::{Failure, Halt};
use crate::rows::{self, ContentParam, SCOPE_DEVICE, WriterColumns, all, first, int, run};
use crate::writer::Tx;

pub(super) fn apply(
    tx: &mut Tx<'_>,
    user: &UserId,
    write: &Write,
    ops: Vec<Op>,
) -> Result<Applied, Halt<ApplyError>> {
    let mut row = user_row(tx, user, &write.guard)?.ok_or(Refusal::SessionGone)?;
    let mut written = Vec::with_capacity(ops.len());
    let keys = ops.iter().map(|op| op.key().clone()).collect();
    tx.touched = Touched::Entries(user.clone(), keys);
    // What an operation did is known to the next of the same write by the file alone.
    let is_alone = ops.len() == 1;
    for op in ops {
        let known = is_alone.then(|| known(tx, user, op.key())).flatten();
        let stored = match known {
            Some(known) => Some(known),
            None => stored(tx, row.id, op.key())?,
        };
        let (key, content) = admit(tx, user, row.id, op, stored.as_ref())?;
        written.push(row.write_entry(tx, write, key, stored, content)?);
    }
    row.save(tx, user, write.at)?;
    Ok(keep(tx, user, &written))
}

pub(super) fn update(
    tx: &mut Tx<'_>,
    user: &UserId,
    write: &Write,
    key: Key,
    update: UpdateFn,
) -> Result<Applied, Halt<ApplyError>> {
    let mut row = user_row(tx, user, &write.guard)?.ok_or(Refusal::SessionGone)?;
    check_device(tx, user, row.id, &key)?;
    tx.touched = Touched::Entries(user.clone(), vec![key.clone()]);
    let stored = match known(tx, user, &key) {
        Some(known) => Some(known),
        None => stored(tx, row.id, &key)?,
    };
    let live = stored.as_ref().filter(|stored| stored.live_bytes.is_some());
    let live = live.map(|stored| live_entry(tx, stored.row, &key));
    let live = live.transpose()?.flatten();
    let content = match update(live.as_ref()) {
        Change::Keep => {
            let positions = vec![None];
            return Ok(Applied { positions });
        }
        Change::Delete => None,
        Change::Put(content) => Some(content),
    };
    let written = row.write_entry(tx, write, key, stored, content)?;
    row.save(tx, user, write.at)?;
    Ok(keep(tx, user, &[written]))
}

/// What became of an entry.
struct Written {
    position: Position,
    stored: Stored,
}

fn known(tx: &Tx<'_>, user: &UserId, key: &Key) -> Option<Stored> {
    tx.ledger.as_ref()?.entry(user, key)
}

/// Keeps what a write has done to the keys that it touched, and tells of it.
fn keep(tx: &mut Tx<'_>, user: &UserId, written: &[Option<Written>]) -> Applied {
    if let (Some(ledger), Touched::Entries(_, keys)) = (&mut tx.ledger, &tx.touched) {
        for (key, written) in keys.iter().zip(written) {
            if let Some(written) = written {
                ledger.keep_entry(user, key, written.stored);
            }
        }
    }
    let position = |written: &Option<Written>| written.as_ref().map(|written| written.position);
    Applied {
        positions: written.iter().map(position).collect(),
    }
}

/// Checks what must hold before an operation; returns what it writes, `None` being deletion.
fn admit(
    tx: &mut Tx<'_>,
    user: &UserId,
    id: i64,
    op: Op,
    stored: Option<&Stored>,
) -> Result<(Key, Option<Content>), Halt<ApplyError>> {
    let (key, content, expectation) = match op {
        Op::Delete(key) => return Ok((key, None)),
        Op::Put(key, content, expectation) => (key, content, expectation),
    };
    check_device(tx, user, id, &key)?;
    // Read for the comparison alone, since a content may be large.
    let current = match stored {
        Some(stored) if !expectation.is_empty() => live_content(tx, stored.row)?,
        _ => None,
    };
    match current {
        Some(current) if conflicts(Some(&current), &expectation) => {
            Err(Refusal::Conflict { current }.into())
        }
        _ => Ok((key, Some(content))),
    }
}

fn check_device(
    tx: &mut Tx<'_>,
    user: &UserId,
    id: i64,
    key: &Key,
) -> Result<(), Halt<ApplyError>> {
    match &key.scope {
        Scope::Device(device) if incarnation(tx, user, id, device)?.is_none() => {
            Err(Refusal::NoSuchDevice.into())
        }
        _ => Ok(()),
    }
}

fn stored(tx: &Tx<'_>, user: i64, key: &Key) -> Result<Option<Stored>, Failure> {
    // The length is told without reading the content.
    const SQL: &str = "
        SELECT id, octet_length(content) FROM entries
        WHERE user = ?1 AND scope = ?2 AND place = ?3 AND type = ?4";
    let scope = rows::scope_number(&key.scope);
    let params = (user, scope, key.scope.place(), key.event_type.as_str());
    first(tx.connection, SQL, params, |row| {
        let content_bytes: Option<u64> = row.get(1)?;
        Ok(Stored {
            row: row.get(0)?,
            live_bytes: content_bytes.map(|bytes| entry_size_bytes(key, bytes)),
        })
    })
}

fn live_content(tx: &Tx<'_>, row: i64) -> Result<Option<Content>, Failure> {
    const SQL: &str = "SELECT content FROM entries WHERE id = ?1";
    let found = first(tx.connection, SQL, [row], |row| {
        rows::content(row.get_ref(0)?)
    })?;
    Ok(found.flatten())
}

fn live_entry(tx: &Tx<'_>, row: i64, key: &Key) -> Result<Option<Entry>, Failure> {
    const SQL: &str = "
        SELECT position, written_at, writer, writer_device, writer_user_agent, content
        FROM entries WHERE id = ?1 AND content IS NOT NULL";
    first(tx.connection, SQL, [row], |row| {
        rows::entry(key.clone(), row)
    })
}

/// The user's tombstones, the oldest first.
const TOMBSTONES: &str = "
    SELECT position, written_at FROM entries INDEXED BY tombstones
    WHERE user = ?1 AND content IS NULL ORDER BY position";

impl UserRow {
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
    ) -> Result<Option<Written>, Halt<ApplyError>> {
        let live_bytes = stored.as_ref().and_then(|stored| stored.live_bytes);
        self.check_usage(live_bytes)?;
        let device_entries = match &key.scope {
            Scope::Device(device) if live_bytes.is_none() && content.is_some() => {
                device_entries(tx, self.id, device)?
            }
            _ => 0,
        };
        let before = Before {
            live_bytes,
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
        let row = match stored {
            Some(stored) => replace(tx, stored.row, &entry, number)?,
            None => insert(tx, self.id, &entry, number)?,
        };
        let live_bytes = entry.content.is_some().then(|| entry.size_bytes());
        Ok(Some(Written {
            position: entry.position,
            stored: Stored { row, live_bytes },
        }))
    }

    /// Checks that a live entry is counted: the arithmetic of the domain relies on it.
    fn check_usage(&self, live_bytes: Option<u64>) -> Result<(), Failure> {
        match live_bytes {
            Some(bytes) if self.usage.entries < 1 || self.usage.bytes < bytes => {
                let what = "a user's usage is less than one of the entries";
                Err(Failure::Row(what.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Collects tombstones and puts the row back.
    pub(crate) fn save(
        mut self,
        tx: &mut Tx<'_>,
        user: &UserId,
        now: UnixMs,
    ) -> Result<(), Failure> {
        if self.has_new_tombstones {
            self.collect_tombstones(tx, now)?;
        }
        self.put_back(tx, user)
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

/// Returns the number of the row; `number` is that of the change among those of device account data.
fn insert(tx: &Tx<'_>, user: i64, entry: &Entry, number: Option<i64>) -> Result<i64, Failure> {
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
    run(tx.connection, SQL, params)?;
    Ok(tx.connection.last_insert_rowid())
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

fn replace(tx: &Tx<'_>, row: i64, entry: &Entry, number: Option<i64>) -> Result<i64, Failure> {
    // Without the number the index of numbers is not touched.
    const SQL: &str = replace_sql!("");
    const SQL_NUMBERED: &str = replace_sql!(", feed = ?8");
    let writer = WriterColumns::from(&entry.writer);
    let (position, written_at) = (int(entry.position.0), int(entry.written_at));
    let (kind, device, user_agent) = (writer.kind, writer.device, writer.user_agent);
    let content = entry.content.as_ref().map(ContentParam);
    let replaced = match number {
        None => {
            let params = (row, position, written_at, kind, device, user_agent, content);
            run(tx.connection, SQL, params)?
        }
        Some(number) => {
            let params = (
                row, position, written_at, kind, device, user_agent, content, number,
            );
            run(tx.connection, SQL_NUMBERED, params)?
        }
    };
    match replaced {
        1 => Ok(row),
        _ => Err(Failure::Row("an entry is not in its row".to_owned())),
    }
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
