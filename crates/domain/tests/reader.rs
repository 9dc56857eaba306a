//! What the server itself reads: what is wrong with it, counts of it, and lists without contents.
//!
//! What a store must show of it is in the suite of all stores (`kitbag_testkit`).

#![expect(
    clippy::unwrap_used,
    reason = "clippy does not know the helpers of a test as tests"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kitbag_domain::{
    AccountData, BoxFuture, DescribeError, DevicePlace, EventType, Expectation, LackingDevice,
    Limits, MemoryStore, Op, Pointer, ReadError, Reader, Scope, Selector, Store, StoreError, Tally,
    limit,
};
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::hooked::{Hook, HookedStore};
use kitbag_testkit::rules::PlainRules;
use kitbag_testkit::{Actor, content, device_id, event_type, global, room_key};
use serde::Deserialize;
use serde_json::{Value, json};

const CLIENT: &str = "org.example.client";

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Client {
    version: String,
}

struct Ground {
    store: Arc<dyn Store>,
    reader: Reader,
}

impl Ground {
    fn new() -> Self {
        let limits = Limits::default();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(limits.clone(), 7));
        Self::over(store, limits)
    }

    fn over(store: Arc<dyn Store>, limits: Limits) -> Self {
        let clock = Arc::new(TestClock::default());
        let (kept, rules) = (Arc::clone(&store), Arc::new(PlainRules::default()));
        let service = AccountData::new(kept, rules, clock, Arc::new(limits));
        Self {
            store,
            reader: service.reader(),
        }
    }

    /// Makes a user with the device `PHONE`, which keeps this.
    async fn device(&self, localpart: &str, text: &str) -> Actor {
        let phone = Actor::register(&self.store, localpart).await;
        phone.put(&phone.own_key(CLIENT), text).await;
        phone
    }

    async fn tally(&self, pointer: &str) -> Tally {
        let pointer = Pointer::parse(pointer).unwrap();
        self.reader.tally(&client(), &pointer).await.unwrap()
    }

    /// Returns the users of the devices that lack `value`.
    async fn lacking(
        &self,
        pointer: &str,
        value: &Value,
        after: Option<DevicePlace>,
        limit: usize,
    ) -> Vec<DevicePlace> {
        let (wanted, pointer) = (client(), Pointer::parse(pointer).unwrap());
        let found = self.reader.lacking(&wanted, &pointer, value, after, limit);
        let found = found.await.unwrap();
        found.iter().map(LackingDevice::place).collect()
    }
}

fn client() -> EventType {
    event_type(CLIENT)
}

fn names(places: &[DevicePlace]) -> Vec<&str> {
    places.iter().map(|place| place.user.localpart()).collect()
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_not_told() {
    let ground = Ground::new();
    let text = "{\"version\":\"1\",\n \"secret_name\":\"secret\"}";
    let alice = ground.device("alice", text).await;
    alice
        .put(&room_key("!r", CLIENT), r#"{"version":4711}"#)
        .await;
    let (user, phone, wanted) = (&alice.user, &alice.device, client());
    let read = ground.reader.device::<Client>(user, phone, &wanted).await;
    let Err(ReadError::Unreadable(error)) = read else {
        panic!("{read:?}");
    };
    assert_eq!((error.line, &error.event_type), (2, &wanted));
    let told = format!("{error} {error:?}");
    assert!(!told.contains("secret"), "{told}");
    assert!(
        told.contains("Client") && told.contains(phone.as_str()),
        "{told}"
    );

    let key = room_key("!r", CLIENT);
    let read = ground.reader.get::<Client>(user, &key).await;
    let told = read.unwrap_err().to_string();
    assert!(!told.contains("4711") && told.contains("!r"), "{told}");
}

#[tokio::test]
async fn a_tally_counts_the_values_at_a_place() {
    let ground = Ground::new();
    let texts = [
        r#"{"v":"1.2"}"#,
        r#"{"v":"1.10"}"#,
        r#"{"v":{"a":1,"b":2}}"#,
        r#"{"v":"\u0031.2"}"#,
        r#"{"w":1}"#,
        r#"{"v": {"b":2, "a":1} }"#,
        r#"{"v":null}"#,
        r#"{"v":"1.2","w":"1.10"}"#,
    ];
    for (number, text) in texts.iter().enumerate() {
        ground.device(&format!("u{number}"), text).await;
    }
    let tally = ground.tally("/v").await;
    let values = [
        (r#""1.2""#, 3),
        (r#"{"a":1,"b":2}"#, 2),
        (r#""1.10""#, 1),
        ("null", 1),
    ];
    let values: Vec<_> = values.map(|(text, count)| (text.to_owned(), count)).into();
    assert_eq!(tally.values, values);
    assert_eq!((tally.devices, tally.others, tally.absent), (8, 0, 1));

    let nobody = Pointer::parse("/v").unwrap();
    let nothing = ground.reader.tally(&event_type("other"), &nobody).await;
    assert_eq!(nothing, Ok(Tally::default()));
}

#[tokio::test]
async fn a_tally_goes_through_many_pages_and_leaves_out_what_was_deleted() {
    let ground = Ground::new();
    let mut first = None;
    for number in 0..600 {
        let text = format!(r#"{{"v":{}}}"#, number % 3);
        let actor = ground.device(&format!("u{number}"), &text).await;
        first.get_or_insert(actor);
    }
    let first = first.unwrap();
    first.delete(&first.own_key(CLIENT)).await;
    let tally = ground.tally("/v").await;
    assert_eq!((tally.devices, tally.others, tally.absent), (599, 0, 0));
    let counts: Vec<u64> = tally.values.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [200, 200, 199]);
    assert_eq!(
        ground.lacking("/v", &json!(1), None, 1_000).await.len(),
        399
    );
}

#[tokio::test]
async fn a_device_has_a_value_that_is_it_an_element_of_it_or_the_name_of_a_member() {
    let ground = Ground::new();
    let devices = [
        ("is", r#"{"v":"12"}"#),
        ("array", r#"{"v":["11","\u0031\u0032"]}"#),
        ("object", r#"{"v":{"11":false,"12":false}}"#),
        ("number", r#"{"v":12}"#),
        ("nested", r#"{"v":[["12"]]}"#),
        ("value", r#"{"v":{"11":"12"}}"#),
        ("absent", r#"{"w":"12"}"#),
        ("beside", r#"{"v":[1e999,"\ud800","12"]}"#),
        ("part", r#"{"v":"12.1"}"#),
    ];
    for (name, text) in devices {
        ground.device(name, text).await;
    }
    let lacking = ground.lacking("/v", &json!("12"), None, 100).await;
    assert_eq!(
        names(&lacking),
        ["number", "nested", "value", "absent", "part"]
    );
    let lacking = ground.lacking("/v", &json!(12), None, 100).await;
    assert_eq!(lacking.len(), devices.len() - 1, "no name is a number");
    let object = json!({"12": false, "11": false});
    assert_eq!(ground.lacking("/v", &object, None, 100).await.len(), 8);
    let array = json!(["12"]);
    let lacking = ground.lacking("/v", &array, None, 100).await;
    assert!(
        !names(&lacking).contains(&"nested"),
        "an element may be an array"
    );
}

#[tokio::test]
async fn who_lacks_a_value_is_told_page_by_page() {
    let ground = Ground::new();
    for number in 0..600 {
        let text = if number % 200 == 0 {
            "{}"
        } else {
            r#"{"v":1}"#
        };
        ground.device(&format!("u{number}"), text).await;
    }
    let first = ground.lacking("/v", &json!(1), None, 2).await;
    assert_eq!(names(&first), ["u0", "u200"]);
    let rest = ground
        .lacking("/v", &json!(1), first.last().cloned(), 2)
        .await;
    assert_eq!(names(&rest), ["u400"]);
    assert!(ground.lacking("/v", &json!(1), None, 0).await.is_empty());
}

/// Counts the reads of all devices.
#[derive(Default)]
struct Reads(AtomicUsize);

impl Hook for Reads {
    fn before(&self, method: &'static str) -> BoxFuture<'_, Result<(), StoreError>> {
        if method == "device_entries" {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn large_contents_are_read_one_by_one_for_a_report() {
    let limits = Limits {
        device_content_bytes_max: 3 * 1024 * 1024,
        ..Limits::default()
    };
    let memory = Arc::new(MemoryStore::new(limits.clone(), 7));
    let store = Arc::new(HookedStore::new(memory, Reads::default()));
    let ground = Ground::over(store.clone(), limits);
    for name in ["alice", "bob", "carol"] {
        ground.device(name, "{}").await;
    }
    assert_eq!(ground.tally("/v").await.absent, 3);
    assert_eq!(store.hook.0.swap(0, Ordering::Relaxed), 4, "a tally");
    let lacking = ground.lacking("/v", &json!(1), None, 10).await;
    assert_eq!(names(&lacking), ["alice", "bob", "carol"]);
    assert_eq!(store.hook.0.swap(0, Ordering::Relaxed), 4, "a list");
}

#[tokio::test]
async fn entries_of_a_user_are_described_in_pages_of_the_limit() {
    let ground = Ground::new();
    let alice = ground.device("alice", "{}").await;
    let at_once = limit::DESCRIPTIONS_AT_ONCE_MAX;
    // With that of the device one more than a page.
    let keys = (0..at_once).map(|number| global(&format!("t{number:05}")));
    let puts = keys.map(|key| Op::Put(key, content("{}"), Expectation::default()));
    alice.apply(puts.collect()).await.unwrap();
    let describe = |after| ground.reader.describe(&alice.user, Selector::All, after);
    let first = describe(None).await.unwrap();
    assert_eq!(first.entries.len(), at_once);
    assert_eq!(first.next, Some(global(&format!("t{:05}", at_once - 1))));
    let second = describe(first.next).await.unwrap();
    assert_eq!(second.entries.len(), 1);
    assert_eq!(second.entries[0].key, alice.own_key(CLIENT));
    assert_eq!(second.next, None);
}

#[tokio::test]
async fn entries_of_a_device_that_is_not_there_are_not_an_empty_list() {
    let ground = Ground::new();
    let alice = ground.device("alice", "{}").await;
    let describe = async |device: &str| {
        let selector = Selector::Scope(Scope::Device(device_id(device)));
        let page = ground.reader.describe(&alice.user, selector, None).await;
        page.map(|page| page.entries.len())
    };
    assert_eq!(describe("PHONE").await, Ok(1));
    let gone = DescribeError::NoSuchDevice(device_id("GONE"));
    assert_eq!(describe("GONE").await, Err(gone));
}
