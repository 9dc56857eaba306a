//! What holds across the life of a directory, and what the store says when it cannot be opened.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

use std::fs;
use std::path::Path;

use kitbag_domain::{
    AccountStore as _, Allowance, ApplyError, Content, EntryStore as _, EventType, Expectation,
    Guard, Key, Limits, NewAccount, Op, Position, Scope, Selector, ServerName, StoreError, UserId,
    Write, Writer,
};
use kitbag_store_sqlite::{OpenError, Options, SqliteStore, check};
use tempfile::tempdir;

fn options() -> Options {
    Options::new(ServerName::parse("localhost").unwrap(), 7)
}

fn alice() -> UserId {
    UserId::parse("@alice:localhost").unwrap()
}

fn key(event_type: &str) -> Key {
    Key::new(Scope::Global, EventType::parse(event_type).unwrap())
}

fn content(text: &str) -> Content {
    Content::parse(text.to_owned().into(), &Limits::default()).unwrap()
}

fn write() -> Write {
    Write {
        guard: Guard::Account,
        writer: Writer::Admin,
        at: 1,
        allowance: Allowance::Ordinary,
    }
}

async fn register(store: &SqliteStore) {
    let account = NewAccount {
        user: alice(),
        password_hash: "hash".to_owned(),
        at: 1,
    };
    store.register(account, None).await.unwrap();
}

async fn put(store: &SqliteStore, event_type: &str, text: &str) -> Position {
    let op = Op::Put(key(event_type), content(text), Expectation::default());
    let applied = store.apply(&alice(), write(), vec![op]).await.unwrap();
    applied.positions[0].unwrap()
}

async fn get(store: &SqliteStore, event_type: &str) -> Option<String> {
    let entry = store.get(&alice(), &key(event_type)).await.unwrap()?;
    Some(entry.content.unwrap().as_str().to_owned())
}

#[tokio::test]
async fn reopening_keeps_everything() {
    let dir = tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), options()).unwrap();
    register(&store).await;
    let position = put(&store, "a", "{ \"b\" : 1.0 }").await;
    store.close();
    assert!(store.account(&alice()).await.is_err(), "closed");
    drop(store);
    let mut other_seed = options();
    other_seed.epoch_seed = 8;
    let store = SqliteStore::open(dir.path(), other_seed).unwrap();
    assert_eq!(store.info().epoch, 7, "the epoch is that of the making");
    assert_eq!(get(&store, "a").await.unwrap(), "{ \"b\" : 1.0 }");
    assert_eq!(put(&store, "b", "{}").await, position.next());
}

#[test]
fn a_second_opener_is_refused_until_the_first_has_closed() {
    let dir = tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), options()).unwrap();
    let refused = SqliteStore::open(dir.path(), options()).err();
    assert!(
        matches!(refused, Some(OpenError::Locked { .. })),
        "{refused:?}"
    );
    store.close();
    assert!(SqliteStore::open(dir.path(), options()).is_ok());
}

#[test]
fn another_server_name_is_refused() {
    let dir = tempdir().unwrap();
    drop(SqliteStore::open(dir.path(), options()).unwrap());
    let other = Options::new(ServerName::parse("example.org").unwrap(), 7);
    let refused = SqliteStore::open(dir.path(), other).err().unwrap();
    let text = "the store belongs to server `localhost`, not `example.org`";
    assert_eq!(refused.to_string(), text);
}

#[test]
fn a_file_that_is_no_database_is_named_and_left_alone() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("kitbag.db");
    let bytes = "not a database at all, but long enough for a header. ".repeat(100);
    fs::write(&file, &bytes).unwrap();
    let refused = SqliteStore::open(dir.path(), options()).err();
    assert!(
        matches!(&refused, Some(OpenError::NotADatabase { file: named }) if *named == file),
        "{refused:?}"
    );
    assert_eq!(fs::read(&file).unwrap(), bytes.as_bytes());
}

#[tokio::test]
async fn an_ephemeral_store_works() {
    let store = SqliteStore::ephemeral(options()).unwrap();
    register(&store).await;
    put(&store, "a", "{}").await;
    assert_eq!(get(&store, "a").await.unwrap(), "{}");
}

#[tokio::test]
async fn a_closed_store_is_one_file() {
    let dir = tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), options()).unwrap();
    register(&store).await;
    put(&store, "a", "{}").await;
    store.close();
    let files = fs::read_dir(dir.path()).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["kitbag.db", "lock"]);
}

#[tokio::test]
async fn closing_commits_what_is_queued() {
    let dir = tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), options()).unwrap();
    register(&store).await;
    let writes: Vec<_> = (0..500)
        .map(|number| {
            let op = Op::Put(
                key(&number.to_string()),
                content("{}"),
                Expectation::default(),
            );
            store.apply(&alice(), write(), vec![op])
        })
        .collect();
    store.close();
    for write in writes {
        write.await.unwrap();
    }
    let store = SqliteStore::open(dir.path(), options()).unwrap();
    assert_eq!(get(&store, "499").await.unwrap(), "{}");
}

/// Opens a store of one entry of one user, after one row of it was harmed.
async fn harmed(dir: &Path, harm: &str) -> SqliteStore {
    let store = SqliteStore::open(dir, options()).unwrap();
    register(&store).await;
    put(&store, "a", "{}").await;
    store.close();
    let connection = rusqlite::Connection::open(dir.join("kitbag.db")).unwrap();
    assert_eq!(connection.execute(harm, []).unwrap(), 1);
    drop(connection);
    SqliteStore::open(dir, options()).unwrap()
}

#[tokio::test]
async fn a_wrong_count_is_told_as_damage_to_its_user_only() {
    let dir = tempdir().unwrap();
    let store = harmed(dir.path(), "UPDATE users SET entries = 0, bytes = 0").await;
    let damaged = store.apply(&alice(), write(), vec![Op::Delete(key("a"))]);
    let bob = UserId::parse("@bob:localhost").unwrap();
    let account = NewAccount {
        user: bob,
        password_hash: "hash".to_owned(),
        at: 1,
    };
    let registered = store.register(account, None);
    let error = damaged.await.unwrap_err();
    assert!(
        matches!(error, ApplyError::Store(StoreError::Corrupt(_))),
        "{error}"
    );
    registered.await.unwrap();
}

#[tokio::test]
async fn where_the_stream_stands_is_known_once_everything_was_read() {
    let dir = tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), options()).unwrap();
    register(&store).await;
    assert_eq!(store.peek_head(&alice()), None);
    let live = store.live(&alice()).await.unwrap();
    assert_eq!(store.peek_head(&alice()), Some(live.head));
}

/// One flipped bit makes such a content.
#[tokio::test]
async fn a_content_that_is_no_text_is_told_as_damage_by_every_read() {
    let dir = tempdir().unwrap();
    let harm = "UPDATE entries SET content = CAST(x'7bff7d' AS TEXT)";
    let store = harmed(dir.path(), harm).await;
    let get = store.get(&alice(), &key("a")).await.map(drop);
    let list = store.list(&alice(), Selector::All).await.map(drop);
    let changes = store.changes(&alice(), None).await.map(drop);
    let live = store.live(&alice()).await.map(drop);
    for read in [get, list, changes, live] {
        assert!(matches!(read, Err(StoreError::Corrupt(_))), "{read:?}");
    }
}

/// Makes zeros of the pages of the file that a large content of `x` fills.
fn erase_large_contents(file: &Path) -> usize {
    let mut bytes = fs::read(file).unwrap();
    let pages = bytes.chunks_mut(4096);
    let filled = pages.filter(|page| page.iter().filter(|byte| **byte == b'x').count() > 4_000);
    let erased = filled.map(|page| page.fill(0)).count();
    fs::write(file, bytes).unwrap();
    erased
}

#[tokio::test]
async fn a_description_is_read_without_the_pages_of_the_content() {
    let dir = tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), options()).unwrap();
    register(&store).await;
    put(
        &store,
        "a",
        &format!("{{\"\":\"{}\"}}", "x".repeat(1_000_000)),
    )
    .await;
    store.close();
    drop(store);
    assert!(erase_large_contents(&dir.path().join("kitbag.db")) > 200);
    let store = SqliteStore::open(dir.path(), options()).unwrap();
    let list = store.list(&alice(), Selector::All).await;
    assert!(matches!(list, Err(StoreError::Corrupt(_))), "{list:?}");
    let described = store.describe(&alice(), Selector::All, None, 10).await;
    assert_eq!(described.unwrap()[0].size_bytes, 1_000_000 + 7 + 1);
}

#[tokio::test]
async fn a_database_that_is_gone_or_emptied_is_not_silently_made_anew() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("kitbag.db");
    // A making that was cut short is begun again.
    fs::write(&file, "").unwrap();
    let store = SqliteStore::open(dir.path(), options()).unwrap();
    register(&store).await;
    drop(store);
    let aside = dir.path().join("aside");
    fs::rename(&file, &aside).unwrap();
    let refused = SqliteStore::open(dir.path(), options()).err().unwrap();
    let said = refused.to_string();
    assert!(said.contains("it is missing"), "{said}");
    assert!(!file.try_exists().unwrap(), "nothing was made");
    fs::write(&file, "").unwrap();
    let refused = SqliteStore::open(dir.path(), options()).err().unwrap();
    let said = refused.to_string();
    assert!(said.contains("it is empty"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), b"", "nothing was written");
    fs::rename(&aside, &file).unwrap();
    let store = SqliteStore::open(dir.path(), options()).unwrap();
    assert!(store.account(&alice()).await.unwrap().is_some());
}

#[test]
fn a_missing_table_and_a_table_without_its_first_page_are_named_and_left_alone() {
    for harm in ["DROP TABLE filters", "DROP INDEX entries_by_position", ""] {
        let dir = tempdir().unwrap();
        drop(SqliteStore::open(dir.path(), options()).unwrap());
        let file = dir.path().join("kitbag.db");
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection.execute_batch(harm).unwrap();
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'entries'";
        let root: usize = connection.query_row(sql, [], |row| row.get(0)).unwrap();
        drop(connection);
        let mut bytes = fs::read(&file).unwrap();
        if harm.is_empty() {
            bytes[(root - 1) * 4096..root * 4096].fill(0);
            fs::write(&file, &bytes).unwrap();
        }
        let refused = SqliteStore::open(dir.path(), options()).err().unwrap();
        assert!(
            matches!(&refused, OpenError::Corrupt { file: named, .. } if *named == file),
            "{harm}: {refused}"
        );
        assert_eq!(fs::read(&file).unwrap(), bytes, "{harm}");
    }
}

#[test]
fn copies_that_a_kill_left_go_when_the_store_is_opened() {
    let dir = tempdir().unwrap();
    drop(SqliteStore::open(dir.path(), options()).unwrap());
    let left = [
        &check::copy_name(17),
        "kitbag-check-17.tmp.partial-aBc123",
        "kitbag-check-17.tmp.partial-aBc123-wal",
        "kitbag.db.before-repair-now.partial-aBc123",
        "kitbag.db.restoring",
        "kitbag.db.restoring-shm",
    ];
    for name in left {
        fs::write(dir.path().join(name), "").unwrap();
    }
    drop(SqliteStore::open(dir.path(), options()).unwrap());
    for name in left {
        assert!(!dir.path().join(name).try_exists().unwrap(), "{name}");
    }
}

#[test]
fn what_the_store_did_not_make_stays() {
    let dir = tempdir().unwrap();
    let kept = [
        "check-2024.db",
        "check-before-upgrade.db",
        "check-list",
        "copy.db.partial-aBc123",
        "kitbag-check-.tmp",
        "kitbag-check-2024-05.tmp",
        "kitbag.db.before-repair-now",
        "kitbag.db.before-restore-now",
        "kitbag.db.partial-aBc123",
        "kitbag.db.restoring-notes",
    ];
    let left = "kitbag-check-17.tmp";
    for name in kept.iter().chain([&left]) {
        fs::write(dir.path().join(name), "").unwrap();
    }
    drop(SqliteStore::open(dir.path(), options()).unwrap());
    let is_there = |name: &str| dir.path().join(name).try_exists().unwrap();
    assert!(is_there(left), "there was no store yet");
    drop(SqliteStore::open(dir.path(), options()).unwrap());
    assert!(!is_there(left));
    for name in kept {
        assert!(is_there(name), "{name}");
    }
}

/// After a crash, the table may be gone in the log alone.
#[test]
fn a_table_that_is_missing_behind_a_crash_is_named() {
    let dir = tempdir().unwrap();
    drop(SqliteStore::open(dir.path(), options()).unwrap());
    let connection = rusqlite::Connection::open(dir.path().join("kitbag.db")).unwrap();
    connection.execute_batch("DROP TABLE filters").unwrap();
    let crashed = tempdir().unwrap();
    for name in ["kitbag.db", "kitbag.db-wal"] {
        fs::copy(dir.path().join(name), crashed.path().join(name)).unwrap();
    }
    let refused = SqliteStore::open(crashed.path(), options()).err().unwrap();
    let said = refused.to_string();
    assert!(said.contains("the table `filters` is missing"), "{said}");
}
