//! Reading entries.

use kitbag_domain::{
    Changes, Entry, Key, Live, Position, Selector, SessionAndEntry, TokenHash, UserId,
};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use crate::error::Failure;
use crate::rows::{
    self, EntryReader, SCOPE_DEVICE, SCOPE_ROOM, all, each, first, int, scope_number,
};

/// Returns one live entry: the hot path, one look-up in each of two indexes.
pub(super) fn live(
    connection: &Connection,
    user: &UserId,
    key: &Key,
) -> Result<Option<Entry>, Failure> {
    const SQL: &str = "
        SELECT e.position, e.written_at, e.writer, e.writer_device, e.writer_user_agent, e.content
        FROM users u JOIN entries e ON e.user = u.id
        WHERE u.name = ?1 AND e.scope = ?2 AND e.place = ?3 AND e.type = ?4
            AND e.content IS NOT NULL";
    let (scope, place) = (scope_number(&key.scope), key.scope.place());
    let params = (user.as_str(), scope, place, key.event_type.as_str());
    first(connection, SQL, params, |row| rows::entry(key.clone(), row))
}

/// Returns a session and the live entry at `key` of its user, by one statement: of one snapshot.
pub(super) fn live_in_session(
    connection: &Connection,
    user: &UserId,
    access: TokenHash,
    key: &Key,
) -> Result<Option<SessionAndEntry>, Failure> {
    const SQL: &str = "
        SELECT e.position, e.written_at, e.writer, e.writer_device, e.writer_user_agent, e.content,
            d.name, d.incarnation, s.access_expires_at, d.seen_at,
            EXISTS (SELECT 1 FROM sessions o WHERE o.device = s.device AND o.id < s.id)
        FROM users u
            JOIN sessions s ON s.user = u.id AND s.access = ?2
            JOIN devices d ON d.id = s.device
            LEFT JOIN entries e ON e.user = u.id AND e.scope = ?3 AND e.place = ?4 AND e.type = ?5
                AND e.content IS NOT NULL
        WHERE u.name = ?1";
    let (scope, place) = (scope_number(&key.scope), key.scope.place());
    let params = (
        user.as_str(),
        access.0,
        scope,
        place,
        key.event_type.as_str(),
    );
    first(connection, SQL, params, |row| {
        let is_there = row.get_ref(0)? != ValueRef::Null;
        let entry = is_there.then(|| rows::entry(key.clone(), row));
        Ok((rows::session(row, rows::ENTRY_COLUMNS)?, entry.transpose()?))
    })
}

/// Returns the selected live entries in the order of their keys.
pub(crate) fn list(
    connection: &Connection,
    user: &UserId,
    selector: &Selector,
) -> Result<Vec<Entry>, Failure> {
    const ALL: &str = "
        SELECT e.position, e.written_at, e.writer, e.writer_device, e.writer_user_agent, e.content,
            e.scope, e.place, e.type
        FROM users u JOIN entries e ON e.user = u.id
        WHERE u.name = ?1 AND e.content IS NOT NULL
        ORDER BY e.scope, e.place, e.type";
    const ALL_IN_SCOPES: &str = "
        SELECT e.position, e.written_at, e.writer, e.writer_device, e.writer_user_agent, e.content,
            e.scope, e.place, e.type
        FROM users u JOIN entries e ON e.user = u.id
        WHERE u.name = ?1 AND e.scope = ?2 AND e.content IS NOT NULL
        ORDER BY e.place, e.type";
    const SCOPE: &str = "
        SELECT e.position, e.written_at, e.writer, e.writer_device, e.writer_user_agent, e.content,
            e.scope, e.place, e.type
        FROM users u JOIN entries e ON e.user = u.id
        WHERE u.name = ?1 AND e.scope = ?2 AND e.place = ?3 AND e.content IS NOT NULL
        ORDER BY e.type";
    let user = user.as_str();
    let mut entries = EntryReader::default();
    let read = |row: &Row<'_>| entries.read(row);
    match selector {
        Selector::All => all(connection, ALL, [user], read),
        Selector::AllDevices => all(connection, ALL_IN_SCOPES, (user, SCOPE_DEVICE), read),
        Selector::AllRooms => all(connection, ALL_IN_SCOPES, (user, SCOPE_ROOM), read),
        Selector::Scope(scope) => {
            let params = (user, scope_number(scope), scope.place());
            all(connection, SCOPE, params, read)
        }
    }
}

/// Returns what [`changes`] would where this is already known from the head, that is, nothing.
pub(super) fn nothing_new(head: Option<Position>, after: Option<Position>) -> Option<Changes> {
    match head {
        None => Some(Changes {
            head: Position::ZERO,
            is_full: true,
            entries: Vec::new(),
        }),
        Some(head) if after == Some(head) => Some(Changes {
            head,
            is_full: false,
            entries: Vec::new(),
        }),
        Some(_) => None,
    }
}

/// Returns what changed behind `after`, with the head of the same snapshot.
pub(super) fn changes(
    connection: &Connection,
    user: &UserId,
    after: Option<Position>,
) -> Result<(Option<Position>, Changes), Failure> {
    const USER: &str = "SELECT id, position, horizon FROM users WHERE name = ?1";
    const SINCE: &str = "
        SELECT e.position, e.written_at, e.writer, e.writer_device, e.writer_user_agent, e.content,
            e.scope, e.place, e.type
        FROM entries e WHERE e.user = ?1 AND e.position > ?2
        ORDER BY e.position";
    const LIVE: &str = "
        SELECT e.position, e.written_at, e.writer, e.writer_device, e.writer_user_agent, e.content,
            e.scope, e.place, e.type
        FROM entries e WHERE e.user = ?1 AND e.content IS NOT NULL
        ORDER BY e.position";
    // Ends when it is dropped; without it head and entries might be of two snapshots.
    let snapshot = connection.unchecked_transaction()?;
    let found = first(&snapshot, USER, [user.as_str()], |row| {
        let (position, horizon) = (Position(row.get(1)?), Position(row.get(2)?));
        Ok((row.get::<_, i64>(0)?, position, horizon))
    })?;
    let head = found.map(|(_, position, _)| position);
    if let Some(nothing) = nothing_new(head, after) {
        return Ok((head, nothing));
    }
    let (user, position, horizon) = found.expect("without a user there is nothing new");
    let known = after.filter(|after| (horizon..=position).contains(after));
    let mut entries = EntryReader::default();
    let read = |row: &Row<'_>| entries.read(row);
    let entries = match known {
        Some(after) => all(&snapshot, SINCE, (user, int(after.0)), read)?,
        None => all(&snapshot, LIVE, [user], read)?,
    };
    let changes = Changes {
        head: position,
        is_full: known.is_none(),
        entries,
    };
    Ok((head, changes))
}

/// Returns everything live, with the head of the same snapshot.
pub(super) fn all_live(
    connection: &Connection,
    user: &UserId,
) -> Result<(Option<Position>, Live), Failure> {
    const USER: &str = "SELECT id, position, entries, bytes FROM users WHERE name = ?1";
    // What else there is of an entry costs as much as its content, and nobody asks for it here.
    const ROWS: &str = "
        SELECT e.scope, e.place, e.type, e.content
        FROM entries e WHERE e.user = ?1 AND e.content IS NOT NULL
        ORDER BY e.position";
    let mut statement = connection.prepare_cached(USER)?;
    let mut users = statement.query([user.as_str()])?;
    // A snapshot lasts until the last statement in it ends: so this one stays at its row until the
    // entries are read, or head and entries might be of two snapshots.
    let Some(found) = users.next()? else {
        return Ok((None, Live::default()));
    };
    let (user, head) = (found.get::<_, i64>(0)?, Position(found.get(1)?));
    let room = |column| found.get::<_, i64>(column).map(room_for);
    let mut live = Live::with_capacity(head, room(2)?, room(3)?);
    each(connection, ROWS, [user], |row| {
        live.push(rows::live(row)?);
        Ok(())
    })?;
    drop(users);
    Ok((Some(head), live))
}

/// The most that is asked for at once, in rows or bytes: a count may be wrong, and more than this
/// comes as it is needed.
const ROOM_MAX: i64 = 4 * 1024 * 1024;

fn room_for(count: i64) -> usize {
    usize::try_from(count.min(ROOM_MAX)).unwrap_or(0)
}
