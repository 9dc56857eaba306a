//! What is kept in memory, against commits that are stopped or fail.

use std::sync::Arc;

use kitbag_domain::{AccountStore as _, Entry, EntryStore as _, ServerName, Store};
use kitbag_store_sqlite::{FileOpener, Options, SqliteStore, Step};
use kitbag_testkit::disk::{Call, Disk, Error, Fault, Part};
use kitbag_testkit::gate::in_time;
use kitbag_testkit::{Actor, global};

use crate::ground::{Ground, STEPS, begin};

/// More than one commit makes.
const WRITES: u64 = 16;

/// A read while a commit is stopped is right at that moment, and must not be answered later.
#[tokio::test]
async fn what_is_read_while_a_commit_is_stopped_is_not_kept() {
    let ground = Ground::new().await;
    for (number, step) in STEPS.into_iter().enumerate() {
        let (phone, laptop) = ground.user(&format!("user{number}")).await;
        let (key, absent) = (global("a"), global("absent"));
        phone.put(&key, "{\"n\":0}").await;
        let head = laptop.head().await;
        assert_eq!(laptop.text(&absent).await, None);
        let mut stop = ground.stop_at(step);
        let put = async {
            phone.try_put(&key, "{\"n\":1}").await.unwrap();
            phone.try_put(&absent, "{\"n\":2}").await.unwrap();
        };
        let put = begin(Box::pin(put));
        stop.reached().await;
        laptop.text(&key).await;
        laptop.text(&absent).await;
        laptop.changes(Some(head)).await;
        stop.go_on();
        in_time("the puts", put).await;
        let (changed, made) = (laptop.text(&key).await, laptop.text(&absent).await);
        assert_eq!(changed.as_deref(), Some("{\"n\":1}"), "{step:?}");
        assert_eq!(made.as_deref(), Some("{\"n\":2}"), "{step:?}");
        assert_eq!(
            laptop.changes(Some(head)).await.entries.len(),
            2,
            "{step:?}"
        );
    }
}

#[tokio::test]
async fn a_session_that_is_known_ends_with_its_device() {
    let ground = Ground::new().await;
    for (number, step) in STEPS.into_iter().enumerate() {
        let (phone, laptop) = ground.user(&format!("user{number}")).await;
        assert!(laptop.session().await.is_some());
        let mut stop = ground.stop_at(step);
        let logout = begin(Box::pin(laptop.log_out()));
        stop.reached().await;
        let is_durable = step != Step::BeforeCommit;
        assert_eq!(laptop.session().await.is_none(), is_durable, "{step:?}");
        stop.go_on();
        in_time("the logout", logout).await;
        assert!(laptop.session().await.is_none(), "{step:?}");
        assert!(phone.session().await.is_some(), "{step:?}");
    }
}

/// Law 6: who was told of the end, by a read or by the answer to the logout, finds it everywhere.
#[tokio::test]
async fn a_session_that_was_kept_ends_before_its_device_does() {
    let ground = Ground::new().await;
    for (number, step) in STEPS.into_iter().enumerate() {
        let (phone, laptop) = ground.user(&format!("user{number}")).await;
        assert!(laptop.session().await.is_some());
        let known = ground
            .sqlite
            .peek_session(&laptop.user, laptop.tokens.access);
        let kept = known.unwrap().unwrap();
        phone.put(&global("a"), "{}").await;
        assert!(kept.get().is_some(), "a put is no matter of sessions");
        let mut stop = ground.stop_at(step);
        let logout = begin(Box::pin(laptop.log_out()));
        stop.reached().await;
        assert!(kept.get().is_none(), "{step:?}");
        stop.go_on();
        in_time("the logout", logout).await;
        assert!(kept.get().is_none(), "{step:?}");
    }
}

#[tokio::test]
async fn what_was_read_is_answered_from_memory_until_it_changes() {
    let ground = Ground::new().await;
    let (phone, laptop) = ground.user("alice").await;
    let (key, absent) = (global("a"), global("absent"));
    phone.put(&key, "{\"n\":0}").await;
    let peek = |key| ground.sqlite.peek(&laptop.user, key);
    assert!(peek(&key).is_none(), "nobody has read it");
    let read = (laptop.entry(&key).await, laptop.entry(&absent).await);
    let content = |read: Option<Entry>| Some(read.and_then(|entry| entry.content));
    assert_eq!(peek(&key), content(read.0));
    assert_eq!((peek(&absent), read.1), (Some(None), None));
    phone.put(&key, "{\"n\":1}").await;
    assert!(peek(&key).is_none());
    assert!(peek(&absent).is_some(), "it has nothing to do with that");
    laptop.log_out().await;
    assert!(
        peek(&absent).is_none(),
        "a logout may touch all of the user"
    );
}

/// Whether a failed commit is there shows only when the files work again.
///
/// Its sync fails, and then some write to the log: one of its own, or one of those by which the
/// store finds out. Where that is the first of these, the commit is kept as it was found.
#[tokio::test]
async fn after_a_failed_commit_memory_tells_what_the_file_holds() {
    let mut is_there = Vec::new();
    for nth in 1..=WRITES {
        let (disk, dir) = (Disk::new(), tempfile::tempdir().unwrap());
        let mut options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        options.vfs = Some(disk.name().to_owned());
        options.opener = Some(FileOpener::new(disk.opener()));
        let sqlite = Arc::new(SqliteStore::open(dir.path(), options.clone()).unwrap());
        let store: Arc<dyn Store> = sqlite.clone();
        let alice = Actor::register(&store, "alice").await;
        let (user, key) = (alice.user.clone(), global("a"));
        alice.put(&key, "{\"n\":0}").await;
        let before = alice.entry(&key).await;
        disk.fail(Fault::next(Call::Sync, Error::Io).of(Part::Log));
        disk.fail(Fault::next(Call::Write, Error::Io).of(Part::Log).nth(nth));
        assert!(alice.try_put(&key, "{\"n\":1}").await.is_err());
        let other = global("b");
        let again = async { while alice.try_put(&other, "{}").await.is_err() {} };
        in_time("a write that succeeds", again).await;
        let read = alice.entry(&key).await;
        let content = read.clone().and_then(|entry| entry.content);
        assert_eq!(sqlite.peek(&user, &key), Some(content), "{nth}");
        drop((alice, store));
        Arc::into_inner(sqlite).unwrap().close();
        disk.clear();
        let reopened = SqliteStore::open(dir.path(), options).unwrap();
        assert_eq!(reopened.get(&user, &key).await.unwrap(), read, "{nth}");
        is_there.push(read != before);
    }
    assert!(
        is_there.contains(&true) && is_there.contains(&false),
        "{is_there:?}"
    );
}
