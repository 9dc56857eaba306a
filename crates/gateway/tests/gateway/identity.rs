//! Who a request is from.

use std::sync::{Arc, Mutex};

use kitbag_client::{Client, Method, Request};
use kitbag_domain::Limits;
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::scripted::{Scripted, whole};

use crate::log;
use crate::support::{gateway, gateway_at, told};
use crate::toy::{self, Stored, count, entry, toy};

const WHOAMI: &str = "/account/whoami";

async fn status(client: &Client, request: Request) -> u16 {
    client.send(request).await.unwrap().status
}

#[tokio::test]
async fn reads_remember_an_identity_and_a_device_for_five_seconds_and_writes_ask_each_time() {
    let upstream = toy().await;
    let clock = Arc::<TestClock>::default();
    let url = upstream.url();
    let gateway = gateway_at(&url, Arc::clone(&clock), Limits::default(), |_| {});
    let gateway = gateway.await;
    let client = Client::new(&gateway.url).unwrap();
    let read = || entry(Method::GET, "PHONE", "", "alice.PHONE");
    let asked = |upstream| (count(upstream, WHOAMI), count(upstream, "/devices/PHONE"));
    assert_eq!(status(&client, read()).await, 404);
    clock.advance(4_999);
    assert_eq!(status(&client, read()).await, 404);
    assert_eq!(asked(&upstream), (1, 1));
    clock.advance(1);
    assert_eq!(status(&client, read()).await, 404);
    assert_eq!(asked(&upstream), (2, 2));
    for round in 1..3 {
        let write = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{}");
        assert_eq!(status(&client, write).await, 200);
        assert_eq!(asked(&upstream), (2 + round, 2 + round));
    }
}

#[tokio::test]
async fn with_nothing_remembered_each_read_asks() {
    let upstream = toy().await;
    let gateway = gateway(&upstream.url(), |settings| {
        settings.upstream.remember_ms = 0;
    })
    .await;
    let client = Client::new(&gateway.url).unwrap();
    for round in 1..3 {
        let read = entry(Method::GET, "PHONE", "", "alice.PHONE");
        assert_eq!(status(&client, read).await, 404);
        assert_eq!(count(&upstream, WHOAMI), round);
        assert_eq!(count(&upstream, "/devices/PHONE"), round);
    }
}

#[tokio::test]
async fn nothing_is_remembered_for_longer_than_five_seconds_whatever_is_set() {
    let upstream = toy().await;
    let clock = Arc::<TestClock>::default();
    let url = upstream.url();
    let gateway = gateway_at(&url, Arc::clone(&clock), Limits::default(), |set| {
        set.upstream.remember_ms = 3_600_000;
    });
    let gateway = gateway.await;
    let client = Client::new(&gateway.url).unwrap();
    for round in 1..3 {
        let read = entry(Method::GET, "PHONE", "", "alice.PHONE");
        assert_eq!(status(&client, read).await, 404);
        assert_eq!(count(&upstream, WHOAMI), round);
        clock.advance(5_000);
    }
}

#[tokio::test]
async fn a_token_that_is_refused_is_asked_about_each_time_and_hears_what_the_homeserver_says() {
    let upstream = toy().await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    for round in 1..3 {
        let read = entry(Method::GET, "PHONE", "", "kt_bad");
        let response = client.send(read).await.unwrap();
        assert_eq!(response.status, 401);
        let expected = r#"{"errcode":"M_UNKNOWN_TOKEN","error":"no"}"#;
        assert_eq!(response.body, expected);
        assert_eq!(count(&upstream, WHOAMI), round);
    }
}

#[tokio::test]
async fn a_401_that_passes_ends_what_is_remembered_of_its_session_alone() {
    let stored = Stored::default();
    let upstream = Scripted::start(move |asked| {
        let answer = match asked.target.contains("/joined_rooms") {
            true => toy::error(401, "M_UNKNOWN_TOKEN"),
            false => toy::answer(&asked, &stored),
        };
        async move { answer }
    });
    let upstream = upstream.await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let tokens = ["alice.PHONE", "alice.LAPTOP"];
    for token in tokens {
        status(&client, entry(Method::GET, "PHONE", "", token)).await;
    }
    assert_eq!(count(&upstream, WHOAMI), 2);
    let rooms = Request::new(Method::GET, "/_matrix/client/v3/joined_rooms").token(tokens[0]);
    assert_eq!(status(&client, rooms).await, 401);
    for token in tokens {
        status(&client, entry(Method::GET, "PHONE", "", token)).await;
    }
    assert_eq!(count(&upstream, WHOAMI), 3);
}

/// Whatever the gateway asked for: whether the device exists, what is stored, or a write that it sends
/// by turns.
#[tokio::test]
async fn a_401_to_any_question_ends_what_is_remembered_of_its_session() {
    let (stored, refused) = (Stored::default(), Arc::<Mutex<_>>::default());
    let refusing = Arc::clone(&refused);
    let upstream = Scripted::start(move |asked| {
        let answer = match &*refusing.lock().unwrap() {
            Some((method, part)) if asked.method == *method && asked.target.contains(*part) => {
                toy::error(401, "M_UNKNOWN_TOKEN")
            }
            _ => toy::answer(&asked, &stored),
        };
        async move { answer }
    });
    let upstream = upstream.await;
    let compares = |settings: &mut kitbag_gateway::Settings| settings.msc4547.enabled = true;
    let gateway = gateway(&upstream.url(), compares).await;
    let client = Client::new(&gateway.url).unwrap();
    let of_device = |method| entry(method, "PHONE", "", "alice.PHONE").body("{}");
    let global = || {
        let path = "/_matrix/client/v3/user/%40alice%3Ax/account_data/org.example.a";
        let request = Request::new(Method::PUT, path).token("alice.PHONE");
        request.body("{}")
    };
    for (request, method, part) in [
        (of_device(Method::PUT), Method::GET, "/devices/PHONE"),
        (of_device(Method::GET), Method::GET, "/account_data/"),
        (of_device(Method::PUT), Method::PUT, "/account_data/"),
        (global(), Method::PUT, "/account_data/"),
    ] {
        *refused.lock().unwrap() = Some((method, part));
        assert_eq!(status(&client, request).await, 401, "{part}");
        *refused.lock().unwrap() = None;
        let before = count(&upstream, WHOAMI);
        status(&client, of_device(Method::GET)).await;
        assert_eq!(count(&upstream, WHOAMI), before + 1, "{part}");
        status(&client, of_device(Method::GET)).await;
        assert_eq!(count(&upstream, WHOAMI), before + 1, "it is remembered");
    }
}

#[tokio::test]
async fn whom_an_application_service_acts_as_is_part_of_who_asks() {
    for name in ["device_id", "org.matrix.msc3202.device_id"] {
        let upstream = toy().await;
        let gateway = gateway(&upstream.url(), |_| {}).await;
        let client = Client::new(&gateway.url).unwrap();
        let send = |method, query: &str| {
            let request = entry(method, "PHONE", query, "kt_as");
            status(&client, request.body("{\"a\":1}"))
        };
        let as_device = |device| format!("?user_id=%40alice:x&{name}={device}");
        let alice = as_device("PHONE");
        assert_eq!(send(Method::PUT, &alice).await, 200, "{name}");
        assert_eq!(send(Method::GET, &alice).await, 200, "{name}");
        assert_eq!(send(Method::GET, "?user_id=%40alice:x").await, 200);
        // Nobody of these is alice with her phone, however short a time ago that was told.
        assert_eq!(send(Method::PUT, "?user_id=%40alice:x").await, 403);
        let other = as_device("LAPTOP");
        assert_eq!(send(Method::PUT, &other).await, 403, "{name}");
        assert_eq!(send(Method::GET, "?user_id=%40bob:x").await, 403);
        assert_eq!(send(Method::GET, "").await, 403);
    }
}

/// As where a proxy before the homeserver shows a page of its own.
#[tokio::test]
async fn that_the_homeserver_cannot_be_understood_is_told_once_a_minute_and_not_what_it_said() {
    let log = log::capture();
    let upstream = Scripted::start(|_| async { whole(200, "<html>alice's page</html>") }).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    for _ in 0..3 {
        let read = entry(Method::GET, "PHONE", "?a=query", "alice.PHONE");
        assert_eq!(status(&client, read).await, 502);
    }
    assert_eq!(count(&upstream, WHOAMI), 3);
    let lines = log.lines("WARN");
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in ["cannot use", WHOAMI, "status=200"] {
        assert!(lines[0].contains(part), "{lines:?}");
    }
    assert!(!log.text().contains("alice's page"));
}

#[tokio::test]
async fn where_the_homeserver_does_not_say_who_asks_the_client_is_told_to_come_again() {
    let upstream = Scripted::start(|_| std::future::pending()).await;
    let gateway = gateway(&upstream.url(), |settings| {
        settings.upstream.ask_timeout_ms = 400;
    })
    .await;
    let client = Client::new(&gateway.url).unwrap();
    for method in [Method::GET, Method::PUT] {
        let request = entry(method, "PHONE", "", "alice.PHONE").body("{}");
        let response = client.send(request).await.unwrap();
        assert_eq!(told(&response), (504, "M_UNKNOWN".into()));
        assert_eq!(response.header("retry-after"), Some("2"));
    }
    assert_eq!(count(&upstream, WHOAMI), 2, "nothing else was asked");
    assert_eq!(upstream.asked().len(), 2);
}
