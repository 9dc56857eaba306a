//! The feed: the numbers of the changes of device account data, from version 2 of the format on.

use rusqlite::Connection;

use super::{Kind, Report, counted};
use crate::error::Failure;
use crate::format::Header;

/// The first version of the format that has a feed.
const VERSION: u32 = 2;

/// What must have a number of its own, and has none: entries at device scope.
const WITHOUT: &str = "
    FROM entries WHERE scope = 2 AND (coalesce(feed, 0) < 1
        OR EXISTS (SELECT 1 FROM users u WHERE u.feed = entries.feed))";

/// What must not have one, or has one that nobody gave.
const STRAY: [[&str; 2]; 2] = [
    ["entries", "scope <> 2 AND feed IS NOT NULL"],
    [
        "users",
        "feed < 1 OR deactivated_at IS NULL AND feed IS NOT NULL",
    ],
];

/// The head and the floor as they stand there, and the highest number that was given out.
struct Heads {
    head: i64,
    floor: i64,
    highest: i64,
}

/// Looks at the numbers and at the head and the floor of the store.
pub(super) fn audit(connection: &Connection, report: &mut Report) -> Result<(), Failure> {
    if !is_there(connection)? {
        return Ok(());
    }
    let without = count(connection, WITHOUT)?;
    if without > 0 {
        let entries = counted(without, "entry", "entries");
        let text = format!("{entries} at device scope without a number of its own in the feed");
        report.add(Kind::Feed, None, text);
    }
    for [table, stray] in STRAY {
        let stray = count(connection, &format!("FROM {table} WHERE {stray}"))?;
        if stray > 0 {
            let rows = counted(stray, "row", "rows");
            let text = format!("{rows} of `{table}` with a number in the feed that is not theirs");
            report.add(Kind::Feed, None, text);
        }
    }
    let Some(heads) = Heads::read(connection)? else {
        // Without its row the store has lost more than this.
        return Ok(());
    };
    let Heads {
        head,
        floor,
        highest,
    } = heads;
    if head < highest.max(0) {
        let text = format!("the head of the feed is {head}, but {highest} was given out");
        report.add(Kind::Feed, None, text);
    }
    if floor < 0 || floor > head {
        let text = format!("the floor of the feed is {floor}, and its head {head}");
        report.add(Kind::Feed, None, text);
    }
    Ok(())
}

/// Gives numbers to what has none and takes them from what must not have one; raises the head.
pub(super) fn mend(connection: &Connection) -> Result<(), Failure> {
    const NEXT: &str = "
        UPDATE store SET feed_head = feed_head + 1 RETURNING feed_head";
    for [table, stray] in STRAY {
        let sql = format!("UPDATE {table} SET feed = NULL WHERE {stray}");
        connection.execute(&sql, [])?;
    }
    let Some(heads) = Heads::read(connection)? else {
        return Ok(());
    };
    // The floor was given out too, to an entry that is gone.
    let head = heads.head.max(heads.highest).max(heads.floor).max(0);
    connection.execute("UPDATE store SET feed_head = ?1", [head])?;
    let mut without = connection.prepare(&format!("SELECT id {WITHOUT} ORDER BY id"))?;
    let rows = without.query_map([], |row| row.get::<_, i64>(0))?;
    for entry in rows.collect::<rusqlite::Result<Vec<_>>>()? {
        let number: i64 = connection.query_row(NEXT, [], |row| row.get(0))?;
        let sql = "UPDATE entries SET feed = ?2 WHERE id = ?1";
        connection.execute(sql, (entry, number))?;
    }
    Ok(())
}

/// Has whoever follows the feed start anew: no number that was told before reaches the floor.
pub(super) fn start_anew(connection: &Connection) -> Result<(), Failure> {
    let sql = "UPDATE store SET feed_head = feed_head + 1, feed_floor = feed_head + 1";
    connection.execute(sql, [])?;
    Ok(())
}

/// Tells whether the file has a feed.
pub(super) fn is_there(connection: &Connection) -> Result<bool, Failure> {
    Ok(Header::read(connection)?.version >= VERSION)
}

impl Heads {
    fn read(connection: &Connection) -> Result<Option<Self>, Failure> {
        const SQL: &str = "
            SELECT feed_head, feed_floor, max(
                coalesce((SELECT max(feed) FROM entries), 0),
                coalesce((SELECT max(feed) FROM users), 0)) FROM store";
        let mut statement = connection.prepare(SQL)?;
        let mut rows = statement.query([])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        Ok(Some(Self {
            head: row.get(0)?,
            floor: row.get(1)?,
            highest: row.get(2)?,
        }))
    }
}

fn count(connection: &Connection, from: &str) -> Result<u64, Failure> {
    let sql = format!("SELECT count(*) {from}");
    Ok(connection.query_row(&sql, [], |row| row.get(0))?)
}
