//! Writing a copy of a database, which gets its name only when it is whole and on the disk.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use tempfile::{Builder, NamedTempFile, PersistError};

use crate::files::{self, Deed};
use crate::format;
use crate::open::{OpenError, io_error, sqlite_error, sync_dir};
use crate::writer::Stop;

/// What stands behind the wanted name, before some letters, until a copy is whole.
pub(crate) const PARTIAL: &str = ".partial-";
/// Pages in the cache of a copy's connection: what is written should reach the file step by step.
const CACHE_PAGES: u32 = 64;
/// Pages that are copied at once where nobody waits.
const STEP_PAGES: i32 = 4_096;

/// A copy that is not whole yet, under a name that nobody takes for a whole one.
///
/// Dropping it removes it.
pub(crate) struct Draft {
    file: NamedTempFile,
    to: PathBuf,
}

impl Draft {
    /// Makes an empty draft beside `to`, for its owner alone.
    pub(crate) fn create(to: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Io {
            action: "create a file beside",
            file: to.to_owned(),
            source,
        };
        let name = to.file_name().ok_or(io::ErrorKind::InvalidInput);
        let mut prefix = name.map_err(|kind| failed(kind.into()))?.to_owned();
        prefix.push(PARTIAL);
        let file = Builder::new().prefix(&prefix).tempfile_in(parent(to));
        Ok(Self {
            file: file.map_err(failed)?,
            to: to.to_owned(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Opens the connection into which a database is copied.
    ///
    /// It needs no journal, since what is not finished is thrown away.
    pub(crate) fn connect(&self) -> Result<Connection, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connect = || {
            let connection = Connection::open_with_flags(self.path(), flags)?;
            connection.execute_batch(&format!(
                "PRAGMA journal_mode = OFF;
                 PRAGMA synchronous = OFF;
                 PRAGMA cache_size = {CACHE_PAGES};"
            ))?;
            Ok(connection)
        };
        connect().map_err(|error| self.error(&error))
    }

    /// Copies everything of `source` at once.
    pub(crate) fn fill(&self, source: &Connection) -> Result<(), OpenError> {
        let mut target = self.connect()?;
        let filled = fill(source, &mut target, &mut |_, _| ControlFlow::Continue(()));
        filled.map_err(|stop| match stop {
            Stop::Sqlite(error) => self.error(&error),
            _ => OpenError::Sqlite {
                file: self.to.clone(),
                reason: "another program has the database locked".to_owned(),
            },
        })
    }

    /// Starts writing to the disk what was copied so far, and waits for it.
    pub(crate) fn sync(&self) -> Result<(), OpenError> {
        let synced = self.file.as_file().sync_data();
        synced.map_err(|source| self.io_error("sync", source))
    }

    /// Makes one file of the copy that needs none beside it.
    ///
    /// A database in WAL mode is opened with a log; a copy should be readable where nothing can be
    /// written.
    pub(crate) fn seal(&self) -> Result<(), OpenError> {
        let sealed = || {
            let connection = Connection::open(self.path())?;
            connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
            format::leave_wal(&connection)
        };
        sealed().map_err(|error: rusqlite::Error| self.error(&error))
    }

    /// Gives the copy its name, once it is on the disk.
    pub(crate) fn finish(self, replace: bool) -> Result<(), OpenError> {
        // By SQLite.
        let written = files::note(Deed::Write(self.path()));
        let synced = written.and_then(|()| files::sync(self.file.as_file(), self.path()));
        synced.map_err(|source| self.io_error("sync", source))?;
        let Self { file, to } = self;
        let noted = files::note(Deed::Rename(file.path(), &to));
        noted.map_err(|source| io_error("name the copy", to.clone(), source))?;
        let named = if replace {
            file.persist(&to)
        } else {
            file.persist_noclobber(&to)
        };
        named.map_err(|PersistError { error, .. }| OpenError::Io {
            action: "name the copy",
            file: to.clone(),
            source: error,
        })?;
        sync_dir(parent(&to))
    }

    pub(crate) fn error(&self, error: &rusqlite::Error) -> OpenError {
        sqlite_error(&self.to, error)
    }

    fn io_error(&self, action: &'static str, source: io::Error) -> OpenError {
        OpenError::Io {
            action,
            file: self.to.clone(),
            source,
        }
    }
}

/// Copies everything of `source`, and tells between the steps how many pages, of how many.
pub(crate) fn fill(
    source: &Connection,
    target: &mut Connection,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<(), Stop> {
    let backup = Backup::new(source, target).map_err(Stop::Sqlite)?;
    while !step(&backup, STEP_PAGES)? {
        let (pages, of) = pages(&backup);
        if progress(pages, of).is_break() {
            return Err(Stop::Cancelled);
        }
    }
    Ok(())
}

/// Copies some pages; tells whether they were the last ones.
pub(crate) fn step(backup: &Backup<'_, '_>, count: i32) -> Result<bool, Stop> {
    match backup.step(count).map_err(Stop::Sqlite)? {
        StepResult::Done => Ok(true),
        StepResult::More => Ok(false),
        // Nobody else has the target.
        _ => Err(Stop::Locked),
    }
}

/// Returns how many pages were copied, of how many.
pub(crate) fn pages(backup: &Backup<'_, '_>) -> (u64, u64) {
    let progress = backup.progress();
    let count = |pages: i32| u64::try_from(pages).unwrap_or(0);
    let all = count(progress.pagecount);
    (all.saturating_sub(count(progress.remaining)), all)
}

fn parent(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::tempdir;

    use super::*;
    use crate::files::record::{self, Recorded, assert_durable};

    #[test]
    fn a_copy_of_what_another_program_has_locked_fails() {
        let dir = tempdir().unwrap();
        let file = dir.path().join("source.db");
        let source = Connection::open(&file).unwrap();
        source.execute_batch("CREATE TABLE t (a)").unwrap();
        source.busy_timeout(Duration::ZERO).unwrap();
        let draft = Draft::create(&dir.path().join("copy.db")).unwrap();
        let other = Connection::open(&file).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let failed = draft.fill(&source).unwrap_err().to_string();
        assert!(failed.contains("another program has"), "{failed}");
        drop(other);
        draft.fill(&source).unwrap();
    }

    #[test]
    fn a_copy_is_on_the_disk_before_it_has_its_name() {
        let dir = tempdir().unwrap();
        let source = Connection::open_in_memory().unwrap();
        source.execute_batch("CREATE TABLE t (a)").unwrap();
        for replace in [false, true] {
            let to = dir.path().join("copy.db");
            record::take();
            let draft = Draft::create(&to).unwrap();
            draft.fill(&source).unwrap();
            draft.seal().unwrap();
            let from = draft.path().to_owned();
            draft.finish(replace).unwrap();
            let deeds = record::take();
            assert_durable(&deeds);
            assert!(deeds.contains(&Recorded::Rename(from, to)), "{deeds:?}");
        }
    }
}
