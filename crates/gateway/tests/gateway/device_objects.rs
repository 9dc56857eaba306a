//! Devices that are told with their account data, while something ends.

use std::sync::Arc;
use std::time::Duration;

use kitbag_client::{Client, Method, Request};
use kitbag_testkit::scripted::{Asked, Scripted, ScriptedBody, chunked, json as answer, whole};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::support::{SOON, gateway, send, until};
use crate::toy::{self, Stored, entry};
use crate::wire::{Wire, has_line};

/// A toy that deletes devices, which begin anew at once, and holds answers to writes up.
async fn homeserver(permits: &Arc<Semaphore>) -> Scripted {
    let (stored, permits) = (Stored::default(), Arc::clone(permits));
    Scripted::start(move |asked| {
        let (stored, permits) = (Arc::clone(&stored), Arc::clone(&permits));
        async move {
            match asked.method {
                Method::DELETE => return answer(200, &json!({})),
                Method::PUT => permits.acquire().await.unwrap().forget(),
                _ => {}
            }
            toy::answer(&asked, &stored)
        }
    })
    .await
}

/// Bytes of a list of devices that is told with their account data.
const LIST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A list of one device that has so many bytes.
fn list(bytes: usize) -> String {
    let begun = r#"{"devices":[{"device_id":"PHONE"}]"#;
    format!("{begun}{}}}", " ".repeat(bytes - begun.len() - 1))
}

#[tokio::test]
async fn a_list_of_devices_may_have_some_megabytes() {
    let stored = Stored::default();
    let upstream = Scripted::start(move |asked| {
        let answer = match asked.target.ends_with("/v3/devices") {
            true => chunked(200, list(LIST_BYTES_MAX)),
            false => toy::answer(&asked, &stored),
        };
        async move { answer }
    })
    .await;
    let gateway = gateway(&upstream.url(), |set| set.msc4331.in_devices = true).await;
    let client = Client::new(&gateway.url).unwrap();
    let write = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{\"a\":1}");
    assert_eq!(client.send(write).await.unwrap().status, 200);
    let request = Request::new(Method::GET, "/_matrix/client/v3/devices");
    let answer = client.send(request.token("alice.PHONE")).await.unwrap();
    let told = answer.json::<Value>().unwrap();
    let events = &told["devices"][0]["account_data"]["events"];
    assert_eq!(
        *events,
        json!([{"type": "org.example.a", "content": {"a": 1}}])
    );
}

/// Starts a homeserver that answers with one part, and with another one as soon as it may.
async fn in_two_parts(first: String, second: &str, may_go_on: &Arc<Semaphore>) -> Scripted {
    let (second, may_go_on) = (second.to_owned(), Arc::clone(may_go_on));
    Scripted::raw(move |stream| {
        let (first, second, may_go_on) = (first.clone(), second.clone(), Arc::clone(&may_go_on));
        async move {
            let mut wire = Wire(stream);
            wire.head().await;
            wire.send(first).await;
            may_go_on.acquire().await.unwrap().forget();
            wire.send(second).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_list_of_devices_that_is_too_large_to_be_gathered_is_handed_on_as_it_comes() {
    let list = list(LIST_BYTES_MAX + 100_000);
    let (begun, rest) = list.split_at(LIST_BYTES_MAX + 1);
    let length = format!("Content-Length: {}", list.len());
    for second in [rest, ""] {
        // The rest is there only once the client has what came before.
        let has_come = Arc::new(Semaphore::new(0));
        let first = format!("HTTP/1.1 200 OK\r\n{length}\r\n\r\n{begun}");
        let upstream = in_two_parts(first, second, &has_come).await;
        let gateway = gateway(&upstream.url(), |set| set.msc4331.in_devices = true).await;
        let mut client = Wire::to(&gateway.url).await;
        let request = "GET /_matrix/client/v3/devices HTTP/1.1\r\nHost: a\r\n\
                       Authorization: Bearer kt_T\r\nConnection: close\r\n\r\n";
        client.send(request).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(has_line(&head, &length), "{head}");
        let told = client.exactly(LIST_BYTES_MAX).await;
        has_come.add_permits(1);
        let told = told + &client.rest().await.unwrap_or_default();
        // What is cut is not taken for whole.
        let is_whole = told == list;
        assert_eq!(
            (is_whole, told.len() < list.len()),
            (!second.is_empty(), second.is_empty())
        );
    }
}

#[tokio::test]
async fn what_is_no_answer_about_devices_is_told_as_it_came() {
    let limited = r#"{"errcode":"M_LIMIT_EXCEEDED", "retry_after_ms":5}"#;
    let unknown = r#"{"errcode":"M_UNKNOWN_TOKEN", "soft_logout":true}"#;
    let page = "<html>of a proxy</html>";
    for path in [
        "/_matrix/client/v3/devices",
        "/_matrix/client/v3/devices/PHONE",
    ] {
        for (status, body) in [(429, limited), (401, unknown), (502, page), (200, page)] {
            see_it_told(path, status, body).await;
        }
    }
}

/// Lets a homeserver answer so to a question about devices, and sees that the client hears just that.
async fn see_it_told(path: &'static str, status: u16, body: &'static str) {
    let stored = Stored::default();
    let upstream = Scripted::start(move |asked| {
        let answer = match asked.target == path {
            true => of_a_proxy(status, body),
            false => toy::answer(&asked, &stored),
        };
        async move { answer }
    })
    .await;
    let gateway = gateway(&upstream.url(), |set| set.msc4331.in_devices = true).await;
    let client = Client::new(&gateway.url).unwrap();
    let request = Request::new(Method::GET, path).token("alice.PHONE");
    let response = client.send(request).await.unwrap();
    let told = (response.status, &response.body[..]);
    assert_eq!(told, (status, body.as_bytes()), "{path}");
    let length = body.len().to_string();
    let headers = OF_A_PROXY.into_iter().chain([("content-length", &*length)]);
    for (name, value) in headers {
        assert_eq!(response.header(name), Some(value), "{path} {status}");
    }
    // What could be added to a list is asked for.
    if status != 200 {
        assert_eq!(upstream.asked().len(), 1, "{path} {status}");
    }
}

/// Headers of an answer that is told as it came.
const OF_A_PROXY: [(&str, &str); 3] = [
    ("content-type", "text/of-a-proxy"),
    ("etag", "\"1\""),
    ("retry-after", "7"),
];

fn of_a_proxy(status: u16, body: &'static str) -> http::Response<ScriptedBody> {
    let mut response = whole(status, body);
    for (name, value) in OF_A_PROXY {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

#[tokio::test]
async fn a_device_that_began_anew_is_told_without_what_is_being_emptied() {
    let permits = Arc::new(Semaphore::new(1));
    let upstream = homeserver(&permits).await;
    let gateway = gateway(&upstream.url(), |set| set.msc4331.in_devices = true).await;
    let client = Client::new(&gateway.url).unwrap();
    let told = async || {
        let request = Request::new(Method::GET, "/_matrix/client/v3/devices/PHONE");
        let answer = client.send(request.token("alice.LAPTOP")).await.unwrap();
        answer.json::<Value>().unwrap()
    };
    let write = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{\"a\":1}");
    assert_eq!(client.send(write).await.unwrap().status, 200);
    assert!(told().await["account_data"].is_object());
    let delete = Request::new(Method::DELETE, "/_matrix/client/v3/devices/PHONE");
    let delete = send(&gateway, delete.token("alice.LAPTOP"));
    let is_write = |asked: &&Asked| asked.method == Method::PUT;
    until(|| upstream.asked().iter().filter(is_write).count() >= 2).await;
    let mut telling = Box::pin(told());
    // Long enough for what must not happen, were it not for the turn.
    let early = timeout(Duration::from_millis(300), &mut telling).await;
    assert!(early.is_err(), "{early:?}");
    permits.add_permits(1);
    let told = timeout(SOON, telling).await.unwrap();
    assert_eq!(told, json!({"device_id": "PHONE"}));
    assert_eq!(delete.await.unwrap(), 200);
}
