//! The copy before a mending.

use kitbag_store_sqlite::OpenError;
use kitbag_store_sqlite::check::{self, Mending};

use crate::Ground;

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
