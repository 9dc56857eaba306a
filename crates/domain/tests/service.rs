//! The service that every door uses: who may write, what is refused first, and what syncs tell.

use std::sync::Arc;

use kitbag_domain::{
    AccountData, Content, ContentError, Expectation, GetError, InitialSnapshot, Key, Limits,
    MemoryStore, PermitError, Position, PushRules, PushRulesWriteError, Quota, QuotaExceeded,
    Requester, RevisionNames, Snapshot, Store, SyncToken, WriteError,
};
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::rules::{PlainRules, adding};
use kitbag_testkit::{Actor, content, device_key, global, room_key};

/// Alice with the devices `PHONE` and `LAPTOP`, and the service over her store.
struct Ground {
    phone: Actor,
    laptop: Actor,
    service: AccountData,
    clock: Arc<TestClock>,
    rules: Arc<PlainRules>,
}

impl Ground {
    async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(limits.clone(), 7));
        let phone = Actor::register(&store, "alice").await;
        let laptop = phone.login("LAPTOP").await;
        let clock = Arc::new(TestClock::default());
        let rules = Arc::new(PlainRules::default());
        let (rules_too, clock_too) = (Arc::clone(&rules), Arc::clone(&clock));
        let service = AccountData::new(store, rules_too, clock_too, Arc::new(limits));
        Self {
            phone,
            laptop,
            service,
            clock,
            rules,
        }
    }

    async fn permit(&self, requester: &Requester, key: Key) -> Result<(), PermitError> {
        self.service.permit(requester, key).await.map(drop)
    }

    async fn put(&self, actor: &Actor, key: &Key, text: &str) -> Result<Position, WriteError> {
        self.swap(actor, key, text, Expectation::default()).await
    }

    async fn swap(
        &self,
        actor: &Actor,
        key: &Key,
        text: &str,
        expectation: Expectation,
    ) -> Result<Position, WriteError> {
        let requester = actor.requester();
        let permit = self.service.permit(&requester, key.clone()).await;
        let permit = permit.expect("the write is permitted");
        permit.put(content(text), expectation).await
    }

    async fn initial(&self) -> InitialSnapshot {
        let initial = self.service.initial(&self.phone.requester()).await;
        initial.expect("the store in memory does not fail")
    }

    async fn since(&self, token: Option<SyncToken>) -> Snapshot {
        let requester = self.phone.requester();
        let snapshot = self.service.since(&requester, token).await;
        snapshot.expect("the store in memory does not fail")
    }
}

fn without_device(actor: &Actor) -> Requester {
    Requester {
        device: None,
        ..actor.requester()
    }
}

fn managed(event_type: &str) -> PermitError {
    PermitError::ServerManaged(kitbag_testkit::event_type(event_type))
}

#[tokio::test]
async fn every_device_writes_global_and_room_entries() {
    let ground = Ground::new().await;
    let requesters = [
        ground.phone.requester(),
        ground.laptop.requester(),
        without_device(&ground.phone),
    ];
    for requester in requesters {
        for key in [global("a"), room_key("!r", "a")] {
            assert_eq!(ground.permit(&requester, key).await, Ok(()));
        }
    }
}

#[tokio::test]
async fn only_the_device_itself_writes_its_entries() {
    let ground = Ground::new().await;
    let own = ground.phone.own_key("a");
    let phone = ground.phone.requester();
    assert_eq!(ground.permit(&phone, own.clone()).await, Ok(()));
    for other in [ground.laptop.requester(), without_device(&ground.phone)] {
        let refused = ground.permit(&other, own.clone()).await;
        assert_eq!(refused, Err(PermitError::NotOwnDevice));
    }
}

#[tokio::test]
async fn the_device_is_looked_for_before_the_type_and_the_type_before_the_owner() {
    let ground = Ground::new().await;
    let phone = ground.phone.requester();
    for event_type in ["m.push_rules", "m.fully_read", "a"] {
        let missing = ground
            .permit(&phone, device_key("NOBODY", event_type))
            .await;
        assert_eq!(missing, Err(PermitError::NoSuchDevice), "{event_type}");
    }
    for event_type in ["m.push_rules", "m.fully_read"] {
        for key in [
            ground.laptop.own_key(event_type),
            ground.phone.own_key(event_type),
            global(event_type),
            room_key("!r", event_type),
        ] {
            let refused = ground.permit(&phone, key).await;
            assert_eq!(refused, Err(managed(event_type)));
        }
    }
}

#[tokio::test]
async fn another_users_device_is_not_there() {
    let ground = Ground::new().await;
    let bob = Actor::register(&ground.phone.store, "bob").await;
    bob.login("TABLET").await;
    let phone = ground.phone.requester();
    let refused = ground.permit(&phone, device_key("TABLET", "a")).await;
    assert_eq!(refused, Err(PermitError::NoSuchDevice));
}

#[tokio::test]
async fn a_write_bears_the_device_its_agent_and_the_clocks_time() {
    let ground = Ground::new().await;
    ground.clock.set(12_345);
    ground.put(&ground.phone, &global("a"), "{}").await.unwrap();
    let entry = ground.phone.entry(&global("a")).await.unwrap();
    assert_eq!(entry.written_at, 12_345);
    assert_eq!(entry.writer, ground.phone.requester().writer());
}

#[tokio::test]
async fn nobody_ignores_themselves() {
    let ground = Ground::new().await;
    let list = "m.ignored_user_list";
    let own = r#"{"ignored_users":{"@bob:x":{},"@alice:localhost":{}}}"#;
    let refused = ground.put(&ground.phone, &global(list), own).await;
    assert_eq!(refused, Err(WriteError::IgnoresSelf));
    assert_eq!(ground.phone.entry(&global(list)).await, None);
    for text in [
        r#"{"ignored_users":{"@bob:x":{}}}"#,
        r#"{"ignored_users":["@alice:localhost"]}"#,
        r#"{"@alice:localhost":{}}"#,
        "{}",
    ] {
        let put = ground.put(&ground.phone, &global(list), text).await;
        assert!(put.is_ok(), "{text}");
    }
    for key in [
        room_key("!r", list),
        ground.phone.own_key(list),
        global("a"),
    ] {
        assert!(
            ground.put(&ground.phone, &key, own).await.is_ok(),
            "{key:?}"
        );
    }
}

#[tokio::test]
async fn device_contents_have_a_limit_of_their_own() {
    let limits = Limits {
        device_content_bytes_max: 10,
        ..Limits::default()
    };
    let ground = Ground::with(limits).await;
    let own = ground.phone.own_key("a");
    ground
        .put(&ground.phone, &own, "{\"a\":1234}")
        .await
        .unwrap();
    let larger = ground.put(&ground.phone, &own, "{\"a\":12345}").await;
    let error = ContentError::TooLarge { limit_bytes: 10 };
    assert_eq!(larger, Err(WriteError::Content(error)));
    for key in [global("a"), room_key("!r", "a")] {
        let put = ground.put(&ground.phone, &key, "{\"a\":12345}").await;
        assert!(put.is_ok());
    }
}

#[tokio::test]
async fn a_conflict_names_the_names_that_were_used() {
    let ground = Ground::new().await;
    let stored = r#"{"m.revision_id":"S","com.beeper.revision_id":"U"}"#;
    ground
        .put(&ground.phone, &global("a"), stored)
        .await
        .unwrap();
    let wrong = Some("x".to_owned());
    for (stable, unstable, names) in [
        (wrong.clone(), None, RevisionNames::Stable),
        (None, wrong.clone(), RevisionNames::Unstable),
        (wrong.clone(), wrong.clone(), RevisionNames::Stable),
    ] {
        let expectation = Expectation { stable, unstable };
        let key = global("a");
        let swap = ground.swap(&ground.laptop, &key, "{}", expectation);
        let current = content(stored);
        assert_eq!(swap.await, Err(WriteError::Conflict { current, names }));
    }
}

#[tokio::test]
async fn a_full_quota_is_told() {
    let limits = Limits {
        quota: Quota {
            entries_max: 0,
            ..Quota::default()
        },
        ..Limits::default()
    };
    let ground = Ground::with(limits).await;
    let put = ground.put(&ground.phone, &global("a"), "{}").await;
    let full = QuotaExceeded::Entries { limit: 0 };
    assert_eq!(put, Err(WriteError::Quota(full)));
}

#[tokio::test]
async fn a_permit_does_not_outlive_the_session() {
    let ground = Ground::new().await;
    let requester = ground.laptop.requester();
    for key in [global("a"), ground.laptop.own_key("a")] {
        let laptop = ground.phone.login("LAPTOP").await;
        let requester = Requester {
            device: laptop.requester().device,
            ..requester.clone()
        };
        let put = ground
            .service
            .permit(&requester, key.clone())
            .await
            .unwrap();
        let delete = ground
            .service
            .permit(&requester, key.clone())
            .await
            .unwrap();
        laptop.log_out().await;
        let gone = put.put(content("{}"), Expectation::default()).await;
        assert_eq!(gone, Err(WriteError::SessionGone));
        assert_eq!(delete.delete().await, Err(WriteError::SessionGone));
        assert_eq!(ground.phone.entry(&key).await, None);
    }
}

#[tokio::test]
async fn delete_tells_whether_something_was_there() {
    let ground = Ground::new().await;
    let requester = ground.phone.requester();
    let key = global("a");
    let put = ground.put(&ground.phone, &key, "{}").await.unwrap();
    let permit = ground
        .service
        .permit(&requester, key.clone())
        .await
        .unwrap();
    assert!(permit.delete().await.unwrap() > Some(put));
    let permit = ground.service.permit(&requester, key).await.unwrap();
    assert_eq!(permit.delete().await, Ok(None));
}

#[tokio::test]
async fn push_rules_are_served_at_global_scope_only() {
    let ground = Ground::new().await;
    let phone = ground.phone.requester();
    let served = ground.service.push_rules(&phone).await.unwrap();
    assert_eq!(served, ground.rules.served(&phone.user, None));
    let key = global("m.push_rules");
    assert_eq!(ground.service.get(&phone, &key).await, Ok(served));
    for key in [
        room_key("!r", "m.push_rules"),
        ground.phone.own_key("m.push_rules"),
        global("m.fully_read"),
    ] {
        assert_eq!(
            ground.service.get(&phone, &key).await,
            Err(GetError::NotFound)
        );
    }
}

#[tokio::test]
async fn siblings_read_and_list_a_devices_entries() {
    let ground = Ground::new().await;
    let key = ground.laptop.own_key("a");
    ground.put(&ground.laptop, &key, "{ }").await.unwrap();
    let phone = ground.phone.requester();
    assert_eq!(ground.service.get(&phone, &key).await, Ok(content("{ }")));
    for device in [None, Some(ground.laptop.device.clone())] {
        let devices = ground.service.devices(&phone, device).await.unwrap();
        let laptop = &devices[0];
        assert_eq!(laptop.device.id, ground.laptop.device);
        let keys: Vec<_> = laptop.entries.iter().map(|entry| &entry.key).collect();
        assert_eq!(keys, [&key]);
    }
    let bob = Actor::register(&ground.phone.store, "bob")
        .await
        .requester();
    assert_eq!(
        ground.service.get(&bob, &key).await,
        Err(GetError::NotFound)
    );
    let laptop = Some(ground.laptop.device.clone());
    assert_eq!(ground.service.devices(&bob, laptop).await, Ok(Vec::new()));
}

#[tokio::test]
async fn an_initial_sync_has_the_push_rules_and_no_tombstones() {
    let ground = Ground::new().await;
    ground.put(&ground.phone, &global("a"), "{}").await.unwrap();
    ground.put(&ground.phone, &global("b"), "{}").await.unwrap();
    ground.phone.delete(&global("b")).await;
    let first = ground.since(None).await;
    assert!(first.is_full && first.push_rules.is_some());
    assert_eq!(first.entries.len(), 1);
    let next = ground.since(Some(first.next)).await;
    assert!(!next.is_full && next.push_rules.is_none() && next.entries.is_empty());
    assert_eq!(next.next, first.next);
}

#[tokio::test]
async fn new_default_rules_are_told_once() {
    let ground = Ground::new().await;
    let first = ground.since(None).await;
    ground.rules.set_fingerprint(2);
    let second = ground.since(Some(first.next)).await;
    assert!(!second.is_full && second.push_rules.is_some());
    assert_eq!(ground.since(Some(second.next)).await.push_rules, None);
}

#[tokio::test]
async fn edited_push_rules_are_told_as_served_and_never_as_an_entry() {
    let ground = Ground::new().await;
    let phone = ground.phone.requester();
    let first = ground.since(None).await;
    let edited = ground.service.edit_push_rules(&phone, adding("a")).await;
    let served = ground
        .rules
        .served(&phone.user, Some(&content("{\"a\":{}}")));
    assert_eq!(ground.service.push_rules(&phone).await, Ok(served.clone()));
    let key = global("m.push_rules");
    assert_eq!(ground.service.get(&phone, &key).await, Ok(served.clone()));
    let initial = ground.initial().await;
    assert_eq!(initial.push_rules, served);
    assert_eq!(initial.entries().count(), 0);
    assert_eq!(Ok(initial.next.position), edited);
    for since in [None, Some(first.next)] {
        let snapshot = ground.since(since).await;
        assert_eq!(snapshot.push_rules.as_ref(), Some(&served));
        assert_eq!(snapshot.entries, []);
        assert_eq!(Ok(snapshot.next.position), edited);
    }
    let next = ground.since(None).await.next;
    assert_eq!(ground.since(Some(next)).await.push_rules, None);
}

#[tokio::test]
async fn of_edits_of_two_devices_none_is_lost() {
    let ground = Ground::new().await;
    let mut editing = Vec::new();
    for number in 0..40 {
        let device = [&ground.phone, &ground.laptop][number % 2].requester();
        let service = ground.service.clone();
        editing.push(tokio::spawn(async move {
            let edit = adding(&number.to_string());
            service.edit_push_rules(&device, edit).await.unwrap()
        }));
    }
    let mut positions = Vec::new();
    for edit in editing {
        positions.push(edit.await.unwrap());
    }
    positions.sort_unstable();
    positions.dedup();
    assert_eq!(positions.len(), 40, "each has a position of its own");
    let phone = ground.phone.requester();
    let served = ground.service.push_rules(&phone).await.unwrap();
    for number in 0..40 {
        assert!(served.as_str().contains(&format!("\"{number}\":")));
    }
}

#[tokio::test]
async fn a_refused_edit_changes_nothing() {
    let ground = Ground::new().await;
    let phone = ground.phone.requester();
    let edited = ground.service.edit_push_rules(&phone, adding("a")).await;
    let head = ground.since(None).await.next;
    assert_eq!(Ok(head.position), edited);
    let refuse = |_: Option<&Content>| Err("no such rule");
    let refused = ground.service.edit_push_rules(&phone, refuse).await;
    assert_eq!(refused, Err(PushRulesWriteError::Refused("no such rule")));
    assert_eq!(ground.since(Some(head)).await.next, head);
    ground.laptop.log_out().await;
    let laptop = ground.laptop.requester();
    let gone = ground.service.edit_push_rules(&laptop, adding("b")).await;
    assert_eq!(gone, Err(WriteError::SessionGone.into()));
}

#[tokio::test]
async fn edits_use_the_reserve_and_say_themselves_how_large_rules_are() {
    let limits = Limits {
        content_bytes_max: 20,
        quota: Quota {
            entries_max: 0,
            ..Quota::default()
        },
        ..Limits::default()
    };
    let ground = Ground::with(limits).await;
    let phone = ground.phone.requester();
    let edit = |rule: &str| ground.service.edit_push_rules(&phone, adding(rule));
    assert!(edit("a").await.is_ok(), "a full account edits its rules");
    assert!(edit("bcdefg").await.is_ok(), "20 bytes");
    // To switch a rule off can make them larger, and has to go.
    assert!(edit("i").await.is_ok(), "more than 20 bytes");
}

#[tokio::test]
async fn tokens_of_others_are_answered_as_an_initial_sync() {
    let ground = Ground::new().await;
    ground.put(&ground.phone, &global("a"), "{}").await.unwrap();
    let own = ground.since(None).await.next;
    let bob = Actor::register(&ground.phone.store, "bob")
        .await
        .requester();
    let of_bob = ground.service.since(&bob, None).await.unwrap().next;
    let of_another_epoch = SyncToken {
        epoch: own.epoch + 1,
        ..own
    };
    let future = own.at(own.position.next());
    let far_future = own.at(Position(u64::MAX));
    for token in [of_bob, of_another_epoch, future, far_future] {
        let snapshot = ground.since(Some(token)).await;
        assert!(snapshot.is_full, "{token:?}");
        assert!(snapshot.push_rules.is_some());
        assert_eq!(snapshot.entries.len(), 1);
        assert_eq!(snapshot.next, own, "the client goes on with a good one");
    }
}

#[tokio::test]
async fn tokens_older_than_the_horizon_are_answered_as_an_initial_sync() {
    let limits = Limits {
        tombstones_max: 0,
        ..Limits::default()
    };
    let ground = Ground::with(limits).await;
    let old = ground.since(None).await.next;
    ground.put(&ground.phone, &global("a"), "{}").await.unwrap();
    ground.phone.delete(&global("a")).await;
    let snapshot = ground.since(Some(old)).await;
    assert!(snapshot.is_full && snapshot.entries.is_empty());
    assert!(!ground.since(Some(snapshot.next)).await.is_full);
}

#[tokio::test]
async fn the_answer_stands_where_its_token_says() {
    let ground = Ground::new().await;
    let mut token = ground.since(None).await.next;
    for number in 0..5 {
        let put = ground
            .put(&ground.laptop, &global("a"), "{}")
            .await
            .unwrap();
        let snapshot = ground.since(Some(token)).await;
        assert_eq!(snapshot.next.position, put, "{number}");
        assert_eq!(snapshot.entries.len(), 1, "an equal content is echoed");
        token = snapshot.next;
    }
}

#[tokio::test]
async fn a_deletion_obeys_an_expectation_too() {
    let ground = Ground::new().await;
    let requester = ground.phone.requester();
    let key = global("a");
    let stored = r#"{"m.revision_id":"R"}"#;
    ground.put(&ground.phone, &key, stored).await.unwrap();
    let expecting = |revision: &str| Expectation {
        stable: Some(revision.to_owned()),
        unstable: None,
    };
    for (revision, is_there) in [("x", true), ("", true), ("R", false)] {
        let permit = ground.service.permit(&requester, key.clone()).await;
        let deleted = permit.unwrap().delete_expecting(expecting(revision)).await;
        let conflict = Err(WriteError::Conflict {
            current: content(stored),
            names: RevisionNames::Stable,
        });
        assert_eq!(deleted == conflict, is_there, "{deleted:?}");
        assert_eq!(ground.phone.entry(&key).await.is_some(), is_there);
    }
    let before = ground.since(None).await.next;
    let permit = ground.service.permit(&requester, key).await.unwrap();
    let position = permit.delete_expecting(expecting("x")).await.unwrap();
    let echo = ground.since(Some(before)).await.entries;
    assert_eq!(echo.len(), 1, "also where there was nothing (law 11)");
    assert_eq!((echo[0].position, &echo[0].content), (position, &None));
}

#[tokio::test]
async fn a_put_of_the_empty_object_deletes_where_the_server_says_so_and_not_at_device_scope() {
    let ground = Ground::new().await;
    let requester = ground.phone.requester();
    let put = async |key: &Key, text: &str| {
        let permit = ground.service.permit(&requester, key.clone()).await;
        let put = permit
            .unwrap()
            .put_or_delete(content(text), Expectation::default());
        put.await.unwrap();
        ground.phone.text(key).await
    };
    for key in [global("a"), room_key("!r", "a"), ground.phone.own_key("a")] {
        let is_device = key.scope.device().is_some();
        assert_eq!(put(&key, "{\"n\":1}").await.as_deref(), Some("{\"n\":1}"));
        let left = put(&key, "{ }").await;
        assert_eq!(left.as_deref(), is_device.then_some("{ }"), "{key:?}");
    }
}

#[tokio::test]
async fn a_full_account_may_delete_by_a_put() {
    let limits = Limits {
        quota: Quota {
            entries_max: 1,
            ..Quota::default()
        },
        ..Limits::default()
    };
    let ground = Ground::with(limits).await;
    ground.put(&ground.phone, &global("a"), "{}").await.unwrap();
    let requester = ground.phone.requester();
    // What is not there too: the put that compares needs room, though nothing of it stays.
    for key in [global("b"), global("a")] {
        let permit = ground.service.permit(&requester, key).await.unwrap();
        let deleted = permit.delete_expecting(Expectation::default()).await;
        assert!(deleted.is_ok(), "{deleted:?}");
    }
    assert_eq!(ground.phone.entry(&global("a")).await, None);
}
