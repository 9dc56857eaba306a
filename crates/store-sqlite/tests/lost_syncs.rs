//! A sync that failed: what was to be written may be lost, and yet counts as written.
//!
//! So Linux does it, and the disk of the testkit after it. What is acknowledged later must not rest on
//! what may be lost, and nobody may be told of it.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use kitbag_domain::{
    AccountStore as _, Allowance, ApplyError, Content, EntryStore as _, EventType, Expectation,
    Guard, Key, Limits, NewAccount, Op, Position, Scope, ServerName, StoreError, UserId, Write,
    Writer,
};
use kitbag_store_sqlite::{Durability, FileOpener, Options, SqliteStore, check};
use kitbag_testkit::dice::Dice;
use kitbag_testkit::disk::{Call, Disk, Error, Fault, Image, Part, Summary};
use rusqlite::{Connection, OpenFlags};
use tempfile::tempdir;

/// Cuts of one place: some lose what a failed sync left, and some do not.
const CUTS: u64 = 24;

/// Some five writes of 20 kB.
const CHECKPOINT_FRAMES: u64 = 40;

/// Many times what is needed.
const TIME_MAX: Duration = Duration::from_secs(60);

/// The writer looks when it is told that a checkpoint has ended.
const NOTICE_TIME_MAX: Duration = Duration::from_secs(10);
const PUTS_MAX: usize = 1_000;

fn options() -> Options {
    Options::new(ServerName::parse("localhost").unwrap(), 1)
}

/// Returns options for a store on `disk`.
fn watched(disk: &Disk) -> Options {
    let mut options = options();
    options.checkpoint_frames = CHECKPOINT_FRAMES;
    options.vfs = Some(disk.name().to_owned());
    options.opener = Some(FileOpener::new(disk.opener()));
    options
}

fn open(dir: &Path, disk: &Disk) -> SqliteStore {
    let store = SqliteStore::open(dir, watched(disk)).unwrap();
    // The store syncs the directory beside SQLite.
    disk.sync_dir();
    store
}

fn alice() -> UserId {
    UserId::parse("@alice:localhost").unwrap()
}

async fn register(store: &SqliteStore) {
    let account = NewAccount {
        user: alice(),
        password_hash: String::new(),
        at: 1,
    };
    store.register(account, None).await.unwrap();
}

fn key(event_type: &str) -> Key {
    Key::new(Scope::Global, EventType::parse(event_type).unwrap())
}

async fn put(store: &SqliteStore, event_type: &str, bytes: usize) -> Result<Position, ApplyError> {
    let write = Write {
        guard: Guard::Account,
        writer: Writer::Server,
        at: 1,
        allowance: Allowance::Ordinary,
    };
    let text = format!("{{\"a\":\"{}\"}}", "x".repeat(bytes));
    let content = Content::parse(text.into(), &Limits::default()).unwrap();
    let op = Op::Put(key(event_type), content, Expectation::default());
    let applied = store.apply(&alice(), write, vec![op]).await?;
    Ok(applied.positions[0].unwrap())
}

/// Puts until it is acknowledged; the store may be mending its files.
async fn put_at_last(store: &SqliteStore, event_type: &str) -> Position {
    loop {
        match put(store, event_type, 10).await {
            Ok(position) => return position,
            Err(ApplyError::Store(StoreError::Unavailable(_))) => tokio::task::yield_now().await,
            Err(other) => unreachable!("{other}"),
        }
    }
}

async fn put_in_vain(store: &SqliteStore, event_type: &str, bytes: usize) {
    let failed = put(store, event_type, bytes).await.unwrap_err();
    let is_unknown = matches!(failed, ApplyError::Store(StoreError::OutcomeUnknown(_)));
    assert!(is_unknown, "{failed}");
}

/// Opens each image of the disk as it may be now without power, and looks whether it is sound, holds
/// the entries, and stands at `head` or later.
async fn must_survive(disk: &Disk, entries: &[&str], head: Position) {
    let log = disk.log();
    for seed in 0..CUTS {
        let image = log.cut(log.len(), Dice::new(seed));
        judge(&image, entries, head, seed).await;
    }
}

async fn judge(image: &Image, entries: &[&str], head: Position, seed: u64) {
    let dir = tempdir().unwrap();
    image.write_to(dir.path()).unwrap();
    let mut options = options();
    // Nothing fails here any more.
    options.durability = Durability::None;
    let store = SqliteStore::open(dir.path(), options).unwrap();
    for entry in entries {
        let found = store.get(&alice(), &key(entry)).await.unwrap();
        assert!(found.is_some(), "`{entry}` is lost, cut {seed}");
    }
    let found = store.changes(&alice(), None).await.unwrap().head;
    assert!(found >= head, "{found} was {head}, cut {seed}");
    drop(store);
    let report = check::check(dir.path()).unwrap();
    assert!(report.is_sound(), "cut {seed}: {report:?}");
}

#[tokio::test]
async fn what_is_acknowledged_after_a_failed_sync_survives_a_power_cut() {
    let (dir, disk) = (tempdir().unwrap(), Disk::new());
    let store = open(dir.path(), &disk);
    register(&store).await;
    disk.fail(Fault::next(Call::Sync, Error::Io).of(Part::Log));
    // More pages than the first write of the recovery has: they would stay behind.
    put_in_vain(&store, "unknown", 50_000).await;
    let position = put_at_last(&store, "acknowledged").await;
    must_survive(&disk, &["acknowledged"], position).await;
}

#[tokio::test]
async fn where_the_next_write_fails_too_the_log_is_written_again() {
    let (dir, disk) = (tempdir().unwrap(), Disk::new());
    let store = open(dir.path(), &disk);
    register(&store).await;
    for nth in [1, 2] {
        disk.fail(Fault::next(Call::Sync, Error::Io).of(Part::Log).nth(nth));
    }
    put_in_vain(&store, "unknown", 50_000).await;
    let position = put_at_last(&store, "acknowledged").await;
    assert_eq!(disk.faults(), 2);
    must_survive(&disk, &["acknowledged"], position).await;
}

#[tokio::test]
async fn nobody_is_told_of_what_a_failed_sync_may_have_lost() {
    let (dir, disk) = (tempdir().unwrap(), Disk::new());
    let store = open(dir.path(), &disk);
    register(&store).await;
    let before = put(&store, "before", 10).await.unwrap();
    disk.fail(Fault::next(Call::Sync, Error::Io).lasting());
    put_in_vain(&store, "unknown", 50_000).await;
    let mut told = before;
    // Some attempts to open the files anew.
    while disk.faults() < 8 {
        if let Ok(changes) = store.changes(&alice(), None).await {
            told = told.max(changes.head);
        }
        tokio::task::yield_now().await;
    }
    must_survive(&disk, &["before"], told).await;
}

#[tokio::test]
async fn a_process_that_ended_after_a_failed_sync_leaves_nothing_to_build_on() {
    let (dir, disk) = (tempdir().unwrap(), Disk::new());
    let store = open(dir.path(), &disk);
    register(&store).await;
    disk.fail(Fault::next(Call::Sync, Error::Io).lasting());
    put_in_vain(&store, "unknown", 50_000).await;
    store.close();
    disk.clear();
    let store = open(dir.path(), &disk);
    let position = put(&store, "acknowledged", 10).await.unwrap();
    must_survive(&disk, &["acknowledged"], position).await;
}

#[tokio::test]
async fn the_next_process_tells_nobody_of_what_a_failed_sync_may_have_lost() {
    let (dir, disk) = (tempdir().unwrap(), Disk::new());
    let store = open(dir.path(), &disk);
    register(&store).await;
    let before = put(&store, "before", 10).await.unwrap();
    disk.fail(Fault::next(Call::Sync, Error::Gone).of(Part::Log));
    put_in_vain(&store, "unknown", 50_000).await;
    store.close();
    disk.clear();
    let store = open(dir.path(), &disk);
    let told = store.changes(&alice(), None).await.unwrap().head;
    assert!(
        told > before,
        "the write that failed is in the system's memory"
    );
    must_survive(&disk, &["before"], told).await;
}

/// A store whose log holds one write that is durable, and one whose sync failed; both changed the page
/// of the accounts, and only the second that of the entries.
async fn half_a_log(dir: &Path, disk: &Disk, error: Error) -> SqliteStore {
    let store = open(dir, disk);
    register(&store).await;
    put(&store, "before", 10).await.unwrap();
    store.close();
    let store = open(dir, disk);
    let bob = NewAccount {
        user: UserId::parse("@bob:localhost").unwrap(),
        password_hash: String::new(),
        at: 1,
    };
    store.register(bob, None).await.unwrap();
    disk.fail(Fault::next(Call::Sync, error).of(Part::Log));
    put_in_vain(&store, "unknown", 10).await;
    store
}

/// Cuts at each place from `from` on.
async fn must_be_sound(disk: &Disk, from: usize) {
    let log = disk.log();
    for at in from..=log.len() {
        for seed in 0..CUTS / 3 {
            let image = log.cut(at, Dice::new(seed));
            judge(&image, &["before"], Position(1), seed).await;
        }
    }
}

#[tokio::test]
async fn a_power_cut_while_a_log_is_made_whole_leaves_a_sound_file() {
    let (dir, disk) = (tempdir().unwrap(), Disk::new());
    let store = half_a_log(dir.path(), &disk, Error::Io).await;
    let from = disk.now();
    put_at_last(&store, "acknowledged").await;
    must_be_sound(&disk, from).await;
}

#[tokio::test]
async fn a_power_cut_at_the_next_start_leaves_a_sound_file() {
    let (dir, disk) = (tempdir().unwrap(), Disk::new());
    half_a_log(dir.path(), &disk, Error::Gone).await.close();
    disk.clear();
    let from = disk.now();
    let store = open(dir.path(), &disk);
    put(&store, "acknowledged", 10).await.unwrap();
    must_be_sound(&disk, from).await;
}

#[tokio::test]
async fn a_store_whose_log_cannot_be_written_again_does_not_start() {
    let (dir, disk) = (tempdir().unwrap(), Disk::new());
    half_a_log(dir.path(), &disk, Error::Gone).await.close();
    disk.clear();
    disk.fail(Fault::next(Call::Write, Error::NoSpace).of(Part::Log));
    let refused = SqliteStore::open(dir.path(), watched(&disk)).err().unwrap();
    let text = refused.to_string();
    assert!(
        text.contains("cannot write again") && text.contains("kitbag.db-wal"),
        "{text}"
    );
    drop(open(dir.path(), &disk));
}

#[tokio::test]
async fn what_a_failed_sync_of_the_database_may_have_lost_is_copied_again() {
    fail_a_copy(Program::HasClosed).await;
}

#[tokio::test]
async fn writes_wait_for_another_program_that_keeps_the_log_from_being_copied_again() {
    fail_a_copy(Program::HasItOpen).await;
}

/// Another program that has read the database.
#[derive(Debug, PartialEq, Eq)]
enum Program {
    HasClosed,
    HasItOpen,
}

async fn fail_a_copy(program: Program) {
    let (dir, disk) = (tempdir().unwrap(), Disk::new());
    let store = open(dir.path(), &disk);
    register(&store).await;
    let started = Instant::now();
    let mut names = Vec::new();
    // Puts until the disk has seen something.
    let mut until = async |is_seen: &dyn Fn(Summary) -> bool| {
        while !is_seen(disk.log().summary()) {
            let name = format!("n{}", names.len());
            assert!(
                names.len() < PUTS_MAX,
                "not seen: {:?}",
                disk.log().summary()
            );
            while put(&store, &name, 20_000).await.is_err() {
                if is_seen(disk.log().summary()) {
                    return;
                }
                assert!(started.elapsed() < TIME_MAX, "writes are not taken again");
                tokio::task::yield_now().await;
            }
            names.push(name);
        }
    };
    until(&|seen| seen.database_writes > 0).await;
    // A read keeps a checkpoint from reaching the end of the log: what it copies is not synced.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let file = dir.path().join("kitbag.db");
    let reader = Connection::open_with_flags_and_vfs(file, flags, disk.name()).unwrap();
    let no_checkpoint = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    reader.set_db_config(no_checkpoint, true).unwrap();
    loop {
        reader.execute_batch("BEGIN; SELECT * FROM store").unwrap();
        let before = disk.log().summary();
        let is_copied = |seen: Summary| seen.database_writes > before.database_writes;
        // Not where all was copied when the read began.
        until(&|seen| is_copied(seen) || seen.writes > before.writes + 200).await;
        if is_copied(disk.log().summary()) {
            break;
        }
        reader.execute_batch("ROLLBACK").unwrap();
        until(&|seen| seen.writes > before.writes + 220).await;
    }
    reader.execute_batch("ROLLBACK").unwrap();
    let reader = (program == Program::HasItOpen).then_some(reader);
    disk.fail(Fault::next(Call::Sync, Error::Io).of(Part::Database));
    until(&|seen| seen.failed_syncs > 0).await;
    if reader.is_some() {
        let failed = Instant::now();
        while store.takes_writes() {
            assert!(failed.elapsed() < NOTICE_TIME_MAX, "writes are still taken");
            tokio::task::yield_now().await;
        }
        let refused = put(&store, "refused", 10).await.unwrap_err();
        let is_refused = matches!(refused, ApplyError::Store(StoreError::Unavailable(_)));
        assert!(is_refused, "{refused}");
    }
    drop(reader);
    let failed = disk.log().summary();
    until(&|seen| seen.log_restarts > failed.log_restarts).await;
    let head = store.changes(&alice(), None).await.unwrap().head;
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    must_survive(&disk, &names, head).await;
}
