//! The write-ahead log stays small, and what was erased is gone from the disk.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use kitbag_domain::{
    AccountStore as _, Allowance, Content, EntryStore as _, EventType, Expectation, Guard, Key,
    Limits, NewAccount, Op, Scope, ServerName, UserId, Write, Writer,
};
use kitbag_store_sqlite::{Durability, Options, SqliteStore};
use tempfile::tempdir;

const CALLERS: usize = 16;
const PUTS: usize = 2_000;
const CONTENT_BYTES: usize = 1_024;
/// Some 5 to 20 MiB are usual, more where the machine leaves the checkpoint thread waiting; all that
/// is written comes to 230 MiB.
const LOG_BYTES_MAX: u64 = 96 * 1024 * 1024;

fn open(dir: &Path) -> SqliteStore {
    let mut options = Options::new(ServerName::parse("localhost").unwrap(), 1);
    // What is checked here does not depend on when things are synced.
    options.durability = Durability::None;
    SqliteStore::open(dir, options).unwrap()
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

async fn apply(store: &SqliteStore, op: Op) {
    let write = Write {
        guard: Guard::Account,
        writer: Writer::Server,
        at: 1,
        allowance: Allowance::Ordinary,
    };
    store.apply(&alice(), write, vec![op]).await.unwrap();
}

fn key(event_type: &str) -> Key {
    Key::new(Scope::Global, EventType::parse(event_type).unwrap())
}

fn put(event_type: &str, text: String) -> Op {
    let content = Content::parse(text.into(), &Limits::default()).unwrap();
    Op::Put(key(event_type), content, Expectation::default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_small_under_a_storm_of_puts() {
    let dir = tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    register(&store).await;
    let log = dir.path().join("kitbag.db-wal");
    let callers = (0..CALLERS).map(|caller| {
        let (store, log) = (Arc::clone(&store), log.clone());
        tokio::spawn(async move {
            let mut largest = 0;
            for number in 0..PUTS {
                let text = format!("{{\"a\":\"{}\"}}", "x".repeat(CONTENT_BYTES));
                apply(&store, put(&format!("{caller}.{number}"), text)).await;
                largest = largest.max(log.metadata().unwrap().len());
            }
            largest
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        let largest = caller.await.unwrap();
        assert!(largest <= LOG_BYTES_MAX, "the log grew to {largest} bytes");
    }
    let stats = store.stats();
    // A commit is counted behind its acknowledgement, so the last one may not be yet.
    assert!(
        stats.commits + 1 < stats.writes,
        "no commit was shared: {stats:?}"
    );
}

/// Returns the files of `dir` that hold `needle`.
fn holders(dir: &Path, needle: &str) -> Vec<String> {
    let holds = |bytes: &[u8]| {
        bytes
            .windows(needle.len())
            .any(|part| part == needle.as_bytes())
    };
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap());
    let holders = files.filter(|file| holds(&fs::read(file.path()).unwrap()));
    holders
        .map(|file| file.file_name().into_string().unwrap())
        .collect()
}

#[tokio::test]
async fn what_was_deleted_or_replaced_is_gone_from_the_disk() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    register(&store).await;
    // One that fits into its page, and one that fills pages of its own.
    for (event_type, times) in [("small", 1), ("large", 2_000)] {
        let text = format!("{{\"a\":\"{}\"}}", "canary-deleted".repeat(times));
        apply(&store, put(event_type, text)).await;
        let text = format!("{{\"a\":\"{}\"}}", "canary-replaced".repeat(times));
        apply(&store, put(&format!("{event_type}2"), text)).await;
    }
    store.close();
    assert_eq!(holders(dir.path(), "canary-deleted"), ["kitbag.db"]);
    let store = open(dir.path());
    for event_type in ["small", "large"] {
        apply(&store, Op::Delete(key(event_type))).await;
        apply(&store, put(&format!("{event_type}2"), "{}".to_owned())).await;
    }
    store.close();
    assert_eq!(holders(dir.path(), "canary"), <[&str; 0]>::default());
}

#[tokio::test]
async fn deactivation_leaves_nothing_on_the_disk() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    register(&store).await;
    let text = format!("{{\"a\":\"{}\"}}", "canary".repeat(2_000));
    apply(&store, put("large", text)).await;
    let filter = "{\"canary\":{}}".to_owned();
    store
        .add_filter(&alice(), Guard::Account, filter)
        .await
        .unwrap();
    let write = Write {
        guard: Guard::Account,
        writer: Writer::Admin,
        at: 2,
        allowance: Allowance::Ordinary,
    };
    store.deactivate(&alice(), write).await.unwrap();
    store.close();
    assert_eq!(holders(dir.path(), "canary"), <[&str; 0]>::default());
}
