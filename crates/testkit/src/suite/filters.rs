use kitbag_domain::{FilterError, Limits};

use crate::{Actor, Opener};

async fn add(actor: &Actor, filter: &str) -> Result<u64, FilterError> {
    let filter = filter.to_owned();
    actor
        .store
        .add_filter(&actor.user, actor.guard(), filter)
        .await
}

async fn text(actor: &Actor, id: u64) -> Option<String> {
    let filter = actor.store.filter(&actor.user, id).await.unwrap();
    filter.map(|filter| filter.to_string())
}

pub async fn a_filter_comes_back_as_it_was(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let head = alice.head().await;
    let ids = [
        add(&alice, "{ \"a\":1}").await.unwrap(),
        add(&alice, "{}").await.unwrap(),
    ];
    assert_ne!(ids[0], ids[1]);
    assert_eq!(text(&alice, ids[0]).await.as_deref(), Some("{ \"a\":1}"));
    assert_eq!(text(&alice, ids[1]).await.as_deref(), Some("{}"));
    assert_eq!(text(&alice, ids[0].max(ids[1]) + 1).await, None);
    assert_eq!(text(&alice, u64::MAX).await, None);
    assert_eq!(alice.head().await, head, "filters are no account data");
}

pub async fn equal_filters_are_kept_once(open: Opener) {
    let limits = Limits {
        filters_max: 2,
        ..Limits::default()
    };
    let fixture = open.open_with(limits).await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let laptop = alice.login("LAPTOP").await;
    let first = add(&alice, "{}").await.unwrap();
    assert_eq!(add(&laptop, "{}").await, Ok(first));
    add(&alice, "{\"a\":1}").await.unwrap();
    let full = Err(FilterError::TooMany { limit: 2 });
    assert_eq!(add(&alice, "{\"a\":2}").await, full);
    assert_eq!(add(&alice, "{}").await, Ok(first), "known ones stay");
    let bob = Actor::register(&fixture.store(), "bob").await;
    add(&bob, "{\"a\":2}").await.unwrap();
}

pub async fn filters_belong_to_their_users(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let bob = Actor::register(&fixture.store(), "bob").await;
    let id = add(&alice, "{\"of\":\"alice\"}").await.unwrap();
    assert_eq!(text(&bob, id).await, None);
    let own = add(&bob, "{\"of\":\"bob\"}").await.unwrap();
    assert_eq!(text(&bob, own).await.as_deref(), Some("{\"of\":\"bob\"}"));
    assert_eq!(
        text(&alice, id).await.as_deref(),
        Some("{\"of\":\"alice\"}")
    );
}
