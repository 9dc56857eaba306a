//! The log of a store whose disk fails: a few lines, however much is asked of it.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

use std::io;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use kitbag_domain::{EntryStore as _, Expectation, Op, ServerName, Store, StoreError};
use kitbag_store_sqlite::{Options, SqliteStore};
use kitbag_testkit::disk::{Call, Disk, Error, Fault, Part};
use kitbag_testkit::{Actor, content, global};
use tempfile::TempDir;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};

const REQUESTS: usize = 1_000;
/// When the store must serve again, at the latest, once the disk does.
const BACK_AFTER: Duration = Duration::from_secs(10);

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// The writer is a thread of its own, so its lines are caught for the whole process.
static ALONE: AsyncMutex<()> = AsyncMutex::const_new(());

struct Catch;

impl io::Write for Catch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes).trim().to_owned();
        LINES.lock().unwrap().push(line);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A store on a disk that can fail, with the only log of the process.
struct Lab {
    disk: Disk,
    store: Arc<SqliteStore>,
    alice: Actor,
    _dir: TempDir,
    _alone: AsyncMutexGuard<'static, ()>,
}

impl Lab {
    async fn new() -> Self {
        static STARTED: Once = Once::new();
        STARTED.call_once(|| {
            tracing_subscriber::fmt()
                .with_writer(|| Catch)
                .with_target(false)
                .with_ansi(false)
                .without_time()
                .init();
        });
        let alone = ALONE.lock().await;
        let (disk, dir) = (Disk::new(), tempfile::tempdir().unwrap());
        let mut options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        options.vfs = Some(disk.name().to_owned());
        options.checkpoint_frames = 20;
        options.wal_idle_ms = 500;
        let store = Arc::new(SqliteStore::open(dir.path(), options).unwrap());
        let shared: Arc<dyn Store> = store.clone();
        let alice = Actor::register(&shared, "alice").await;
        LINES.lock().unwrap().clear();
        Self {
            disk,
            store,
            alice,
            _dir: dir,
            _alone: alone,
        }
    }

    async fn put(&self, name: &str, bytes: usize) -> Result<(), StoreError> {
        let text = format!("{{\"\":\"{}\"}}", "x".repeat(bytes));
        let put = Op::Put(global(name), content(&text), Expectation::default());
        match self.alice.apply(vec![put]).await {
            Ok(_) => Ok(()),
            Err(kitbag_domain::ApplyError::Store(error)) => Err(error),
            Err(error) => unreachable!("{error}"),
        }
    }

    /// Puts what the disk has no room for, though it has for less.
    async fn put_too_much(&self) -> Result<(), StoreError> {
        let full = Fault::next(Call::Write, Error::NoSpace).of(Part::Log);
        // Two calls write a page, and each small write has a few of them.
        self.disk.fail(full.nth(100));
        self.put("large", 900_000).await
    }

    /// Makes room, and waits until writes are taken; returns how many were refused until then.
    async fn mend(&self) -> u64 {
        self.disk.clear();
        let started = Instant::now();
        let mut refused = 0;
        while self.put("mended", 10).await.is_err() {
            refused += 1;
            assert!(started.elapsed() < BACK_AFTER);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // What the writer does behind a batch is done when it answers the next one.
        self.put("mended", 10).await.unwrap();
        refused
    }
}

fn lines() -> Vec<String> {
    LINES.lock().unwrap().clone()
}

/// Returns the lines about writes, but none of checkpoints: a full disk lets them fail too.
fn told() -> Vec<String> {
    let mut lines = lines();
    let is_checkpoint = |line: &String| line.starts_with("WARN a checkpoint failed");
    let checkpoints = lines.iter().filter(|line| is_checkpoint(line)).count();
    assert!(checkpoints <= 2, "one of each thread: {lines:#?}");
    lines.retain(|line| !is_checkpoint(line));
    lines
}

/// Returns the number behind `name` in a line.
fn number(line: &str, name: &str) -> u64 {
    let (_, rest) = line.split_once(&format!(" {name}=")).unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_full_disk_is_told_of_once_and_its_end_with_the_writes_that_were_refused() {
    let lab = Lab::new().await;
    lab.disk.fill(0);
    for _ in 0..REQUESTS {
        let error = lab.put("a", 100_000).await.unwrap_err();
        let is_told = matches!(
            error,
            StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_)
        );
        assert!(is_told, "{error}");
    }
    assert!(
        !lab.store.takes_writes(),
        "whatever of its own it could write"
    );
    let refused = REQUESTS as u64 + lab.mend().await;
    let lines = told();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(
        lines[0].starts_with("ERROR the store takes no writes"),
        "{lines:#?}"
    );
    assert!(lines[0].contains("full"), "the cause: {lines:#?}");
    assert!(
        lines[1].starts_with("INFO the store takes writes again"),
        "{lines:#?}"
    );
    assert!(number(&lines[1], "outage_ms") > 0, "{lines:#?}");
    assert_eq!(number(&lines[1], "writes"), refused, "{lines:#?}");
    assert_eq!(lab.store.stats().writes_failed, refused);
    assert!(lab.store.stats().outages >= 1);
    assert!(lab.store.takes_writes());
}

/// The store's own small write succeeds each time, and every client's fails: that is no service.
#[tokio::test]
async fn an_outage_is_not_over_when_only_the_store_can_write() {
    let lab = Lab::new().await;
    lab.put("small", 10).await.unwrap();
    for _ in 0..20 {
        assert!(lab.put_too_much().await.is_err());
        assert!(!lab.store.takes_writes());
    }
    lab.disk.clear();
    assert!(lab.store.stats().outages > 1, "it could write in between");
    let lines = told();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lab.put("small", 10).await.unwrap();
    assert!(lab.store.takes_writes());
    lab.put("small", 10).await.unwrap();
    let lines = told();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert_eq!(number(&lines[1], "writes"), 20, "{lines:#?}");
}

/// Without anybody who writes, too: after a while in which nothing failed.
#[tokio::test]
async fn an_outage_is_over_when_nothing_fails_for_a_while() {
    let lab = Lab::new().await;
    lab.disk.fill(0);
    assert!(lab.put("a", 100_000).await.is_err());
    assert!(!lab.store.takes_writes());
    lab.disk.clear();
    let started = Instant::now();
    while !lab.store.takes_writes() {
        assert!(started.elapsed() < BACK_AFTER);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let lines = told();
    let last = lines.last().unwrap();
    assert!(
        last.starts_with("INFO the store takes writes again"),
        "{lines:#?}"
    );
    assert_eq!(number(last, "writes"), 1);
}

/// Each opening works, and so does each small write; each large one fails.
#[tokio::test]
async fn a_nearly_full_disk_does_not_fill_the_log() {
    let lab = Lab::new().await;
    let mut failed = 0;
    for _ in 0..REQUESTS / 10 {
        failed += u64::from(lab.put_too_much().await.is_err());
        // Where it comes while the files are opened anew it waits for that.
        lab.put("small", 10).await.unwrap();
    }
    assert_eq!(failed, REQUESTS as u64 / 10);
    assert_eq!(lab.store.stats().outages, failed);
    let lines = told();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lab.store.takes_writes());
}

/// A disk that cannot be read fails each read by itself, and the store says nothing to that.
#[tokio::test]
async fn failing_reads_are_told_of_to_their_callers_alone() {
    let lab = Lab::new().await;
    // Larger than the page cache, so that the disk is asked.
    for number in 0..5 {
        lab.put(&format!("large{number}"), 900_000).await.unwrap();
    }
    lab.disk.fail(Fault::next(Call::Read, Error::Io).lasting());
    for _ in 0..REQUESTS {
        let read = lab.store.changes(&lab.alice.user, None).await;
        assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    }
    lab.disk.clear();
    let read = lab.store.changes(&lab.alice.user, None).await.unwrap();
    assert_eq!(read.entries.len(), 5);
    let lines = lines();
    assert!(lines.len() <= 2, "{lines:#?}");
}

/// The log can be written and the database cannot: commits go on, and their checkpoints fail.
#[tokio::test]
async fn checkpoints_that_fail_do_not_fill_the_log() {
    let lab = Lab::new().await;
    lab.disk.fail(
        Fault::next(Call::Write, Error::Io)
            .of(Part::Database)
            .lasting(),
    );
    for number in 0..REQUESTS / 4 {
        lab.put(&format!("a{number}"), 20_000).await.unwrap();
    }
    assert!(
        lab.disk.faults() > 20,
        "{} checkpoints failed",
        lab.disk.faults()
    );
    let lines = lines();
    assert!(lines.len() <= 2, "{lines:#?}");
    let line = "WARN a checkpoint failed";
    assert!(
        lines.iter().all(|text| text.starts_with(line)),
        "{lines:#?}"
    );
    lab.disk.clear();
    lab.store.close();
}
