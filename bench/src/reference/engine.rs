//! The bare engine: one rowid table in SQLite under the settings of Kitbag's store, written by one
//! thread that commits whatever queued meanwhile. No user, no device, no position, no quota, no
//! check of the content: what is left is the price of durability.

use std::convert::Infallible;
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;
use tokio::sync::oneshot;

use super::fixed;

/// As in Kitbag's store.
const QUEUE_JOBS_MAX: usize = 4_096;
const BATCH_JOBS_MAX: usize = 512;
const CHECKPOINT_FRAMES: i32 = 1_000;

const PRAGMAS: &str = "
    PRAGMA page_size = 4096;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA secure_delete = ON;
    PRAGMA foreign_keys = ON;
    PRAGMA cell_size_check = ON;
    PRAGMA mmap_size = 0;
    PRAGMA temp_store = MEMORY;
    PRAGMA cache_size = -2048;
    PRAGMA wal_autocheckpoint = 0;";
const TABLE: &str = "
    CREATE TABLE entries (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, content TEXT) STRICT;";
const PUT: &str = "
    INSERT INTO entries (key, content) VALUES (?1, ?2)
    ON CONFLICT (key) DO UPDATE SET content = excluded.content";

/// One put on its way.
struct Job {
    key: String,
    content: Bytes,
    done: oneshot::Sender<()>,
}

/// The way to the writer.
#[derive(Clone)]
pub(super) struct Engine {
    jobs: Sender<Job>,
}

impl Engine {
    /// Makes the database in the empty directory `dir`, and starts its threads.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let file = dir.join("engine.db");
        let connect = || {
            let connection = Connection::open(&file)?;
            connection.execute_batch(PRAGMAS)?;
            anyhow::Ok(connection)
        };
        let writing = connect()?;
        writing.execute_batch(TABLE)?;
        let copying = connect()?;
        let (jobs, queue) = bounded(QUEUE_JOBS_MAX);
        let (ask, asked) = bounded(1);
        let (tell, copied) = bounded(1);
        let writer = Writer {
            connection: writing,
            queue,
            ask,
            copied,
        };
        spawn("engine-writer", move || writer.run())?;
        spawn("engine-checkpoint", move || {
            while asked.recv().is_ok() {
                checkpoint(&copying, CheckpointMode::PASSIVE)?;
                tell.send(())?;
            }
            Ok(())
        })?;
        Ok(Self { jobs })
    }

    /// Stores the body under the path, and answers once it is durable.
    pub(super) async fn put(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let key = request.uri().path().to_owned();
        if let Ok(body) = request.into_body().collect().await {
            let (done, answer) = oneshot::channel();
            let content = body.to_bytes();
            let job = Job { key, content, done };
            if self.jobs.try_send(job).is_ok() && answer.await.is_ok() {
                return fixed::answer(b"{}").await;
            }
        }
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        Ok(response)
    }
}

fn spawn(name: &str, work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let work = move || work().expect("a reference that fails must not be measured");
    thread::Builder::new().name(name.to_owned()).spawn(work)?;
    Ok(())
}

struct Writer {
    connection: Connection,
    queue: Receiver<Job>,
    ask: Sender<()>,
    copied: Receiver<()>,
}

impl Writer {
    fn run(self) -> Result<()> {
        let mut is_asked = false;
        while let Ok(first) = self.queue.recv() {
            let mut batch = vec![first];
            batch.extend(self.queue.try_iter().take(BATCH_JOBS_MAX - 1));
            self.commit(&batch)?;
            for job in batch {
                // Nobody listens where the connection has gone.
                job.done.send(()).ok();
            }
            // As in Kitbag's store: the thread copies the bulk, the writer the rest.
            if is_asked && self.copied.try_recv().is_ok() {
                checkpoint(&self.connection, CheckpointMode::PASSIVE)?;
                is_asked = false;
            }
            let (logged, copied) = checkpoint(&self.connection, CheckpointMode::NOOP)?;
            if !is_asked && logged - copied >= CHECKPOINT_FRAMES {
                self.ask.send(())?;
                is_asked = true;
            }
        }
        Ok(())
    }

    fn commit(&self, batch: &[Job]) -> Result<()> {
        let run = |sql| self.connection.prepare_cached(sql)?.execute([]);
        run("BEGIN IMMEDIATE")?;
        let mut put = self.connection.prepare_cached(PUT)?;
        for job in batch {
            let content = std::str::from_utf8(&job.content).context("a content is JSON")?;
            put.execute((&job.key, content))?;
        }
        drop(put);
        run("COMMIT")?;
        Ok(())
    }
}

fn checkpoint(connection: &Connection, mode: CheckpointMode) -> Result<(i32, i32)> {
    Ok(connection.wal_checkpoint_v2(Some("main"), mode)?)
}
