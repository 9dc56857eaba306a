//! What the writer remembers of users, against writes that go past it, failures and other programs.

use std::sync::Arc;

use kitbag_domain::{
    AccountStore as _, ApplyError, DeviceSelection, Expectation, Incarnation, Key, Limits, Op,
    Position, ProfileField, Refusal, ServerName, Store, StoreError, WriteError,
};
use kitbag_store_sqlite::{FileOpener, Options, SqliteStore};
use kitbag_testkit::disk::{Call, Disk, Error, Fault, Part};
use kitbag_testkit::gate::in_time;
use kitbag_testkit::{Actor, content, device_id, global};
use rusqlite::{Connection, OpenFlags};

use crate::ground::{Ground, Racer, assert_sound, meetings};

fn boxed<'a>(racer: impl Future<Output = bool> + 'a) -> Racer<'a, bool> {
    Box::pin(racer)
}

/// Entries are written by what is remembered, and devices and profiles by what the file holds.
#[tokio::test]
async fn writes_of_entries_and_of_devices_take_each_others_positions_in_one_batch_or_several() {
    let ground = Ground::new().await;
    for (number, meeting) in meetings().enumerate() {
        let (phone, laptop) = ground.user(&format!("user{number}")).await;
        let (a, b, own) = (global("a"), global("b"), laptop.own_key("own"));
        let start = laptop.put(&own, "{\"n\":0}").await;
        let store = &ground.sqlite;
        let (by_phone, by_laptop) = (phone.requester(), laptop.requester());
        let put = |by, key, text| ground.put(by, key, text);
        let these = DeviceSelection::These(vec![laptop.device.clone()]);
        let login = Actor::login_of("TABLET");
        let name = Some("Alice".to_owned());
        let racers = vec![
            boxed(async { put(&by_phone, &a, "{\"n\":1}").await.is_ok() }),
            boxed(async { store.login(&phone.user, login).await.is_ok() }),
            boxed(async { put(&by_laptop, &b, "{\"n\":1}").await.is_ok() }),
            boxed(async {
                let (user, guard) = (&phone.user, phone.guard());
                let set = store.set_profile(user, guard, ProfileField::Displayname, name);
                set.await.is_ok()
            }),
            boxed(async { phone.apply(vec![Op::Delete(a.clone())]).await.is_ok() }),
            boxed(async {
                let removed = store.remove_devices(&phone.user, phone.write(), these);
                removed.await.is_ok()
            }),
            boxed(async {
                let late = put(&by_laptop, &b, "{\"n\":2}").await;
                late == Err(WriteError::SessionGone)
            }),
            boxed(async { put(&by_phone, &b, "{\"n\":3}").await.is_ok() }),
        ];
        let told = ground.race(meeting, racers, async |_, _| {}).await;
        assert_eq!(told, [true; 8], "{meeting:?}");
        // One position each: the put of `a`, the tablet, the put of `b`, the deletion of `a`, the
        // laptop's entry and its end, and the put of `b`.
        let changes = phone.changes(Some(start)).await;
        let positions = changes
            .entries
            .iter()
            .map(|entry| entry.position.0 - start.0);
        assert_eq!(positions.collect::<Vec<_>>(), [4, 5, 7], "{meeting:?}");
        assert_eq!(phone.text(&b).await.as_deref(), Some("{\"n\":3}"));
        let tablet = store.device(&phone.user, &device_id("TABLET")).await;
        let incarnation = tablet.unwrap().unwrap().incarnation;
        assert_eq!(incarnation, Incarnation(start.0 + 2), "{meeting:?}");
    }
    ground.assert_sound();
}

/// Entries come, grow, shrink, go, are collected and come back: in one write, in one batch, and in
/// several. What is remembered of their rows and sizes is what the file holds.
#[tokio::test]
async fn an_entry_that_goes_and_comes_back_is_counted_as_it_is() {
    let limits = Limits {
        tombstones_max: 1,
        ..Limits::default()
    };
    let ground = Ground::with(limits).await;
    for (number, meeting) in meetings().enumerate() {
        let (phone, _) = ground.user(&format!("user{number}")).await;
        let (a, b) = (global("a"), global("b"));
        let put = |key: &Key, text| Op::Put(key.clone(), content(text), Expectation::default());
        let delete = |key: &Key| Op::Delete(key.clone());
        let expected = Expectation {
            stable: Some("other".to_owned()),
            unstable: None,
        };
        let conflict = Op::Put(a.clone(), content("{\"n\":9}"), expected);
        let writes = vec![
            (vec![put(&a, "{\"m.revision_id\":\"1\"}")], true),
            (vec![put(&a, "{\"m.revision_id\":\"1\",\"n\":2}")], true),
            (vec![put(&a, "{\"m.revision_id\":\"1\"}")], true),
            (vec![put(&b, "{\"n\":1}"), conflict.clone()], false),
            (vec![put(&a, "{}"), delete(&a), put(&a, "{\"n\":3}")], true),
            (vec![delete(&a)], true),
            (vec![put(&b, "{\"n\":22}"), delete(&b)], true),
            // The tombstone of `a` was collected.
            (vec![put(&a, "{\"n\":4444}")], true),
            (vec![put(&b, "{\"n\":5}")], true),
            (vec![put(&a, "{\"n\":66}")], true),
        ];
        let racers = writes.into_iter().map(|(ops, is_done)| {
            let phone = phone.clone();
            boxed(async move { phone.apply(ops).await.is_ok() == is_done })
        });
        let told = ground
            .race(meeting, racers.collect(), async |_, _| {})
            .await;
        assert_eq!(told, [true; 10], "{meeting:?}");
        let read = (phone.text(&a).await, phone.text(&b).await);
        let texts = (read.0.as_deref(), read.1.as_deref());
        assert_eq!(
            texts,
            (Some("{\"n\":66}"), Some("{\"n\":5}")),
            "{meeting:?}"
        );
    }
    ground.assert_sound();
}

/// The disk fails at each sync and write of a put, and the puts behind it go on from what is there.
#[tokio::test]
async fn a_batch_that_fails_is_not_remembered() {
    for (call, nth) in [(Call::Sync, 1), (Call::Write, 1), (Call::Write, 3)] {
        let (disk, dir) = (Disk::new(), tempfile::tempdir().unwrap());
        let mut options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        options.vfs = Some(disk.name().to_owned());
        options.opener = Some(FileOpener::new(disk.opener()));
        let sqlite = Arc::new(SqliteStore::open(dir.path(), options).unwrap());
        let store: Arc<dyn Store> = sqlite.clone();
        let alice = Actor::register(&store, "alice").await;
        let before = alice.put(&global("a"), "{\"n\":0}").await;
        disk.fail(Fault::next(call, Error::Io).of(Part::Log).nth(nth));
        assert!(alice.try_put(&global("b"), "{}").await.is_err());
        let other = global("c");
        let again = async { while alice.try_put(&other, "{}").await.is_err() {} };
        in_time("a write that succeeds", again).await;
        let after = alice.head().await;
        let is_there = alice.entry(&global("b")).await.is_some();
        let expected = Position(before.0 + 1 + u64::from(is_there));
        assert_eq!(after, expected, "{call:?} {nth}");
        sqlite.close();
        disk.clear();
        assert_sound(&dir);
    }
}

/// Not supported, and all the same no position is given out twice, and no device outlives its end.
#[tokio::test]
async fn what_another_program_wrote_is_seen_by_the_next_write() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(ServerName::parse("localhost").unwrap(), 1);
    let sqlite = Arc::new(SqliteStore::open(dir.path(), options).unwrap());
    let store: Arc<dyn Store> = sqlite.clone();
    let alice = Actor::register(&store, "alice").await;
    let before = alice.put(&global("a"), "{\"n\":0}").await;
    let other = Connection::open(dir.path().join("kitbag.db")).unwrap();
    let moved = "UPDATE users SET position = position + 10";
    assert_eq!(other.execute(moved, []).unwrap(), 1);
    let after = alice.put(&global("a"), "{\"n\":1}").await;
    assert_eq!(after, Position(before.0 + 11));
    let ended = "PRAGMA foreign_keys = ON; DELETE FROM devices";
    other.execute_batch(ended).unwrap();
    assert!(alice.try_put(&global("a"), "{\"n\":2}").await.is_err());
    drop(other);
    sqlite.close();
    assert_sound(&dir);
}

/// A connection that was opened anew counts other programs' writes from the beginning, and so comes to
/// the number that the one before it had.
#[tokio::test]
async fn what_another_program_wrote_before_a_recovery_is_seen_behind_it() {
    let (disk, dir) = (Disk::new(), tempfile::tempdir().unwrap());
    let mut options = Options::new(ServerName::parse("localhost").unwrap(), 1);
    options.vfs = Some(disk.name().to_owned());
    options.opener = Some(FileOpener::new(disk.opener()));
    let sqlite = Arc::new(SqliteStore::open(dir.path(), options).unwrap());
    let store: Arc<dyn Store> = sqlite.clone();
    let alice = Actor::register(&store, "alice").await;
    alice.put(&global("a"), "{}").await;
    let (file, flags) = (dir.path().join("kitbag.db"), OpenFlags::default());
    let other = Connection::open_with_flags_and_vfs(file, flags, disk.name()).unwrap();
    let ended = "PRAGMA foreign_keys = ON; DELETE FROM devices";
    other.execute_batch(ended).unwrap();
    // The log is read anew because of what the other one wrote, before the batch could look.
    disk.fail(Fault::next(Call::Read, Error::Io).of(Part::Log));
    let key = global("a");
    let put = || alice.try_put(&key, "{\"n\":1}");
    let failed = put().await;
    let is_refused = matches!(failed, Err(ApplyError::Store(StoreError::Unavailable(_))));
    assert!(is_refused && disk.faults() == 1, "{failed:?}");
    let answer = async {
        loop {
            match put().await {
                Err(ApplyError::Store(StoreError::Unavailable(_))) => {}
                answer => break answer,
            }
        }
    };
    let answer = in_time("an answer of the store", answer).await;
    assert_eq!(answer, Err(ApplyError::Refused(Refusal::SessionGone)));
    drop(other);
    sqlite.close();
    assert_sound(&dir);
}
