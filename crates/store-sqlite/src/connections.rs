//! The connections of the threads that do not write.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use crate::error::Failure;
use crate::format::{self, Role};
use crate::options::Durability;

/// One place for the connection of each thread, so that the writer can close them after a fault.
pub(crate) struct Connections {
    places: Box<[Place]>,
    file: PathBuf,
    durability: Durability,
}

struct Place {
    role: Role,
    /// Opened when it is first used.
    connection: Mutex<Option<Connection>>,
}

impl Connections {
    pub(crate) fn new(
        file: PathBuf,
        durability: Durability,
        roles: impl IntoIterator<Item = Role>,
    ) -> Self {
        let place = |role| Place {
            role,
            connection: Mutex::default(),
        };
        Self {
            places: roles.into_iter().map(place).collect(),
            file,
            durability,
        }
    }

    /// Lends the connection at `place` to `work`, opening it where it is not open.
    ///
    /// A fault closes it, so that the next use starts afresh.
    pub(crate) fn with<T>(
        &self,
        place: usize,
        work: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let place = &self.places[place];
        let mut lent = lock(&place.connection);
        let connection = match &mut *lent {
            Some(connection) => connection,
            empty => empty.insert(format::connect(&self.file, place.role, self.durability)?),
        };
        let result = work(connection);
        if result.as_ref().is_err_and(Failure::is_fault) {
            *lent = None;
        }
        result
    }

    /// Closes all connections, waiting for those in use.
    pub(crate) fn close_all(&self) {
        for place in &self.places {
            *lock(&place.connection) = None;
        }
    }
}

/// A panic leaves a connection whole: its statements were reset on the way.
fn lock(connection: &Mutex<Option<Connection>>) -> MutexGuard<'_, Option<Connection>> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use kitbag_domain::ServerName;
    use rusqlite::ffi;

    use super::*;
    use crate::{Options, open};

    const MARK: i64 = 77;

    /// Marks the connection: a fresh one has another cache size.
    fn mark(connections: &Connections) {
        let mark = |connection: &Connection| {
            let marked = connection.pragma_update(None, "cache_size", MARK);
            Ok(marked?)
        };
        connections.with(0, mark).unwrap();
        assert!(is_marked(connections));
    }

    fn is_marked(connections: &Connections) -> bool {
        let read = |connection: &Connection| {
            let sql = "PRAGMA cache_size";
            Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))?)
        };
        connections.with(0, read).unwrap() == MARK
    }

    #[test]
    fn a_fault_closes_the_connection_and_other_errors_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        let opened = open::open(dir.path(), &options).unwrap();
        let connections = Connections::new(opened.file, options.durability, [Role::Read]);
        mark(&connections);
        let fail = |code| {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            let failed = connections.with(0, |_| Err::<(), _>(Failure::Sql(error)));
            assert!(failed.is_err());
        };
        fail(ffi::SQLITE_BUSY);
        assert!(is_marked(&connections));
        fail(ffi::SQLITE_IOERR_READ);
        assert!(!is_marked(&connections));
        mark(&connections);
        connections.close_all();
        assert!(!is_marked(&connections));
    }
}
