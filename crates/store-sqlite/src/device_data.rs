//! [`DeviceDataStore`]: what the server reads of all users' devices.

use std::sync::Arc;

use kitbag_domain::{
    BoxFuture, DeviceChange, DeviceChanges, DeviceDataStore, DeviceEntry, DeviceId, DevicePlace,
    DeviceSubscription, EventType, FeedPosition, Key, Scope, StoreError, UserId,
};
use rusqlite::{Connection, Row};

use crate::SqliteStore;
use crate::error::Failure;
use crate::feed::Heads;
use crate::rows::{self, all, first, int, unreadable};

/// Rows that are looked at in one read transaction, which keeps the log from starting anew: at 2 µs
/// each this is 2 ms, and at 64 KiB a content some 50. Tombstones count too, so a page may take several.
const ROWS_AT_ONCE_MAX: usize = 1_000;

impl DeviceDataStore for SqliteStore {
    fn device_entries(
        &self,
        event_type: &EventType,
        after: Option<DevicePlace>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DeviceEntry>, StoreError>> {
        let event_type = event_type.clone();
        self.reads
            .submit(move |connection| page(connection, &event_type, after.as_ref(), limit))
    }

    fn device_changes(
        &self,
        after: Option<FeedPosition>,
        limit: usize,
    ) -> BoxFuture<'_, Result<DeviceChanges, StoreError>> {
        self.reads
            .submit(move |connection| changes(connection, after, limit))
    }

    fn subscribe_to_devices(&self) -> DeviceSubscription {
        self.device_wakeups.subscribe()
    }
}

/// The entries and tombstones of one type behind a place, in the order of the index.
const ENTRIES: &str = "
    SELECT e.position, e.written_at, e.writer, e.writer_device, e.writer_user_agent, e.content,
        e.user, e.place, u.name, d.display_name
    FROM entries e CROSS JOIN users u ON u.id = e.user
        LEFT JOIN devices d ON d.user = e.user AND d.name = e.place
    WHERE e.scope = 2 AND e.type = ?1 AND (e.user, e.place) > (?2, ?3)
    ORDER BY e.user, e.place LIMIT ?4";

/// A place in the index of entries by type: the number of the user's row, and a device ID.
type Place = (i64, Arc<str>);

fn page(
    connection: &Connection,
    event_type: &EventType,
    after: Option<&DevicePlace>,
    limit: usize,
) -> Result<Vec<DeviceEntry>, Failure> {
    const USER: &str = "SELECT id FROM users WHERE name = ?1";
    let mut place: Place = match after {
        None => (i64::MIN, Arc::from("")),
        Some(DevicePlace { user, device }) => {
            let id = first(connection, USER, [user.as_str()], |row| Ok(row.get(0)?))?;
            let Some(id) = id else { return Ok(Vec::new()) };
            (id, Arc::from(device.as_str()))
        }
    };
    let mut found = Vec::new();
    while found.len() < limit {
        let Some(next) = page_part(connection, event_type, &place, limit, &mut found)? else {
            break;
        };
        place = next;
    }
    Ok(found)
}

/// Reads on behind `place`, in one short read; returns where it stopped, `None` at the end.
fn page_part(
    connection: &Connection,
    event_type: &EventType,
    place: &Place,
    limit: usize,
    found: &mut Vec<DeviceEntry>,
) -> Result<Option<Place>, Failure> {
    let mut statement = connection.prepare_cached(ENTRIES)?;
    let params = (
        event_type.as_str(),
        place.0,
        &*place.1,
        int(ROWS_AT_ONCE_MAX as u64),
    );
    let mut rows = statement.query(params)?;
    let mut last = None;
    let mut looked_at = 0;
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        let device: Arc<str> = row.get(7)?;
        last = Some((row.get(6)?, Arc::clone(&device)));
        looked_at += 1;
        found.extend(device_entry(event_type, device, row)?);
    }
    drop(rows);
    rows::check_plan(&statement, ENTRIES);
    Ok(last.filter(|_| looked_at == ROWS_AT_ONCE_MAX))
}

/// Reads an entry and whose it is; `None` where it is a tombstone.
fn device_entry(
    event_type: &EventType,
    device: Arc<str>,
    row: &Row<'_>,
) -> Result<Option<DeviceEntry>, Failure> {
    let device = DeviceId::parse(device).map_err(unreadable)?;
    let key = Key::new(Scope::Device(device), event_type.clone());
    let named = |failure| unreadable_entry(failure, row, [8, 7], event_type.as_str());
    let entry = rows::entry(key, row).map_err(named)?;
    if entry.content.is_none() {
        return Ok(None);
    }
    Ok(Some(DeviceEntry {
        user: user(row, 8)?,
        display_name: row.get(9)?,
        entry,
    }))
}

/// Changes of entries behind a number, in their order.
const CHANGED: &str = "
    SELECT e.position, e.written_at, e.writer, e.writer_device, e.writer_user_agent, e.content,
        e.scope, e.place, e.type, u.name, e.feed
    FROM entries e CROSS JOIN users u ON u.id = e.user
    WHERE e.feed > ?1 ORDER BY e.feed LIMIT ?2";

/// Accounts that ended behind a number, in that order.
const ENDED: &str = "SELECT feed, name FROM users WHERE feed > ?1 ORDER BY feed LIMIT ?2";

fn changes(
    connection: &Connection,
    after: Option<FeedPosition>,
    limit: usize,
) -> Result<DeviceChanges, Failure> {
    // Ends when it is dropped; without it the head and the changes might be of two snapshots.
    let snapshot = connection.unchecked_transaction()?;
    let Heads { head, floor } = Heads::read(&snapshot)?;
    let known = FeedPosition::known(after, head, floor);
    let from = known.unwrap_or(FeedPosition::beginning(head));
    // One more than is told shows whether there is more.
    let params = (int(from.number), int(limit as u64).saturating_add(1));
    let mut behind: Vec<(u64, DeviceChange)> = all(&snapshot, ENDED, params, |row| {
        Ok((row.get(0)?, DeviceChange::AccountEnded(user(row, 1)?)))
    })?;
    behind.extend(all(&snapshot, CHANGED, params, |row| {
        let named = |failure| match row.get::<_, Arc<str>>(8) {
            Ok(event_type) => unreadable_entry(failure, row, [9, 7], &event_type),
            Err(_) => failure,
        };
        let entry = rows::entry_and_key(row).map_err(named)?;
        let change = DeviceChange::Entry(user(row, 9)?, entry);
        Ok((row.get(10)?, change))
    })?);
    drop(snapshot);
    Ok(DeviceChanges::page(known, head, behind, limit))
}

/// Names the entry that cannot be read: it holds up whoever reads across users, until the operator
/// replaces or deletes it.
fn unreadable_entry(
    failure: Failure,
    row: &Row<'_>,
    [user, device]: [usize; 2],
    event_type: &str,
) -> Failure {
    let name = |column| row.get::<_, String>(column).unwrap_or_default();
    match failure {
        Failure::Row(reason) => {
            let (user, device) = (name(user), name(device));
            Failure::Row(format!(
                "account data `{event_type}` of the device `{device}` of {user}: {reason}"
            ))
        }
        other => other,
    }
}

fn user(row: &Row<'_>, column: usize) -> Result<UserId, Failure> {
    let name: Arc<str> = row.get(column)?;
    UserId::parse(name).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use kitbag_domain::ServerName;

    use super::*;
    use crate::{Options, open};

    /// Returns how SQLite would run a query.
    fn plan(sql: &str, params: impl rusqlite::Params) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        let connection = open::open(dir.path(), &options).unwrap().connection;
        let sql = format!("EXPLAIN QUERY PLAN {sql}");
        all(&connection, &sql, params, |row| Ok(row.get(3)?)).unwrap()
    }

    #[test]
    fn a_page_is_one_range_of_the_index_by_type() {
        let expected = [
            "SEARCH e USING INDEX entries_by_type (type=? AND (user,place)>(?,?))",
            "SEARCH u USING INTEGER PRIMARY KEY (rowid=?)",
            "SEARCH d USING INDEX sqlite_autoindex_devices_1 (user=? AND name=?) LEFT-JOIN",
        ];
        assert_eq!(plan(ENTRIES, ("t", 1, "D", 10)), expected);
    }

    #[test]
    fn changes_are_one_range_of_the_index_by_number() {
        let expected = [
            "SEARCH e USING INDEX entries_by_feed (feed>?)",
            "SEARCH u USING INTEGER PRIMARY KEY (rowid=?)",
        ];
        assert_eq!(plan(CHANGED, (1, 10)), expected);
        let expected = ["SEARCH users USING INDEX users_by_feed (feed>?)"];
        assert_eq!(plan(ENDED, (1, 10)), expected);
    }
}
