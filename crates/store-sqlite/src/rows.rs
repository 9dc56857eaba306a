//! Between rows and the domain's types.

use std::sync::Arc;

use kitbag_domain::{
    Content, DeviceId, Entry, EntryDescription, EventType, IdError, Incarnation, Key, LiveEntry,
    Position, RoomId, Scope, ScopeRef, Session, Writer, entry_size_bytes,
};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Params, Row, Statement, StatementStatus, ToSql};

use crate::error::Failure;

/// Runs a statement and returns how many rows it changed.
pub(crate) fn run(
    connection: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<usize, Failure> {
    let mut statement = connection.prepare_cached(sql)?;
    let changed = statement.execute(params)?;
    check_plan(&statement, sql);
    Ok(changed)
}

/// Returns the first row of a query.
pub(crate) fn first<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> Result<T, Failure>,
) -> Result<Option<T>, Failure> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let found = rows.next()?.map(read).transpose()?;
    drop(rows);
    check_plan(&statement, sql);
    Ok(found)
}

/// Returns all rows of a query, each of which has its bound.
pub(crate) fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    mut read: impl FnMut(&Row<'_>) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let mut found = Vec::new();
    each(connection, sql, params, |row| {
        found.push(read(row)?);
        Ok(())
    })?;
    Ok(found)
}

/// Goes through the rows of a query.
pub(crate) fn each(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    mut read: impl FnMut(&Row<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        read(row)?;
    }
    drop(rows);
    check_plan(&statement, sql);
    Ok(())
}

/// Checks in tests that no statement reads a table from end to end.
pub(crate) fn check_plan(statement: &Statement<'_>, sql: &str) {
    let steps = || statement.get_status(StatementStatus::FullscanStep);
    debug_assert_eq!(steps(), 0, "no index serves `{sql}`");
}

/// Returns a number as SQLite keeps it.
///
/// Positions, sizes and times stay below 2^63; what a caller sends beyond it is as good as that.
pub(crate) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A content on its way into a row: text, so that an operator can read it.
pub(crate) struct ContentParam<'a>(pub(crate) &'a Content);

impl ToSql for ContentParam<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0.bytes())))
    }
}

/// Returns the number of a scope in rows; their order is that of [`Scope`].
pub(crate) fn scope_number(scope: &Scope) -> i64 {
    match scope {
        Scope::Global => 0,
        Scope::Room(_) => SCOPE_ROOM,
        Scope::Device(_) => SCOPE_DEVICE,
    }
}

/// The number of the room scope.
pub(crate) const SCOPE_ROOM: i64 = 1;

/// The number of the device scope.
pub(crate) const SCOPE_DEVICE: i64 = 2;

/// Who wrote an entry, as three columns.
pub(crate) struct WriterColumns<'a> {
    pub(crate) kind: i64,
    pub(crate) device: Option<&'a str>,
    pub(crate) user_agent: Option<&'a str>,
}

impl<'a> From<&'a Writer> for WriterColumns<'a> {
    fn from(writer: &'a Writer) -> Self {
        let (kind, device, user_agent) = match writer {
            Writer::Server => (0, None, None),
            Writer::Admin => (1, None, None),
            Writer::Device { id, user_agent } => (2, Some(id.as_str()), user_agent.as_deref()),
        };
        Self {
            kind,
            device,
            user_agent,
        }
    }
}

/// Reads a session from the columns that begin at `column`: the device's name and incarnation, the
/// token's end, when the device was seen, and whether the token replaces older ones.
pub(crate) fn session(row: &Row<'_>, column: usize) -> Result<Session, Failure> {
    let device: Arc<str> = row.get(column)?;
    Ok(Session {
        device: DeviceId::parse(device).map_err(unreadable)?,
        incarnation: Incarnation(row.get(column + 1)?),
        expires_at: row.get(column + 2)?,
        last_seen_at: row.get(column + 3)?,
        replaces_others: row.get(column + 4)?,
    })
}

/// How many columns [`entry`] reads; others stand behind them.
pub(crate) const ENTRY_COLUMNS: usize = 6;

/// Reads an entry whose key is known, from the columns `position, written_at, writer,
/// writer_device, writer_user_agent, content`.
pub(crate) fn entry(key: Key, row: &Row<'_>) -> Result<Entry, Failure> {
    entry_by(key, writer(row)?, row)
}

fn entry_by(key: Key, writer: Writer, row: &Row<'_>) -> Result<Entry, Failure> {
    Ok(Entry {
        key,
        position: Position(row.get(0)?),
        written_at: row.get(1)?,
        writer,
        content: content(row.get_ref(5)?)?,
    })
}

/// Reads an entry from the columns of [`entry`] and, behind them, `scope, place, type`.
pub(crate) fn entry_and_key(row: &Row<'_>) -> Result<Entry, Failure> {
    entry(key(row)?, row)
}

/// Reads many entries of one user, as [`entry_and_key`] does.
///
/// Most were written by the same device as the one before: its names are shared then, for making
/// and dropping them anew costs as much as the content does.
#[derive(Default)]
pub(crate) struct EntryReader {
    last_writer: Option<Writer>,
}

impl EntryReader {
    pub(crate) fn read(&mut self, row: &Row<'_>) -> Result<Entry, Failure> {
        let key = key(row)?;
        entry_by(key, self.writer(row)?, row)
    }

    /// Reads a live entry's description, from rows that have the bytes of the content in its place.
    pub(crate) fn describe(&mut self, row: &Row<'_>) -> Result<EntryDescription, Failure> {
        let key = key(row)?;
        Ok(EntryDescription {
            size_bytes: entry_size_bytes(&key, row.get(5)?),
            key,
            position: Position(row.get(0)?),
            writer: self.writer(row)?,
            written_at: row.get(1)?,
        })
    }

    fn writer(&mut self, row: &Row<'_>) -> Result<Writer, Failure> {
        let writer = match self.last_writer.take() {
            Some(last) if is_writer(&last, row)? => last,
            _ => writer(row)?,
        };
        self.last_writer = Some(writer.clone());
        Ok(writer)
    }
}

/// Reads a live entry from the columns `scope, place, type, content`, without copying it.
///
/// Its names are not looked at as the domain does it: nobody writes under them here.
pub(crate) fn live<'a>(row: &'a Row<'_>) -> Result<LiveEntry<'a>, Failure> {
    let text = |column| row.get_ref(column)?.as_str().map_err(|_| not_text());
    let scope = match row.get(0)? {
        0 => ScopeRef::Global,
        SCOPE_ROOM => ScopeRef::Room(text(1)?),
        SCOPE_DEVICE => ScopeRef::Device(text(1)?),
        other => return Err(strange_scope(other)),
    };
    let content = object(row.get_ref(3)?)?;
    Ok(LiveEntry {
        scope,
        event_type: text(2)?,
        content: content.ok_or_else(|| Failure::Row("a live entry has no content".to_owned()))?,
    })
}

/// Tells whether the row names this device as its writer.
fn is_writer(writer: &Writer, row: &Row<'_>) -> Result<bool, Failure> {
    let Writer::Device { id, user_agent } = writer else {
        return Ok(false);
    };
    let text = |column| row.get_ref(column);
    let user_agent = match user_agent {
        Some(user_agent) => ValueRef::Text(user_agent.as_bytes()),
        None => ValueRef::Null,
    };
    Ok(text(2)? == ValueRef::Integer(2)
        && text(3)? == ValueRef::Text(id.as_str().as_bytes())
        && text(4)? == user_agent)
}

fn key(row: &Row<'_>) -> Result<Key, Failure> {
    let place = || row.get::<_, Arc<str>>(ENTRY_COLUMNS + 1);
    let scope = match row.get(ENTRY_COLUMNS)? {
        0 => Scope::Global,
        SCOPE_ROOM => Scope::Room(RoomId::parse(place()?).map_err(unreadable)?),
        SCOPE_DEVICE => Scope::Device(DeviceId::parse(place()?).map_err(unreadable)?),
        other => return Err(strange_scope(other)),
    };
    let event_type: Arc<str> = row.get(ENTRY_COLUMNS + 2)?;
    Ok(Key::new(
        scope,
        EventType::parse(event_type).map_err(unreadable)?,
    ))
}

fn writer(row: &Row<'_>) -> Result<Writer, Failure> {
    match row.get(2)? {
        0 => Ok(Writer::Server),
        1 => Ok(Writer::Admin),
        2 => {
            let id: Arc<str> = row.get(3)?;
            Ok(Writer::Device {
                id: DeviceId::parse(id).map_err(unreadable)?,
                user_agent: row.get(4)?,
            })
        }
        other => Err(Failure::Row(format!(
            "an entry has a writer of the kind {other}"
        ))),
    }
}

fn strange_scope(scope: i64) -> Failure {
    Failure::Row(format!("an entry has the scope {scope}"))
}

fn not_text() -> Failure {
    Failure::Row("a name is not UTF-8".to_owned())
}

/// Copies a content out of SQLite's memory, once.
pub(crate) fn content(value: ValueRef<'_>) -> Result<Option<Content>, Failure> {
    let content = object(value)?;
    Ok(content.map(|text| Content::from_stored(text.to_vec().into())))
}

/// Returns the bytes of a content where they lie.
fn object(value: ValueRef<'_>) -> Result<Option<&[u8]>, Failure> {
    match value {
        ValueRef::Null => Ok(None),
        // A damaged page may hold anything, and a content that is no text ends whoever reads it.
        ValueRef::Text(text) if !is_utf8(text) => {
            Err(Failure::Row("a content is not UTF-8".to_owned()))
        }
        ValueRef::Text(text) if text.first() == Some(&b'{') && text.last() == Some(&b'}') => {
            Ok(Some(text))
        }
        other => Err(Failure::Row(format!(
            "a content is not a JSON object but {}",
            other.data_type()
        ))),
    }
}

/// Most contents are ASCII, which is seen in a third of the time.
fn is_utf8(text: &[u8]) -> bool {
    text.is_ascii() || std::str::from_utf8(text).is_ok()
}

/// A name in a row that the domain would not have let in.
#[expect(
    clippy::needless_pass_by_value,
    reason = "so that it goes into map_err"
)]
pub(crate) fn unreadable(error: IdError) -> Failure {
    Failure::Row(error.to_string())
}
