//! The connections of the threads that do not write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use crate::checkpoint::Checkpoints;
use crate::error::Failure;
use crate::format::{Role, Source};

/// One place for the connection of each thread, so that the writer can close them after a fault.
pub(crate) struct Connections {
    places: Box<[Place]>,
    /// Whether none may be opened. Looked at under the mutex of a place, so that none is missed.
    is_closing: AtomicBool,
    source: Source,
    /// The checkpoints of these connections and of the writer's.
    pub(crate) checkpoints: Checkpoints,
}

struct Place {
    role: Role,
    /// Opened when it is first used.
    connection: Mutex<Option<Connection>>,
}

impl Connections {
    pub(crate) fn new(source: Source, roles: impl IntoIterator<Item = Role>) -> Self {
        let place = |role| Place {
            role,
            connection: Mutex::default(),
        };
        Self {
            places: roles.into_iter().map(place).collect(),
            is_closing: AtomicBool::new(false),
            source,
            checkpoints: Checkpoints::default(),
        }
    }

    /// Lends the connection at `place` to `work`, opening it where it is not open.
    ///
    /// A fault closes it, so that the next use starts afresh. While all are being closed none is
    /// lent, instead of letting readers wait for the slowest of them.
    pub(crate) fn with<T>(
        &self,
        place: usize,
        work: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let place = &self.places[place];
        let mut lent = lock(&place.connection);
        if self.is_closing.load(Ordering::Relaxed) {
            return Err(Failure::Closing);
        }
        let connection = match &mut *lent {
            Some(connection) => connection,
            empty => empty.insert(self.source.connect(place.role)?),
        };
        let result = work(connection);
        if result.as_ref().is_err_and(Failure::is_fault) {
            *lent = None;
        }
        result
    }

    /// Closes all connections, waiting for those in use; none is opened while the result lives.
    ///
    /// SQLite keeps the index of the log in memory that all connections share, and makes it anew
    /// only where the first one opens it: so there must be a moment at which none is open.
    pub(crate) fn close_all(&self) -> Closed<'_> {
        self.is_closing.store(true, Ordering::Relaxed);
        for place in &self.places {
            *lock(&place.connection) = None;
        }
        Closed(self)
    }
}

/// That all connections are closed.
#[must_use = "dropping it lets them be opened again"]
pub(crate) struct Closed<'a>(&'a Connections);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.is_closing.store(false, Ordering::Relaxed);
    }
}

/// A panic leaves a connection whole: its statements were reset on the way.
fn lock(connection: &Mutex<Option<Connection>>) -> MutexGuard<'_, Option<Connection>> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

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
        let connections = Connections::new(opened.source, [Role::Read]);
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
        drop(connections.close_all());
        assert!(!is_marked(&connections));
    }

    #[test]
    fn none_is_opened_while_others_are_being_closed() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        let opened = open::open(dir.path(), &options).unwrap();
        let roles = [Role::Read, Role::Read];
        let connections = Connections::new(opened.source, roles);
        let is_refused = || matches!(connections.with(0, |_| Ok(())), Err(Failure::Closing));
        thread::scope(|scope| {
            let busy = |_: &Connection| {
                let closing = scope.spawn(|| connections.close_all());
                // The first place is closed soon, but the second one is in use.
                while !is_refused() {
                    thread::yield_now();
                }
                assert!(!closing.is_finished());
                Ok(closing)
            };
            let closed = connections.with(1, busy).unwrap().join().unwrap();
            assert!(is_refused());
            drop(closed);
            assert!(!is_refused());
        });
    }
}
