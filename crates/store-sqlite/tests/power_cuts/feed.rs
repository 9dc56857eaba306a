//! The feed of all users' device data behind a power cut: laws 2 and 7 for who follows it.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use rusqlite::Connection;

use crate::facts::{Facts, Place};
use crate::load::place;

/// What the file holds of the feed.
struct Feed {
    head: u64,
    floor: u64,
    /// The number of each entry and tombstone at device scope, by its place.
    numbers: HashMap<String, u64>,
    /// Users whose account ended.
    ended: BTreeSet<String>,
}

/// Judges that nothing is lost to who followed the feed, and no number told is given again.
pub(crate) fn judge(dir: &Path, facts: &Facts, at: Place) -> Result<(), String> {
    let feed = Feed::read(dir).map_err(|error| format!("the feed cannot be read: {error}"))?;
    let told = facts.feed_heads.iter().filter(|(told, _)| *told <= at);
    if let Some(highest) = told.map(|(_, head)| *head).max()
        && feed.head < highest
    {
        let head = feed.head;
        return Err(format!(
            "the feed was told at {highest}, and stands at {head}"
        ));
    }
    for written in &facts.writes {
        let is_told = written.told.is_some_and(|(told, _)| told <= at);
        if !is_told || written.key.scope.device().is_none() {
            continue;
        }
        // Whoever read up to there before it was begun must hear of it, or of what came later.
        let before = facts.feed_heads.iter();
        let before = before.filter(|(told, _)| *told <= written.begun);
        let before = before.map(|(_, head)| *head).max().unwrap_or(0);
        let found = feed.numbers.get(&place(&written.user, &written.key));
        let is_told = match found {
            Some(number) => *number > before,
            None => feed.floor > before || feed.ended.contains(written.user.as_str()),
        };
        if !is_told {
            let (user, key) = (&written.user, &written.key);
            return Err(format!(
                "{user}: {key:?} was written behind {before} of the feed, and is at {found:?}"
            ));
        }
    }
    Ok(())
}

impl Feed {
    fn read(dir: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(dir.join("kitbag.db"))?;
        let sql = "SELECT feed_head, feed_floor FROM store";
        let heads = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
        let (head, floor) = heads?;
        let sql = "SELECT name, place, type, entries.feed FROM entries
                   JOIN users ON users.id = entries.user WHERE scope = 2";
        let mut entries = connection.prepare(sql)?;
        let numbers = entries.query_map([], |row| {
            let (user, place): (String, String) = (row.get(0)?, row.get(1)?);
            let event_type: String = row.get(2)?;
            Ok((format!("{user} 2 {place} {event_type}"), row.get(3)?))
        })?;
        let numbers = numbers.collect::<rusqlite::Result<_>>()?;
        let sql = "SELECT name FROM users WHERE feed IS NOT NULL";
        let mut users = connection.prepare(sql)?;
        let ended = users.query_map([], |row| row.get(0))?;
        Ok(Self {
            head,
            floor,
            numbers,
            ended: ended.collect::<rusqlite::Result<_>>()?,
        })
    }
}
