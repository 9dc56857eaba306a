//! The store as a whole: its threads, from opening to closing.

use std::fs::File;
use std::io;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Sender, bounded};
use kitbag_domain::{DeviceWakeups, Wakeups};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tempfile::TempDir;

use crate::cache::Cache;
use crate::checkpoint::{self, Checkpoints};
use crate::connections::Connections;
use crate::error::Failure;
use crate::format::Role;
use crate::open::{self, OpenError, Opened};
use crate::options::{Durability, Options};
use crate::readers::{self, ReadQueue};
use crate::stats::Counters;
use crate::writer::{self, Control, Setup, WriteQueue};

/// Messages to the writer that may wait: one of a checkpoint, one of closing, one of a backup.
const CONTROL_MAX: usize = 3;

/// The store in a directory; see the crate's documentation.
///
/// Dropping it closes it, which waits for what is queued to be committed.
pub struct SqliteStore {
    pub(crate) epoch: u64,
    pub(crate) reads: ReadQueue,
    pub(crate) writes: WriteQueue,
    pub(crate) wakeups: Arc<Wakeups>,
    pub(crate) device_wakeups: Arc<DeviceWakeups>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) control: Sender<Control>,
    /// Where the database lies.
    pub(crate) file: PathBuf,
    /// Whether a backup is under way.
    pub(crate) is_copying: AtomicBool,
    pub(crate) counters: Arc<Counters>,
    running: Mutex<Option<Running>>,
}

/// What lives from opening to closing, in the order in which it goes.
struct Running {
    readers: Vec<JoinHandle<()>>,
    writer: JoinHandle<Option<Connection>>,
    checkpoint: JoinHandle<()>,
    lock: File,
    /// An ephemeral store's directory.
    temporary: Option<TempDir>,
}

impl SqliteStore {
    /// Opens the store in `dir`, or makes it.
    ///
    /// The directory is locked against other processes until the store is closed. Blocks: a call
    /// in an async context belongs on a thread that may block.
    /// # Errors
    /// [`OpenError`]; a damaged or newer file is left as it is.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        Self::start(dir, options, None)
    }

    /// Makes an empty store in a private temporary directory, which goes when it is closed.
    ///
    /// It survives nothing, so it does not wait for the disk: [`Durability::None`].
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn ephemeral(options: Options) -> Result<Self, OpenError> {
        let options = Options {
            durability: Durability::None,
            ..options
        };
        let prefix = "kitbag-";
        let temporary = tempfile::Builder::new().prefix(prefix).tempdir();
        let temporary = temporary.map_err(|source| OpenError::Io {
            action: "create a temporary directory",
            file: PathBuf::from(prefix),
            source,
        })?;
        let dir = temporary.path().to_owned();
        Self::start(&dir, options, Some(temporary))
    }

    fn start(dir: &Path, options: Options, temporary: Option<TempDir>) -> Result<Self, OpenError> {
        let Opened {
            connection,
            epoch,
            source,
            lock,
        } = open::open(dir, &options)?;
        let reader_threads = options.reader_threads.max(1);
        let roles = iter::repeat_n(Role::Read, reader_threads).chain([Role::Checkpoint]);
        let connections = Connections::new(source.clone(), roles);
        let connections = Arc::new(connections);
        let (counters, wakeups) = (Arc::<Counters>::default(), Arc::<Wakeups>::default());
        let device_wakeups = Arc::<DeviceWakeups>::default();
        let cache = Arc::new(Cache::new(options.cache_bytes_max));
        let (control, controlled) = bounded(CONTROL_MAX);
        let (ask, asked) = bounded(1);
        let (reads, receiver) = readers::queue(options.read_queue_jobs_max, reader_threads);
        let setup = Setup {
            connection: Some(connection),
            source: source.clone(),
            connections: Arc::clone(&connections),
            control: controlled,
            checkpoint: ask,
            counters: Arc::clone(&counters),
            wakeups: Arc::clone(&wakeups),
            device_wakeups: Arc::clone(&device_wakeups),
            cache: Arc::clone(&cache),
        };
        let (writes, writer) = writer::writer(options, setup);
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| spawn(&source.file, name, work);
        let readers = (0..reader_threads).map(|place| {
            let (jobs, connections) = (receiver.clone(), Arc::clone(&connections));
            let begun = reads.begun();
            spawn(
                "kitbag-reader",
                Box::new(move || readers::serve(jobs, connections, place, begun)),
            )
        });
        let readers = readers.collect::<Result<_, _>>()?;
        let checkpoint = {
            let (control, connections) = (control.clone(), Arc::clone(&connections));
            let work = move || checkpoint::serve(asked, control, connections, reader_threads);
            spawn("kitbag-checkpoint", Box::new(work))?
        };
        let writer = self::spawn(&source.file, "kitbag-writer", move || writer.run())?;
        let running = Running {
            readers,
            writer,
            checkpoint,
            lock,
            temporary,
        };
        Ok(Self {
            epoch,
            reads,
            writes,
            wakeups,
            device_wakeups,
            cache,
            connections,
            control,
            file: source.file,
            is_copying: AtomicBool::new(false),
            counters,
            running: Mutex::new(Some(running)),
        })
    }

    /// Closes the store: nothing more is accepted, what is queued is committed, the log is emptied
    /// and the lock given back.
    ///
    /// Blocks until then; a second call does nothing. Later calls of the store are answered as
    /// unavailable.
    pub fn close(&self) {
        let running = &mut *self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = running.take() else {
            return;
        };
        self.writes.close();
        for _ in &running.readers {
            self.reads.close_one();
        }
        for reader in running.readers {
            join(reader);
        }
        // An error means that the writer has ended.
        drop(self.control.send(Control::Close));
        let connection = join(running.writer).flatten();
        join(running.checkpoint);
        let _closed = self.connections.close_all();
        if let Some(connection) = connection
            && let Err(error) = leave(connection, &self.connections.checkpoints)
        {
            // Nothing is lost: the next start reads the log.
            tracing::warn!(%error, "the write-ahead log was not emptied");
        }
        // Only now, with all connections closed, may another process come in.
        drop((running.lock, running.temporary));
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.close();
    }
}

fn spawn<T: Send + 'static>(
    file: &Path,
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, OpenError> {
    let spawned = Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(|source: io::Error| OpenError::Io {
        action: "start a thread for",
        file: file.to_owned(),
        source,
    })
}

/// Closes the last connection, so that the database is one whole file again.
pub(crate) fn leave(connection: Connection, checkpoints: &Checkpoints) -> Result<(), Failure> {
    checkpoints.truncate(&connection)?;
    // With this SQLite removes the files beside it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    connection.close().map_err(|(_, error)| error.into())
}

/// Waits for a thread; `None` where it panicked, which was logged by the panic itself.
fn join<T>(thread: JoinHandle<T>) -> Option<T> {
    thread.join().ok()
}

#[cfg(test)]
mod tests {
    use kitbag_domain::{
        AccountStore as _, BoxFuture, EntryStore as _, NewAccount, ServerName, StoreError, UserId,
    };
    use rusqlite::ffi;

    use super::*;
    use crate::error::Halt;
    use crate::writer::Weight;

    fn account(localpart: &str) -> NewAccount {
        NewAccount {
            user: UserId::parse(format!("@{localpart}:localhost")).unwrap(),
            password_hash: String::new(),
            at: 0,
        }
    }

    /// Makes the writer believe that the disk failed it.
    async fn fail(store: &SqliteStore) {
        let fault: BoxFuture<'_, Result<(), StoreError>> =
            store.writes.submit(Weight::default(), |_| {
                let error = ffi::Error::new(ffi::SQLITE_IOERR);
                let error = rusqlite::Error::SqliteFailure(error, None);
                Err(Halt::Failed(Failure::Sql(error)))
            });
        assert!(matches!(fault.await, Err(StoreError::Unavailable(_))));
    }

    #[tokio::test]
    async fn while_its_files_do_not_work_a_store_says_that_it_takes_no_writes() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        let store = SqliteStore::open(dir.path(), options).unwrap();
        assert!(store.takes_writes());
        let (file, gone) = (dir.path().join("kitbag.db"), dir.path().join("gone"));
        std::fs::rename(&file, &gone).unwrap();
        fail(&store).await;
        // This one is refused by the recovery, which is therefore under way.
        let alice = account("alice");
        store.register(alice.clone(), None).await.unwrap_err();
        assert!(!store.takes_writes());
        std::fs::rename(&gone, &file).unwrap();
        while store.register(alice.clone(), None).await.is_err() {}
        assert!(store.takes_writes());
    }

    #[tokio::test]
    async fn after_a_fault_reads_and_writes_soon_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        let store = SqliteStore::open(dir.path(), options).unwrap();
        let alice = account("alice");
        store.register(alice.clone(), None).await.unwrap();
        assert!(store.account(&alice.user).await.unwrap().is_some());
        fail(&store).await;
        // A read may come while the connections are being closed.
        let read = loop {
            match store.account(&alice.user).await {
                Ok(read) => break read,
                Err(error) => assert!(matches!(error, StoreError::Unavailable(_)), "{error}"),
            }
        };
        assert!(read.is_some());
        let bob = account("bob");
        while let Err(error) = store.register(bob.clone(), None).await {
            let error = error.to_string();
            assert!(error.contains("unavailable"), "{error}");
        }
        assert!(store.account(&bob.user).await.unwrap().is_some());
    }
}
