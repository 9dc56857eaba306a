//! What an operator writes into users' account data: past the owner, and past nothing else.

use std::sync::Arc;

use kitbag_domain::{
    AccountData, ContentError, Expectation, Key, Limits, MemoryStore, Operator, OperatorWriteError,
    Position, Quota, QuotaExceeded, RevisionNames, Store, WriteError, Writer,
};
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::rules::PlainRules;
use kitbag_testkit::{Actor, content, device_key, event_type, global, room_key, user_id};

struct Ground {
    phone: Actor,
    operator: Operator,
    clock: Arc<TestClock>,
}

impl Ground {
    async fn new(limits: Limits) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(limits.clone(), 7));
        let phone = Actor::register(&store, "alice").await;
        let clock = Arc::new(TestClock::default());
        let (rules, time) = (Arc::new(PlainRules::default()), Arc::clone(&clock));
        let service = AccountData::new(store, rules, time, Arc::new(limits));
        Self {
            phone,
            operator: service.operator(),
            clock,
        }
    }

    async fn put(&self, key: &Key, text: &str) -> Result<Position, OperatorWriteError> {
        self.swap(key, text, Expectation::default()).await
    }

    async fn swap(
        &self,
        key: &Key,
        text: &str,
        expectation: Expectation,
    ) -> Result<Position, OperatorWriteError> {
        let user = &self.phone.user;
        let put = self
            .operator
            .put(user, key.clone(), content(text), expectation);
        put.await
    }

    async fn delete(&self, key: &Key) -> Result<Option<Position>, OperatorWriteError> {
        self.operator.delete(&self.phone.user, key.clone()).await
    }
}

#[tokio::test]
async fn an_operator_writes_in_every_scope_and_is_recorded() {
    let ground = Ground::new(Limits::default()).await;
    ground.clock.set(4_711);
    let own = ground.phone.own_key("a");
    for key in [global("a"), room_key("!r", "a"), own] {
        let position = ground.put(&key, "{\"b\": 1}").await.unwrap();
        let entry = ground.phone.entry(&key).await.unwrap();
        assert_eq!(entry.writer, Writer::Admin, "{key:?}");
        assert_eq!((entry.position, entry.written_at), (position, 4_711));
        assert_eq!(entry.content, Some(content("{\"b\": 1}")));

        let deleted = ground.delete(&key).await.unwrap();
        assert!(deleted > Some(position), "the user is told");
        assert_eq!(ground.phone.entry(&key).await, None);
        assert_eq!(ground.delete(&key).await, Ok(None));
    }
}

#[tokio::test]
async fn what_the_server_manages_is_the_operators_neither() {
    let ground = Ground::new(Limits::default()).await;
    for managed in ["m.push_rules", "m.fully_read"] {
        let refused = OperatorWriteError::ServerManaged(event_type(managed));
        let own = ground.phone.own_key(managed);
        for key in [global(managed), room_key("!r", managed), own] {
            assert_eq!(ground.put(&key, "{}").await, Err(refused.clone()));
            assert_eq!(ground.delete(&key).await, Err(refused.clone()));
        }
    }
}

#[tokio::test]
async fn accounts_and_devices_must_be_there() {
    let ground = Ground::new(Limits::default()).await;
    let missing = Err(OperatorWriteError::NoSuchDevice);
    assert_eq!(ground.put(&device_key("OTHER", "a"), "{}").await, missing);
    let missing = Err(OperatorWriteError::NoSuchAccount);
    let nobody = user_id("nobody");
    let put = ground
        .operator
        .put(&nobody, global("a"), content("{}"), Expectation::default());
    assert_eq!(put.await, missing);
    let user = &ground.phone.user;
    ground
        .phone
        .store
        .deactivate(user, ground.phone.write())
        .await
        .unwrap();
    assert_eq!(ground.put(&global("a"), "{}").await, missing);
}

#[tokio::test]
async fn limits_quotas_and_expectations_hold() {
    let quota = Quota {
        entries_max: 1,
        ..Quota::default()
    };
    let ground = Ground::new(Limits {
        device_content_bytes_max: 10,
        quota,
        ..Limits::default()
    })
    .await;
    let own = ground.phone.own_key("a");
    let large = Err(WriteError::Content(ContentError::TooLarge { limit_bytes: 10 }).into());
    assert_eq!(ground.put(&own, "{\"a\":12345}").await, large);
    let key = global("m.ignored_user_list");
    let text = format!("{{\"ignored_users\":{{\"{}\":{{}}}}}}", ground.phone.user);
    assert_eq!(
        ground.put(&key, &text).await,
        Err(WriteError::IgnoresSelf.into())
    );

    let first = "{\"m.revision_id\":\"1\"}";
    ground.put(&global("a"), first).await.unwrap();
    let expectation = Expectation {
        stable: Some("2".to_owned()),
        unstable: None,
    };
    let conflict = WriteError::Conflict {
        current: content(first),
        names: RevisionNames::Stable,
    };
    let late = ground.swap(&global("a"), "{}", expectation).await;
    assert_eq!(late, Err(conflict.into()));
    let full = WriteError::Quota(QuotaExceeded::Entries { limit: 1 });
    assert_eq!(ground.put(&own, "{}").await, Err(full.into()));
    assert!(
        ground.put(&global("a"), "{}").await.is_ok(),
        "no more than before"
    );
}
