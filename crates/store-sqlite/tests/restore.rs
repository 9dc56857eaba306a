//! A restored store is the backup with a new epoch; what is no backup changes nothing.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use kitbag_domain::{AccountStore as _, EntryStore as _, NewAccount, ServerName, UserId};
use kitbag_store_sqlite::{
    Copying, OpenError, Options, RestoreError, Restored, Restoring, SqliteStore, check, restore,
};
use tempfile::{TempDir, tempdir};

fn options() -> Options {
    Options::new(ServerName::parse("localhost").unwrap(), 7)
}

async fn register(store: &SqliteStore, name: &str) {
    let account = NewAccount {
        user: UserId::parse(format!("@{name}:localhost")).unwrap(),
        password_hash: "hash".to_owned(),
        at: 1,
    };
    store.register(account, None).await.unwrap();
}

async fn users(dir: &Path) -> Vec<String> {
    let store = SqliteStore::open(dir, options()).unwrap();
    let accounts = store.accounts(None, 10).await.unwrap();
    let names = accounts.iter().map(|account| account.user.localpart());
    names.map(str::to_owned).collect()
}

/// A store with a user of before its backup and one of after it.
async fn ground() -> (TempDir, PathBuf, PathBuf) {
    let above = tempdir().unwrap();
    let (dir, copy) = (above.path().join("data"), above.path().join("copy.db"));
    let store = SqliteStore::open(&dir, options()).unwrap();
    register(&store, "before").await;
    let copying = Copying {
        replace: false,
        verify: true,
    };
    let copied = store.backup(&copy, copying, &mut |_| ControlFlow::Continue(()));
    copied.unwrap();
    register(&store, "after").await;
    store.close();
    (above, dir, copy)
}

fn put_back(from: &Path, dir: &Path, stamp: &str, replace: bool) -> Result<Restored, RestoreError> {
    let restoring = Restoring {
        replace,
        stamp: stamp.to_owned(),
        epoch_seed: 8,
        server_name: None,
    };
    restore(from, dir, &restoring)
}

/// All names in a directory with what the files hold.
fn everything(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|file| {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            (name, fs::read(file.path()).unwrap_or_default())
        })
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn into_an_empty_directory() {
    let (above, _, copy) = ground().await;
    let dir = above.path().join("a/b");
    let restored = put_back(&copy, &dir, "now", false).unwrap();
    assert_eq!(
        (restored.server_name.as_str(), &restored.aside),
        ("localhost", &None)
    );
    assert_eq!(users(&dir).await, ["before"]);
    let store = SqliteStore::open(&dir, options()).unwrap();
    assert_eq!(
        store.info().epoch,
        8,
        "tokens of before are answered in full"
    );
    register(&store, "later").await;
    drop(store);
    assert!(check::check(&dir).unwrap().is_sound());
}

#[tokio::test]
async fn a_restored_store_whose_database_is_gone_is_not_made_anew() {
    let (above, _, copy) = ground().await;
    let dir = above.path().join("new");
    put_back(&copy, &dir, "now", false).unwrap();
    fs::write(dir.join("kitbag.db"), "").unwrap();
    let refused = SqliteStore::open(&dir, options()).err();
    let is_told = matches!(refused, Some(OpenError::Corrupt { .. }));
    assert!(is_told, "{refused:?}");
}

#[tokio::test]
async fn what_is_another_servers_does_not_come_in_the_place_of_a_store() {
    let (above, dir, copy) = ground().await;
    let other = above.path().join("other");
    let server_name = ServerName::parse("example.org").unwrap();
    drop(SqliteStore::open(&other, Options::new(server_name.clone(), 7)).unwrap());
    let before = everything(&dir);
    let refused = put_back(&other.join("kitbag.db"), &dir, "now", true).unwrap_err();
    let said = "the backup is of server `example.org`, not `localhost`";
    assert_eq!(refused.to_string(), said);
    assert_eq!(everything(&dir), before);
    // Nor where another is wanted.
    let restoring = Restoring {
        replace: false,
        stamp: "now".to_owned(),
        epoch_seed: 8,
        server_name: Some(server_name),
    };
    let new = above.path().join("new");
    let refused = restore(&copy, &new, &restoring).unwrap_err();
    let said = "the backup is of server `localhost`, not `example.org`";
    assert_eq!(refused.to_string(), said);
    assert!(!new.try_exists().unwrap());
    // What cannot say whose it is can be replaced.
    fs::write(dir.join("kitbag.db"), "nothing").unwrap();
    put_back(&other.join("kitbag.db"), &dir, "now", true).unwrap();
}

#[tokio::test]
async fn into_a_used_directory_only_where_that_is_wanted() {
    let (_above, dir, copy) = ground().await;
    let before = everything(&dir);
    let refused = put_back(&copy, &dir, "one", false);
    assert!(
        matches!(refused, Err(RestoreError::Exists { .. })),
        "{refused:?}"
    );
    assert_eq!(everything(&dir), before);
    let restored = put_back(&copy, &dir, "one", true).unwrap();
    assert_eq!(users(&dir).await, ["before"]);
    let aside = restored.aside.unwrap();
    assert_eq!(aside, dir.join("kitbag.db.before-restore-one"));
    // And back: what was set aside is a backup like another.
    let again = put_back(&aside, &dir, "two", true).unwrap();
    assert_eq!(users(&dir).await, ["after", "before"]);
    assert_eq!(
        again.aside.unwrap(),
        dir.join("kitbag.db.before-restore-two")
    );
    let copied = check::check_copy(&aside).unwrap();
    assert_eq!(copied.users, 2, "it is there still");
}

#[tokio::test]
async fn twice_within_one_second_keeps_both_old_stores() {
    let (_above, dir, copy) = ground().await;
    let one = put_back(&copy, &dir, "now", true).unwrap();
    let two = put_back(&copy, &dir, "now", true).unwrap();
    assert_eq!(users(&dir).await, ["before"]);
    let (one, two) = (one.aside.unwrap(), two.aside.unwrap());
    assert_eq!(one, dir.join("kitbag.db.before-restore-now"));
    assert_eq!(two, dir.join("kitbag.db.before-restore-now-2"));
    assert_eq!(check::check_copy(&one).unwrap().users, 2);
    assert_eq!(check::check_copy(&two).unwrap().users, 1);
}

#[tokio::test]
async fn a_backup_is_opened_before_anything_of_its_name_goes() {
    let (_above, dir, copy) = ground().await;
    for name in ["kitbag.db.restoring", "kitbag-check-7.tmp"] {
        let from = dir.join(name);
        fs::copy(&copy, &from).unwrap();
        put_back(&from, &dir, "now", true).unwrap();
        assert_eq!(users(&dir).await, ["before"], "{name}");
    }
}

#[tokio::test]
async fn a_log_without_its_database_is_no_new_ones() {
    let (above, _, copy) = ground().await;
    let dir = above.path().join("other");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("kitbag.db-wal"), "what was left of a log").unwrap();
    let refused = put_back(&copy, &dir, "now", false);
    assert!(
        matches!(refused, Err(RestoreError::Exists { .. })),
        "{refused:?}"
    );
    let restored = put_back(&copy, &dir, "now", true).unwrap();
    assert_eq!(restored.aside, None, "no database was there");
    let log = fs::read(dir.join("kitbag.db.before-restore-now-wal")).unwrap();
    assert_eq!(log, b"what was left of a log");
    assert_eq!(users(&dir).await, ["before"]);
}

/// Makes files of all kinds that are no backup; returns them with a part of what is said of them.
fn none_of_which_is_a_backup(above: &Path, copy: &Path) -> Vec<(PathBuf, &'static str)> {
    let bytes = fs::read(copy).unwrap();
    let with = |name: &str, bytes: &[u8]| {
        let file = above.join(name);
        fs::write(&file, bytes).unwrap();
        file
    };
    let zeroed_page = |page: usize| {
        let mut bytes = bytes.clone();
        bytes[page * 4096..(page + 1) * 4096].fill(0);
        bytes
    };
    let changed = |name: &str, sql: &str| {
        let file = with(name, &bytes);
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection.execute_batch(sql).unwrap();
        file
    };
    let other = above.join("recipes.db");
    let connection = rusqlite::Connection::open(&other).unwrap();
    connection
        .execute_batch("CREATE TABLE recipes (cake TEXT)")
        .unwrap();
    let pages = bytes.len() / 4096;
    let mut files = vec![
        (above.join("nowhere.db"), "cannot read"),
        (above.to_owned(), "cannot read"),
        (with("empty.db", b""), "is not a database of Kitbag"),
        (
            with("text.db", &[b'x'; 9_000]),
            "is not a database of Kitbag",
        ),
        (
            with("header.db", &zeroed_page(0)),
            "is not a database of Kitbag",
        ),
        (other, "is not a database of Kitbag"),
        (
            with("short.db", &bytes[..bytes.len() - 4096]),
            "it is cut short",
        ),
        (
            with("head.db", &bytes[..4096]),
            "it is cut short: 4096 bytes of",
        ),
        (
            changed("newer.db", "PRAGMA user_version = 3"),
            "has format 3",
        ),
        (
            changed("table.db", "DROP TABLE filters"),
            "the table `filters` is missing",
        ),
        (
            changed("store.db", "DELETE FROM store"),
            "does not say whose it is",
        ),
    ];
    for page in 1..pages {
        let file = with(&format!("page{page}.db"), &zeroed_page(page));
        files.push((file, "is damaged"));
    }
    files
}

#[tokio::test]
async fn what_is_no_backup_changes_nothing() {
    let (above, dir, copy) = ground().await;
    let before = everything(&dir);
    for (file, expected) in none_of_which_is_a_backup(above.path(), &copy) {
        let refused = put_back(&file, &dir, "now", true).unwrap_err();
        let said = refused.to_string();
        let name = file.display().to_string();
        assert!(
            said.contains(expected) && said.contains(&name),
            "{name}: {said}"
        );
        assert_eq!(everything(&dir), before, "{name}");
        let new = above.path().join("new");
        assert!(put_back(&file, &new, "now", true).is_err());
        assert!(!new.try_exists().unwrap(), "{name}");
    }
}

#[tokio::test]
async fn a_store_in_use_is_neither_replaced_nor_taken_for_a_backup() {
    let (above, dir, copy) = ground().await;
    let store = SqliteStore::open(&dir, options()).unwrap();
    let refused = put_back(&copy, &dir, "now", true);
    let is_locked = matches!(refused, Err(RestoreError::Open(OpenError::Locked { .. })));
    assert!(is_locked, "{refused:?}");
    let other = above.path().join("other");
    let refused = put_back(&dir.join("kitbag.db"), &other, "now", true);
    assert!(
        matches!(refused, Err(RestoreError::InUse { .. })),
        "{refused:?}"
    );
    assert!(!other.try_exists().unwrap());
    store.close();
    let refused = put_back(&dir.join("kitbag.db"), &dir, "now", true);
    assert!(
        matches!(refused, Err(RestoreError::Own { .. })),
        "{refused:?}"
    );
    put_back(&dir.join("kitbag.db"), &other, "now", true).unwrap();
    assert_eq!(users(&other).await, ["after", "before"]);
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_restored_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let (above, _, copy) = ground().await;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).unwrap();
    let dir = above.path().join("new");
    put_back(&copy, &dir, "now", false).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join("kitbag.db"))), (0o700, 0o600));
}

/// Makes links to a database as a crash left it, where a user stands in the log alone.
#[cfg(unix)]
async fn linked() -> (TempDir, PathBuf, PathBuf) {
    let (above, dir, _) = ground().await;
    let store = SqliteStore::open(&dir, options()).unwrap();
    register(&store, "logged").await;
    let (disk, linked) = (above.path().join("disk"), above.path().join("linked"));
    fs::create_dir(&disk).unwrap();
    fs::create_dir(&linked).unwrap();
    for suffix in ["", "-wal"] {
        let from = dir.join(format!("kitbag.db{suffix}"));
        fs::copy(from, disk.join(format!("data.db{suffix}"))).unwrap();
    }
    fs::copy(dir.join("lock"), linked.join("lock")).unwrap();
    let link = linked.join("kitbag.db");
    std::os::unix::fs::symlink("../disk/data.db", &link).unwrap();
    (above, linked, link)
}

#[cfg(unix)]
#[tokio::test]
async fn the_log_of_a_database_behind_a_link_is_beside_what_the_link_names() {
    let (_above, dir, link) = linked().await;
    assert_eq!(check::check(&dir).unwrap().users, 3);
    assert_eq!(check::check_copy(&link).unwrap().users, 3);
    assert_eq!(users(&dir).await, ["after", "before", "logged"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_backup_behind_a_link_is_restored_with_its_log() {
    let (above, _, link) = linked().await;
    let new = above.path().join("new");
    put_back(&link, &new, "now", false).unwrap();
    assert_eq!(users(&new).await, ["after", "before", "logged"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_to_a_store_in_use_is_no_backup() {
    let (above, dir, _) = ground().await;
    let store = SqliteStore::open(&dir, options()).unwrap();
    let (link, new) = (above.path().join("link.db"), above.path().join("new"));
    std::os::unix::fs::symlink(dir.join("kitbag.db"), &link).unwrap();
    let refused = put_back(&link, &new, "now", false);
    assert!(
        matches!(refused, Err(RestoreError::InUse { .. })),
        "{refused:?}"
    );
    store.close();
    let refused = put_back(&link, &dir, "now", true);
    assert!(
        matches!(refused, Err(RestoreError::Own { .. })),
        "{refused:?}"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_is_set_aside_with_the_log_of_its_file() {
    let (above, dir, _) = linked().await;
    let restored = put_back(&above.path().join("copy.db"), &dir, "now", true).unwrap();
    assert_eq!(users(&dir).await, ["before"]);
    put_back(&restored.aside.unwrap(), &dir, "later", true).unwrap();
    assert_eq!(users(&dir).await, ["after", "before", "logged"]);
}

/// Can be seen where the tests run as root; others cannot give a file away.
#[cfg(unix)]
#[tokio::test]
async fn what_root_restores_is_the_servers() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let (above, dir, copy) = ground().await;
    let new = above.path().join("new");
    fs::create_dir(&new).unwrap();
    for path in [&new, &dir.join("kitbag.db")] {
        if fs::metadata(path).unwrap().uid() == 0 {
            chown(path, Some(65_534), Some(65_533)).unwrap();
        }
    }
    let owner = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        (metadata.uid(), metadata.gid())
    };
    let (server, root) = (owner(&new), owner(&dir));
    put_back(&copy, &new, "now", false).unwrap();
    assert_eq!(owner(&new.join("kitbag.db")), server);
    assert_eq!(owner(&new.join("lock")), server);
    put_back(&copy, &dir, "now", true).unwrap();
    assert_eq!(owner(&dir.join("kitbag.db")), server);
    assert_eq!(owner(&dir), root);
}
