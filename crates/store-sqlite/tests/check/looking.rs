//! A check that is not told to repair leaves the directory as it is.

use std::fs;

use kitbag_store_sqlite::{OpenError, SqliteStore, check};
use tempfile::tempdir;

use crate::{Ground, options};

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
