//! Mending what follows from other rows, in one transaction behind a copy.

use std::path::{Path, PathBuf};

use kitbag_domain::Usage;
use rusqlite::{Connection, TransactionBehavior};

use super::books::{self, LEFTOVERS, LOST_ENTRIES, STRAY_SESSIONS};
use super::{Kind, Report, counted, examine_file, feed};
use crate::checkpoint::Checkpoints;
use crate::copy::Draft;
use crate::error::Failure;
use crate::format::{self, Role, Source};
use crate::open::{self, OpenError, sqlite_error};
use crate::restore::{self, BEFORE_REPAIR};
use crate::rows::int;
use crate::store;

/// What a mending needs from outside.
#[derive(Clone, Debug)]
pub struct Mending {
    /// Becomes a part of the copy's name, such as the time of now.
    pub stamp: String,
    /// Random; becomes the epoch where positions were mended.
    pub epoch_seed: u64,
}

/// How a mending ended.
#[derive(Clone, Debug)]
pub struct Mended {
    /// What was found before.
    pub before: Report,
    /// The copy of the database as it was; `None` where there was nothing that could be mended.
    pub copy: Option<PathBuf>,
    /// What was mended.
    pub mends: Vec<Mend>,
    /// What is still found.
    pub after: Report,
}

impl Mended {
    /// Nothing was done.
    pub(super) fn nothing(found: Report) -> Self {
        Self {
            after: found.clone(),
            before: found,
            copy: None,
            mends: Vec::new(),
        }
    }
}

/// Something that was mended. Holds no content and no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mend {
    /// What kind of thing it was.
    pub kind: Kind,
    /// Whose it is, where it is one user's.
    pub user: Option<String>,
    /// What was done.
    pub text: String,
}

pub(super) fn mend(file: &Path, before: Report, mending: &Mending) -> Result<Mended, OpenError> {
    if !before.is_mendable() {
        return Ok(Mended::nothing(before));
    }
    let name = format!("{BEFORE_REPAIR}{}", mending.stamp);
    let copy = free(&file.with_file_name(name))?;
    let source = Source::plain(file.to_owned());
    let connection = source.connect(Role::Write);
    let connection = connection.map_err(|error| sqlite_error(file, &error))?;
    let mut connection = open::harden(connection, &source)?;
    let mends = mend_behind_copy(&mut connection, file, &copy, mending);
    // Also where it failed: nothing stays beside the database.
    let left = store::leave(connection, &Checkpoints::default());
    let mends = mends?;
    left.map_err(|failure| sqlite(file, &failure))?;
    Ok(Mended {
        before,
        copy: Some(copy),
        mends,
        after: examine_file(file)?,
    })
}

/// Returns a name that nothing has, for a copy: two mendings may come within a second.
fn free(file: &Path) -> Result<PathBuf, OpenError> {
    let mut free = file.to_owned();
    for number in 2.. {
        if !restore::is_named(&free)? {
            break;
        }
        free = format::beside(file, &format!("-{number}"));
    }
    Ok(free)
}

fn mend_behind_copy(
    connection: &mut Connection,
    file: &Path,
    copy: &Path,
    mending: &Mending,
) -> Result<Vec<Mend>, OpenError> {
    let draft = Draft::create(copy)?;
    draft.fill(connection)?;
    draft.seal()?;
    draft.finish(false)?;
    transact(connection, mending).map_err(|failure| sqlite(file, &failure))
}

fn sqlite(file: &Path, failure: &Failure) -> OpenError {
    OpenError::Sqlite {
        file: file.to_owned(),
        reason: failure.to_string(),
    }
}

fn transact(connection: &mut Connection, mending: &Mending) -> Result<Vec<Mend>, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut work = Work {
        connection: &transaction,
        mends: Vec::new(),
    };
    work.remove_unowned()?;
    // Before anything takes a position, so that none is given out twice.
    let has_moved = work.raise_positions()?;
    work.bury_lost_entries()?;
    work.erase_leftovers()?;
    work.recount()?;
    work.mend_feed()?;
    if has_moved {
        work.draw_epoch(mending.epoch_seed)?;
    }
    let mends = work.mends;
    transaction.commit()?;
    Ok(mends)
}

struct Work<'a> {
    connection: &'a Connection,
    mends: Vec<Mend>,
}

impl Work<'_> {
    /// Removes rows whose user or device is gone: nobody can reach them.
    fn remove_unowned(&mut self) -> Result<(), Failure> {
        let stray = format!(
            "DELETE FROM sessions WHERE device NOT IN (SELECT id FROM devices)
                OR id IN (SELECT id FROM ({STRAY_SESSIONS}))"
        );
        let gone = "user NOT IN (SELECT id FROM users)";
        for (one, many, sql) in [
            (
                "session",
                "sessions",
                format!("DELETE FROM sessions WHERE {gone}"),
            ),
            (
                "device",
                "devices",
                format!("DELETE FROM devices WHERE {gone}"),
            ),
            (
                "entry",
                "entries",
                format!("DELETE FROM entries WHERE {gone}"),
            ),
            (
                "filter",
                "filters",
                format!("DELETE FROM filters WHERE {gone}"),
            ),
            ("session", "sessions", stray),
        ] {
            let count = self.connection.execute(&sql, [])?;
            if count > 0 {
                let rows = counted(count as u64, one, many);
                let text = format!("removed {rows} whose user or device is gone");
                self.note(Kind::Orphan, None, text);
            }
        }
        Ok(())
    }

    /// Raises positions that are lower than one that was given out; tells whether any was.
    fn raise_positions(&mut self) -> Result<bool, Failure> {
        const SQL: &str = "UPDATE users SET position = ?2 WHERE id = ?1";
        let mut has_moved = false;
        for (id, account) in books::read(self.connection, &mut Report::default())? {
            if let Some(due) = account.position_due() {
                self.connection.execute(SQL, (id, int(due)))?;
                let text = format!("raised the position from {} to {due}", account.position);
                self.note(Kind::Position, Some(account.name), text);
                has_moved = true;
            }
        }
        Ok(has_moved)
    }

    /// Makes tombstones of the entries whose device is gone, as its removal should have done.
    fn bury_lost_entries(&mut self) -> Result<(), Failure> {
        const MOVE: &str = "UPDATE users SET position = position + 1 WHERE id = ?1";
        const BURY: &str = "
            UPDATE entries SET content = NULL, writer = 0, writer_device = NULL,
                writer_user_agent = NULL, position = (SELECT position FROM users WHERE id = ?2)
            WHERE id = ?1";
        let lost: Vec<(i64, i64)> =
            self.rows(LOST_ENTRIES, |row| Ok((row.get(0)?, row.get(1)?)))?;
        for (entry, user) in &lost {
            self.connection.execute(MOVE, [user])?;
            self.connection.execute(BURY, (entry, user))?;
        }
        let mut users: Vec<i64> = lost.iter().map(|(_, user)| *user).collect();
        users.dedup();
        for user in users {
            let count = lost.iter().filter(|(_, of)| *of == user).count();
            let entries = counted(count as u64, "entry", "entries");
            let text = format!("deleted {entries} of a device that is gone");
            let name = self.name(user)?;
            self.note(Kind::Orphan, Some(name), text);
        }
        Ok(())
    }

    /// Erases what a deactivated account still has.
    fn erase_leftovers(&mut self) -> Result<(), Failure> {
        const DROP: [&str; 4] = [
            "DELETE FROM entries WHERE user = ?1",
            "DELETE FROM devices WHERE user = ?1",
            "DELETE FROM filters WHERE user = ?1",
            "UPDATE users SET position = position + 1, horizon = position + 1 WHERE id = ?1",
        ];
        for user in self.rows(LEFTOVERS, |row| row.get::<_, i64>(0))? {
            for sql in DROP {
                self.connection.execute(sql, [user])?;
            }
            let name = self.name(user)?;
            let text = "erased what the deactivation had left".to_owned();
            self.note(Kind::Orphan, Some(name), text);
        }
        Ok(())
    }

    /// Sets the counts to what is there.
    fn recount(&mut self) -> Result<(), Failure> {
        const SQL: &str = "UPDATE users SET entries = ?2, bytes = ?3 WHERE id = ?1";
        for (id, account) in books::read(self.connection, &mut Report::default())? {
            if let Some(Usage { entries, bytes }) = account.usage_due() {
                self.connection
                    .execute(SQL, (id, int(entries), int(bytes)))?;
                let entries = counted(entries, "entry", "entries");
                let bytes = counted(bytes, "byte", "bytes");
                let text = format!("set the count to {entries} of {bytes}");
                self.note(Kind::Usage, Some(account.name), text);
            }
        }
        Ok(())
    }

    /// Gives each change of device account data its number; where anything but a count was mended,
    /// what the feed told may be wrong.
    fn mend_feed(&mut self) -> Result<(), Failure> {
        if !feed::is_there(self.connection)? {
            return Ok(());
        }
        let mut found = Report::default();
        feed::audit(self.connection, &mut found)?;
        if !found.is_sound() {
            feed::mend(self.connection)?;
            let text = "gave out new numbers in the feed of device data".to_owned();
            self.note(Kind::Feed, None, text);
        }
        let is_doubtful = |mend: &Mend| mend.kind != Kind::Usage;
        if self.mends.iter().any(is_doubtful) {
            feed::start_anew(self.connection)?;
            let text = "let what follows device data start anew, once".to_owned();
            self.note(Kind::Feed, None, text);
        }
        Ok(())
    }

    /// Has every client sync in full: one may hold a token at a position that now comes again.
    fn draw_epoch(&mut self, seed: u64) -> Result<(), Failure> {
        let sql = "UPDATE store SET epoch = ?1";
        self.connection.execute(sql, [seed.cast_signed()])?;
        let text = "drew a new epoch: each client syncs in full, once".to_owned();
        self.note(Kind::Position, None, text);
        Ok(())
    }

    fn rows<T>(
        &self,
        sql: &str,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Failure> {
        let mut statement = self.connection.prepare(sql)?;
        let rows = statement.query_map([], read)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn name(&self, user: i64) -> Result<String, Failure> {
        let sql = "SELECT name FROM users WHERE id = ?1";
        Ok(self.connection.query_row(sql, [user], |row| row.get(0))?)
    }

    fn note(&mut self, kind: Kind, user: Option<String>, text: String) {
        self.mends.push(Mend { kind, user, text });
    }
}
