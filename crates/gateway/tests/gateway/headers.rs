//! What becomes of headers.

use axum::http::HeaderName;
use kitbag_testkit::scripted::{Asked, Scripted, whole};

use crate::support::gateway;
use crate::toy::toy;
use crate::wire::{Wire, values};

/// Sends a request with these lines through a gateway, and returns what the homeserver got.
async fn send(lines: &str, trusted: &[&str]) -> Asked {
    let upstream = Scripted::start(|_| async { whole(200, "") }).await;
    let gateway = gateway(&upstream.url(), |settings| {
        settings.trusted_proxies = trusted.iter().map(|net| net.parse().unwrap()).collect();
    })
    .await;
    let request = format!("GET /a HTTP/1.1\r\nHost: example.org\r\n{lines}\r\n");
    let mut client = Wire::to(&gateway.url).await;
    client.send(request).await;
    client.head().await;
    upstream.asked().pop().unwrap()
}

fn of<'a>(asked: &'a Asked, name: &str) -> Vec<&'a str> {
    let values = asked.headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn what_is_for_one_hop_stays_on_it() {
    let asked = send(
        "Connection: keep-alive, X-One\r\n\
         Connection: x-two,, close \r\n\
         X-One: 1\r\nX-Two: 2\r\nX-Three: 3\r\n\
         Keep-Alive: timeout=5\r\nProxy-Authorization: Basic YTpi\r\nProxy-Connection: keep-alive\r\n\
         TE: trailers\r\nTrailer: x-sum\r\nUpgrade: websocket\r\n",
        &[],
    )
    .await;
    let names: Vec<_> = asked.headers.keys().map(HeaderName::as_str).collect();
    let there = [
        "host",
        "x-three",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
    ];
    for name in &names {
        assert!(there.contains(name), "{names:?}");
    }
    assert_eq!(names.len(), there.len(), "{names:?}");
}

#[tokio::test]
async fn of_an_answer_too_what_is_for_one_hop_stays_on_it() {
    let upstream = Scripted::raw(|stream| async move {
        let mut wire = Wire(stream);
        while wire.head().await.ends_with("\r\n\r\n") {
            let answer = "HTTP/1.1 200 OK\r\nConnection: X-One, keep-alive\r\nX-One: 1\r\n\
                          X-Two: 2\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n\
                          Upgrade: h2c\r\nContent-Length: 0\r\n\r\n";
            wire.send(answer).await;
        }
    })
    .await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let mut client = Wire::to(&gateway.url).await;
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(values(&head, "x-two"), ["2"], "{head}");
    for name in [
        "connection",
        "x-one",
        "keep-alive",
        "proxy-authenticate",
        "upgrade",
    ] {
        assert!(values(&head, name).is_empty(), "{head}");
    }
}

#[tokio::test]
async fn headers_of_the_same_name_stay_apart_and_in_order() {
    let asked = send(
        "X-A: 1\r\nCookie: a\r\nx-a: 2, 3\r\nX-a: \r\nX-B: \u{fc}\r\n",
        &[],
    )
    .await;
    assert_eq!(of(&asked, "x-a"), ["1", "2, 3", ""]);
    assert_eq!(asked.headers["x-b"].as_bytes(), "\u{fc}".as_bytes());
    let upstream = Scripted::start(|_| async {
        let mut response = whole(200, "");
        for cookie in ["a=1", "b=2; HttpOnly", "a=3"] {
            let cookie = cookie.parse().unwrap();
            response.headers_mut().append("set-cookie", cookie);
        }
        response
    })
    .await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let mut client = Wire::to(&gateway.url).await;
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(values(&head, "set-cookie"), ["a=1", "b=2; HttpOnly", "a=3"]);
}

#[tokio::test]
async fn long_heads_go_through_both_ways_up_to_64_kib() {
    let upstream = Scripted::raw(|stream| async move {
        let mut wire = Wire(stream);
        while let head = wire.head().await
            && head.ends_with("\r\n\r\n")
        {
            let value = values(&head, "x-long")[0].to_owned();
            let answer = format!("HTTP/1.1 200 OK\r\nX-Long: {value}\r\nContent-Length: 0\r\n\r\n");
            wire.send(answer).await;
        }
    })
    .await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let mut client = Wire::to(&gateway.url).await;
    let long = "x".repeat(60 * 1024);
    client
        .send(format!(
            "GET /a HTTP/1.1\r\nHost: a\r\nX-Long: {long}\r\n\r\n"
        ))
        .await;
    let head = client.head().await;
    assert_eq!(values(&head, "x-long"), [long]);
    // What is over it and whole is let through: hyper parses what came before it looks at the bound.
    let longer = "x".repeat(2 * 64 * 1024);
    client
        .send(format!(
            "GET /a HTTP/1.1\r\nHost: a\r\nX-Long: {longer}\r\n\r\n"
        ))
        .await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
}

#[tokio::test]
async fn the_homeserver_is_told_where_a_request_came_from() {
    let asked = send("", &[]).await;
    assert_eq!(of(&asked, "host"), ["example.org"]);
    assert_eq!(of(&asked, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(of(&asked, "x-forwarded-proto"), ["http"]);
    assert_eq!(of(&asked, "x-forwarded-host"), ["example.org"]);
}

/// What a proxy says, or a client that would like to be another.
const SAID: &str = "X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\nX-Forwarded-For: 192.0.2.3\r\n\
                    X-Forwarded-Proto: https\r\nX-Forwarded-Host: matrix.example.org\r\n\
                    Forwarded: for=192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\n";

#[tokio::test]
async fn what_a_trusted_proxy_says_is_kept_and_its_address_added() {
    let asked = send(SAID, &["127.0.0.0/8"]).await;
    let hops = "192.0.2.1, 192.0.2.2, 192.0.2.3, 127.0.0.1";
    assert_eq!(of(&asked, "x-forwarded-for"), [hops]);
    assert_eq!(of(&asked, "x-forwarded-proto"), ["https"]);
    assert_eq!(of(&asked, "x-forwarded-host"), ["matrix.example.org"]);
    assert_eq!(of(&asked, "forwarded"), ["for=192.0.2.1"]);
    assert_eq!(of(&asked, "x-real-ip"), ["192.0.2.1"]);
}

/// So that its limits and its log see the client there too.
#[tokio::test]
async fn the_gateways_own_questions_say_for_whom_they_are() {
    let upstream = toy().await;
    let gateway = gateway(&upstream.url(), |settings| {
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let path = "/_matrix/client/v3/user/@alice:x/devices/PHONE/account_data/org.example.a";
    let token = "Authorization: Bearer alice.PHONE\r\nUser-Agent: Element/1\r\n";
    let mut client = Wire::to(&gateway.url).await;
    client
        .send(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\n{token}{SAID}\r\n"
        ))
        .await;
    client.head().await;
    let asked = upstream.asked();
    let whoami = asked.first().unwrap();
    assert!(whoami.target.ends_with("/account/whoami"));
    assert!(asked.len() > 1);
    for asked in &asked {
        let hops = "192.0.2.1, 192.0.2.2, 192.0.2.3, 127.0.0.1";
        assert_eq!(of(asked, "x-forwarded-for"), [hops], "{}", asked.target);
        assert_eq!(of(asked, "x-forwarded-proto"), ["https"]);
        assert_eq!(of(asked, "x-forwarded-host"), ["matrix.example.org"]);
        assert_eq!(of(asked, "user-agent"), ["Element/1"]);
    }
}

#[tokio::test]
async fn what_anybody_else_says_of_it_is_dropped() {
    let asked = send(SAID, &["192.0.2.0/24"]).await;
    assert_eq!(of(&asked, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(of(&asked, "x-forwarded-proto"), ["http"]);
    assert_eq!(of(&asked, "x-forwarded-host"), ["example.org"]);
    for name in ["forwarded", "x-real-ip"] {
        assert!(of(&asked, name).is_empty(), "{name}");
    }
}
