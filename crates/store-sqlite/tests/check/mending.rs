//! The copy before a mending, and what comes after one.

use std::fs;
use std::path::Path;

use kitbag_domain::{
    AccountStore as _, DeviceDataStore as _, DeviceSelection, EntryStore as _, FeedPosition,
    Position, Scope, Selector,
};
use kitbag_store_sqlite::check::{self, Mending};
use kitbag_store_sqlite::{OpenError, SqliteStore};
use tempfile::tempdir;

use crate::{Ground, options, put, user, write};

#[tokio::test]
async fn a_second_mending_within_a_second_has_a_copy_of_its_own() {
    let ground = Ground::new().await;
    for name in ["before-repair-now", "before-repair-now-2"] {
        ground.harm("UPDATE users SET entries = 9");
        let copy = ground.mend().copy.unwrap();
        assert_eq!(copy, ground.path().join(format!("kitbag.db.{name}")));
    }
    assert!(ground.check().is_sound());
}

#[tokio::test]
async fn a_mending_whose_copy_fails_leaves_nothing_behind() {
    let ground = Ground::new().await;
    ground.harm("UPDATE users SET entries = 9");
    let before = ground.files();
    // As long as a name may be, so that there is none for what is not finished.
    let mending = Mending {
        stamp: "x".repeat(230),
        epoch_seed: 8,
    };
    let failed = check::mend(ground.path(), &mending).unwrap_err();
    assert!(matches!(failed, OpenError::Io { .. }), "{failed}");
    assert_eq!(ground.files(), before);
    assert!(ground.check().is_mendable(), "and nothing was mended");
}

/// Returns what follows `after` in the feed: where it goes on, whether anew, and how many changes.
async fn followed(ground: &Ground, after: Option<FeedPosition>) -> (FeedPosition, bool, usize) {
    let store = SqliteStore::open(ground.path(), options()).unwrap();
    let changes = store.device_changes(after, 100).await.unwrap();
    assert!(!changes.has_more);
    (changes.next, changes.starts_anew, changes.changes.len())
}

#[tokio::test]
async fn after_a_mending_of_the_feed_who_follows_it_starts_anew() {
    for harm in [
        "UPDATE entries SET feed = NULL WHERE type = 'c'",
        "UPDATE store SET feed_head = 0",
        "UPDATE store SET feed_floor = 9",
        "DELETE FROM devices WHERE user = 1",
        "UPDATE users SET deactivated_at = 5 WHERE id = 1",
    ] {
        let ground = Ground::new().await;
        let (before, _, told) = followed(&ground, None).await;
        assert_eq!((before.number, told), (2, 2));
        ground.harm(harm);
        assert!(ground.mend().after.is_sound(), "{harm}");
        let (after, is_anew, _) = followed(&ground, Some(before)).await;
        assert!(is_anew, "{harm}");
        assert_eq!(
            followed(&ground, Some(after)).await,
            (after, false, 0),
            "{harm}"
        );
    }
    let ground = Ground::new().await;
    ground.harm("UPDATE store SET feed_floor = 9");
    ground.mend();
    let (after, _, _) = followed(&ground, None).await;
    assert!(
        after.number > 9,
        "a number that was told is not given again"
    );
    let ground = Ground::new().await;
    let (before, _, _) = followed(&ground, None).await;
    ground.harm("UPDATE users SET entries = 9");
    ground.mend();
    assert_eq!(
        followed(&ground, Some(before)).await,
        (before, false, 0),
        "a count"
    );
}

#[tokio::test]
async fn a_store_of_format_1_is_checked_and_mended_as_it_is() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format_v1.db");
    let ground = Ground {
        dir: tempdir().unwrap(),
    };
    fs::copy(fixture, ground.file()).unwrap();
    assert!(ground.check().is_sound());
    ground.harm("DELETE FROM devices");
    let mended = ground.mend();
    assert!(mended.after.is_sound() && !mended.mends.is_empty());
    assert_eq!(mended.after.format, 1);
}

#[tokio::test]
async fn a_mended_store_goes_on() {
    let ground = Ground::new().await;
    ground.harm(
        "DELETE FROM devices WHERE user = 1;
         UPDATE users SET position = 2, entries = 0, bytes = 0 WHERE id = 1",
    );
    let mended = ground.mend();
    let texts: Vec<_> = mended.mends.iter().map(|mend| mend.text.as_str()).collect();
    let expected = [
        "removed 1 session whose user or device is gone",
        "raised the position from 2 to 7",
        "deleted 2 entries of a device that is gone",
        "set the count to 2 entries of 17 bytes",
        "let what follows device data start anew, once",
        "drew a new epoch: each client syncs in full, once",
    ];
    assert_eq!(texts, expected);
    let store = SqliteStore::open(ground.path(), options()).unwrap();
    assert_eq!(
        store.info().epoch,
        8,
        "tokens of before are answered in full"
    );
    let changes = store
        .changes(&user("alice"), Some(Position(7)))
        .await
        .unwrap();
    let deleted = changes
        .entries
        .iter()
        .filter(|entry| entry.content.is_none());
    assert_eq!((deleted.count(), changes.head), (2, Position(9)));
    let applied = store
        .apply(&user("alice"), write(), vec![put(Scope::Global, "e", "{}")])
        .await
        .unwrap();
    assert_eq!(applied.positions, [Some(Position(10))]);
    let devices = store.remove_devices(&user("bob"), write(), DeviceSelection::All);
    assert_eq!(devices.await.unwrap().len(), 1);
    let left = store.list(&user("alice"), Selector::All).await.unwrap();
    assert_eq!(left.len(), 3);
    store.close();
    assert!(ground.check().is_sound());
}
