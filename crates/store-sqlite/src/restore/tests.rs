use std::ops::Range;

use kitbag_domain::{AccountStore as _, EntryStore as _, NewAccount, ServerName, UserId};
use tempfile::{TempDir, tempdir};

use super::*;
use crate::SqliteStore;
use crate::files::record::{self, Recorded, assert_durable};
use crate::options::Options;

fn options() -> Options {
    Options::new(ServerName::parse("localhost").unwrap(), 1)
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn user(name: &str) -> UserId {
    UserId::parse(format!("@{name}:localhost")).unwrap()
}

fn register(store: &SqliteStore, name: &str) {
    let account = NewAccount {
        user: user(name),
        password_hash: String::new(),
        at: 0,
    };
    block(store.register(account, None)).unwrap();
}

fn users(dir: &Path) -> Vec<String> {
    let store = SqliteStore::open(dir, options()).unwrap();
    let accounts = block(store.accounts(None, 10)).unwrap();
    let names = accounts.iter().map(|account| account.user.localpart());
    names.map(str::to_owned).collect()
}

fn restoring() -> Restoring {
    Restoring {
        replace: false,
        stamp: "again".to_owned(),
        epoch_seed: 3,
        server_name: None,
    }
}

fn put_back(from: &Path, dir: &Path) -> Result<Restored, RestoreError> {
    restore(from, dir, &restoring())
}

/// A directory as a crash left it, where a user stands in the log alone, and a backup of another.
struct Ground {
    above: TempDir,
}

impl Ground {
    fn new() -> Self {
        let above = tempdir().unwrap();
        let (live, dir) = (above.path().join("live"), above.path().join("data"));
        let store = SqliteStore::open(&live, options()).unwrap();
        register(&store, "old");
        store.close();
        drop(store);
        let store = SqliteStore::open(&live, options()).unwrap();
        register(&store, "logged");
        fs::create_dir(&dir).unwrap();
        for name in ["kitbag.db", "kitbag.db-wal", "kitbag.db-shm", "lock"] {
            fs::copy(live.join(name), dir.join(name)).unwrap();
        }
        drop(store);
        fs::remove_dir_all(&live).unwrap();
        let store = SqliteStore::open(&live, options()).unwrap();
        register(&store, "new");
        drop(store);
        fs::rename(live.join("kitbag.db"), above.path().join("backup.db")).unwrap();
        Self { above }
    }

    fn dir(&self) -> PathBuf {
        self.above.path().join("data")
    }

    /// Does the first two steps of a restoring; returns the copy that is to be put in place.
    fn commit(&self) -> PathBuf {
        let (from, draft) = (self.above.path().join("backup.db"), self.dir().join(DRAFT));
        copy(&Backup::open(&from).unwrap(), &draft).unwrap();
        prepare(&from, &draft, 2).unwrap();
        let ready = self.dir().join(format!("{READY}now"));
        rename(&draft, &ready).unwrap();
        ready
    }

    #[track_caller]
    fn assert_restored(&self, what: &str) {
        let dir = self.dir();
        assert_eq!(users(&dir), ["new"], "{what}");
        let store = SqliteStore::open(&dir, options()).unwrap();
        assert_eq!(store.info().epoch, 2, "{what}");
        drop(store);
        // With its log, and under the name that a restoring understands.
        let again = self.above.path().join("again");
        let aside = dir.join(format!("{ASIDE}now"));
        put_back(&aside, &again).unwrap();
        assert_eq!(users(&again), ["logged", "old"], "{what}");
    }
}

#[test]
fn a_crash_before_the_decision_leaves_the_old_store() {
    let ground = Ground::new();
    let (from, draft) = (
        ground.above.path().join("backup.db"),
        ground.dir().join(DRAFT),
    );
    copy(&Backup::open(&from).unwrap(), &draft).unwrap();
    for suffix in ["-wal", "-journal", "-shm"] {
        fs::write(format::beside(&draft, suffix), "half").unwrap();
    }
    assert_eq!(users(&ground.dir()), ["logged", "old"]);
    let left = fs::read_dir(ground.dir()).unwrap();
    let left = left.map(|file| file.unwrap().file_name().into_string().unwrap());
    let left: Vec<_> = left.filter(|name| name.starts_with(DRAFT)).collect();
    assert_eq!(left, [""; 0]);
    copy(&Backup::open(&from).unwrap(), &draft).unwrap();
    prepare(&from, &draft, 2).unwrap();
    assert_eq!(users(&ground.dir()), ["logged", "old"]);
}

#[test]
fn a_crash_behind_the_decision_leaves_the_new_store_and_the_whole_old_one_aside() {
    let count = {
        let ground = Ground::new();
        let ready = ground.commit();
        moves(&ground.dir(), &ready).unwrap().len()
    };
    assert_eq!(count, 6);
    for done in 0..=count {
        let ground = Ground::new();
        let ready = ground.commit();
        for step in &moves(&ground.dir(), &ready).unwrap()[..done] {
            carry_out(&ground.dir(), step).unwrap();
        }
        ground.assert_restored(&format!("behind {done} moves"));
    }
}

/// What was not synced may come to the disk in any order.
#[test]
fn a_power_cut_may_keep_any_of_the_unsynced_moves() {
    for kept in 0_u32..8 {
        let ground = Ground::new();
        let ready = ground.commit();
        let moves = moves(&ground.dir(), &ready).unwrap();
        assert_eq!(moves[3], Move::Sync);
        for (bit, step) in moves[..3].iter().enumerate() {
            if kept & (1 << bit) != 0 {
                carry_out(&ground.dir(), step).unwrap();
            }
        }
        ground.assert_restored(&format!("moves {kept:03b}"));
    }
}

/// As a restoring left it that took a name in use, or somebody who put a file there since.
#[test]
fn nothing_that_was_set_aside_is_replaced() {
    for taken in ["", "-wal", "-journal"] {
        let ground = Ground::new();
        ground.commit();
        let dir = ground.dir();
        let precious = dir.join(format!("{ASIDE}now{taken}"));
        fs::write(&precious, "precious").unwrap();
        fs::write(dir.join(format!("{DATABASE_FILE}-journal")), "").unwrap();
        let lock = lock::lock(&dir).unwrap();
        let aside = complete(&dir, &lock).unwrap().unwrap();
        drop(lock);
        assert_eq!(aside, dir.join(format!("{ASIDE}now-2")), "{taken}");
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
        assert_eq!(users(&dir), ["new"]);
        let again = ground.above.path().join("again");
        put_back(&aside, &again).unwrap();
        assert_eq!(users(&again), ["logged", "old"], "{taken}");
    }
}

/// Restores over the store while what `fault` says fails.
fn put_back_with(
    ground: &Ground,
    fault: impl FnMut(Deed<'_>) -> bool + 'static,
) -> Result<Restored, RestoreError> {
    let from = ground.above.path().join("backup.db");
    let restoring = Restoring {
        replace: true,
        ..restoring()
    };
    record::with_fault(fault, || restore(&from, &ground.dir(), &restoring))
}

/// Fails the syncs of a directory from one to another, counted from 0.
fn failing_syncs(failing: Range<usize>) -> impl FnMut(Deed<'_>) -> bool {
    let mut syncs = 0;
    move |deed| {
        let is_sync = matches!(deed, Deed::SyncDir(_));
        syncs += usize::from(is_sync);
        is_sync && failing.contains(&(syncs - 1))
    }
}

#[test]
fn a_restoring_whose_decision_is_not_on_the_disk_does_not_happen_later() {
    let ground = Ground::new();
    let refused = put_back_with(&ground, failing_syncs(0..1)).unwrap_err();
    let is_told = matches!(refused, RestoreError::Open(OpenError::Io { .. }));
    assert!(is_told, "{refused}");
    assert_eq!(pending(&ground.dir()).unwrap(), None);
    assert_eq!(users(&ground.dir()), ["logged", "old"]);
}

#[test]
fn a_restoring_that_happens_later_is_told_as_that() {
    // Neither the decision nor its undoing is on the disk, or the way behind it fails.
    for failing in [0..2, 1..2, 2..3] {
        let ground = Ground::new();
        let refused = put_back_with(&ground, failing_syncs(failing.clone())).unwrap_err();
        let is_told = matches!(refused, RestoreError::Decided { .. });
        assert!(is_told, "{failing:?}: {refused}");
        assert_eq!(users(&ground.dir()), ["new"], "{failing:?}");
    }
    let ground = Ground::new();
    let onto = |deed: Deed<'_>| matches!(deed, Deed::Rename(_, to) if to.ends_with(DATABASE_FILE));
    let refused = put_back_with(&ground, onto).unwrap_err();
    let is_told = matches!(refused, RestoreError::Decided { .. });
    assert!(is_told, "{refused}");
    assert_eq!(users(&ground.dir()), ["new"]);
}

#[test]
fn each_step_of_a_restoring_is_on_the_disk_before_the_next_rests_on_it() {
    let ground = Ground::new();
    let new = ground.above.path().join("a/new");
    let taken = ground.dir().join(format!("{ASIDE}again"));
    fs::write(&taken, "precious").unwrap();
    for (dir, replace) in [(new, false), (ground.dir(), true)] {
        record::take();
        let from = ground.above.path().join("backup.db");
        let restoring = Restoring {
            replace,
            ..restoring()
        };
        restore(&from, &dir, &restoring).unwrap();
        let deeds = record::take();
        assert_durable(&deeds);
        assert!(
            deeds.contains(&Recorded::Write(dir.join(DRAFT))),
            "{deeds:?}"
        );
        // The new database comes by its name when no old log has its own.
        let place = dir.join(DATABASE_FILE);
        let is_old = |path: &Path| {
            path.starts_with(&dir) && with_companions(&place).contains(&path.to_owned())
        };
        let moved = deeds.iter().rposition(|deed| match deed {
            Recorded::Rename(from, _) => is_old(from),
            Recorded::Remove(path) => *path == format::beside(&place, INDEX),
            _ => false,
        });
        let placed = deeds.iter().position(|deed| match deed {
            Recorded::Rename(_, to) => *to == place,
            _ => false,
        });
        let (moved, placed) = (moved.unwrap_or(0), placed.unwrap());
        let synced = Recorded::SyncDir(dir.clone());
        assert!(deeds[moved..placed].contains(&synced), "{deeds:#?}");
        assert_eq!(users(&dir), ["new"]);
    }
    assert_eq!(fs::read(&taken).unwrap(), b"precious");
}

#[test]
fn another_name_for_what_was_there_is_on_the_disk_before_that_is_touched() {
    let ground = Ground::new();
    ground.commit();
    fs::write(ground.dir().join(format!("{ASIDE}now")), "precious").unwrap();
    record::take();
    let lock = lock::lock(&ground.dir()).unwrap();
    complete(&ground.dir(), &lock).unwrap();
    assert_durable(&record::take());
}

#[test]
fn a_first_restoring_that_is_decided_is_a_store() {
    let ground = Ground::new();
    let dir = ground.above.path().join("new");
    let from = ground.above.path().join("backup.db");
    // Before the lock says that there is one.
    let mark = |deed: Deed<'_>| matches!(deed, Deed::Write(to) if to.ends_with(open::LOCK_FILE));
    let refused = record::with_fault(mark, || restore(&from, &dir, &restoring()));
    assert!(matches!(refused, Err(RestoreError::Decided { .. })));
    assert!(open::has_store(&dir).unwrap());
    assert!(!open::has_store(&ground.above.path().join("nowhere")).unwrap());
    assert_eq!(users(&dir), ["new"]);
}

/// A server that starts between the look for the directory and the lock.
#[test]
fn a_restoring_that_fails_leaves_the_lock_of_who_came_before() {
    for replace in [false, true] {
        let ground = Ground::new();
        let dir = ground.above.path().join("other");
        let store = SqliteStore::open(&dir, options()).unwrap();
        let backup = Backup::open(&ground.above.path().join("backup.db")).unwrap();
        let restoring = Restoring {
            replace,
            ..restoring()
        };
        let refused = restore_into(&backup, &dir, true, &restoring).unwrap_err();
        let is_locked = matches!(refused, RestoreError::Open(OpenError::Locked { .. }));
        assert!(is_locked, "{refused}");
        let second = SqliteStore::open(&dir, options()).err().unwrap();
        assert!(matches!(second, OpenError::Locked { .. }), "{second}");
        store.close();
        drop(store);
        if !replace {
            let refused = restore_into(&backup, &dir, true, &restoring).unwrap_err();
            assert!(matches!(refused, RestoreError::Exists { .. }), "{refused}");
            assert!(open::has_store(&dir).unwrap());
            assert!(fs::metadata(dir.join("lock")).unwrap().len() > 0);
        }
    }
}
