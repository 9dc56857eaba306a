use kitbag_domain::{Expectation, Limits, Op, Quota, QuotaExceeded, Refusal};

use crate::suite::refusal;
use crate::{Actor, Opener, content, global, room_key};

fn stable(revision: &str) -> Expectation {
    Expectation {
        stable: Some(revision.to_owned()),
        unstable: None,
    }
}

fn unstable(revision: &str) -> Expectation {
    Expectation {
        stable: None,
        unstable: Some(revision.to_owned()),
    }
}

pub async fn only_the_expected_revision_is_replaced(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    for key in [global("a"), room_key("!r", "a"), alice.own_key("a")] {
        alice.put(&key, r#"{"m.revision_id":"1"}"#).await;
        let head = alice.head().await;
        let swap = alice.try_swap(&key, "{}", stable("0")).await;
        let current = content(r#"{"m.revision_id":"1"}"#);
        assert_eq!(refusal(swap.unwrap_err()), Refusal::Conflict { current });
        assert_eq!(alice.head().await, head, "a refusal takes no position");
        let swap = alice.try_swap(&key, r#"{"m.revision_id":"2"}"#, stable("1"));
        assert!(swap.await.unwrap() > head);
        let swap = alice.try_swap(&key, "{}", stable("1")).await;
        assert!(swap.is_err(), "the revision was used up");
    }
}

pub async fn what_has_no_string_revision_matches_any_expectation(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let key = global("a");
    assert!(
        alice.try_swap(&key, "{}", stable("x")).await.is_ok(),
        "absent"
    );
    alice.delete(&key).await;
    for stored in [
        "{}",
        r#"{"m.revision_id":7}"#,
        r#"{"m.revision_id":null}"#,
        r#"{"a":{"m.revision_id":"y"}}"#,
        r#"{"com.beeper.revision_id":"y"}"#,
    ] {
        let swap = alice.try_swap(&key, stored, stable("x")).await;
        assert!(swap.is_ok(), "before {stored}");
        assert!(
            alice.try_swap(&key, stored, stable("x")).await.is_ok(),
            "{stored}"
        );
    }
}

pub async fn a_deleted_entry_has_no_revision(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let key = global("a");
    alice.put(&key, r#"{"m.revision_id":"1"}"#).await;
    alice.delete(&key).await;
    assert!(alice.try_swap(&key, "{}", stable("x")).await.is_ok());
}

pub async fn name_forms_are_compared_each_with_its_own(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let key = global("a");
    let stored = r#"{"m.revision_id":"S","com.beeper.revision_id":"U"}"#;
    alice.put(&key, stored).await;
    let both = |stable: &str, unstable: &str| Expectation {
        stable: Some(stable.to_owned()),
        unstable: Some(unstable.to_owned()),
    };
    for expectation in [stable("U"), unstable("S"), both("S", "x"), both("x", "U")] {
        let swap = alice.try_swap(&key, stored, expectation.clone()).await;
        assert!(swap.is_err(), "{expectation:?}");
    }
    for expectation in [stable("S"), unstable("U"), both("S", "U")] {
        let swap = alice.try_swap(&key, stored, expectation.clone()).await;
        assert!(swap.is_ok(), "{expectation:?}");
    }
}

pub async fn an_unconditional_put_replaces_any_revision(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    alice.put(&global("a"), r#"{"m.revision_id":"1"}"#).await;
    alice.put(&global("a"), "{}").await;
    assert_eq!(alice.text(&global("a")).await.as_deref(), Some("{}"));
}

pub async fn a_conflict_is_told_before_a_full_quota(open: Opener) {
    let quota = Quota {
        entries_max: 1,
        bytes_max: 40,
        ..Quota::default()
    };
    let limits = Limits {
        quota,
        ..Limits::default()
    };
    let fixture = open.open_with(limits).await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let (key, text) = (global("a"), r#"{"m.revision_id":"1"}"#);
    alice.put(&key, text).await;
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(100));
    let swap = alice.try_swap(&key, &large, stable("0")).await;
    let current = content(text);
    assert_eq!(refusal(swap.unwrap_err()), Refusal::Conflict { current });
    let swap = alice.try_swap(&key, &large, stable("1")).await;
    let full = Refusal::Quota(QuotaExceeded::Bytes { limit: 40 });
    assert_eq!(refusal(swap.unwrap_err()), full);
}

pub async fn a_missing_device_is_told_before_a_conflict(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let laptop = alice.login("LAPTOP").await;
    let key = laptop.own_key("a");
    laptop.put(&key, r#"{"m.revision_id":"1"}"#).await;
    laptop.log_out().await;
    let swap = alice.try_swap(&key, "{}", stable("0")).await;
    assert_eq!(refusal(swap.unwrap_err()), Refusal::NoSuchDevice);
}

pub async fn a_conflict_in_the_middle_undoes_the_rest(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let (a, b) = (global("a"), global("b"));
    alice.put(&b, r#"{"m.revision_id":"1"}"#).await;
    let before = alice.changes(None).await;
    let ops = vec![
        Op::Put(a.clone(), content("{}"), Expectation::default()),
        Op::Put(b.clone(), content("{}"), stable("0")),
    ];
    assert!(alice.apply(ops).await.is_err());
    assert_eq!(alice.changes(None).await, before);
    assert_eq!(alice.entry(&a).await, None);
}
