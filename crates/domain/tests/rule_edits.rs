//! Edits of push rules are worked out before the transaction, and lose nothing for that.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use kitbag_domain::{AccountData, Content, Limits, MemoryStore, PushRules, Store};
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::rules::{PlainRules, adding};
use kitbag_testkit::{Actor, content};

#[tokio::test]
async fn an_edit_is_made_once_more_where_another_came_first() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Limits::default(), 7));
    let phone = Actor::register(&store, "alice").await.requester();
    let rules = Arc::new(PlainRules::default());
    let (rules_too, clock) = (Arc::clone(&rules), Arc::new(TestClock::default()));
    let service = AccountData::new(store, rules_too, clock, Arc::new(Limits::default()));
    let edit = |other: Option<&'static str>| {
        let (service, phone) = (service.clone(), phone.clone());
        let all_seen = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&all_seen);
        let edit = move |stored: Option<&Content>| {
            let mut seen = seen.lock().unwrap();
            seen.push(stored.map_or(String::new(), |stored| stored.as_str().to_owned()));
            if let Some(other) = other.filter(|_| seen.len() == 1) {
                let edited = service.edit_push_rules(&phone, adding(other));
                let edited = pin!(edited).poll(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(edited, Poll::Ready(Ok(_))), "memory needs no time");
            }
            adding("mine")(stored)
        };
        (edit, all_seen)
    };
    let (undisturbed, seen) = edit(None);
    service.edit_push_rules(&phone, undisturbed).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [""], "once");
    let (disturbed, seen) = edit(Some("other"));
    service.edit_push_rules(&phone, disturbed).await.unwrap();
    let all = ["{\"mine\":{}}", "{\"mine\":{},\"other\":{}}"];
    assert_eq!(*seen.lock().unwrap(), all, "once more");
    let stored = content("{\"mine\":{},\"other\":{},\"mine\":{}}");
    let served = rules.served(&phone.user, Some(&stored));
    assert_eq!(service.push_rules(&phone).await, Ok(served));
}
