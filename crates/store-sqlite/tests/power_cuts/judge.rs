//! Opens what a power cut left, and compares it with what clients were told before.

use std::collections::HashMap;
use std::path::Path;

use kitbag_domain::{
    AccountStore as _, Allowance, EntryStore as _, Expectation, Guard, Key, Op, Position,
    ServerName, UserId, Write, Writer,
};
use kitbag_store_sqlite::{Durability, Options, SqliteStore, check};
use kitbag_testkit::{content, global};
use rusqlite::Connection;

use crate::facts::{Account, Device, Facts, Place, Written};
use crate::feed;
use crate::load::place;

/// What became of the writes that were under way.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) survived: usize,
    pub(crate) vanished: usize,
}

/// What is wrong.
type Finding = String;

/// Makes a finding where something does not hold.
macro_rules! ensure {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}

pub(crate) async fn judge(dir: &Path, facts: &Facts, at: Place) -> Result<Verdict, Finding> {
    let mut options = Options::new(ServerName::parse("localhost").unwrap(), 1);
    // This disk does not fail.
    options.durability = Durability::None;
    let opened = SqliteStore::open(dir, options);
    let store = opened.map_err(|error| format!("it does not open: {error}"))?;
    let streams = streams(dir).map_err(|error| format!("it cannot be read: {error}"))?;
    let mut verdict = Verdict::default();
    let mut ends = Vec::new();
    for account in &facts.accounts {
        let stream = streams.get(account.user.as_str());
        if is_alive(stream, account, at)? {
            let stream = stream.expect("who lives has a stream");
            let end = judge_stream(stream, &account.user, facts, at, &mut verdict)?;
            ends.push((&account.user, end));
        }
    }
    feed::judge(dir, facts, at)?;
    for device in facts.devices.values() {
        judge_device(&store, device, at).await?;
    }
    for (user, end) in ends {
        let position = write_next(&store, user).await?;
        ensure!(
            position > end,
            "{user} had {end}, and the next is {position}"
        );
    }
    store.close();
    let report = check::check(dir).map_err(|error| format!("it cannot be checked: {error}"))?;
    ensure!(report.is_sound(), "it is not sound: {report:#?}");
    Ok(verdict)
}

/// What is kept of a user.
#[derive(Debug, Default)]
struct Stream {
    head: Position,
    horizon: Position,
    is_deactivated: bool,
    /// Position and text by place; tombstones have no text.
    entries: HashMap<String, (Position, Option<String>)>,
}

/// Reads the streams of all users: the store does not show tombstones behind a horizon.
fn streams(dir: &Path) -> rusqlite::Result<HashMap<String, Stream>> {
    let connection = Connection::open(dir.join("kitbag.db"))?;
    let mut streams = HashMap::<String, Stream>::new();
    let sql = "SELECT name, position, horizon, deactivated_at IS NOT NULL FROM users";
    let mut users = connection.prepare(sql)?;
    let mut rows = users.query([])?;
    while let Some(row) = rows.next()? {
        let stream = Stream {
            head: Position(row.get(1)?),
            horizon: Position(row.get(2)?),
            is_deactivated: row.get(3)?,
            entries: HashMap::new(),
        };
        streams.insert(row.get(0)?, stream);
    }
    let sql = "SELECT name, scope, place, type, entries.position, content
               FROM entries JOIN users ON users.id = entries.user";
    let mut entries = connection.prepare(sql)?;
    let mut rows = entries.query([])?;
    while let Some(row) = rows.next()? {
        let (user, scope, place): (String, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let event_type: String = row.get(3)?;
        let place = format!("{user} {scope} {place} {event_type}");
        let entry = (Position(row.get(4)?), row.get(5)?);
        let stream = streams.get_mut(&user).expect("it was joined with its user");
        stream.entries.insert(place, entry);
    }
    Ok(streams)
}

/// Judges whether an account is there as it was told; tells whether it is, and is active.
fn is_alive(stream: Option<&Stream>, account: &Account, at: Place) -> Result<bool, Finding> {
    let user = &account.user;
    let was = |place: Option<Place>| place.is_some_and(|place| place <= at);
    let Some(stream) = stream else {
        ensure!(!was(account.registered), "{user} is gone");
        return Ok(false);
    };
    if stream.is_deactivated {
        let begun = was(account.deactivation_begun);
        ensure!(begun, "{user} was deactivated by nobody");
        return Ok(false);
    }
    ensure!(!was(account.deactivated), "{user} is active again");
    Ok(true)
}

/// Judges the entries of an account; returns the highest position that was told of it.
fn judge_stream(
    stream: &Stream,
    user: &UserId,
    facts: &Facts,
    at: Place,
    verdict: &mut Verdict,
) -> Result<Position, Finding> {
    for (of, (position, text)) in &stream.entries {
        let meaning = facts.positions.get(&(user.clone(), *position));
        // What was told later may stand for another write: the one that is here was given up.
        if let Some((_, key, wanted)) = meaning.filter(|(told, ..)| *told <= at) {
            ensure!(
                place(user, key) == *of && wanted.as_deref() == text.as_deref(),
                "{of} is at {position}, which was told of {key:?}, or of another content"
            );
        }
        let is_own = text.as_ref().is_none_or(|text| text.contains(of));
        ensure!(is_own, "{of} has the content {text:?}");
    }
    let told = facts
        .heads
        .iter()
        .filter(|head| head.user == *user && head.told <= at);
    let mut end = told.map(|head| head.position).max().unwrap_or_default();
    for written in facts.writes.iter().filter(|written| written.user == *user) {
        let found = stream.entries.get(&place(user, &written.key));
        match written.told {
            Some((told, position)) if told <= at => {
                end = end.max(position);
                judge_write(stream, written, position, found.map(|(found, _)| *found))?;
            }
            _ if written.begun <= at && written.text.is_some() => {
                let text = found.and_then(|(_, text)| text.as_deref());
                let is_here = text == written.text.as_deref();
                verdict.survived += usize::from(is_here);
                verdict.vanished += usize::from(!is_here);
            }
            _ => {}
        }
    }
    let head = stream.head;
    ensure!(head >= end, "{user} was told {end}, and stands at {head}");
    Ok(end)
}

/// Judges a write that was acknowledged at `position`.
fn judge_write(
    stream: &Stream,
    written: &Written,
    position: Position,
    found: Option<Position>,
) -> Result<(), Finding> {
    let Written { user, key, .. } = written;
    // Where it is missing, its tombstone or that of a later deletion was collected.
    let found = found.unwrap_or(stream.horizon);
    ensure!(
        found >= position,
        "{user}: {key:?} was at {position}, and is at {found} or gone"
    );
    Ok(())
}

/// Judges a device: it is as it was last told, or as one of the changes behind that leaves it.
async fn judge_device(store: &SqliteStore, device: &Device, at: Place) -> Result<(), Finding> {
    let Device { user, id, chapters } = device;
    let is_told = |told: Option<Place>| told.is_some_and(|told| told <= at);
    let Some(last) = chapters.iter().rposition(|chapter| is_told(chapter.told)) else {
        return Ok(());
    };
    let possible = || {
        chapters[last..]
            .iter()
            .filter(|chapter| chapter.begun <= at)
    };
    let found = store
        .device(user, id)
        .await
        .map_err(|error| error.to_string())?;
    let Some(found) = found else {
        let may_be_gone = possible().any(|chapter| chapter.session.is_none());
        ensure!(may_be_gone, "{user}: {id} is gone");
        return Ok(());
    };
    for session in possible().filter_map(|chapter| chapter.session.as_ref()) {
        let there = store.session(user, session.access).await;
        if there.map_err(|error| error.to_string())?.is_some() {
            let wanted = session.incarnation.unwrap_or(found.incarnation);
            ensure!(
                wanted == found.incarnation,
                "{user}: {id} is another one: {found:?}"
            );
            return Ok(());
        }
    }
    let possible: Vec<_> = possible().collect();
    Err(format!(
        "{user}: {id} has none of its sessions: {possible:?}"
    ))
}

/// Writes once more, and returns the position.
async fn write_next(store: &SqliteStore, user: &UserId) -> Result<Position, Finding> {
    let key: Key = global("next");
    let op = Op::Put(key, content("{}"), Expectation::default());
    let write = Write {
        guard: Guard::Account,
        writer: Writer::Admin,
        at: 2,
        allowance: Allowance::Ordinary,
    };
    let applied = store.apply(user, write, vec![op]).await;
    let applied = applied.map_err(|error| format!("{user} cannot write: {error}"))?;
    applied.positions[0].ok_or_else(|| "a put takes a position".to_owned())
}
