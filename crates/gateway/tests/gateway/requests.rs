//! Requests of unusual forms: in pieces, asked for before they are sent, and by the methods and headers
//! that are easily forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kitbag_client::{Client, Method, Request};
use kitbag_testkit::scripted::{Asked, Scripted, json as answer, whole};
use serde_json::{Value, json};

use crate::support::{gateway, told};
use crate::toy::{self, Stored, TOMBSTONE, entry, toy};
use crate::wire::{Wire, has_line, values};

const ENTRY: &str = "/_matrix/client/v3/user/@alice:x/devices/PHONE/account_data/org.example.a";
const TYPE: &str = "org.matrix.msc4331.device_account_data.PHONE.org.example.a";

/// Returns the one write that the homeserver got.
fn written(upstream: &Scripted) -> Asked {
    let asked = upstream.asked().into_iter();
    let mut writes = asked.filter(|asked| asked.method == Method::PUT);
    let write = writes.next().unwrap();
    assert!(writes.next().is_none());
    write
}

#[tokio::test]
async fn an_entry_of_a_device_in_pieces_is_written_whole() {
    let upstream = toy().await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let request = format!(
        "PUT {ENTRY} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice.PHONE\r\n\
         Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
         4\r\n{{\"a\"\r\n4\r\n:1.0\r\n1\r\n}}\r\n0\r\n\r\n"
    );
    let answer = Wire::talk(&gateway.url, &request).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let written = written(&upstream);
    assert_eq!(written.body, "{\"a\":1.0}");
    assert_eq!(written.headers["content-length"], "9");
    assert!(!written.headers.contains_key("transfer-encoding"));
}

#[tokio::test]
async fn who_asks_before_sending_an_entry_is_told_to_go_on_and_then_that_it_is_written() {
    let upstream = toy().await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let head = |token: &str| {
        format!(
            "PUT {ENTRY} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\
             Connection: close\r\nExpect: 100-continue\r\nContent-Length: 7\r\n\r\n"
        )
    };
    let mut client = Wire::to(&gateway.url).await;
    client.send(head("alice.PHONE")).await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("{\"a\":1}").await;
    let answer = client.rest().await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let written = written(&upstream);
    assert_eq!(written.body, "{\"a\":1}");
    assert!(!written.headers.contains_key("expect"));
    // Who is nobody has nothing to send.
    let mut client = Wire::to(&gateway.url).await;
    client.send(head("kt_bad")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
}

/// Starts a homeserver that says it is one, whatever it is asked.
async fn telltale() -> Scripted {
    Scripted::start(|_| async {
        let mut response = whole(200, "here");
        let headers = response.headers_mut();
        headers.insert("access-control-allow-origin", "*".parse().unwrap());
        headers.insert("server", "homeserver".parse().unwrap());
        response
    })
    .await
}

#[tokio::test]
async fn what_a_path_allows_the_homeserver_says_of_its_own_and_the_gateway_of_the_rest() {
    let upstream = telltale().await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let v3 = |path: &str| format!("/_matrix/client/v3/{path}");
    let shared = [
        "logout",
        "logout/all",
        "login",
        "register",
        "delete_devices",
        "devices",
        "devices/PHONE",
        "account/password",
        "user/@alice:x/account_data/org.example.a",
        "user/@alice:x/account_data/m.push_rules",
        "user/@alice:x/rooms/!r:x/account_data/org.example.a",
    ];
    for path in shared
        .map(v3)
        .into_iter()
        .chain(["/_matrix/client/versions".to_owned()])
    {
        let before = upstream.asked().len();
        let request = Request::new(Method::OPTIONS, &path);
        let response = client.send(request).await.unwrap();
        assert_eq!(
            (response.status, &*response.body),
            (200, &b"here"[..]),
            "{path}"
        );
        assert_eq!(response.header("server"), Some("homeserver"), "{path}");
        assert_eq!(
            upstream.asked().len(),
            before + 1,
            "{path}: nothing else is asked"
        );
    }
    let before = upstream.asked().len();
    let deleted = ENTRY.replace("/v3/", "/unstable/org.matrix.msc3391/");
    for path in [
        ENTRY,
        &ENTRY.replace("account_data", "net.zemos.account_data"),
        &deleted,
    ] {
        let response = client
            .send(Request::new(Method::OPTIONS, path))
            .await
            .unwrap();
        assert_eq!((response.status, response.body.len()), (204, 0), "{path}");
        assert_eq!(response.header("access-control-allow-origin"), Some("*"));
        let methods = response.header("access-control-allow-methods").unwrap();
        assert!(
            methods.contains("PUT") && methods.contains("DELETE"),
            "{methods}"
        );
    }
    assert_eq!(upstream.asked().len(), before);
}

/// A toy that has push rules at their own path alone, room entries, and versions.
async fn full() -> Scripted {
    let stored = Stored::default();
    let key = ("@alice:x".to_owned(), TYPE.to_owned());
    stored
        .lock()
        .unwrap()
        .insert(key, "{\"a\":1.0 }".to_owned());
    Scripted::start(move |asked| {
        let path = asked.target.split('?').next().unwrap().to_owned();
        let path = path.trim_start_matches("/_matrix/client/");
        let mut as_get = asked.clone();
        as_get.method = Method::GET;
        let told = match path {
            "versions" => answer(200, &json!({"versions": ["v1.11"]})),
            "v3/pushrules/" => answer(200, &json!({"global": {}})),
            "v3/user/@alice:x/rooms/!r:x/account_data/m.tag" => answer(200, &json!({"tags": {}})),
            _ => toy::answer(&as_get, &stored),
        };
        async move { told }
    })
    .await
}

#[tokio::test]
async fn a_head_tells_what_a_get_tells_but_for_the_body() {
    let upstream = full().await;
    let gateway = gateway(&upstream.url(), |set| set.msc4331.in_devices = true).await;
    for (path, status) in [
        (ENTRY, 200),
        (&ENTRY.replace("org.example.a", "org.example.none"), 404),
        (&ENTRY.replace("PHONE", "GONE"), 404),
        (
            "/_matrix/client/v3/user/@alice:x/account_data/m.push_rules",
            200,
        ),
        (
            "/_matrix/client/v3/user/@alice:x/account_data/org.example.none",
            404,
        ),
        (
            "/_matrix/client/v3/user/@alice:x/rooms/!r:x/account_data/m.tag",
            200,
        ),
        ("/_matrix/client/v3/devices", 200),
        ("/_matrix/client/v3/devices/PHONE", 200),
        ("/_matrix/client/versions", 200),
    ] {
        let told = async |method: &str| {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
                 Authorization: Bearer alice.PHONE\r\n\r\n"
            );
            let told = Wire::talk(&gateway.url, &request).await;
            let (head, body) = told.split_once("\r\n\r\n").unwrap();
            (head.to_owned(), body.to_owned())
        };
        let (get, get_body) = told("GET").await;
        let (head, head_body) = told("HEAD").await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(
            get.starts_with(&expected) && head.starts_with(&expected),
            "{path} {get} {head}"
        );
        assert!(!get_body.is_empty(), "{path}");
        assert_eq!(head_body, "", "{path}");
        for name in ["content-type", "access-control-allow-origin"] {
            assert_eq!(values(&get, name), values(&head, name), "{path}");
        }
        // Where it is told at all, it is that of the body that would be.
        let length = values(&head, "content-length");
        let expected = get_body.len().to_string();
        let is_added = path.contains("/v3/devices");
        assert!(
            is_added || length.is_empty() || length == [expected],
            "{path}: {length:?}"
        );
    }
}

#[tokio::test]
async fn a_wish_for_another_protocol_stays_on_its_hop_and_is_answered_as_none() {
    let upstream = telltale().await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let request = |wish: &str| {
        format!(
            "GET /_matrix/client/v3/sync HTTP/1.1\r\nHost: a\r\n{wish}Connection: close\r\n\r\n"
        )
    };
    let wish = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    let asked_for = Wire::talk(&gateway.url, &request(wish)).await;
    let plain = Wire::talk(&gateway.url, &request("")).await;
    let without_date = |answer: &str| {
        let lines = answer.lines().filter(|line| !line.starts_with("date:"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without_date(&asked_for), without_date(&plain));
    assert!(asked_for.starts_with("HTTP/1.1 200 OK\r\n"), "{asked_for}");
    assert!(has_line(&asked_for, "server: homeserver"), "{asked_for}");
    let asked = &upstream.asked()[0];
    assert!(!asked.headers.contains_key("upgrade") && !asked.headers.contains_key("connection"));
}

fn delete(device: &str, token: &str) -> Request {
    let path = ENTRY.replace("/v3/", "/unstable/org.matrix.msc3391/");
    Request::new(Method::DELETE, path.replace("PHONE", device)).token(token)
}

#[tokio::test]
async fn an_entry_is_deleted_while_others_are_still_to_be_emptied_and_not_one_of_those() {
    let stored = Stored::default();
    let (of, is_broken) = (Arc::clone(&stored), Arc::<AtomicBool>::default());
    let breaks = Arc::clone(&is_broken);
    // Where nothing can be listed nothing is emptied. The phone is there again at once, with its token.
    let upstream = Scripted::start(move |asked| {
        let path = asked.target.split('?').next().unwrap();
        let told = if path.ends_with("/logout") {
            answer(200, &json!({}))
        } else if path.ends_with("/sync") && breaks.load(Ordering::SeqCst) {
            toy::error(500, "M_UNKNOWN")
        } else {
            toy::answer(&asked, &of)
        };
        async move { told }
    })
    .await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let send = async |request| told(&client.send(request).await.unwrap());
    let done = (200, Value::Null);
    for device in ["PHONE", "LAPTOP"] {
        let token = format!("alice.{device}");
        let write = entry(Method::PUT, device, "", &token).body("{\"a\":1}");
        assert_eq!(send(write).await, done);
    }
    let logout = Request::new(Method::POST, "/_matrix/client/v3/logout");
    is_broken.store(true, Ordering::SeqCst);
    assert_eq!(send(logout.token("alice.PHONE")).await, done);
    assert_eq!(send(delete("LAPTOP", "alice.LAPTOP")).await, done);
    let of = |device: &str| {
        let key = ("@alice:x".to_owned(), TYPE.replace("PHONE", device));
        stored.lock().unwrap()[&key].clone()
    };
    assert_eq!(of("LAPTOP"), TOMBSTONE);
    let refused = send(delete("PHONE", "alice.PHONE")).await;
    assert_eq!(refused, (503, json!("M_UNKNOWN")));
    assert_eq!(of("PHONE"), "{\"a\":1}");
}
