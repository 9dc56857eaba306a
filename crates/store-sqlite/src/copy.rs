//! Writing a copy of a database, which gets its name only when it is whole and on the disk.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use tempfile::{Builder, NamedTempFile, PersistError};

use crate::format;
use crate::open::{OpenError, sqlite_error, sync_dir};

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
        let mut copy = || -> rusqlite::Result<()> {
            let backup = Backup::new(source, &mut target)?;
            while backup.step(STEP_PAGES)? == StepResult::More {}
            Ok(())
        };
        copy().map_err(|error| self.error(&error))
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
        let synced = self.file.as_file().sync_all();
        synced.map_err(|source| self.io_error("sync", source))?;
        let Self { file, to } = self;
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

fn parent(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
