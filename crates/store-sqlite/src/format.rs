//! The file format: its schema, its version, and how connections to it are set up.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{self, Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::options::{Durability, FileOpener, Options, limit};
use crate::rewrite::rewrite;

/// Marks the file as Kitbag's in SQLite's header: "KtBg".
pub(crate) const APPLICATION_ID: i32 = 0x4b74_4267;

/// One step from a version of the format to the next.
pub(crate) type Migration = fn(&Connection) -> rusqlite::Result<()>;

/// The steps from an empty file to the newest version: step `n` leads to version `n + 1`.
///
/// Released steps are never changed. A new step comes with a fixture of the version before.
pub(crate) const MIGRATIONS: &[Migration] = &[create, number_device_data];

/// Version 1.
///
/// Rowid tables throughout: `WITHOUT ROWID` was measured at five times the CPU for contents that
/// do not fit into a page. Contents come last in their rows, so that the other columns are read
/// without them.
fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(SCHEMA)
}

/// Version 2: the stream of changes of all users' device account data.
///
/// What is there gets the number of its row: nobody followed the stream before.
fn number_device_data(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(FEED)
}

const SCHEMA: &str = "
-- One row. `probes` is counted up to see whether the disk takes writes again.
CREATE TABLE store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    server_name TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    probes INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Accounts, deactivated ones too. `position` heads the user's stream; tombstones up to `horizon`
-- were collected; `entries` and `bytes` count the live entries.
CREATE TABLE users (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    position INTEGER NOT NULL DEFAULT 0,
    horizon INTEGER NOT NULL DEFAULT 0,
    entries INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    deactivated_at INTEGER,
    password_hash TEXT,
    displayname TEXT,
    avatar_url TEXT
) STRICT;

-- `incarnation` is the position that the user's stream had when the device was made.
CREATE TABLE devices (
    id INTEGER PRIMARY KEY,
    user INTEGER NOT NULL REFERENCES users (id),
    name TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    display_name TEXT,
    seen_at INTEGER NOT NULL,
    seen_ip TEXT,
    seen_user_agent TEXT,
    UNIQUE (user, name)
) STRICT;

-- One generation of a device's tokens a row, as SHA-256; a higher id is a newer generation.
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    user INTEGER NOT NULL REFERENCES users (id),
    device INTEGER NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    access BLOB NOT NULL,
    access_expires_at INTEGER,
    refresh BLOB,
    UNIQUE (user, access),
    UNIQUE (user, refresh)
) STRICT;
CREATE INDEX sessions_by_device ON sessions (device);

-- Entries and, with a NULL content, tombstones. Scopes: 0 global, 1 room, 2 device; `place` is the
-- room or device ID. Writers: 0 the server, 1 the operator, 2 a device of the user.
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    user INTEGER NOT NULL REFERENCES users (id),
    scope INTEGER NOT NULL,
    place TEXT NOT NULL,
    type TEXT NOT NULL,
    position INTEGER NOT NULL,
    written_at INTEGER NOT NULL,
    writer INTEGER NOT NULL,
    writer_device TEXT,
    writer_user_agent TEXT,
    content TEXT,
    UNIQUE (user, scope, place, type)
) STRICT;
CREATE UNIQUE INDEX entries_by_position ON entries (user, position);
-- Holds all that their collection asks for; `content`, always NULL here, makes SQLite see that.
CREATE INDEX tombstones ON entries (user, content, position, written_at) WHERE content IS NULL;

CREATE TABLE filters (
    id INTEGER PRIMARY KEY,
    user INTEGER NOT NULL REFERENCES users (id),
    number INTEGER NOT NULL,
    filter TEXT NOT NULL,
    UNIQUE (user, number)
) STRICT;
";

const FEED: &str = "
-- `feed_head` is the number of the latest change of device account data, whoever's it is; deletions
-- up to `feed_floor` were collected.
ALTER TABLE store ADD COLUMN feed_head INTEGER NOT NULL DEFAULT 0;
ALTER TABLE store ADD COLUMN feed_floor INTEGER NOT NULL DEFAULT 0;

-- The number of the change that ended the account.
ALTER TABLE users ADD COLUMN feed INTEGER;
CREATE UNIQUE INDEX users_by_feed ON users (feed) WHERE feed IS NOT NULL;

-- The number of the latest change; NULL outside device scope. It stands behind the content, but only
-- those of devices are walked through for it, which are small.
ALTER TABLE entries ADD COLUMN feed INTEGER;
UPDATE entries SET feed = id WHERE scope = 2;
UPDATE store SET feed_head = coalesce((SELECT max(id) FROM entries WHERE scope = 2), 0);
CREATE UNIQUE INDEX entries_by_feed ON entries (feed) WHERE feed IS NOT NULL;
-- Without `content`, so that a put leaves it alone; the tombstones in it are passed over.
CREATE INDEX entries_by_type ON entries (type, user, place) WHERE scope = 2;
";

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Copies the write-ahead log into the database.
    Checkpoint,
    /// Reads; SQLite itself keeps it from writing.
    Read,
    /// Writes: there is one.
    Write,
}

/// The database file, and how it is opened.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) file: PathBuf,
    durability: Durability,
    vfs: Option<String>,
    opener: FileOpener,
}

impl Source {
    pub(crate) fn new(file: PathBuf, options: &Options) -> Self {
        Self {
            file,
            durability: options.durability,
            vfs: options.vfs.clone(),
            opener: options.opener.clone().unwrap_or_default(),
        }
    }

    /// Returns the file as it is opened outside a running store.
    pub(crate) fn plain(file: PathBuf) -> Self {
        Self {
            file,
            durability: Durability::Full,
            vfs: None,
            opener: FileOpener::default(),
        }
    }

    /// Returns the path of the write-ahead log.
    pub(crate) fn log_file(&self) -> PathBuf {
        let mut name = self.file.clone().into_os_string();
        name.push("-wal");
        name.into()
    }

    /// Does as [`Self::rewrite_whole_log`], where there is a log: another program that was the last
    /// to close the database has removed it.
    pub(crate) fn rewrite_log(&self) -> io::Result<()> {
        match self.rewrite_whole_log() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            rewritten => rewritten,
        }
    }

    /// Makes all that is in the log durable, whatever became of the syncs before: see `rewrite.rs`.
    ///
    /// Nobody may write to the log meanwhile. Fails where there is none.
    pub(crate) fn rewrite_whole_log(&self) -> io::Result<()> {
        match self.durability {
            Durability::Full => rewrite(self.opener.open(&self.log_file())?),
            Durability::None => Ok(()),
        }
    }

    /// Opens a connection to the file, which exists.
    ///
    /// Readers open it for writing too, since the first one after a crash may have to recover the
    /// log; `query_only` keeps them from more.
    pub(crate) fn connect(&self, role: Role) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match &self.vfs {
            None => Connection::open_with_flags(&self.file, flags)?,
            Some(vfs) => Connection::open_with_flags_and_vfs(&self.file, flags, vfs.as_str())?,
        };
        set_up(&connection, role, self.durability)?;
        Ok(connection)
    }
}

/// Opens a file that nobody writes, for reading alone.
///
/// Where nothing beside it belongs to it, SQLite is told that it does not change, and makes no file.
/// Otherwise, as after a crash, it is opened as the store would open it, and nothing is copied from
/// the log into it.
pub(crate) fn connect_quietly(file: &Path) -> rusqlite::Result<Connection> {
    let connection = if has_companion(file) {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(file, flags)?
    } else {
        connect_immutably(file)?
    };
    set_up(&connection, Role::Read, Durability::Full)?;
    Ok(connection)
}

/// Opens the file alone, for reading, whatever lies beside it.
pub(crate) fn connect_immutably(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let uri = immutable_uri(file);
    Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
}

/// What SQLite puts beside a database, and what belongs to it while it has bytes.
pub(crate) const COMPANIONS: [&str; 2] = ["-wal", "-journal"];

/// Tells whether a log or a journal lies beside the file.
pub(crate) fn has_companion(file: &Path) -> bool {
    let mut companions = COMPANIONS.iter().map(|suffix| beside(file, suffix));
    companions.any(|path| fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0))
}

/// Returns the path of a file whose name is longer by a suffix.
pub(crate) fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Takes a database out of WAL mode, so that it is one file; the store puts it back.
pub(crate) fn leave_wal(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "DELETE", |row| {
        let mode: String = row.get(0)?;
        if mode == "delete" {
            Ok(())
        } else {
            Err(rusqlite::Error::InvalidQuery)
        }
    })
}

fn immutable_uri(file: &Path) -> String {
    let file = path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let mut uri = "file://".to_owned();
    for byte in file.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {
                uri.push(char::from(*byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    uri
}

fn set_up(connection: &Connection, role: Role, durability: Durability) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_millis(limit::BUSY_WAIT_MS))?;
    connection.set_prepared_statement_cache_capacity(limit::STATEMENTS_MAX);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // A connection that goes down with a fault must not try a checkpoint on its way.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // A plan that looks at bound values is made anew for each execution: half of what a GET cost.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::None => "OFF",
    };
    let query_only = role == Role::Read;
    let cache_kib = limit::PAGE_CACHE_KIB;
    connection.execute_batch(&format!(
        "PRAGMA synchronous = {synchronous};
         PRAGMA secure_delete = ON;
         PRAGMA foreign_keys = ON;
         PRAGMA cell_size_check = ON;
         PRAGMA mmap_size = 0;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -{cache_kib};
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA query_only = {query_only};"
    ))
}

/// What stands in the file's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) application_id: i32,
    pub(crate) version: u32,
    pub(crate) tables: u32,
}

impl Header {
    /// Reads the first bytes of a file; `None` where they are not a database's.
    ///
    /// How many tables there are stands elsewhere, and is not told.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(i32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let is_database = bytes.starts_with(b"SQLite format 3\0");
        is_database.then_some(Self {
            version: u32::try_from(number(60)?).unwrap_or(u32::MAX),
            application_id: number(68)?,
            tables: 0,
        })
    }

    /// Reads the header; fails on a file that is not a database.
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        let application_id = number("PRAGMA application_id")?;
        let version = number("PRAGMA user_version")?;
        let tables = number("SELECT count(*) FROM sqlite_schema")?;
        Ok(Self {
            application_id: i32::try_from(application_id).unwrap_or(-1),
            version: u32::try_from(version).unwrap_or(u32::MAX),
            tables: u32::try_from(tables).unwrap_or(u32::MAX),
        })
    }

    /// Tells whether nothing was ever made in the file.
    pub(crate) fn is_new(self) -> bool {
        self.application_id == 0 && self.version == 0 && self.tables == 0
    }
}

/// Reads from the first bytes of a database of Kitbag how long the whole file is, where they tell.
pub(crate) fn whole_bytes(start: &[u8]) -> Option<u64> {
    let number = |at: usize| Some(u32::from_be_bytes(*start.get(at..)?.first_chunk()?));
    let header = Header::of_bytes(start)?;
    // A program that did not count the pages left another number of its change beside the count.
    let is_told = header.application_id == APPLICATION_ID && number(24)? == number(92)?;
    let page_bytes = match u16::from_be_bytes(*start.get(16..)?.first_chunk()?) {
        1 => 65_536,
        page_bytes => u64::from(page_bytes),
    };
    is_told.then_some(page_bytes * u64::from(number(28)?))
}

/// Leads the file from `version` through `migrations`, inside the caller's transaction.
pub(crate) fn migrate(
    connection: &Connection,
    version: u32,
    migrations: &[Migration],
) -> rusqlite::Result<()> {
    for (step, migration) in (1_u32..).zip(migrations).skip(version as usize) {
        migration(connection)?;
        connection.pragma_update(None, "user_version", step)?;
    }
    Ok(())
}

/// A table or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SchemaObject {
    /// `table` or `index`.
    pub(crate) kind: String,
    /// The statement that makes it.
    pub(crate) sql: String,
}

/// Returns the tables and indexes of a database by name, without those that SQLite makes itself.
pub(crate) fn schema(connection: &Connection) -> rusqlite::Result<BTreeMap<String, SchemaObject>> {
    let sql = "SELECT name, type, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        let (kind, sql) = (row.get(1)?, row.get(2)?);
        Ok((row.get(0)?, SchemaObject { kind, sql }))
    })?;
    rows.collect()
}

/// Returns what `migrations` make of an empty file.
pub(crate) fn expected_schema(
    migrations: &[Migration],
) -> rusqlite::Result<BTreeMap<String, SchemaObject>> {
    let connection = Connection::open_in_memory()?;
    migrate(&connection, 0, migrations)?;
    schema(&connection)
}
