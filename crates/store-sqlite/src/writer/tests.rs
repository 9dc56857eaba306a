//! The steps of a batch, one at a time: jobs are queued first, then the writer takes one step.

mod feed;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use kitbag_domain::{
    Applied, ApplyError, BoxFuture, DeviceWakeups, Position, ServerName, StoreError, UserId,
    Wakeups,
};
use kitbag_testkit::gate::in_time;
use rusqlite::types::FromSql;
use tempfile::{TempDir, tempdir};

use super::{Control, Order, Setup, State, Stop, Tx, Weight, WriteQueue, Writer, writer};
use crate::cache::Cache;
use crate::checkpoint;
use crate::connections::Connections;
use crate::error::{Failure, Halt};
use crate::format::Role;
use crate::open;
use crate::options::{FileOpener, Observer, Options, Step, limit};
use crate::rewrite;
use crate::rows::{first, run};
use crate::stats::Counters;

/// A writer without a thread.
struct Bench {
    queue: WriteQueue,
    writer: Writer,
    dir: TempDir,
    control: crossbeam_channel::Sender<Control>,
    asked: crossbeam_channel::Receiver<()>,
}

type Reply<T> = BoxFuture<'static, Result<T, StoreError>>;

fn options() -> Options {
    Options::new(ServerName::parse("localhost").unwrap(), 1)
}

impl Bench {
    fn new(options: Options) -> Self {
        Self::open(tempdir().unwrap(), options)
    }

    fn open(dir: TempDir, options: Options) -> Self {
        let opened = open::open(dir.path(), &options).unwrap();
        let roles = [Role::Read];
        let connections = Connections::new(opened.source.clone(), roles);
        let (control, controlled) = bounded(2);
        let (ask, asked) = bounded(1);
        let setup = Setup {
            connection: Some(opened.connection),
            source: opened.source,
            connections: Arc::new(connections),
            control: controlled,
            checkpoint: ask,
            counters: Arc::<Counters>::default(),
            wakeups: Arc::<Wakeups>::default(),
            device_wakeups: Arc::<DeviceWakeups>::default(),
            cache: Arc::new(Cache::new(limit::CACHE_BYTES_MAX)),
        };
        let (queue, writer) = writer(options, setup);
        Self {
            queue,
            writer,
            dir,
            control,
            asked,
        }
    }

    /// Serves one batch.
    fn step(&mut self) {
        let job = self.writer.jobs.try_recv().unwrap();
        self.writer.serve(job);
    }

    fn commits(&self) -> u64 {
        let commits = &self.writer.setup.counters.commits;
        commits.load(Ordering::Relaxed)
    }

    /// Queues the registration of a user.
    fn add(&self, name: &str) -> Reply<()> {
        let name = name.to_owned();
        self.queue
            .submit(Weight::default(), move |tx| Ok(add(tx, &name)?))
    }

    /// Queues an arbitrary statement.
    fn run(&self, sql: &'static str) -> Reply<()> {
        self.queue.submit(Weight::default(), move |tx| {
            run(tx.connection, sql, [])?;
            Ok(())
        })
    }

    /// Queues the reading of a value.
    fn read<T: FromSql>(&self, sql: &'static str) -> Reply<()> {
        self.queue.submit(Weight::default(), move |tx| {
            first(tx.connection, sql, [], |row| Ok(row.get::<_, T>(0)?))?;
            Ok(())
        })
    }

    fn users(&self) -> Vec<String> {
        let sql = "SELECT name FROM users WHERE name > '' ORDER BY name";
        let read = |connection: &rusqlite::Connection| {
            crate::rows::all(connection, sql, [], |row| Ok(row.get(0)?))
        };
        self.writer.setup.connections.with(0, read).unwrap()
    }

    fn log_bytes(&self) -> u64 {
        let log = self.dir.path().join("kitbag.db-wal");
        log.metadata().map_or(0, |log| log.len())
    }
}

fn add(tx: &mut Tx<'_>, name: &str) -> Result<(), Failure> {
    let sql = "INSERT INTO users (name, created_at) VALUES (?1, 0)";
    run(tx.connection, sql, [name])?;
    tx.changed = Some((UserId::parse(format!("@{name}:x")).unwrap(), Position(1)));
    Ok(())
}

#[tokio::test]
async fn what_queued_meanwhile_shares_a_commit() {
    let mut bench = Bench::new(options());
    let replies: Vec<_> = (0..100).map(|n| bench.add(&n.to_string())).collect();
    bench.step();
    for reply in replies {
        reply.await.unwrap();
    }
    assert_eq!(bench.commits(), 1);
    assert_eq!(bench.users().len(), 100);
}

#[tokio::test]
async fn an_observer_sees_the_steps_of_a_commit_in_their_order() {
    let seen = Arc::<Mutex<Vec<Step>>>::default();
    let mut options = options();
    let notes = Arc::clone(&seen);
    options.observer = Some(Observer::new(move |step| notes.lock().unwrap().push(step)));
    let mut bench = Bench::new(options);
    let undone = bench.run("INSERT INTO users (name) VALUES ('no time')");
    bench.step();
    undone.await.unwrap_err();
    let done = bench.add("a");
    bench.step();
    done.await.unwrap();
    let steps = [
        Step::BeforeCommit,
        Step::BeforeWakeUp,
        Step::BeforeAcknowledgement,
    ];
    assert_eq!(*seen.lock().unwrap(), steps);
}

#[tokio::test]
async fn a_batch_has_a_bound() {
    let mut bench = Bench::new(options());
    let jobs = limit::BATCH_JOBS_MAX + 1;
    let replies: Vec<_> = (0..jobs).map(|n| bench.add(&n.to_string())).collect();
    bench.step();
    assert_eq!(bench.users().len(), limit::BATCH_JOBS_MAX);
    bench.step();
    assert_eq!(bench.users().len(), jobs);
    drop(replies);
}

#[tokio::test]
async fn an_sql_error_undoes_the_whole_batch_and_nothing_else() {
    let mut bench = Bench::new(options());
    let kept = bench.add("kept");
    bench.step();
    let undone = [
        bench.add("a"),
        bench.run("INSERT INTO users (name) VALUES ('b')"),
        bench.add("c"),
    ];
    bench.step();
    kept.await.unwrap();
    for reply in undone {
        let error = reply.await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    }
    assert_eq!(bench.users(), ["kept"]);
    let after = bench.add("after");
    bench.step();
    after.await.unwrap();
}

#[tokio::test]
async fn a_panic_undoes_its_batch_and_the_writer_goes_on() {
    let mut bench = Bench::new(options());
    let before = bench.add("before");
    let panics: Reply<()> = bench.queue.submit(Weight::default(), |_| {
        panic!("as a rule of the domain might")
    });
    bench.step();
    assert!(matches!(before.await, Err(StoreError::Unavailable(_))));
    assert!(matches!(panics.await, Err(StoreError::Unavailable(_))));
    assert_eq!(bench.users(), <[&str; 0]>::default());
    let after = bench.add("after");
    bench.step();
    after.await.unwrap();
}

#[tokio::test]
async fn a_refusal_leaves_the_rest_of_the_batch_alone() {
    let mut bench = Bench::new(options());
    let before = bench.add("before");
    let refused: BoxFuture<'_, Result<Applied, ApplyError>> =
        bench.queue.submit(Weight::default(), |_| {
            Err(kitbag_domain::Refusal::SessionGone.into())
        });
    let after = bench.add("after");
    bench.step();
    assert!(matches!(refused.await, Err(ApplyError::Refused(_))));
    before.await.unwrap();
    after.await.unwrap();
    assert_eq!(bench.users(), ["after", "before"]);
}

#[tokio::test]
async fn a_savepoint_undoes_what_came_before_a_refusal() {
    let mut bench = Bench::new(options());
    let before = bench.add("before");
    let weight = Weight {
        needs_savepoint: true,
        ..Weight::default()
    };
    let refused: BoxFuture<'_, Result<Applied, ApplyError>> = bench.queue.submit(weight, |tx| {
        add(tx, "refused")?;
        Err(kitbag_domain::Refusal::SessionGone.into())
    });
    bench.step();
    assert!(matches!(refused.await, Err(ApplyError::Refused(_))));
    before.await.unwrap();
    assert_eq!(bench.users(), ["before"]);
}

#[tokio::test]
async fn a_refusal_after_a_change_is_noticed() {
    let mut bench = Bench::new(options());
    let refused: BoxFuture<'_, Result<Applied, ApplyError>> =
        bench.queue.submit(Weight::default(), |tx| {
            add(tx, "refused")?;
            Err(kitbag_domain::Refusal::SessionGone.into())
        });
    bench.step();
    let error = refused.await.unwrap_err();
    assert!(matches!(
        error,
        ApplyError::Store(StoreError::Unavailable(_))
    ));
    assert_eq!(bench.users(), <[&str; 0]>::default());
}

#[tokio::test]
async fn an_unreadable_row_concerns_its_reader_only() {
    let mut bench = Bench::new(options());
    let damaged: Reply<()> = bench.queue.submit(Weight::default(), |_| {
        Err(Halt::Failed(Failure::Row("a strange scope".to_owned())))
    });
    let other = bench.add("other");
    bench.step();
    assert!(matches!(damaged.await, Err(StoreError::Corrupt(_))));
    other.await.unwrap();
}

#[tokio::test]
async fn a_value_of_the_wrong_kind_concerns_its_reader_only() {
    let mut bench = Bench::new(options());
    let damaged = [
        bench.read::<u64>("SELECT -1"),
        bench.read::<u64>("SELECT NULL"),
        bench.read::<String>("SELECT CAST(x'ff' AS TEXT)"),
    ];
    let other = bench.add("other");
    bench.step();
    for reply in damaged {
        let error = reply.await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    }
    other.await.unwrap();
}

#[tokio::test]
async fn a_failed_commit_leaves_the_outcome_unknown_and_wakes_who_waits() {
    let mut bench = Bench::new(options());
    let user = UserId::parse("@doubtful:x").unwrap();
    let mut waiting = bench.writer.setup.wakeups.subscribe(&user);
    let doubtful = bench.add("doubtful");
    // Foreign keys that are checked at COMMIT make it fail.
    let deferred = bench.run("PRAGMA defer_foreign_keys = ON");
    let orphan = bench.run("INSERT INTO filters (user, number, filter) VALUES (99, 0, '')");
    bench.step();
    for reply in [doubtful, deferred, orphan] {
        let error = reply.await.unwrap_err();
        assert!(matches!(error, StoreError::OutcomeUnknown(_)), "{error}");
    }
    in_time("the wake-up", waiting.changed()).await;
    let after = bench.add("after");
    bench.step();
    after.await.unwrap();
    assert_eq!(bench.users(), ["after"]);
}

#[tokio::test]
async fn after_a_full_disk_the_files_are_opened_anew() {
    let mut bench = Bench::new(options());
    let full = bench.run("UPDATE store SET server_name = zeroblob(9)");
    bench.step();
    assert!(
        full.await.is_err(),
        "STRICT refuses the type, which is no fault"
    );
    let pages = "PRAGMA max_page_count = 1";
    first(bench.writer.connection(), pages, [], |_| Ok(())).unwrap();
    let large = "INSERT INTO users (name, created_at, displayname)
        VALUES ('large', 0, hex(randomblob(100000)))";
    // A setting lives and dies with its connection.
    let connections = Arc::clone(&bench.writer.setup.connections);
    let mark = |connection: &rusqlite::Connection| {
        let marked = connection.execute_batch("PRAGMA cache_size = 77");
        Ok(marked?)
    };
    connections.with(0, mark).unwrap();
    let refused = bench.run(large);
    bench.step();
    assert!(matches!(refused.await, Err(StoreError::Unavailable(_))));
    let cache_size = |connection: &rusqlite::Connection| {
        let sql = "PRAGMA cache_size";
        Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))?)
    };
    assert_ne!(connections.with(0, cache_size).unwrap(), 77, "readers too");
    let again = bench.run(large);
    bench.step();
    again.await.unwrap();
    assert_eq!(bench.users(), ["large"]);
}

#[tokio::test]
async fn while_the_disk_is_full_writes_and_backups_hear_that_it_is() {
    let mut bench = Bench::new(options());
    let waiting = bench.add("waiting");
    let (ended, end) = bounded(1);
    let order = Order {
        target: rusqlite::Connection::open_in_memory().unwrap(),
        progress: bounded(1).0,
        is_cancelled: Arc::default(),
        ended,
    };
    let order = Control::Backup(Box::new(order));
    bench.control.send(order).unwrap();
    let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    let text = "database or disk is full".to_owned();
    let full = Failure::Sql(rusqlite::Error::SqliteFailure(full, Some(text)));
    bench.writer.refuse_writes(Duration::ZERO, &full);
    let refused = waiting.await.unwrap_err().to_string();
    assert!(refused.contains("database or disk is full"), "{refused}");
    let Err(Stop::Fault(reason)) = end.recv().unwrap() else {
        panic!("no backup is made");
    };
    assert_eq!(reason, "database or disk is full");
}

/// Begins to write as another program.
fn write_beside(file: &Path) -> rusqlite::Result<rusqlite::Connection> {
    let other = rusqlite::Connection::open(file)?;
    other.busy_timeout(Duration::ZERO)?;
    other.execute_batch("BEGIN IMMEDIATE; UPDATE store SET probes = probes + 1")?;
    Ok(other)
}

#[tokio::test]
async fn the_log_is_not_written_again_while_another_program_writes() {
    let rewritten = Arc::<AtomicUsize>::default();
    let mut options = options();
    let count = Arc::clone(&rewritten);
    options.opener = Some(FileOpener::new(move |log| {
        count.fetch_add(1, Ordering::Relaxed);
        rewrite::open_file(log)
    }));
    let mut bench = Bench::new(options);
    let before = rewritten.load(Ordering::Relaxed);
    let file = bench.writer.setup.source.file.clone();
    let other = write_beside(&file).unwrap();
    let own = bench.writer.connection();
    own.busy_timeout(Duration::ZERO).unwrap();
    let failure = bench.writer.mend().unwrap_err();
    assert_eq!(rewritten.load(Ordering::Relaxed), before);
    assert!(failure.is_busy(), "{failure}");
    drop(other);
    bench.writer.mend().unwrap();
}

#[tokio::test]
async fn no_other_program_writes_while_the_log_is_written_again() {
    let refused = Arc::<AtomicUsize>::default();
    let mut options = options();
    let count = Arc::clone(&refused);
    options.opener = Some(FileOpener::new(move |log: &Path| {
        let file = log.with_extension("db");
        if write_beside(&file).is_err() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        rewrite::open_file(log)
    }));
    let mut bench = Bench::new(options);
    let before = refused.load(Ordering::Relaxed);
    let fails = "CREATE TEMP TRIGGER fails BEFORE UPDATE ON store
        BEGIN SELECT RAISE(ABORT, 'on purpose'); END";
    bench.writer.connection().execute_batch(fails).unwrap();
    bench.writer.mend().unwrap();
    assert_eq!(refused.load(Ordering::Relaxed), before + 1);
    assert!(write_beside(&bench.writer.setup.source.file).is_ok());
}

#[tokio::test]
async fn while_the_files_do_not_work_writes_are_refused_and_closing_is_heard() {
    let mut bench = Bench::new(options());
    let waiting = bench.add("waiting");
    let file = bench.writer.setup.source.file.clone();
    std::fs::rename(&file, file.with_extension("gone")).unwrap();
    bench.control.send(Control::Close).unwrap();
    bench.writer.recover();
    assert!(matches!(waiting.await, Err(StoreError::Unavailable(_))));
    assert_eq!(bench.writer.state, State::Broken);
}

#[tokio::test]
async fn a_full_queue_is_told_at_once() {
    let mut small = options();
    small.write_queue_jobs_max = 2;
    let mut bench = Bench::new(small);
    let (first, second) = (bench.add("first"), bench.add("second"));
    assert_eq!(bench.add("third").await, Err(StoreError::Overloaded));
    bench.step();
    first.await.unwrap();
    second.await.unwrap();
}

#[tokio::test]
async fn a_closed_queue_lets_nothing_in() {
    let mut bench = Bench::new(options());
    let early = bench.add("early");
    bench.queue.close();
    let late = in_time("the refusal", bench.add("late")).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))));
    bench.step();
    early.await.unwrap();
}

#[tokio::test]
async fn queued_bytes_have_a_bound() {
    let mut small = options();
    small.write_queue_bytes_max = 10;
    let mut bench = Bench::new(small);
    let submit = |bench: &Bench, bytes| -> Reply<()> {
        let weight = Weight {
            bytes,
            ..Weight::default()
        };
        bench.queue.submit(weight, |_| Ok(()))
    };
    let large = submit(&bench, 11);
    let refused = in_time("the refusal", submit(&bench, 1)).await;
    assert_eq!(refused, Err(StoreError::Overloaded));
    bench.step();
    large.await.unwrap();
    let small = submit(&bench, 10);
    bench.step();
    small.await.unwrap();
}

#[tokio::test]
async fn a_grown_log_is_copied_and_an_idle_one_emptied() {
    let mut bench = Bench::new(options());
    let small = bench.add("small");
    bench.step();
    small.await.unwrap();
    assert!(
        bench.asked.try_recv().is_err(),
        "a page or two are not worth it"
    );
    let pages = "INSERT INTO users (name, created_at, displayname)
        VALUES ('large', 0, hex(randomblob(3000000)))";
    let large = bench.run(pages);
    bench.step();
    large.await.unwrap();
    assert!(bench.asked.try_recv().is_ok());
    assert!(bench.log_bytes() > limit::CHECKPOINT_FRAMES * limit::PAGE_BYTES);
    bench.writer.finish_checkpoint();
    let frames = checkpoint::frames(bench.writer.connection()).unwrap();
    assert_eq!(
        frames.copied, frames.logged,
        "so that the log can start anew"
    );
    bench.writer.rest();
    assert_eq!(bench.log_bytes(), 0);
}

#[tokio::test]
async fn a_log_that_a_crash_left_is_emptied_without_a_write() {
    let mut bench = Bench::new(options());
    let kept = bench.add("kept");
    bench.step();
    kept.await.unwrap();
    // The connections go down without a checkpoint, and the log stays.
    let Bench { dir, .. } = bench;
    let mut bench = Bench::open(dir, options());
    assert!(bench.log_bytes() > 0);
    bench.writer.rest();
    assert_eq!(bench.log_bytes(), 0);
    assert_eq!(bench.users(), ["kept"]);
}

#[tokio::test]
async fn a_long_read_does_not_hold_up_the_writer_at_rest() {
    let mut bench = Bench::new(options());
    let written = bench.add("written");
    bench.step();
    written.await.unwrap();
    let connections = Arc::clone(&bench.writer.setup.connections);
    let rest = |reader: &rusqlite::Connection| {
        let _snapshot = reader.unchecked_transaction()?;
        first(reader, "SELECT probes FROM store", [], |_| Ok(()))?;
        let started = Instant::now();
        bench.writer.rest();
        Ok(started.elapsed())
    };
    let elapsed = connections.with(0, rest).unwrap();
    assert!(elapsed < Duration::from_millis(limit::BUSY_WAIT_MS));
    assert!(bench.log_bytes() > 0, "the read needs it");
    let sql = "PRAGMA busy_timeout";
    let wait_ms = first(bench.writer.connection(), sql, [], |row| Ok(row.get(0)?));
    assert_eq!(wait_ms.unwrap(), Some(limit::BUSY_WAIT_MS));
    bench.writer.rest();
    assert_eq!(bench.log_bytes(), 0);
}

#[tokio::test]
async fn a_batch_has_a_bound_of_bytes() {
    let mut bench = Bench::new(options());
    let weight = Weight {
        bytes: limit::BATCH_BYTES_MAX / 2,
        ..Weight::default()
    };
    let submit = |bench: &Bench| -> Reply<()> { bench.queue.submit(weight, |_| Ok(())) };
    let replies = [submit(&bench), submit(&bench), submit(&bench)];
    bench.step();
    assert_eq!(bench.writer.jobs.len(), 1, "the third one waits");
    bench.step();
    for reply in replies {
        reply.await.unwrap();
    }
}

#[tokio::test]
async fn after_a_failed_commit_the_connection_is_opened_anew() {
    let mut bench = Bench::new(options());
    // A setting lives and dies with its connection.
    let marked = bench.run("PRAGMA cache_size = 77");
    bench.step();
    marked.await.unwrap();
    let deferred = bench.run("PRAGMA defer_foreign_keys = ON");
    let orphan = bench.run("INSERT INTO filters (user, number, filter) VALUES (99, 0, '')");
    bench.step();
    deferred.await.unwrap_err();
    orphan.await.unwrap_err();
    let sql = "PRAGMA cache_size";
    let size = first(bench.writer.connection(), sql, [], |row| {
        Ok(row.get::<_, i64>(0)?)
    });
    assert_ne!(size.unwrap(), Some(77));
}

#[tokio::test]
async fn a_log_that_was_emptied_is_emptied_again() {
    let mut bench = Bench::new(options());
    for name in ["first", "second"] {
        let written = bench.add(name);
        bench.step();
        written.await.unwrap();
        assert!(bench.log_bytes() > 0, "{name}");
        bench.writer.rest();
        assert_eq!(bench.log_bytes(), 0, "{name}");
    }
}
