use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crossbeam_channel::Sender;
use kitbag_domain::{
    AccountStore as _, BoxFuture, EntryStore as _, NewAccount, ServerName, StoreError, UserId,
};
use rusqlite::ffi;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::check;
use crate::error::{Failure, Halt};
use crate::options::{Observer, Options, Step};
use crate::writer::Weight;

const NEW: Copying = Copying {
    replace: false,
    verify: true,
};

/// Bytes that take more than one step to copy.
const MUCH: usize = 4 * 1024 * 1024;

fn account(localpart: &str) -> NewAccount {
    NewAccount {
        user: UserId::parse(format!("@{localpart}:localhost")).unwrap(),
        password_hash: String::new(),
        at: 0,
    }
}

/// Holds a backup behind its first step.
struct Gate {
    reached: Receiver<()>,
    go: Sender<()>,
}

/// Returns a store in whose database are several steps' worth of pages.
fn store() -> (TempDir, SqliteStore, Gate) {
    let dir = tempdir().unwrap();
    let mut options = Options::new(ServerName::parse("localhost").unwrap(), 1);
    // The writer hears of nothing but what a test tells it.
    options.checkpoint_frames = u64::MAX;
    let (reaches, reached) = bounded(1);
    let (go, goes) = bounded(1);
    let is_passed = AtomicBool::new(false);
    options.observer = Some(Observer::new(move |step| {
        if step == Step::WithinBackup && !is_passed.swap(true, Ordering::Relaxed) {
            reaches.send(()).unwrap();
            goes.recv().unwrap();
        }
    }));
    let store = SqliteStore::open(&dir.path().join("data"), options).unwrap();
    block(store.register(account("alice"), None)).unwrap();
    block(insert(&store, 1, MUCH, Ok(()))).unwrap();
    (dir, store, Gate { reached, go })
}

/// Writes so many bytes into one row, in a batch of its own that may fail behind it.
fn insert(
    store: &SqliteStore,
    number: i64,
    bytes: usize,
    end: Result<(), Failure>,
) -> BoxFuture<'static, Result<(), StoreError>> {
    store.writes.submit(Weight::default(), move |tx| {
        let sql = "INSERT INTO filters (user, number, filter) VALUES (1, ?1, ?2)";
        let filter = format!("{{\"\":\"{}\"}}", "x".repeat(bytes));
        let inserted = tx.connection.execute(sql, (number, filter));
        inserted.map_err(|error| Halt::Failed(error.into()))?;
        end.map_err(Halt::Failed)
    })
}

fn fault() -> Failure {
    let error = ffi::Error::new(ffi::SQLITE_IOERR);
    Failure::Sql(rusqlite::Error::SqliteFailure(error, None))
}

fn names(dir: &TempDir) -> Vec<String> {
    let names = fs::read_dir(dir.path()).unwrap();
    let mut names: Vec<_> = names
        .map(|name| name.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Makes a backup, and does something while it is held behind its first step.
fn backup_with(
    (dir, store, gate): &(TempDir, SqliteStore, Gate),
    act: impl FnOnce(),
) -> Result<Copied, BackupError> {
    let to = dir.path().join("copy.db");
    thread::scope(|scope| {
        let backup = scope.spawn(|| store.backup(&to, NEW, &mut |_| ControlFlow::Continue(())));
        gate.reached.recv().unwrap();
        act();
        gate.go.send(()).unwrap();
        backup.join().unwrap()
    })
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn a_fault_of_the_store_ends_a_backup_and_leaves_nothing_of_it() {
    let ground = store();
    let (dir, store, _) = &ground;
    let mut written = None;
    let failed = backup_with(&ground, || {
        written = Some(insert(store, 2, 1, Err(fault())));
    });
    let Err(BackupError::Fault { reason }) = failed else {
        panic!("{failed:?}");
    };
    assert!(reason.contains(&fault().to_string()), "{reason}");
    assert!(block(written.unwrap()).is_err());
    assert_eq!(names(dir), ["data"]);
    while block(store.register(account("bob"), None)).is_err() {}
    let to = dir.path().join("copy.db");
    let again = store.backup(&to, NEW, &mut |_| ControlFlow::Continue(()));
    assert!(again.is_ok(), "{again:?}");
}

#[test]
fn closing_the_store_ends_a_backup_and_leaves_nothing_of_it() {
    let ground = store();
    let (dir, store, _) = &ground;
    thread::scope(|scope| {
        let failed = backup_with(&ground, || {
            scope.spawn(|| store.close());
            while store.control.is_empty() {
                thread::yield_now();
            }
        });
        assert!(matches!(failed, Err(BackupError::Closed)), "{failed:?}");
    });
    let to = dir.path().join("copy.db");
    let failed = store.backup(&to, NEW, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(failed, Err(BackupError::Closed)), "{failed:?}");
    assert_eq!(names(dir), ["data"]);
}

#[test]
fn a_backup_can_be_given_up() {
    let (dir, store, gate) = store();
    let to = dir.path().join("copy.db");
    let mut calls = 0;
    let failed = store.backup(&to, NEW, &mut |_| {
        calls += 1;
        // What the first call said is known by the second one.
        if calls == 2 {
            gate.go.send(()).unwrap();
        }
        ControlFlow::Break(())
    });
    assert!(matches!(failed, Err(BackupError::Cancelled)), "{failed:?}");
    assert_eq!(names(&dir), ["data"]);
    assert!(block(store.register(account("bob"), None)).is_ok());
}

#[test]
fn a_copy_that_nobody_wants_any_more_gets_no_name_however_quick_it_was() {
    let (dir, store, _) = store();
    store.close();
    for verify in [true, false] {
        let (copying, to) = (Copying { verify, ..NEW }, dir.path().join("copy.db"));
        let mut is_copied = false;
        let failed = backup_closed(&dir.path().join("data"), &to, copying, &mut |progress| {
            is_copied |= progress == Progress::Verifying;
            if is_copied {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert!(matches!(failed, Err(BackupError::Cancelled)), "{failed:?}");
        assert_eq!(names(&dir), ["data"]);
    }
}

#[test]
fn a_backup_whose_caller_fails_leaves_nothing_and_holds_up_no_other() {
    let (dir, store, gate) = store();
    let to = dir.path().join("copy.db");
    let failed = catch_unwind(AssertUnwindSafe(|| {
        store.backup(&to, NEW, &mut |_| {
            gate.go.send(()).unwrap();
            // As where a sync of the draft fails, and at once.
            resume_unwind(Box::new(()))
        })
    }));
    assert!(failed.is_err());
    assert_eq!(names(&dir), ["data"]);
    let again = store.backup(&to, NEW, &mut |_| ControlFlow::Continue(()));
    assert!(again.is_ok(), "{again:?}");
}

#[test]
fn a_caller_that_leaves_waits_until_the_writer_has_stopped() {
    let is_cancelled = Arc::<AtomicBool>::default();
    let (ended, end) = bounded(1);
    let under_way = UnderWay {
        is_cancelled: Arc::clone(&is_cancelled),
        end,
        has_ended: false,
    };
    let writer = thread::spawn(move || {
        while !is_cancelled.load(Ordering::Relaxed) && Arc::strong_count(&is_cancelled) > 1 {
            thread::yield_now();
        }
        ended.send(Err(Stop::Cancelled)).is_ok()
    });
    drop(under_way);
    assert!(writer.join().unwrap(), "it did not wait");
}

#[test]
fn of_two_backups_at_once_the_second_is_refused() {
    let ground = store();
    let (dir, store, _) = &ground;
    let mut second = None;
    let first = backup_with(&ground, || {
        let to = dir.path().join("second.db");
        second = Some(store.backup(&to, NEW, &mut |_| ControlFlow::Continue(())));
    });
    assert!(matches!(second, Some(Err(BackupError::Busy))), "{second:?}");
    assert!(first.is_ok(), "{first:?}");
    assert_eq!(names(dir), ["copy.db", "data"]);
}

/// Counts the filters of a number in the copy.
fn filters(ground: &(TempDir, SqliteStore, Gate), number: i64) -> i64 {
    let copy = ground.0.path().join("copy.db");
    let report = check::check_copy(&copy).unwrap();
    assert!(report.is_sound(), "{report:?}");
    let connection = Connection::open(copy).unwrap();
    let sql = "SELECT count(*) FROM filters WHERE number = ?1";
    connection
        .query_row(sql, [number], |row| row.get(0))
        .unwrap()
}

#[test]
fn what_is_committed_while_a_backup_runs_is_in_it() {
    let ground = store();
    let mut written = None;
    let copied = backup_with(&ground, || {
        written = Some(insert(&ground.1, 2, MUCH, Ok(())));
    });
    assert!(copied.is_ok(), "{copied:?}");
    assert_eq!(block(written.unwrap()), Ok(()));
    assert_eq!((filters(&ground, 1), filters(&ground, 2)), (1, 1));
}

/// A batch larger than the page cache gets into the log, and so into the copy, before it is undone.
#[test]
fn what_was_rolled_back_meanwhile_is_not_in_a_backup() {
    let ground = store();
    let mut written = None;
    let copied = backup_with(&ground, || {
        let end = Err(Failure::Row("undone on purpose".to_owned()));
        written = Some(insert(&ground.1, 2, MUCH, end));
    });
    assert!(copied.is_ok(), "{copied:?}");
    assert!(block(written.unwrap()).is_err());
    assert_eq!((filters(&ground, 1), filters(&ground, 2)), (1, 0));
}

#[test]
fn a_copy_that_finds_no_room_fails_and_no_write_does() {
    let (_dir, store, gate) = store();
    let target = Connection::open_in_memory().unwrap();
    target.pragma_update(None, "max_page_count", 100).unwrap();
    let (progress, _) = bounded(1);
    let (ended, end) = bounded(1);
    let order = Order {
        target,
        progress,
        is_cancelled: Arc::default(),
        ended,
    };
    store
        .control
        .send(Control::Backup(Box::new(order)))
        .unwrap();
    gate.reached.recv().unwrap();
    let written = insert(&store, 2, 10, Ok(()));
    gate.go.send(()).unwrap();
    let ended = end.recv().unwrap();
    let is_full = matches!(&ended, Err(Stop::Sqlite(error))
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull));
    assert!(is_full, "{ended:?}");
    assert_eq!(block(written), Ok(()));
    assert!(store.takes_writes());
}
