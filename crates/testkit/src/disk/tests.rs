use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;

use rusqlite::{Connection, OpenFlags, ffi};
use tempfile::{TempDir, tempdir};

use super::*;
use crate::dice::Dice;

const DICE: usize = 40;

/// A database in WAL mode on a disk, whose directory was synced.
fn database() -> (TempDir, Disk, Connection) {
    let dir = tempdir().unwrap();
    let disk = Disk::new();
    let connection = open(&disk, dir.path());
    connection
        .execute_batch("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
        .unwrap();
    disk.sync_dir();
    (dir, disk, connection)
}

fn open(disk: &Disk, dir: &Path) -> Connection {
    let flags = OpenFlags::default();
    let file = dir.join("a.db");
    let connection = Connection::open_with_flags_and_vfs(file, flags, disk.name()).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0",
        )
        .unwrap();
    let no_checkpoint = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    connection.set_db_config(no_checkpoint, true).unwrap();
    connection
}

fn insert(connection: &Connection, number: i64) -> rusqlite::Result<()> {
    let text = format!("{number} ").repeat(800);
    let sql = "INSERT INTO t VALUES (?1, ?2)";
    connection.execute(sql, (number, text)).map(drop)
}

/// Opens what is left and returns the numbers in it; nothing where the table was never made.
fn numbers(image: &Image) -> Option<Vec<i64>> {
    let dir = tempdir().unwrap();
    image.write_to(dir.path()).unwrap();
    let connection = Connection::open(dir.path().join("a.db")).unwrap();
    let verdict: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok");
    let mut select = connection.prepare("SELECT a FROM t ORDER BY a").ok()?;
    let rows = select.query_map([], |row| row.get(0)).unwrap();
    Some(rows.map(Result::unwrap).collect())
}

fn extended(result: rusqlite::Result<()>) -> i32 {
    match result.unwrap_err() {
        rusqlite::Error::SqliteFailure(error, _) => error.extended_code,
        other => unreachable!("{other}"),
    }
}

#[test]
fn everything_that_sqlite_does_is_logged() {
    let (dir, disk, connection) = database();
    for number in 0..20 {
        insert(&connection, number).unwrap();
    }
    let log = disk.log();
    let mut replay = log.replay(Dice::new(1));
    replay.forward(log.len());
    let image = replay.kill();
    for name in ["a.db", "a.db-wal"] {
        let bytes = fs::read(dir.path().join(name)).unwrap();
        assert_eq!(image.file(name).unwrap(), bytes, "{name}");
    }
    assert!(image.file("a.db-shm").is_none());
    let summary = log.summary();
    assert!(summary.syncs >= 20 && summary.writes >= 40, "{summary:?}");
    assert!(disk.calls() > log.len() as u64, "reads are calls too");
}

#[test]
fn what_was_synced_survives_every_cut() {
    let (_dir, disk, connection) = database();
    let mut acknowledged = Vec::new();
    for number in 0..40_u32 {
        insert(&connection, number.into()).unwrap();
        acknowledged.push(disk.now());
        if number % 10 == 9 {
            let mode = ["PASSIVE", "TRUNCATE", "RESTART"][(number / 10 % 3) as usize];
            let sql = format!("PRAGMA wal_checkpoint({mode})");
            connection.query_row(&sql, [], |_| Ok(())).unwrap();
        }
    }
    let log = disk.log();
    assert!(log.summary().log_truncations > 0, "{:?}", log.summary());
    assert!(log.summary().log_restarts > 0, "{:?}", log.summary());
    let mut replay = log.replay(Dice::new(2));
    let mut losses = Losses::default();
    let mut differing = 0;
    for at in (acknowledged[0]..=log.len()).step_by(3) {
        replay.forward(at);
        let image = replay.cut();
        losses.kept += image.losses.kept;
        losses.lost += image.losses.lost;
        losses.torn += image.losses.torn;
        differing += usize::from(!image.is_same(&replay.kill()));
        let wanted = acknowledged.iter().filter(|when| **when <= at).count();
        let found = numbers(&image).unwrap().len();
        // The one under way may have come through.
        assert!((wanted..=wanted + 1).contains(&found), "{found} at {at}");
    }
    assert!(losses.kept > 0 && losses.lost > 0 && losses.torn > 0);
    assert!(differing > 0);
}

#[test]
fn without_syncs_a_cut_loses_what_was_acknowledged() {
    let (_dir, disk, connection) = database();
    connection
        .pragma_update(None, "synchronous", "NORMAL")
        .unwrap();
    insert(&connection, 1).unwrap();
    insert(&connection, 2).unwrap();
    let log = disk.log();
    let cut = |seed| numbers(&log.cut(log.len(), Dice::new(seed))).unwrap().len();
    let found: Vec<_> = (0..DICE as u64).map(cut).collect();
    for count in [0, 1, 2] {
        assert!(found.contains(&count), "{count} of 2 never: {found:?}");
    }
}

#[test]
fn a_file_that_was_just_made_may_be_missing() {
    let dir = tempdir().unwrap();
    let disk = Disk::new();
    let connection = open(&disk, dir.path());
    let sql = "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)";
    connection.execute_batch(sql).unwrap();
    let has_log = |log: &Log, seed| {
        log.cut(log.len(), Dice::new(seed))
            .file("a.db-wal")
            .is_some()
    };
    let log = disk.log();
    assert!(
        (0..DICE as u64).all(|seed| has_log(&log, seed)),
        "SQLite synced its name"
    );
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let no_checkpoint = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    connection.set_db_config(no_checkpoint, false).unwrap();
    drop(connection);
    assert!(!dir.path().join("a.db-wal").try_exists().unwrap());
    let log = disk.log();
    let found: Vec<_> = (0..DICE as u64).map(|seed| has_log(&log, seed)).collect();
    assert!(
        found.contains(&true) && found.contains(&false),
        "the removal may be undone"
    );
    disk.sync_dir();
    let log = disk.log();
    assert!(!(0..DICE as u64).any(|seed| has_log(&log, seed)));
}

#[test]
fn a_file_from_before_the_disk_is_durable() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("a.db-wal"), b"old").unwrap();
    let disk = Disk::new();
    let mut file = disk.open_file(&dir.path().join("a.db-wal")).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    file.write_all(b"new").unwrap();
    let content = |seed| {
        let image = disk.log().cut(disk.now(), Dice::new(seed));
        String::from_utf8(image.file("a.db-wal").unwrap().to_vec()).unwrap()
    };
    let found: Vec<_> = (0..DICE as u64).map(content).collect();
    for wanted in ["old", "oldnew"] {
        assert!(found.iter().any(|text| text == wanted), "{found:?}");
    }
    file.flush().unwrap();
    assert!((0..DICE as u64).all(|seed| content(seed) == "oldnew"));
}

#[test]
fn after_a_failed_sync_a_later_one_makes_durable_only_what_was_written_again() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, b"....").unwrap();
    let disk = Disk::new();
    let mut file = disk.open_file(&path).unwrap();
    let mut other = disk.open_file(&path).unwrap();
    file.write_all(b"ab").unwrap();
    disk.fail(Fault::next(Call::Sync, Error::Io));
    assert!(file.flush().is_err());
    assert!(other.flush().is_err(), "the other is told once");
    other.write_all(b"a").unwrap();
    assert!(other.flush().is_ok());
    assert!(file.flush().is_ok());
    let log = disk.log();
    assert_eq!(log.summary().failed_syncs, 2);
    let content = |seed| {
        log.cut(log.len(), Dice::new(seed))
            .file("f")
            .unwrap()
            .to_vec()
    };
    let found: Vec<_> = (0..DICE as u64).map(content).collect();
    assert!(
        found.contains(&b"a...".to_vec()),
        "lost for good: {found:?}"
    );
    assert!(found.contains(&b"ab..".to_vec()), "or not: {found:?}");
    assert!(found.iter().all(|bytes| bytes[0] == b'a'));
    let mut replay = log.replay(Dice::new(1));
    replay.forward(log.len());
    assert_eq!(
        replay.kill().file("f").unwrap(),
        b"ab..",
        "a reader sees it"
    );
}

#[test]
fn what_is_written_during_a_sync_is_not_part_of_it() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, b"..").unwrap();
    let disk = Disk::new();
    let mut file = disk.open_file(&path).unwrap();
    disk.let_syncs_take(Duration::from_secs(3_600));
    std::thread::scope(|scope| {
        let mut syncing = disk.open_file(&path).unwrap();
        let thread = scope.spawn(move || syncing.flush());
        // It has begun, and goes on until it is woken, which happens behind the write.
        while disk.shared.lock().syncs_begun == 0 {
            std::thread::yield_now();
        }
        file.write_all(b"a").unwrap();
        disk.let_syncs_take(Duration::ZERO);
        while !thread.is_finished() {
            thread.thread().unpark();
        }
        thread.join().unwrap().unwrap();
    });
    let log = disk.log();
    let content = |seed| {
        log.cut(log.len(), Dice::new(seed))
            .file("f")
            .unwrap()
            .to_vec()
    };
    assert!((0..DICE as u64).any(|seed| content(seed) == b".."));
}

#[test]
fn each_call_fails_as_sqlite_knows_it() {
    for (call, error, wanted) in [
        (Call::Sync, Error::Io, ffi::SQLITE_IOERR_FSYNC),
        (Call::Write, Error::Io, ffi::SQLITE_IOERR_WRITE),
        (Call::Write, Error::ShortWrite, ffi::SQLITE_IOERR_WRITE),
        (Call::Write, Error::NoSpace, ffi::SQLITE_FULL),
    ] {
        let (_dir, disk, connection) = database();
        disk.fail(Fault::next(call, error).of(Part::Log));
        assert_eq!(extended(insert(&connection, 1)), wanted);
        assert_eq!(disk.faults(), 1);
        insert(&connection, 1).unwrap();
    }
    let (dir, disk, connection) = database();
    insert(&connection, 1).unwrap();
    let checkpoint = || {
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        connection.query_row(sql, [], |_| Ok(()))
    };
    disk.fail(Fault::next(Call::Read, Error::Io));
    assert_eq!(extended(checkpoint()), ffi::SQLITE_IOERR_READ);
    disk.fail(Fault::next(Call::Truncate, Error::Io).of(Part::Log));
    assert_eq!(extended(checkpoint()), ffi::SQLITE_IOERR_TRUNCATE);
    disk.fail(Fault::next(Call::Open, Error::Io));
    let file = dir.path().join("a.db");
    let refused = Connection::open_with_flags_and_vfs(file, OpenFlags::default(), disk.name());
    assert_eq!(extended(refused.map(drop)), ffi::SQLITE_CANTOPEN);
}

#[test]
fn a_fault_strikes_its_nth_call_once_or_until_it_is_cleared() {
    let (_dir, disk, connection) = database();
    disk.fail(Fault::next(Call::Sync, Error::Io).nth(3));
    let outcomes: Vec<_> = (0..5).map(|n| insert(&connection, n).is_ok()).collect();
    assert_eq!(outcomes, [true, true, false, true, true]);
    disk.fail(Fault::next(Call::Sync, Error::Io).nth(2).lasting());
    let outcomes: Vec<_> = (10..14).map(|n| insert(&connection, n).is_ok()).collect();
    assert_eq!(outcomes, [true, false, false, false]);
    disk.clear();
    insert(&connection, 20).unwrap();
}

#[test]
fn a_disk_that_has_gone_fails_every_call() {
    let (_dir, disk, connection) = database();
    disk.fail(Fault::next(Call::Sync, Error::Gone));
    assert_eq!(extended(insert(&connection, 1)), ffi::SQLITE_IOERR_FSYNC);
    for number in 2..5 {
        assert!(insert(&connection, number).is_err());
    }
    let log = disk.log();
    assert_eq!(log.summary().failed_syncs, 1, "no call came so far again");
    disk.clear();
    insert(&connection, 1).unwrap();
}

#[test]
fn a_full_disk_takes_what_makes_no_file_longer() {
    let (dir, disk, connection) = database();
    for number in 0..20 {
        insert(&connection, number).unwrap();
    }
    let sql = "PRAGMA wal_checkpoint(RESTART)";
    connection.query_row(sql, [], |_| Ok(())).unwrap();
    disk.fill(5_000);
    let log = dir.path().join("a.db-wal");
    let before = fs::metadata(&log).unwrap().len();
    // Goes into the log from its start.
    insert(&connection, 20).unwrap();
    let mut failed = None;
    for number in 21..100 {
        if let Err(error) = insert(&connection, number) {
            failed = Some(error);
            break;
        }
    }
    assert_eq!(extended(Err(failed.unwrap())), ffi::SQLITE_FULL);
    assert_eq!(
        fs::metadata(&log).unwrap().len(),
        before + 5_000,
        "to the last byte"
    );
    assert!(disk.faults() > 0);
    disk.clear();
    insert(&connection, 200).unwrap();
}

#[test]
fn a_disk_goes_and_its_files_go_on() {
    let (_dir, disk, connection) = database();
    let name = disk.name().to_owned();
    drop(disk);
    insert(&connection, 1).unwrap();
    let refused = Connection::open_with_flags_and_vfs("x.db", OpenFlags::default(), name.as_str());
    assert!(refused.is_err());
}
