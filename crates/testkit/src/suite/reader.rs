use std::collections::BTreeMap;
use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use kitbag_domain::{AccountData, DeviceChange, DeviceSelection, EventType, Limits, Reader, Store};
use serde_json::{Value, json};

use crate::clock::TestClock;
use crate::gate::in_time;
use crate::rules::PlainRules;
use crate::{Actor, Opener, device_id, event_type, global, user_id};

/// What a caller reads contents as: an object of texts.
type Texts = BTreeMap<String, String>;

fn client() -> EventType {
    event_type("org.example.client")
}

fn reader(store: &Arc<dyn Store>) -> Reader {
    let clock = Arc::new(TestClock::default());
    let (rules, limits) = (Arc::new(PlainRules::default()), Limits::default());
    AccountData::new(Arc::clone(store), rules, clock, Arc::new(limits)).reader()
}

/// Makes a user with the device `PHONE`, which keeps this.
async fn device(store: &Arc<dyn Store>, localpart: &str, text: &str) -> Actor {
    let phone = Actor::register(store, localpart).await;
    phone.put(&phone.own_key(client().as_str()), text).await;
    phone
}

fn version(number: &str) -> Texts {
    Texts::from([("version".to_owned(), number.to_owned())])
}

pub async fn entries_are_read_as_a_type_of_the_caller(open: Opener) {
    let fixture = open.open().await;
    let (store, reader) = (fixture.store(), reader(&fixture.store()));
    let alice = device(&store, "alice", r#"{"version":"1.2"}"#).await;
    let (user, phone) = (&alice.user, &alice.device);
    let read = reader.device::<Texts>(user, phone, &client()).await;
    assert_eq!(read, Ok(Some(version("1.2"))));

    alice.put(&global("m.direct"), r#"{"a":["b"]}"#).await;
    let read = reader.get::<Value>(user, &global("m.direct")).await;
    assert_eq!(read, Ok(Some(json!({"a": ["b"]}))));
    let rules = global("m.push_rules");
    let read = reader.get::<Value>(user, &rules).await;
    assert!(read.unwrap().unwrap()["global"].is_object());
}

pub async fn what_is_not_there_is_read_as_nothing(open: Opener) {
    let fixture = open.open().await;
    let (store, reader) = (fixture.store(), reader(&fixture.store()));
    let alice = device(&store, "alice", r#"{"version":"1.2"}"#).await;
    for user in [&alice.user, &user_id("nobody")] {
        let read = reader.get::<Value>(user, &global("x")).await;
        assert_eq!(read, Ok(None));
    }
    let (other, wanted) = (device_id("OTHER"), client());
    let read = reader.device::<Texts>(&alice.user, &other, &wanted);
    assert_eq!(read.await, Ok(None));
    alice.delete(&alice.own_key(client().as_str())).await;
    let read = reader.device::<Texts>(&alice.user, &alice.device, &wanted);
    assert_eq!(read.await, Ok(None));
}

pub async fn pages_of_devices_are_read_and_one_that_is_wrong_hides_no_other(open: Opener) {
    let fixture = open.open().await;
    let (store, reader) = (fixture.store(), reader(&fixture.store()));
    device(&store, "alice", r#"{"version":"1"}"#).await;
    let bob = device(&store, "bob", r#"{"version":2}"#).await;
    let laptop = bob.login("A-LAPTOP").await;
    let key = laptop.own_key(client().as_str());
    laptop.put(&key, r#"{"version":"3"}"#).await;
    device(&store, "carol", r#"{"version":"4"}"#).await;

    let (mut after, mut read) = (None, Vec::new());
    loop {
        let page = reader.devices::<Texts>(&client(), after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2);
        after = Some(last.place());
        read.extend(page.into_iter().map(|found| {
            let value = found.value.map_err(|unreadable| unreadable.scope);
            (found.user.localpart().to_owned(), value)
        }));
    }
    let wrong = bob.own_key(client().as_str()).scope;
    let expected = [
        ("alice", Ok(version("1"))),
        ("bob", Ok(version("3"))),
        ("bob", Err(wrong)),
        ("carol", Ok(version("4"))),
    ];
    let expected = expected.map(|(user, value)| (user.to_owned(), value));
    assert_eq!(read, expected);
}

pub async fn who_follows_waits_until_there_is_something(open: Opener) {
    let fixture = open.open().await;
    let (store, reader) = (fixture.store(), reader(&fixture.store()));
    let alice = device(&store, "alice", "{}").await;
    let first = reader.next_device_changes(None, 10).await.unwrap();
    assert!(first.starts_anew);
    assert_eq!(first.changes.len(), 1);

    let mut next = pin!(reader.next_device_changes(Some(first.next), 10));
    let mut context = Context::from_waker(Waker::noop());
    assert!(next.as_mut().poll(&mut context).is_pending());
    let write = async {
        alice.put(&global("m.direct"), "{}").await;
        alice.remove(DeviceSelection::All).await;
    };
    // If global data ended the wait, it would have told of nothing.
    let both = in_time("the end of a wait", async { tokio::join!(next, write) });
    let second = both.await.0.unwrap();
    assert!(!second.starts_anew);
    let [DeviceChange::Entry(user, entry)] = &second.changes[..] else {
        unreachable!("{second:?}");
    };
    assert_eq!((user, &entry.content), (&alice.user, &None));
}
