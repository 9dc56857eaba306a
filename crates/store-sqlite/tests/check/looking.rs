//! What a check looks at, and that it leaves the directory as it is where it is not told to repair.

use std::fs;

use kitbag_store_sqlite::check::{self, Kind};
use kitbag_store_sqlite::{OpenError, SqliteStore};
use rusqlite::Connection;
use tempfile::tempdir;

use crate::{Ground, options, shown};

#[tokio::test]
async fn a_check_makes_and_removes_no_file() {
    let ground = Ground::new().await;
    fs::write(ground.path().join("kitbag.db.restoring"), "half").unwrap();
    fs::remove_file(ground.path().join("lock")).unwrap();
    let before = ground.files();
    assert!(ground.check().is_sound());
    assert_eq!(ground.files(), before);
    let empty = tempdir().unwrap();
    let missing = check::check(empty.path()).unwrap_err();
    assert!(matches!(missing, OpenError::Missing { .. }), "{missing}");
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_check_leaves_what_a_crash_left_to_the_next_start() {
    for (name, bytes) in [("kitbag.db.restored-now", ""), ("kitbag.db-journal", "hot")] {
        let ground = Ground::new().await;
        let left = ground.path().join(name);
        fs::write(&left, bytes).unwrap();
        let before = (fs::read(ground.file()).unwrap(), ground.files());
        let refused = check::check(ground.path()).unwrap_err();
        assert!(
            matches!(&refused, OpenError::Unfinished { file, .. } if *file == left),
            "{refused}"
        );
        assert_eq!((fs::read(ground.file()).unwrap(), ground.files()), before);
    }
}

#[tokio::test]
async fn a_check_keeps_a_server_out_and_not_another_check() {
    let ground = Ground::new().await;
    let lock = fs::File::open(ground.path().join("lock")).unwrap();
    lock.lock_shared().unwrap();
    assert!(ground.check().is_sound());
    drop(lock);
    let _store = SqliteStore::open(ground.path(), options()).unwrap();
    let refused = check::check(ground.path()).unwrap_err();
    assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
}

#[tokio::test]
async fn what_is_in_the_log_only_is_checked_and_stays_there() {
    let ground = Ground::new().await;
    let crashed = tempdir().unwrap();
    {
        let connection = Connection::open(ground.file()).unwrap();
        connection
            .execute_batch("UPDATE users SET entries = 9 WHERE id = 1")
            .unwrap();
        // As after a crash: with the log beside it.
        for name in ["kitbag.db", "kitbag.db-wal"] {
            fs::copy(ground.path().join(name), crashed.path().join(name)).unwrap();
        }
    }
    let ground = Ground { dir: crashed };
    let log = ground.path().join("kitbag.db-wal");
    let before = (fs::read(ground.file()).unwrap(), fs::read(&log).unwrap());
    assert!(!before.1.is_empty(), "there is a log");
    assert_eq!(ground.check().findings[0].kind, Kind::Usage);
    assert_eq!(
        (fs::read(ground.file()).unwrap(), fs::read(&log).unwrap()),
        before
    );
    assert!(ground.mend().after.is_sound());
}

#[tokio::test]
async fn a_store_in_use_or_of_others_is_not_checked() {
    let ground = Ground::new().await;
    let store = SqliteStore::open(ground.path(), options()).unwrap();
    let refused = check::check(ground.path()).unwrap_err();
    assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
    store.close();
    ground.harm("PRAGMA user_version = 3");
    let refused = check::check(ground.path()).unwrap_err();
    assert!(
        matches!(refused, OpenError::NewerFormat { .. }),
        "{refused}"
    );
    ground.harm("PRAGMA user_version = 2; PRAGMA application_id = 1");
    let refused = check::check(ground.path()).unwrap_err();
    assert!(
        matches!(refused, OpenError::NotADatabase { .. }),
        "{refused}"
    );
    fs::write(ground.file(), vec![b'x'; 9_000]).unwrap();
    let refused = check::check(ground.path()).unwrap_err();
    assert!(
        matches!(refused, OpenError::NotADatabase { .. }),
        "{refused}"
    );
    let empty = tempdir().unwrap();
    for dir in [empty.path(), &empty.path().join("nowhere")] {
        let refused = check::check(dir).unwrap_err();
        assert!(matches!(refused, OpenError::Missing { .. }), "{refused}");
    }
    assert!(!empty.path().join("nowhere").try_exists().unwrap());
    // But of one that was made it is known that something is gone.
    fs::remove_file(ground.file()).unwrap();
    let report = ground.check();
    let said = "damage - it is missing, but a store was made in this directory";
    assert_eq!(shown(&report), [said]);
    assert_eq!(ground.mend().mends, []);
}

#[tokio::test]
async fn a_store_whose_path_needs_escaping_is_checked() {
    let ground = Ground::new().await;
    let dir = ground.path().join("a %41?b#ü");
    fs::create_dir(&dir).unwrap();
    fs::copy(ground.file(), dir.join("kitbag.db")).unwrap();
    assert_eq!(check::check(&dir).unwrap().users, 2);
}
