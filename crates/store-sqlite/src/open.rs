//! From a directory to an open database: lock, file, format, identity.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use kitbag_domain::ServerName;
use rusqlite::{Connection, OptionalExtension as _};
use thiserror::Error;

use crate::checkpoint;
use crate::error::is_damaged_file;
use crate::files;
use crate::format::{self, APPLICATION_ID, Header, MIGRATIONS, Migration, Role, Source};
use crate::lock;
use crate::options::{Options, limit};
use crate::restore;

pub(crate) const DATABASE_FILE: &str = "kitbag.db";
pub(crate) const LOCK_FILE: &str = "lock";
/// Other files of the directory that a copy must not replace.
pub(crate) const OWN_FILES: [&str; 2] = [LOCK_FILE, "admin.sock"];

/// Why a store was not opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// SQLite found the file to be damaged, or what Kitbag keeps in it is missing.
    #[error("`{}` is damaged: {reason}", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The system refused an operation on a file, or a thread.
    #[error("cannot {action} `{}`", file.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds the directory.
    #[error("the data directory `{}` is in use by another process, such as a running server", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// There is no store.
    #[error("there is no store in `{}`", dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// The file was written by a newer Kitbag.
    #[error("`{}` has format {found}; this Kitbag knows up to {supported}", file.display())]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest version that this Kitbag knows.
        supported: u32,
    },
    /// The file is not a database, or that of another program.
    #[error(
        "`{}` is not a database of Kitbag: it is another program's, or its beginning is damaged",
        file.display()
    )]
    NotADatabase {
        /// The file.
        file: PathBuf,
    },
    /// The store holds the accounts of another server.
    #[error("the store belongs to server `{stored}`, not `{wanted}`")]
    OtherServerName {
        /// The server whose accounts it holds.
        stored: String,
        /// The server that was to be opened.
        wanted: ServerName,
    },
    /// Something that a crash cut short is to be completed before the store can be looked at.
    #[error("`{}` is of {what} that a crash cut short", file.display())]
    Unfinished {
        /// What was cut short.
        what: &'static str,
        /// The file that shows it.
        file: PathBuf,
    },
    /// SQLite failed in another way, as on a full disk.
    #[error("cannot work with `{}`: {reason}", file.display())]
    Sqlite {
        /// The file.
        file: PathBuf,
        /// What SQLite said.
        reason: String,
    },
}

/// An open database, whose directory nobody else can open.
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    pub(crate) epoch: u64,
    pub(crate) source: Source,
    /// Held for the life of the store; the system gives it back when the file is closed.
    pub(crate) lock: File,
}

/// Opens or makes the database of `dir`.
pub(crate) fn open(dir: &Path, options: &Options) -> Result<Opened, OpenError> {
    open_with(dir, options, MIGRATIONS)
}

pub(crate) fn open_with(
    dir: &Path,
    options: &Options,
    migrations: &[Migration],
) -> Result<Opened, OpenError> {
    make_dir(dir)?;
    let lock = lock::lock(dir)?;
    restore::complete(dir, &lock)?;
    restore::remove_left(dir)?;
    let file = real_file(&dir.join(DATABASE_FILE))?;
    let is_marked = lock::is_marked(dir, &lock)?;
    if is_marked {
        check_kept(&file)?;
    }
    look_first(&file, migrations)?;
    make_file(&file)?;
    // Again, for a link to a file that was missing.
    let source = Source::new(real_file(&file)?, options);
    let file = &source.file;
    let connection = source
        .connect(Role::Write)
        .map_err(|error| sqlite_error(file, &error))?;
    let epoch = prepare(&connection, file, options, migrations)?;
    let connection = harden(connection, &source)?;
    sync_dir(dir)?;
    if let Some(real) = source.file.parent().filter(|real| *real != dir) {
        sync_dir(real)?;
    }
    if !is_marked {
        lock::mark(dir, &lock)?;
    }
    Ok(Opened {
        connection,
        epoch,
        source,
        lock,
    })
}

/// Locks `dir`, where there is a store, and puts the directory in order: completes a restoring, and
/// removes what a kill left. Returns the file and the lock.
pub(crate) fn lock_and_settle(dir: &Path) -> Result<(PathBuf, File), OpenError> {
    let missing = || OpenError::Missing {
        dir: dir.to_owned(),
    };
    if !is_there(dir)? {
        return Err(missing());
    }
    let lock = lock::lock(dir)?;
    restore::complete(dir, &lock)?;
    restore::remove_left(dir)?;
    let file = real_file(&dir.join(DATABASE_FILE))?;
    if lock::is_marked(dir, &lock)? {
        check_kept(&file)?;
    } else if length(&file)?.unwrap_or(0) == 0 {
        // Its making was cut short, if it was begun at all.
        return Err(missing());
    }
    Ok((file, lock))
}

/// Finds the store in `dir` for looking at it, and keeps it from being written to; writes nothing.
///
/// A directory without a lock is one that was copied by hand. Nobody uses it, and afterwards
/// [`lock::check_none`] tells whether that is still so.
pub(crate) fn look(dir: &Path) -> Result<(PathBuf, Option<File>), OpenError> {
    let missing = || OpenError::Missing {
        dir: dir.to_owned(),
    };
    if !is_there(dir)? {
        return Err(missing());
    }
    let lock = lock::shared(dir)?;
    let is_marked = match &lock {
        Some(lock) => lock::is_marked(dir, lock)?,
        None => false,
    };
    if let Some(file) = restore::pending(dir)? {
        let what = "a restoring";
        return Err(OpenError::Unfinished { what, file });
    }
    let file = real_file(&dir.join(DATABASE_FILE))?;
    if is_marked {
        check_kept(&file)?;
    } else if length(&file)?.unwrap_or(0) == 0 {
        return Err(missing());
    }
    // SQLite would roll it back into the database.
    let journal = format::beside(&file, "-journal");
    if length(&journal)?.unwrap_or(0) > 0 {
        return Err(OpenError::Unfinished {
            what: "a change",
            file: journal,
        });
    }
    Ok((file, lock))
}

pub(crate) fn is_there(path: &Path) -> Result<bool, OpenError> {
    path.try_exists().map_err(|source| OpenError::Io {
        action: "look at",
        file: path.to_owned(),
        source,
    })
}

/// Tells whether a store was made in `dir`, also one whose database is gone, or is about to come from
/// a backup.
/// # Errors
/// [`OpenError::Io`] where that cannot be seen.
pub fn has_store(dir: &Path) -> Result<bool, OpenError> {
    let (file, lock) = (dir.join(DATABASE_FILE), dir.join(LOCK_FILE));
    Ok(is_there(&file)?
        || length(&lock)?.unwrap_or(0) > 0
        || is_there(dir)? && restore::pending(dir)?.is_some())
}

/// Checks that a database which was made is still there.
fn check_kept(file: &Path) -> Result<(), OpenError> {
    let reason = match length(file)? {
        None => "it is missing, but a store was made in this directory",
        Some(0) => "it is empty, but a store was made in this directory",
        Some(_) => return Ok(()),
    };
    Err(OpenError::Corrupt {
        file: file.to_owned(),
        reason: reason.to_owned(),
    })
}

/// Checks that a database of Kitbag is as long as it says, where no log or journal has the rest.
pub(crate) fn check_whole(file: &Path) -> Result<(), OpenError> {
    if format::has_companion(file) {
        return Ok(());
    }
    let mut start = Vec::new();
    let read = File::open(file).and_then(|file| file.take(100).read_to_end(&mut start));
    read.map_err(|source| io_error("read", file.to_owned(), source))?;
    let whole_bytes = format::whole_bytes(&start).unwrap_or(0);
    let bytes = length(file)?.unwrap_or(0);
    if bytes < whole_bytes {
        return Err(OpenError::Corrupt {
            file: file.to_owned(),
            reason: format!("it is cut short: {bytes} bytes of {whole_bytes}"),
        });
    }
    Ok(())
}

/// Returns the length of a file, where it is there.
fn length(file: &Path) -> Result<Option<u64>, OpenError> {
    match fs::metadata(file) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io {
            action: "look at",
            file: file.to_owned(),
            source,
        }),
    }
}

/// Returns what a link leads to, and any other path as it is.
///
/// SQLite follows a link, and has the log beside what it leads to.
pub(crate) fn real_file(file: &Path) -> Result<PathBuf, OpenError> {
    let is_link = fs::symlink_metadata(file).is_ok_and(|metadata| metadata.is_symlink());
    if !is_link {
        return Ok(file.to_owned());
    }
    match fs::canonicalize(file) {
        Ok(real) => Ok(real),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(file.to_owned()),
        Err(source) => Err(OpenError::Io {
            action: "follow the link",
            file: file.to_owned(),
            source,
        }),
    }
}

/// Tells whether both are the same file or directory; without a name it is the present one.
pub(crate) fn is_same(one: Option<&Path>, other: Option<&Path>) -> bool {
    let real = |dir: Option<&Path>| {
        let dir = dir.filter(|dir| !dir.as_os_str().is_empty());
        fs::canonicalize(dir.unwrap_or(Path::new("."))).ok()
    };
    real(one).is_some_and(|one| Some(one) == real(other))
}

/// Opens a file of Kitbag that nobody writes, for reading alone and without a trace beside it.
pub(crate) fn quietly(file: &Path) -> Result<(Connection, Header), OpenError> {
    let file = &real_file(file)?;
    let io = |source| OpenError::Io {
        action: "read",
        file: file.to_owned(),
        source,
    };
    if File::open(file)
        .and_then(|file| file.metadata())
        .map_err(io)?
        .len()
        == 0
    {
        return Err(OpenError::Corrupt {
            file: file.to_owned(),
            reason: "it is empty".to_owned(),
        });
    }
    check_whole(file)?;
    let failed = |error: rusqlite::Error| sqlite_error(file, &error);
    let connection = format::connect_quietly(file).map_err(failed)?;
    let header = Header::read(&connection).map_err(failed)?;
    check_header(header, file, MIGRATIONS)?;
    if header.is_new() {
        return Err(OpenError::Corrupt {
            file: file.to_owned(),
            reason: "nothing was made in it yet".to_owned(),
        });
    }
    Ok((connection, header))
}

/// Creates the directory where it is missing, for its owner alone, so that it survives a power cut.
pub(crate) fn make_dir(dir: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io {
        action: "create the directory",
        file: dir.to_owned(),
        source,
    };
    if dir.as_os_str().is_empty() || dir.try_exists().map_err(failed)? {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(Path::new(""));
    make_dir(parent)?;
    files::create_dir(dir).map_err(failed)?;
    sync_dir(parent)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), OpenError> {
    let synced = files::sync_dir(dir);
    synced.map_err(|source| io_error("sync the directory", files::named(dir).to_owned(), source))
}

/// Creates the database file where it is missing: SQLite gives its mode to the files beside it.
fn make_file(file: &Path) -> Result<(), OpenError> {
    lock::private_file(file).map(drop)
}

pub(crate) fn io_error(action: &'static str, file: PathBuf, source: io::Error) -> OpenError {
    OpenError::Io {
        action,
        file,
        source,
    }
}

/// Makes durable what is in the log, and returns a connection that has read it afterwards.
///
/// The process before may have ended on a failed sync. Its writes are in the system's memory then,
/// but not on the disk, and nothing may rest on them: see `rewrite.rs`.
pub(crate) fn harden(connection: Connection, source: &Source) -> Result<Connection, OpenError> {
    let failed = |error: rusqlite::Error| sqlite_error(&source.file, &error);
    let frames = checkpoint::frames(&connection).map_err(|error| OpenError::Sqlite {
        file: source.file.clone(),
        reason: error.to_string(),
    })?;
    if frames.logged == 0 {
        return Ok(connection);
    }
    // Keeps other programs from writing meanwhile.
    connection
        .execute_batch("BEGIN IMMEDIATE")
        .map_err(failed)?;
    source.rewrite_whole_log().map_err(|error| OpenError::Io {
        action: "write again",
        file: source.log_file(),
        source: error,
    })?;
    drop(connection);
    source.connect(Role::Write).map_err(failed)
}

/// Refuses a file that cannot be served before anything is made beside it, where that can be seen.
fn look_first(file: &Path, migrations: &[Migration]) -> Result<(), OpenError> {
    if length(file)?.unwrap_or(0) == 0 || format::has_companion(file) {
        return Ok(());
    }
    check_whole(file)?;
    let failed = |error: rusqlite::Error| sqlite_error(file, &error);
    let connection = format::connect_quietly(file).map_err(failed)?;
    let header = Header::read(&connection).map_err(failed)?;
    check_header(header, file, migrations)?;
    let version = usize::try_from(header.version).unwrap_or(usize::MAX);
    check_schema(&connection, file, &migrations[..version])
}

/// Checks whose file it is, brings its format up to date, and returns its epoch.
fn prepare(
    connection: &Connection,
    file: &Path,
    options: &Options,
    migrations: &[Migration],
) -> Result<u64, OpenError> {
    let failed = |error: rusqlite::Error| sqlite_error(file, &error);
    let header = Header::read(connection).map_err(failed)?;
    let supported = check_header(header, file, migrations)?;
    use_wal(connection, header).map_err(failed)?;
    if header.version < supported {
        update(connection, header, options, migrations).map_err(failed)?;
    }
    check_schema(connection, file, migrations)?;
    check_identity(connection, file, options)
}

/// Checks whose file it is; returns the newest version that is known.
pub(crate) fn check_header(
    header: Header,
    file: &Path,
    migrations: &[Migration],
) -> Result<u32, OpenError> {
    if !header.is_new() && header.application_id != APPLICATION_ID {
        return Err(OpenError::NotADatabase {
            file: file.to_owned(),
        });
    }
    let supported = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
    if header.version > supported {
        return Err(OpenError::NewerFormat {
            file: file.to_owned(),
            found: header.version,
            supported,
        });
    }
    Ok(supported)
}

/// Checks that nothing is missing which `migrations` made, and that each table can be read at all.
///
/// Without it the first use of a table would be the first to tell, and as if the disk had failed.
pub(crate) fn check_schema(
    connection: &Connection,
    file: &Path,
    migrations: &[Migration],
) -> Result<(), OpenError> {
    let failed = |error: rusqlite::Error| sqlite_error(file, &error);
    let found = format::schema(connection).map_err(failed)?;
    for (name, object) in format::expected_schema(migrations).map_err(failed)? {
        let kind = object.kind;
        if !found.contains_key(&name) {
            return Err(OpenError::Corrupt {
                file: file.to_owned(),
                reason: format!("the {kind} `{name}` is missing"),
            });
        }
        if kind == "table" {
            let sql = format!("SELECT 1 FROM {name} NOT INDEXED LIMIT 1");
            let read = connection.query_row(&sql, [], |_| Ok(())).optional();
            read.map_err(failed)?;
        }
    }
    Ok(())
}

/// Puts the database into WAL mode, where it stays.
fn use_wal(connection: &Connection, header: Header) -> rusqlite::Result<()> {
    if header.is_new() {
        connection.pragma_update(None, "page_size", limit::PAGE_BYTES.cast_signed())?;
    }
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| {
        let mode: String = row.get(0)?;
        if mode == "wal" {
            Ok(())
        } else {
            Err(rusqlite::Error::InvalidQuery)
        }
    })
}

/// Makes the schema or migrates it, in one transaction.
fn update(
    connection: &Connection,
    header: Header,
    options: &Options,
    migrations: &[Migration],
) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    format::migrate(&transaction, header.version, migrations)?;
    if header.is_new() {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.execute(
            "INSERT INTO store (id, server_name, epoch) VALUES (1, ?1, ?2)",
            (
                options.server_name.as_str(),
                options.epoch_seed.cast_signed(),
            ),
        )?;
    } else {
        let (from, to) = (header.version, migrations.len());
        tracing::info!(from, to, "migrated the store");
    }
    transaction.commit()
}

/// Returns the epoch, provided that the store is that of the wanted server.
fn check_identity(
    connection: &Connection,
    file: &Path,
    options: &Options,
) -> Result<u64, OpenError> {
    let sql = "SELECT server_name, epoch FROM store WHERE id = 1";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let found = connection.query_row(sql, [], read);
    let (stored, epoch): (String, i64) = found.map_err(|error| match error {
        rusqlite::Error::QueryReturnedNoRows => OpenError::Corrupt {
            file: file.to_owned(),
            reason: "it does not say whose it is".to_owned(),
        },
        error => sqlite_error(file, &error),
    })?;
    if stored != options.server_name.as_str() {
        return Err(OpenError::OtherServerName {
            stored,
            wanted: options.server_name.clone(),
        });
    }
    Ok(epoch.cast_unsigned())
}

pub(crate) fn sqlite_error(file: &Path, error: &rusqlite::Error) -> OpenError {
    let (file, reason) = (file.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => OpenError::NotADatabase { file },
        _ if is_damaged_file(error) => OpenError::Corrupt { file, reason },
        _ => OpenError::Sqlite { file, reason },
    }
}

#[cfg(test)]
mod tests;
