//! A backup under load is one sound state of the store, and a name is given to nothing less.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kitbag_domain::{
    AccountStore as _, Allowance, Content, EntryStore as _, EventType, Expectation, Guard, Key,
    Limits, NewAccount, Op, Scope, ServerName, UserId, Write, Writer,
};
use kitbag_store_sqlite::{
    BackupError, Copied, Copying, OpenError, Options, SqliteStore, backup_closed, check,
};
use rusqlite::Connection;
use tempfile::tempdir;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
const WRITERS: u64 = 4;
/// So that entries go over pages, and a commit over several.
const PADDING: usize = 6_000;
const NEW: Copying = Copying {
    replace: false,
    verify: true,
};

fn options() -> Options {
    Options::new(ServerName::parse("localhost").unwrap(), 7)
}

fn user(number: u64) -> UserId {
    UserId::parse(format!("@user{number}:localhost")).unwrap()
}

fn key(event_type: &str) -> Key {
    Key::new(Scope::Global, EventType::parse(event_type).unwrap())
}

fn put(event_type: &str, number: u64) -> Op {
    let text = format!("{{\"n\":{number},\"\":\"{}\"}}", "x".repeat(PADDING));
    let content = Content::parse(text.into(), &Limits::default()).unwrap();
    Op::Put(key(event_type), content, Expectation::default())
}

/// Writes one number to two entries and one of many, at once.
async fn write(store: &SqliteStore, of: u64, number: u64) {
    let many = format!("many{}", number % 100);
    let ops = vec![put("a", number), put(&many, number), put("b", number)];
    let write = Write {
        guard: Guard::Account,
        writer: Writer::Admin,
        at: 1,
        allowance: Allowance::Ordinary,
    };
    store.apply(&user(of), write, ops).await.unwrap();
}

async fn number(store: &SqliteStore, of: u64, event_type: &str) -> u64 {
    let entry = store.get(&user(of), &key(event_type)).await.unwrap();
    let content = entry.unwrap().content.unwrap();
    let number = content.as_str().strip_prefix("{\"n\":").unwrap();
    number.split(',').next().unwrap().parse().unwrap()
}

async fn open_with_users(dir: &Path) -> SqliteStore {
    let store = SqliteStore::open(dir, options()).unwrap();
    add_users(&store).await;
    store
}

async fn add_users(store: &SqliteStore) {
    for of in 0..WRITERS {
        let account = NewAccount {
            user: user(of),
            password_hash: "hash".to_owned(),
            at: 1,
        };
        store.register(account, None).await.unwrap();
    }
}

fn backup(store: &SqliteStore, to: &Path, copying: Copying) -> Result<Copied, BackupError> {
    store.backup(to, copying, &mut |_| ControlFlow::Continue(()))
}

fn backup_of(dir: &Path, to: &Path) -> Result<Copied, BackupError> {
    backup_closed(dir, to, NEW, &mut |_| ControlFlow::Continue(()))
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = names
        .map(|name| name.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Opens a copy as a store.
fn open_copy(copy: &Path, above: &Path) -> SqliteStore {
    let dir = above.join("of-the-copy");
    fs::create_dir(&dir).unwrap();
    fs::copy(copy, dir.join("kitbag.db")).unwrap();
    SqliteStore::open(&dir, options()).unwrap()
}

/// Writes one number after the other until it is to stop; returns the last one.
async fn write_on(
    store: Arc<SqliteStore>,
    of: u64,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Vec<AtomicU64>>,
) -> u64 {
    let mut latest = 0;
    while !stop.load(Ordering::Relaxed) {
        latest += 1;
        write(&store, of, latest).await;
        acknowledged[usize::try_from(of).unwrap()].store(latest, Ordering::SeqCst);
    }
    latest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_one_state_with_all_that_was_acknowledged_before() {
    let above = tempdir().unwrap();
    let store = Arc::new(open_with_users(&above.path().join("data")).await);
    let stop = Arc::<AtomicBool>::default();
    let acknowledged: Arc<Vec<AtomicU64>> =
        Arc::new((0..WRITERS).map(|_| AtomicU64::new(0)).collect());
    let writers: Vec<_> = (0..WRITERS)
        .map(|of| {
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            tokio::spawn(write_on(Arc::clone(&store), of, stop, acknowledged))
        })
        .collect();
    let wait = async || {
        while acknowledged
            .iter()
            .any(|count| count.load(Ordering::SeqCst) < 110)
        {
            tokio::task::yield_now().await;
        }
    };
    wait().await;
    let to = above.path().join("copy.db");
    let before: Vec<u64> = acknowledged
        .iter()
        .map(|n| n.load(Ordering::SeqCst))
        .collect();
    let copied = {
        let (store, to) = (Arc::clone(&store), to.clone());
        let copy = move || backup(&store, &to, NEW).unwrap();
        tokio::task::spawn_blocking(copy).await.unwrap()
    };
    stop.store(true, Ordering::Relaxed);
    let mut after = Vec::new();
    for writer in writers {
        after.push(writer.await.unwrap());
    }
    assert_eq!(copied.bytes, fs::metadata(&to).unwrap().len());
    assert_eq!(names(above.path()), ["copy.db", "data"], "it is one file");
    let modes = &fs::read(&to).unwrap()[18..20];
    assert_eq!(modes, [1, 1], "and needs no log to be read");
    let report = check::check_copy(&to).unwrap();
    assert!(report.is_sound(), "{report:?}");
    let copy = open_copy(&to, above.path());
    for (of, (before, after)) in (0..).zip(before.into_iter().zip(after)) {
        let (a, b) = (number(&copy, of, "a").await, number(&copy, of, "b").await);
        assert_eq!(a, b, "of one write");
        assert!(before <= a && a <= after, "{before} <= {a} <= {after}");
        let latest = number(&copy, of, &format!("many{}", a % 100)).await;
        assert_eq!(latest, a, "of the same write");
    }
}

#[tokio::test]
async fn an_existing_file_is_replaced_only_where_that_is_wanted() {
    let above = tempdir().unwrap();
    let store = open_with_users(&above.path().join("data")).await;
    let to = above.path().join("copy.db");
    fs::write(&to, "precious").unwrap();
    let refused = backup(&store, &to, NEW);
    assert!(
        matches!(refused, Err(BackupError::Exists { .. })),
        "{refused:?}"
    );
    assert_eq!(fs::read(&to).unwrap(), b"precious");
    let replace = Copying {
        replace: true,
        ..NEW
    };
    backup(&store, &to, replace).unwrap();
    assert!(check::check_copy(&to).unwrap().is_sound());
    assert_eq!(names(above.path()), ["copy.db", "data"]);
}

#[tokio::test]
async fn names_that_cannot_be_a_backups_are_refused() {
    let above = tempdir().unwrap();
    let data = above.path().join("data");
    let store = open_with_users(&data).await;
    let replace = Copying {
        replace: true,
        ..NEW
    };
    let before = names(&data);
    let own = [
        "kitbag.db",
        "kitbag.db-wal",
        "KITBAG.DB",
        "lock",
        "admin.sock",
    ];
    let own = own.iter().map(|name| data.join(name));
    let around = above.path().join("data/../data/./kitbag.db");
    for name in own.chain([
        around,
        data.clone(),
        above.path().join("copy.db/"),
        PathBuf::from("/"),
        PathBuf::from("/dev/null"),
    ]) {
        let refused = backup(&store, &name, replace);
        assert!(
            matches!(refused, Err(BackupError::Name { .. })),
            "{name:?}: {refused:?}"
        );
    }
    // A copy would be read with the log that is there.
    let logged = above.path().join("logged.db");
    fs::write(above.path().join("logged.db-wal"), "of an old copy").unwrap();
    let refused = backup(&store, &logged, replace);
    assert!(
        matches!(refused, Err(BackupError::Name { .. })),
        "{refused:?}"
    );
    // A running server would go on with a database that is gone.
    let other = above.path().join("other");
    let running = open_with_users(&other).await;
    for name in ["kitbag.db", "kitbag.db-wal", "lock"] {
        let refused = backup(&store, &other.join(name), replace);
        let is_refused = matches!(refused, Err(BackupError::Name { .. }));
        assert!(is_refused, "{name}: {refused:?}");
    }
    drop(running);
    let nowhere = above.path().join("nowhere/copy.db");
    let refused = backup(&store, &nowhere, NEW);
    assert!(matches!(refused, Err(BackupError::Write(_))), "{refused:?}");
    assert_eq!(names(&data), before);
    write(&store, 0, 1).await;
}

#[tokio::test]
async fn a_damaged_store_gives_no_backup() {
    let above = tempdir().unwrap();
    let data = above.path().join("data");
    let store = open_with_users(&data).await;
    for number in 1..=50 {
        write(&store, 0, number).await;
    }
    store.close();
    let file = data.join("kitbag.db");
    let mut bytes = fs::read(&file).unwrap();
    let page = bytes.len() / 4096 / 2;
    bytes[page * 4096..(page + 1) * 4096].fill(0xff);
    fs::write(&file, &bytes).unwrap();
    let store = SqliteStore::open(&data, options()).unwrap();
    let to = above.path().join("copy.db");
    let refused = backup(&store, &to, NEW).unwrap_err();
    assert!(
        matches!(&refused, BackupError::Damaged { store, .. } if *store == file),
        "{refused:?}"
    );
    let told = refused.to_string();
    assert!(told.contains(&file.display().to_string()), "{told}");
    assert_eq!(names(above.path()), ["data"]);
    let for_check = Copying {
        verify: false,
        ..NEW
    };
    backup(&store, &to, for_check).unwrap();
    assert!(check::check_copy(&to).unwrap().is_damaged());
}

#[tokio::test]
async fn a_backup_sees_damage_on_the_disk_where_the_writer_remembers_better() {
    let above = tempdir().unwrap();
    let data = above.path().join("data");
    let mut options = options();
    options.wal_idle_ms = 1;
    let store = SqliteStore::open(&data, options).unwrap();
    add_users(&store).await;
    write(&store, 0, 1).await;
    let (file, log) = (data.join("kitbag.db"), data.join("kitbag.db-wal"));
    let started = Instant::now();
    while fs::metadata(&log).unwrap().len() > 0 {
        assert!(started.elapsed() < PATIENCE, "the log is not emptied");
        tokio::task::yield_now().await;
    }
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 4096;
    bytes[last..].fill(0xff);
    fs::write(&file, &bytes).unwrap();
    let refused = backup(&store, &above.path().join("copy.db"), NEW);
    assert!(
        matches!(refused, Err(BackupError::Damaged { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_backup_of_a_closed_store_has_the_format_that_the_store_has() {
    let above = tempdir().unwrap();
    let (data, to) = (above.path().join("data"), above.path().join("copy.db"));
    let store = open_with_users(&data).await;
    write(&store, 0, 1).await;
    let refused = backup_of(&data, &to);
    let locked = matches!(refused, Err(BackupError::Write(OpenError::Locked { .. })));
    assert!(locked, "{refused:?}");
    store.close();
    // There is no older format yet: none that a store could be led from.
    let connection = Connection::open(data.join("kitbag.db")).unwrap();
    connection.pragma_update(None, "user_version", 0).unwrap();
    drop(connection);
    let before = fs::read(data.join("kitbag.db")).unwrap();
    backup_of(&data, &to).unwrap();
    assert!(fs::read(data.join("kitbag.db")).unwrap() == before);
    let copy = Connection::open(&to).unwrap();
    let version = copy.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0));
    assert_eq!(version.unwrap(), 0);
}

#[tokio::test]
async fn a_backup_of_a_closed_store_holds_what_a_crash_left_in_its_log() {
    let above = tempdir().unwrap();
    let (data, crashed) = (above.path().join("data"), above.path().join("crashed"));
    let store = open_with_users(&data).await;
    write(&store, 0, 7).await;
    fs::create_dir(&crashed).unwrap();
    for name in ["kitbag.db", "kitbag.db-wal", "lock"] {
        fs::copy(data.join(name), crashed.join(name)).unwrap();
    }
    store.close();
    let to = above.path().join("copy.db");
    backup_of(&crashed, &to).unwrap();
    assert_eq!(number(&open_copy(&to, above.path()), 0, "a").await, 7);
}

#[cfg(unix)]
#[tokio::test]
async fn a_backup_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let above = tempdir().unwrap();
    let store = open_with_users(&above.path().join("data")).await;
    let to = above.path().join("copy.db");
    backup(&store, &to, NEW).unwrap();
    let mode = fs::metadata(&to).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
