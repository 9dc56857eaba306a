//! The rows: whether each can be read, and whether each user's books are right.

use std::collections::BTreeMap;

use kitbag_domain::{Content, DeviceId, Limits, Usage, UserId};
use rusqlite::{Connection, Row};

use super::{Kind, Report, counted};
use crate::error::Failure;
use crate::rows::{self, unreadable};

/// What a user's row says, and what the other rows say of that user.
pub(super) struct Account {
    pub(super) name: String,
    pub(super) position: u64,
    horizon: u64,
    counted: Usage,
    /// What is there; see [`Account::is_exact`].
    pub(super) found: Usage,
    /// The highest position that was given out, as far as it can be seen.
    highest: u64,
    /// Whether all entries could be read, so that `found` is what the quota counts.
    is_exact: bool,
}

impl Account {
    /// Returns the position that the user must have at least, where it has less.
    pub(super) fn position_due(&self) -> Option<u64> {
        let due = self.highest.max(self.horizon);
        (self.position < due).then_some(due)
    }

    /// Returns the usage that the row must say, where it says another.
    pub(super) fn usage_due(&self) -> Option<Usage> {
        (self.is_exact && self.counted != self.found).then_some(self.found)
    }
}

/// All accounts whose row can be read, by the number of the row.
pub(super) type Accounts = BTreeMap<i64, Account>;

/// Live entries at device scope whose device is gone.
pub(super) const LOST_ENTRIES: &str = "
    SELECT e.id, e.user, e.place FROM entries e
    WHERE e.scope = 2 AND e.content IS NOT NULL AND NOT EXISTS
        (SELECT 1 FROM devices d WHERE d.user = e.user AND d.name = e.place)
    ORDER BY e.user, e.position";

/// Sessions of a device that is another user's.
pub(super) const STRAY_SESSIONS: &str = "
    SELECT s.id, s.user FROM sessions s JOIN devices d ON d.id = s.device
    WHERE d.user <> s.user";

/// Deactivated accounts that still have something.
pub(super) const LEFTOVERS: &str = "
    SELECT u.id FROM users u
    WHERE u.deactivated_at IS NOT NULL AND (
        EXISTS (SELECT 1 FROM entries e WHERE e.user = u.id)
        OR EXISTS (SELECT 1 FROM devices d WHERE d.user = u.id)
        OR EXISTS (SELECT 1 FROM filters f WHERE f.user = u.id))";

/// Looks at every row and compares the books.
pub(super) fn audit(connection: &Connection, report: &mut Report) {
    let mut accounts = Accounts::new();
    report.part("the users, devices and entries", |report| {
        accounts = read(connection, report)?;
        Ok(())
    });
    report.part("the sessions and filters", |report| {
        sessions(connection, &accounts, report)?;
        filters(connection, &accounts, report)
    });
    report.part("what belongs to whom", |report| {
        orphans(connection, &accounts, report)
    });
    for account in accounts.values() {
        compare(account, report);
    }
}

/// Reads users, devices and entries; what cannot be read goes into the report.
pub(super) fn read(connection: &Connection, report: &mut Report) -> Result<Accounts, Failure> {
    let mut accounts = users(connection, report)?;
    devices(connection, &mut accounts, report)?;
    entries(connection, &mut accounts, report)?;
    report.users = accounts.len() as u64;
    report.entries = accounts.values().map(|account| account.found.entries).sum();
    report.bytes = accounts.values().map(|account| account.found.bytes).sum();
    Ok(accounts)
}

fn users(connection: &Connection, report: &mut Report) -> Result<Accounts, Failure> {
    const SQL: &str = "
        SELECT id, name, position, horizon, entries, bytes, created_at, deactivated_at FROM users";
    let mut accounts = Accounts::new();
    each(connection, SQL, |row, id| {
        match user(row) {
            Ok(account) => drop(accounts.insert(id, account)),
            Err(failure) => {
                let text = format!("row {id} of `users` cannot be read: {failure}");
                report.add(Kind::Unreadable, None, text);
            }
        }
        Ok(())
    })?;
    if let Some(server_name) = report.server_name.clone() {
        for account in accounts.values() {
            let user = UserId::parse(account.name.as_str()).map_err(unreadable)?;
            if user.server_name() != server_name {
                let text = format!("the account is not of the server {server_name}");
                report.add(Kind::Identity, Some(&account.name), text);
            }
        }
    }
    Ok(accounts)
}

fn user(row: &Row<'_>) -> Result<Account, Failure> {
    let name: String = row.get(1)?;
    UserId::parse(name.as_str()).map_err(unreadable)?;
    let _created_at: u64 = row.get(6)?;
    let _deactivated_at: Option<u64> = row.get(7)?;
    Ok(Account {
        name,
        position: row.get(2)?,
        horizon: row.get(3)?,
        counted: Usage {
            entries: row.get(4)?,
            bytes: row.get(5)?,
        },
        found: Usage::default(),
        highest: 0,
        is_exact: true,
    })
}

fn devices(
    connection: &Connection,
    accounts: &mut Accounts,
    report: &mut Report,
) -> Result<(), Failure> {
    const SQL: &str = "
        SELECT id, user, name, incarnation, display_name, seen_at, seen_ip, seen_user_agent
        FROM devices";
    each(connection, SQL, |row, id| {
        let account = accounts.get_mut(&row.get(1)?);
        match device(row) {
            Ok(incarnation) => {
                if let Some(account) = account {
                    account.highest = account.highest.max(incarnation);
                }
            }
            Err(failure) => {
                let text = format!("row {id} of `devices` cannot be read: {failure}");
                let user = account.map(|account| account.name.as_str());
                report.add(Kind::Unreadable, user, text);
            }
        }
        Ok(())
    })
}

fn device(row: &Row<'_>) -> Result<u64, Failure> {
    let name: String = row.get(2)?;
    DeviceId::parse(name).map_err(unreadable)?;
    let _texts: [Option<String>; 3] = [row.get(4)?, row.get(6)?, row.get(7)?];
    let _seen_at: u64 = row.get(5)?;
    Ok(row.get(3)?)
}

fn entries(
    connection: &Connection,
    accounts: &mut Accounts,
    report: &mut Report,
) -> Result<(), Failure> {
    // In the order of the file, so that a large one is read from end to end.
    const SQL: &str = "
        SELECT position, written_at, writer, writer_device, writer_user_agent, content,
            scope, place, type, id, user
        FROM entries ORDER BY id";
    let limits = unlimited();
    let mut statement = connection.prepare(SQL)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, user): (i64, i64) = (row.get(9)?, row.get(10)?);
        let account = accounts.get_mut(&user);
        let read = entry(row, &limits);
        match (read, account) {
            (Ok((position, size_bytes)), Some(account)) => {
                account.highest = account.highest.max(position);
                account.found = account.found.replace(None, size_bytes);
            }
            (Ok(_), None) => {}
            (Err(failure), account) => {
                let text = format!("row {id} of `entries` cannot be read: {failure}");
                let user = account.map(|account| {
                    account.is_exact = false;
                    account.name.as_str()
                });
                report.add(Kind::Unreadable, user, text);
            }
        }
    }
    Ok(())
}

/// Returns the entry's position and, of a live one, what the quota counts for it.
fn entry(row: &Row<'_>, limits: &Limits) -> Result<(u64, Option<u64>), Failure> {
    let entry = rows::entry_and_key(row)?;
    if let Some(content) = &entry.content {
        // The content came in as JSON, under the limits of then.
        Content::parse(content.bytes().clone(), limits)
            .map_err(|error| Failure::Row(error.to_string()))?;
    }
    let size_bytes = entry.content.is_some().then(|| entry.size_bytes());
    Ok((entry.position.0, size_bytes))
}

fn sessions(
    connection: &Connection,
    accounts: &Accounts,
    report: &mut Report,
) -> Result<(), Failure> {
    const SQL: &str = "SELECT id, user, access, access_expires_at, refresh FROM sessions";
    each(connection, SQL, |row, id| {
        let read = || -> Result<(), Failure> {
            let _hashes: ([u8; 32], Option<[u8; 32]>) = (row.get(2)?, row.get(4)?);
            let _expires_at: Option<u64> = row.get(3)?;
            Ok(())
        };
        if let Err(failure) = read() {
            let text = format!("row {id} of `sessions` cannot be read: {failure}");
            report.add(Kind::Unreadable, name(accounts, row.get(1)?), text);
        }
        Ok(())
    })
}

fn filters(
    connection: &Connection,
    accounts: &Accounts,
    report: &mut Report,
) -> Result<(), Failure> {
    const SQL: &str = "SELECT id, user, number, filter FROM filters";
    let limits = unlimited();
    each(connection, SQL, |row, id| {
        let read = || -> Result<(), Failure> {
            let _number: u64 = row.get(2)?;
            let filter: String = row.get(3)?;
            let parsed = Content::parse(filter.into(), &limits);
            parsed.map_err(|_| Failure::Row("the filter is not a JSON object".to_owned()))?;
            Ok(())
        };
        if let Err(failure) = read() {
            let text = format!("row {id} of `filters` cannot be read: {failure}");
            report.add(Kind::Unreadable, name(accounts, row.get(1)?), text);
        }
        Ok(())
    })
}

/// Finds what no reference of the format covers.
fn orphans(
    connection: &Connection,
    accounts: &Accounts,
    report: &mut Report,
) -> Result<(), Failure> {
    const LOST: [&str; 3] = ["entry", "entries", "of a device that is gone"];
    const STRAY: [&str; 3] = ["session", "sessions", "on another user's device"];
    let mut found = BTreeMap::<(i64, [&'static str; 3]), u64>::new();
    for (sql, what) in [(LOST_ENTRIES, LOST), (STRAY_SESSIONS, STRAY)] {
        each(connection, sql, |row, _| {
            *found.entry((row.get(1)?, what)).or_default() += 1;
            Ok(())
        })?;
    }
    for ((user, [one, many, place]), count) in found {
        // Where the user is gone too, the row was found by its reference.
        if let Some(user) = name(accounts, user) {
            let text = format!("{} {place}", counted(count, one, many));
            report.add(Kind::Orphan, Some(user), text);
        }
    }
    each(connection, LEFTOVERS, |_, user| {
        let text = "it is deactivated, but not all of it was erased".to_owned();
        report.add(Kind::Orphan, name(accounts, user), text);
        Ok(())
    })
}

fn compare(account: &Account, report: &mut Report) {
    if let Some(due) = account.position_due() {
        let position = account.position;
        let text = format!("the position is {position}, but {due} was given out");
        report.add(Kind::Position, Some(&account.name), text);
    }
    if let Some(due) = account.usage_due() {
        let Usage { entries, bytes } = account.counted;
        let text = format!(
            "the count says {} of {}, but there are {} of {}",
            counted(entries, "entry", "entries"),
            counted(bytes, "byte", "bytes"),
            due.entries,
            counted(due.bytes, "byte", "bytes")
        );
        report.add(Kind::Usage, Some(&account.name), text);
    }
}

fn name(accounts: &Accounts, user: i64) -> Option<&str> {
    accounts.get(&user).map(|account| account.name.as_str())
}

/// Calls `read` with each row and its first column, the number of the row.
fn each(
    connection: &Connection,
    sql: &str,
    mut read: impl FnMut(&Row<'_>, i64) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        read(row, row.get(0)?)?;
    }
    Ok(())
}

/// What was let in under other limits stays readable.
fn unlimited() -> Limits {
    Limits {
        content_bytes_max: u64::MAX,
        json_depth_max: usize::MAX,
        ..Limits::default()
    }
}
