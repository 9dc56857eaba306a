//! The feed of device account data across restarts, backups and batches.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

use std::path::Path;
use std::sync::Arc;

use kitbag_domain::{DeviceChanges, DeviceDataStore as _, FeedPosition, Limits, ServerName, Store};
use kitbag_store_sqlite::{Options, SqliteStore};
use kitbag_testkit::{Actor, event_type, global};
use tempfile::tempdir;

fn open(dir: &Path) -> Arc<SqliteStore> {
    let limits = Limits {
        tombstones_max: 0,
        ..Limits::default()
    };
    let options = Options {
        limits,
        ..Options::new(ServerName::parse("localhost").unwrap(), 1)
    };
    Arc::new(SqliteStore::open(dir, options).unwrap())
}

async fn register(store: &Arc<SqliteStore>) -> Actor {
    let store: Arc<dyn Store> = Arc::clone(store) as _;
    Actor::register(&store, "alice").await
}

async fn changes(store: &SqliteStore, after: Option<FeedPosition>) -> DeviceChanges {
    store.device_changes(after, 10).await.unwrap()
}

#[tokio::test]
async fn numbers_go_on_behind_a_restart_also_where_the_latest_was_collected() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let alice = register(&store).await;
    alice.put(&alice.own_key("a"), "{}").await;
    alice.delete(&alice.own_key("a")).await;
    let before = changes(&store, None).await;
    assert_eq!((before.next.number, before.next.floor), (2, 2));
    store.close();
    let store = open(dir.path());
    let alice = Actor {
        store: Arc::clone(&store) as _,
        ..alice
    };
    let at = changes(&store, Some(before.next)).await;
    assert!(!at.starts_anew && at.changes.is_empty());
    alice.put(&alice.own_key("a"), "{}").await;
    let behind = changes(&store, Some(before.next)).await;
    assert!(!behind.starts_anew);
    assert_eq!((behind.changes.len(), behind.next.number), (1, 3));
}

#[tokio::test]
async fn what_is_no_device_data_leaves_the_stores_row_alone() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let alice = register(&store).await;
    alice.put(&alice.own_key("a"), "{}").await;
    store.close();
    let count = |sql: &str| {
        let connection = rusqlite::Connection::open(dir.path().join("kitbag.db")).unwrap();
        connection
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    let connection = rusqlite::Connection::open(dir.path().join("kitbag.db")).unwrap();
    // Whoever writes the row of the store, or a number outside device scope, fails from now on.
    connection
        .execute_batch(
            "CREATE TRIGGER row_of_store BEFORE UPDATE ON store BEGIN SELECT RAISE(ABORT, 'x'); END;
             CREATE TRIGGER numbers BEFORE UPDATE OF feed ON entries BEGIN SELECT RAISE(ABORT, 'x'); END",
        )
        .unwrap();
    drop(connection);
    let store = open(dir.path());
    let alice = Actor {
        store: Arc::clone(&store) as _,
        ..alice
    };
    for _ in 0..2 {
        alice.put(&global("a"), "{}").await;
        alice.delete(&global("a")).await;
    }
    alice.login("LAPTOP").await.log_out().await;
    assert!(
        alice.try_put(&alice.own_key("a"), "{}").await.is_err(),
        "the trigger is there"
    );
    store.close();
    assert_eq!(
        count("SELECT count(*) FROM entries WHERE feed IS NOT NULL"),
        1
    );
    assert_eq!(count("SELECT feed_head FROM store"), 1);
}

/// More deletions than one read looks at, as of an account whose devices come and go.
#[tokio::test]
async fn a_page_goes_on_behind_any_number_of_deletions() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let alice = register(&store).await;
    alice.put(&alice.own_key("a"), "{}").await;
    store.close();
    let connection = rusqlite::Connection::open(dir.path().join("kitbag.db")).unwrap();
    let bury = "
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
        INSERT INTO entries (user, scope, place, type, position, written_at, writer, feed)
        SELECT 1, 2, 'D' || i, 'a', 100 + i, 1, 0, 100 + i FROM n";
    connection.execute_batch(bury).unwrap();
    drop(connection);
    let store = open(dir.path());
    let page = store.device_entries(&event_type("a"), None, 10).await;
    assert_eq!(
        page.unwrap().len(),
        1,
        "of PHONE, behind those of D1 to D2500"
    );
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_named_and_may_be_replaced() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let alice = register(&store).await;
    alice.put(&alice.own_key("org.example.a"), "{}").await;
    let other = rusqlite::Connection::open(dir.path().join("kitbag.db")).unwrap();
    let harm = "UPDATE entries SET content = CAST(x'ff7d' AS TEXT)";
    assert_eq!(other.execute(harm, []), Ok(1));
    drop(other);
    let page = store.device_entries(&event_type("org.example.a"), None, 10);
    let page = page.await.unwrap_err().to_string();
    let changes = store.device_changes(None, 10).await;
    for error in [page, changes.unwrap_err().to_string()] {
        let named = ["`org.example.a`", alice.device.as_str(), "@alice:localhost"];
        assert!(named.iter().all(|name| error.contains(name)), "{error}");
    }
    alice.put(&alice.own_key("org.example.a"), "{}").await;
    let changes = store.device_changes(None, 10).await.unwrap();
    assert_eq!(changes.changes.len(), 1);
}
