//! Accounts with more device account data than the gateway reads at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kitbag_client::{Client, Method, Request};
use kitbag_domain::Limits;
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::scripted::{Asked, Scripted, json, whole};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::support::{SOON, gateway, gateway_at, send, set_up_at, until};
use crate::toy::{self, PREFIX, Stored, TOMBSTONE, count};

/// Returns what a homeserver that looks at filters tells of an account.
fn sync(asked: &Asked, stored: &Stored) -> Value {
    let (_, query) = asked.target.split_once('?').unwrap();
    let query: HashMap<String, String> = serde_urlencoded::from_str(query).unwrap();
    let filter: Value = serde_json::from_str(&query["filter"]).unwrap();
    let is_of = |name: &str, kind: &str| {
        let types = filter["account_data"][name].as_array().unwrap();
        let mut types = types.iter().map(|known| known.as_str().unwrap());
        types.any(|known| match known.strip_suffix('*') {
            Some(begin) => kind.starts_with(begin),
            None => kind == known,
        })
    };
    let begins = |kind: &str| is_of("types", kind) && !is_of("not_types", kind);
    let stored = stored.lock().unwrap();
    let events = stored.iter().filter(|((_, kind), _)| begins(kind));
    let events = events.map(|((_, kind), content)| {
        let content: Value = serde_json::from_str(content).unwrap();
        json!({"type": kind, "content": content})
    });
    let events: Vec<Value> = events.collect();
    json!({"next_batch": "s", "account_data": {"events": events}})
}

#[tokio::test]
async fn what_is_too_large_to_be_listed_at_once_is_emptied_device_by_device() {
    let stored = Stored::default();
    let content = json!({"a": "a".repeat(1024 * 1024)}).to_string();
    for device in ["PHONE", "LAPTOP"] {
        for number in 0..20 {
            let key = ("@alice:x".to_owned(), format!("{PREFIX}{device}.n{number}"));
            stored.lock().unwrap().insert(key, content.clone());
        }
    }
    let kept = Stored::clone(&stored);
    let upstream = Scripted::start(move |asked| {
        let answer = match asked.target.split('?').next().unwrap() {
            "/_matrix/client/v3/sync" => json(200, &sync(&asked, &kept)),
            "/_matrix/client/v3/logout/all" => json(200, &json!({})),
            _ => toy::answer(&asked, &kept),
        };
        async move { answer }
    })
    .await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let logout = Request::new(Method::POST, "/_matrix/client/v3/logout/all");
    let logout = logout.token("alice.PHONE").body("{}");
    assert_eq!(client.send(logout).await.unwrap().status, 200);
    let stored = stored.lock().unwrap();
    assert_eq!(stored.len(), 40);
    for ((_, kind), content) in stored.iter() {
        assert_eq!(content, TOMBSTONE, "{kind}");
    }
    // Emptied before it was handed on, while the credentials lived.
    let mut asked = upstream.asked();
    assert_eq!(asked.pop().unwrap().target, "/_matrix/client/v3/logout/all");
    // Each device before the next is listed, so that no more than one is held.
    let changes = asked.chunk_by(|one, next| one.method == next.method);
    let emptyings = changes.filter(|alike| alike[0].method == Method::PUT);
    assert_eq!(emptyings.count(), 2);
}

#[tokio::test]
async fn what_nobody_can_name_is_emptied_also_where_many_devices_keep_more_than_is_listed() {
    // More than a filter names; what these keep beyond it is small enough.
    const LIVING: usize = 60;
    let stored = Stored::default();
    let content = json!({"a": "a".repeat(600 * 1024)}).to_string();
    let kind = |device: &str| ("@alice:x".to_owned(), format!("{PREFIX}{device}.n"));
    let living: Vec<String> = (0..LIVING).map(|number| format!("D{number}")).collect();
    for device in living.iter().map(String::as_str).chain(["GONE"]) {
        stored.lock().unwrap().insert(kind(device), content.clone());
    }
    let kept = Stored::clone(&stored);
    let devices = living.iter().map(|id| json!({"device_id": id}));
    let devices = json!({"devices": devices.collect::<Vec<_>>()});
    let upstream = Scripted::start(move |asked| {
        let answer = match asked.target.split('?').next().unwrap() {
            "/_matrix/client/v3/sync" => json(200, &sync(&asked, &kept)),
            "/_matrix/client/v3/devices" => json(200, &devices),
            "/_matrix/client/v3/delete_devices" => json(200, &json!({})),
            _ => toy::answer(&asked, &kept),
        };
        async move { answer }
    })
    .await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    // Whatever the homeserver read in it.
    let delete = Request::new(Method::POST, "/_matrix/client/v3/delete_devices");
    let delete = delete.token("alice.D0").body("?");
    assert_eq!(client.send(delete).await.unwrap().status, 200);
    let stored = stored.lock().unwrap();
    assert!(stored[&kind("GONE")] == TOMBSTONE, "it is not emptied");
    assert!(living.iter().all(|device| stored[&kind(device)] == content));
}

#[tokio::test]
async fn what_a_device_keeps_that_is_too_large_to_be_listed_keeps_no_other_from_being_emptied() {
    let stored = Stored::default();
    let content = json!({"a": "a".repeat(1024 * 1024)}).to_string();
    let kind = |device: &str, number| {
        let kind = format!("{PREFIX}{device}.n{number}");
        ("@alice:x".to_owned(), kind)
    };
    for number in 0..33 {
        stored
            .lock()
            .unwrap()
            .insert(kind("PHONE", number), content.clone());
    }
    for device in ["LAPTOP", "GONE"] {
        stored
            .lock()
            .unwrap()
            .insert(kind(device, 0), content.clone());
    }
    let (kept, is_asked) = (Stored::clone(&stored), AtomicBool::new(false));
    let upstream = Scripted::start(move |asked| {
        let answer = match asked.target.split('?').next().unwrap() {
            "/_matrix/client/v3/sync" => json(200, &sync(&asked, &kept)),
            "/_matrix/client/v3/account/password" => json(200, &json!({})),
            // At first, so that nobody can name those that end.
            "/_matrix/client/v3/devices" if !is_asked.swap(true, Ordering::SeqCst) => {
                toy::error(500, "M_UNKNOWN")
            }
            _ => toy::answer(&asked, &kept),
        };
        async move { answer }
    })
    .await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let password = Request::new(Method::POST, "/_matrix/client/v3/account/password");
    let password = password
        .token("alice.PHONE")
        .body("{\"new_password\":\"a\"}");
    assert_eq!(client.send(password).await.unwrap().status, 200);
    let stored = stored.lock().unwrap();
    for device in ["LAPTOP", "GONE"] {
        assert!(stored[&kind(device, 0)] == TOMBSTONE, "{device}");
    }
    assert!((0..33).all(|number| stored[&kind("PHONE", number)] == content));
}

/// Such a homeserver looks at no filters.
#[tokio::test]
async fn what_one_device_keeps_that_is_too_large_is_asked_for_once() {
    let listing = "a".repeat(32 * 1024 * 1024 + 1);
    let upstream = Scripted::start(move |asked| {
        let path = asked.target.split('?').next().unwrap();
        let answer = match (asked.method.as_str(), path) {
            ("GET", "/_matrix/client/v3/sync") => whole(200, listing.clone()),
            ("POST", "/_matrix/client/v3/logout") => json(200, &json!({})),
            ("DELETE", _) => toy::error(502, "M_UNKNOWN"),
            _ => toy::answer(&asked, &Stored::default()),
        };
        async move { answer }
    });
    let (upstream, clock) = (upstream.await, Arc::<TestClock>::default());
    let (url, at) = (upstream.url(), Arc::clone(&clock));
    let gateway = gateway_at(&url, at, Limits::default(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let status = async |request: Request| client.send(request).await.unwrap().status;
    let logout = Request::new(Method::POST, "/_matrix/client/v3/logout");
    let logout = logout.token("alice.PHONE").body("{}");
    assert_eq!(status(logout).await, 200);
    // As much as is usual, and then as much as is read at all.
    assert_eq!(count(&upstream, "/sync"), 2);
    // One that may have ended and lives: there is nothing to empty, so that it is soon forgotten.
    let delete = Request::new(Method::DELETE, "/_matrix/client/v3/devices/LAPTOP");
    assert_eq!(status(delete.token("bob.PHONE")).await, 502);
    let read = || {
        let path = "/_matrix/client/v3/user/%40bob%3Ax/devices/LAPTOP/account_data/a";
        Request::new(Method::GET, path).token("bob.PHONE")
    };
    for asked in [4, 6, 6] {
        // It waits for who looks what became of it.
        assert_eq!(status(read()).await, 404);
        assert_eq!(count(&upstream, "/sync"), asked);
        clock.advance(5 * 60 * 1_000);
    }
}

/// What a client sends as one byte, Synapse tells as six.
#[tokio::test]
async fn as_much_as_a_device_may_keep_is_emptied_where_each_byte_is_told_as_an_escape() {
    const ENTRIES: usize = 64;
    let content = |told: &str| format!("{{\"a\":\"{told}\"}}");
    let longest = 64 * 1024 - content("").len();
    let told = content(&"\\u007f".repeat(longest));
    let mut events = Vec::new();
    for number in 0..ENTRIES {
        let kind = format!("{PREFIX}PHONE.n{number}");
        events.push(format!("{{\"type\":\"{kind}\",\"content\":{told}}}"));
    }
    let events = events.join(",");
    let listing = format!("{{\"next_batch\":\"s\",\"account_data\":{{\"events\":[{events}]}}}}");
    let upstream = Scripted::start(move |asked| {
        let answer = match asked.target.split('?').next().unwrap() {
            "/_matrix/client/v3/sync" => whole(200, listing.clone()),
            "/_matrix/client/v3/logout" => json(200, &json!({})),
            _ => toy::answer(&asked, &Stored::default()),
        };
        async move { answer }
    })
    .await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let logout = Request::new(Method::POST, "/_matrix/client/v3/logout");
    let logout = logout.token("alice.PHONE").body("{}");
    assert_eq!(client.send(logout).await.unwrap().status, 200);
    let asked = upstream.asked();
    let emptied = asked.iter().filter(|asked| asked.method == Method::PUT);
    assert_eq!(emptied.count(), ENTRIES);
}

#[test]
fn limits_that_make_a_device_that_cannot_be_emptied_are_refused() {
    let set_up = |device_entries_max, device_content_bytes_max| {
        let mut limits = Limits {
            device_content_bytes_max,
            ..Limits::default()
        };
        limits.quota.device_entries_max = device_entries_max;
        let gateway = set_up_at("http://127.0.0.1:1", Arc::default(), limits, |_| {});
        gateway.map(drop).map_err(|error| error.to_string())
    };
    const MIB: u64 = 1024 * 1024;
    for (entries, bytes) in [(64, 64 * 1024), (64, 85 * 1024), (5, MIB), (10_000, 1)] {
        assert_eq!(set_up(entries, bytes), Ok(()), "{entries} of {bytes}");
    }
    let expected = "`limits.device_entries_max` is 64 and `limits.device_content_bytes_max` is \
                    1048576: so a device can keep more than the 33554432 bytes that the gateway \
                    reads to empty it, with each byte told as 6 and 2048 beside each content; \
                    lower one of them";
    assert_eq!(set_up(64, MIB), Err(expected.to_owned()));
    for (entries, bytes) in [(64, 85 * 1024 + 1), (6, MIB), (1, 6 * MIB), (10_000, 1024)] {
        assert!(set_up(entries, bytes).is_err(), "{entries} of {bytes}");
    }
}

#[tokio::test]
async fn large_listings_of_many_users_take_turns_and_usual_ones_do_not_wait_for_them() {
    // Of 64 MiB each, with what is made of them.
    const AT_ONCE: usize = 4;
    let (asked, permits) = (Arc::<AtomicUsize>::default(), Arc::new(Semaphore::new(0)));
    let (asking, waiting) = (Arc::clone(&asked), Arc::clone(&permits));
    let upstream = Scripted::start(move |asked| {
        let (asking, waiting) = (Arc::clone(&asking), Arc::clone(&waiting));
        async move {
            if asked.target.contains("/logout") {
                return json(200, &json!({}));
            }
            if !asked.target.contains("/sync") {
                return toy::answer(&asked, &Stored::default());
            }
            if asked.headers["authorization"] == "Bearer alice.PHONE" {
                return json(200, &json!({"next_batch": "1"}));
            }
            // Each is asked for twice, as it is more than usual.
            if asking.fetch_add(1, Ordering::SeqCst) > AT_ONCE {
                waiting.acquire().await.unwrap().forget();
            }
            json(200, &json!({"next_batch": "a".repeat(300 * 1024)}))
        }
    });
    let upstream = upstream.await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let log_out = |name: &str| {
        let logout = Request::new(Method::POST, "/_matrix/client/v3/logout");
        send(&gateway, logout.token(&format!("{name}.PHONE")))
    };
    let logouts: Vec<_> = (0..=AT_ONCE)
        .map(|number| log_out(&format!("{number}bob")))
        .collect();
    let asked = || asked.load(Ordering::SeqCst);
    let all = AT_ONCE + 1;
    until(|| asked() >= all + AT_ONCE).await;
    // Long enough for what must not happen, were it not for the room.
    let early = until(|| asked() >= all + all);
    assert!(timeout(Duration::from_millis(300), early).await.is_err());
    assert_eq!(timeout(SOON, log_out("alice")).await.unwrap().unwrap(), 200);
    permits.add_permits(all);
    for logout in logouts {
        assert_eq!(timeout(SOON, logout).await.unwrap().unwrap(), 200);
    }
}
