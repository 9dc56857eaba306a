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
