//! What goes through, byte for byte.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kitbag_client::{Client, Method, Request};
use kitbag_testkit::scripted::{Asked, Scripted, whole};

use crate::support::{Running, gateway};
use crate::wire::{Wire, has_line, values};

/// Starts a homeserver that answers with the body of the request, and a gateway before it.
async fn echo() -> (Scripted, Running) {
    let upstream = Scripted::start(|asked| async move { whole(200, asked.body) }).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    (upstream, gateway)
}

/// Starts a homeserver that says always the same, and a gateway before it.
async fn always(answer: &'static str) -> (Scripted, Running) {
    let upstream = Scripted::raw(move |stream| async move {
        let mut wire = Wire(stream);
        while wire.head().await.ends_with("\r\n\r\n") {
            wire.send(answer).await;
        }
    })
    .await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    (upstream, gateway)
}

fn only(upstream: &Scripted) -> Asked {
    let asked = upstream.asked();
    assert_eq!(asked.len(), 1);
    asked[0].clone()
}

#[tokio::test]
async fn the_target_and_the_body_go_through_byte_for_byte() {
    let (upstream, gateway) = echo().await;
    let target = "/_matrix/federation/v1/send/%31?a=%7e&b=//../c";
    let request = Request::new(Method::PUT, target).body("{ \"a\": 1.0 }");
    let client = Client::new(&gateway.url).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.body, "{ \"a\": 1.0 }");
    assert_eq!(only(&upstream).target, target);
}

#[tokio::test]
async fn targets_that_no_library_would_send_go_through_too() {
    let (upstream, gateway) = echo().await;
    let targets = [
        "/",
        "//",
        "/?",
        "/a?b?c=/?&&",
        "/a/../b/./c//d",
        "/%2e%2E/%00/%ff/%25",
        "/_matrix/media/v3/download/x/y;z=(1)!*'$,@:|\"{}[]\\^~",
        "/ü/\u{1f600}?ß",
        "*",
    ];
    for target in targets {
        let method = if target == "*" { "OPTIONS" } else { "GET" };
        let request = format!("{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = Wire::talk(&gateway.url, &request).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n"),
            "{target}: {answer}"
        );
        assert_eq!(upstream.asked().last().unwrap().target, target);
    }
}

#[tokio::test]
async fn a_target_that_is_none_is_refused() {
    let (upstream, gateway) = echo().await;
    for (target, status) in [
        ("/<", 400),
        ("/?>", 400),
        ("/`", 400),
        ("/\u{1}", 400),
        ("a", 404),
        ("example.org:80", 404),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = Wire::talk(&gateway.url, &request).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{target}: {answer}");
    }
    assert!(upstream.asked().is_empty());
}

#[tokio::test]
async fn a_target_with_a_host_goes_on_without_it_and_the_host_counts() {
    let (upstream, gateway) = echo().await;
    let request = "GET http://matrix.example.org:80/a?b HTTP/1.1\r\n\
                   Host: another\r\nConnection: close\r\n\r\n";
    Wire::talk(&gateway.url, request).await;
    let asked = only(&upstream);
    assert_eq!(asked.target, "/a?b");
    assert_eq!(asked.headers["host"], "matrix.example.org:80");
}

#[tokio::test]
async fn a_tunnel_is_refused() {
    let (upstream, gateway) = echo().await;
    let request =
        "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n";
    let answer = Wire::talk(&gateway.url, request).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(answer.contains("M_UNRECOGNIZED"), "{answer}");
    assert!(upstream.asked().is_empty());
}

#[tokio::test]
async fn any_method_goes_through() {
    let (upstream, gateway) = echo().await;
    for method in ["GET", "POST", "PATCH", "OPTIONS", "PROPFIND", "x-own"] {
        let request = format!("{method} /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = Wire::talk(&gateway.url, &request).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(upstream.asked().last().unwrap().method, method);
    }
}

#[tokio::test]
async fn a_body_in_chunks_goes_through_whatever_the_method() {
    let (upstream, gateway) = echo().await;
    for method in ["PUT", "GET"] {
        let request = format!(
            "{method} /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
             Transfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
             3;why=not\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 5\r\n\r\n"
        );
        let answer = Wire::talk(&gateway.url, &request).await;
        assert!(answer.ends_with("\r\n\r\nabcde"), "{answer}");
        let asked = upstream.asked().pop().unwrap();
        assert_eq!(
            (asked.body, &asked.method),
            (Bytes::from("abcde"), &method.parse().unwrap())
        );
    }
}

#[tokio::test]
async fn an_answer_in_chunks_stays_in_chunks() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let (_upstream, gateway) = always(chunked).await;
    let mut client = Wire::to(&gateway.url).await;
    for _ in 0..2 {
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.head().await;
        assert!(has_line(&head, "transfer-encoding: chunked"), "{head}");
        let mut body = String::new();
        while !body.ends_with("0\r\n\r\n") {
            body += &client.exactly(1).await;
        }
        let told: String = body.split("\r\n").skip(1).step_by(2).collect();
        assert_eq!(told, "abcde", "{body}");
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_an_answer_that_ends_with_the_connection() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n";
    let (_upstream, gateway) = always(chunked).await;
    let answer = Wire::talk(&gateway.url, "GET /a HTTP/1.0\r\n\r\n").await;
    assert!(!answer.to_lowercase().contains("chunked"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nabcde"), "{answer}");
}

#[tokio::test]
async fn the_homeserver_is_asked_in_http_1_1_with_a_host_whatever_the_client_speaks() {
    let (upstream, gateway) = echo().await;
    Wire::talk(&gateway.url, "GET /a HTTP/1.0\r\n\r\n").await;
    let asked = only(&upstream);
    assert_eq!(asked.version, "HTTP/1.1");
    assert_eq!(asked.headers["host"], upstream.address().to_string());
}

#[tokio::test]
async fn an_answer_of_http_1_0_that_ends_with_its_connection_is_whole() {
    let upstream = Scripted::raw(|stream| async move {
        let mut wire = Wire(stream);
        wire.head().await;
        wire.send("HTTP/1.0 200 OK\r\nX-A: b\r\n\r\nabcde").await;
    })
    .await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let response = Client::new(&gateway.url).unwrap();
    let response = response
        .send(Request::new(Method::GET, "/a"))
        .await
        .unwrap();
    assert_eq!(response.body, "abcde");
}

#[tokio::test]
async fn an_answer_to_head_tells_the_length_and_has_no_body() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n";
    let (_upstream, gateway) = always(head).await;
    let mut client = Wire::to(&gateway.url).await;
    for _ in 0..2 {
        client.send("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(has_line(&head, "content-length: 5"), "{head}");
        assert!(has_line(&head, "etag: \"a\""), "{head}");
    }
}

#[tokio::test]
async fn an_answer_to_head_without_a_length_gets_none() {
    let (_upstream, gateway) = always("HTTP/1.1 200 OK\r\nX-A: b\r\n\r\n").await;
    let request = "HEAD /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = Wire::talk(&gateway.url, request).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(has_line(&answer, "x-a: b"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(values(&answer, "content-length").is_empty(), "{answer}");
}

#[tokio::test]
async fn answers_that_have_no_body_have_none_and_the_next_one_is_read_behind_them() {
    for answer in [
        "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nX-A: b\r\n\r\n",
        // Of what is not sent the length is not told either.
        "HTTP/1.1 304 Not Modified\r\nX-A: b\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 0\r\n\r\n",
    ] {
        let (_upstream, gateway) = always(answer).await;
        let mut client = Wire::to(&gateway.url).await;
        for _ in 0..2 {
            client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let head = client.head().await;
            let first = answer.lines().next().unwrap();
            assert!(head.starts_with(first), "{head}");
            assert!(has_line(&head, "x-a: b"), "{head}");
            let has_length = first.ends_with("200 OK");
            assert_eq!(has_line(&head, "content-length: 0"), has_length, "{head}");
        }
    }
}

#[tokio::test]
async fn lines_before_an_answer_are_not_taken_for_it() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (_upstream, gateway) = always(early).await;
    let request = "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = Wire::talk(&gateway.url, request).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
}

#[tokio::test]
async fn an_answer_keeps_its_status_its_words_and_the_spaces_of_its_json() {
    let limited = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\n\
                   Content-Type: application/json\r\nContent-Length: 49\r\n\r\n\
                   { \"errcode\":\"M_LIMIT_EXCEEDED\", \"error\" : \"\u{2026}\" }";
    let (_upstream, gateway) = always(limited).await;
    let request = "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = Wire::talk(&gateway.url, request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 429 Too Many Requests\r\n"),
        "{answer}"
    );
    assert!(has_line(head, "retry-after: 3"), "{answer}");
    assert_eq!(body, limited.split_once("\r\n\r\n").unwrap().1);
}

#[tokio::test]
async fn a_part_and_a_packed_body_are_asked_for_and_told_as_they_are() {
    let part = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/9\r\n\
                Content-Encoding: gzip\r\nETag: W/\"a\"\r\nContent-Length: 3\r\n\r\n\x1f\0\x01";
    let (told, seen) = (part.to_owned(), Arc::<Mutex<String>>::default());
    let heads = Arc::clone(&seen);
    let upstream = Scripted::raw(move |stream| {
        let (told, heads) = (told.clone(), Arc::clone(&heads));
        async move {
            let mut wire = Wire(stream);
            *heads.lock().unwrap() = wire.head().await;
            wire.send(told).await;
        }
    })
    .await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let wishes = [
        "range: bytes=2-4",
        "accept-encoding: br, gzip;q=0.5",
        "if-range: W/\"a\"",
    ];
    let request = format!(
        "GET /_matrix/client/v1/media/download/a/b HTTP/1.1\r\nHost: a\r\n\
         Connection: close\r\n{}\r\n\r\n",
        wishes.join("\r\n")
    );
    let answer = Wire::talk(&gateway.url, &request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let (expected, expected_body) = part.split_once("\r\n\r\n").unwrap();
    for line in expected.split("\r\n") {
        assert!(has_line(head, line), "{line}: {head}");
    }
    assert_eq!(body, expected_body);
    let seen = seen.lock().unwrap();
    for wish in wishes {
        assert!(has_line(&seen, wish), "{wish}: {seen}");
    }
}

#[tokio::test]
async fn who_asks_before_sending_is_told_to_go_on_and_the_homeserver_is_not_asked() {
    let (upstream, gateway) = echo().await;
    let mut client = Wire::to(&gateway.url).await;
    let head = "PUT /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
                Expect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    client.send(head).await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("abcde").await;
    let answer = client.rest().await.unwrap();
    assert!(answer.ends_with("\r\n\r\nabcde"), "{answer}");
    assert!(!only(&upstream).headers.contains_key("expect"));
}

#[tokio::test]
async fn who_asks_before_sending_is_not_told_to_go_on_where_it_is_refused() {
    let (upstream, gateway) = echo().await;
    let mut client = Wire::to(&gateway.url).await;
    let head = "POST /_matrix/client/v3/user/@a:b/devices/D/account_data/t HTTP/1.1\r\nHost: a\r\n\
                Connection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    client.send(head).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    assert!(upstream.asked().is_empty());
}

#[tokio::test]
async fn a_socket_of_this_machine_is_a_way_to_the_homeserver() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("homeserver.sock");
    let script =
        |asked: Asked| async move { whole(200, asked.headers["host"].as_bytes().to_vec()) };
    let _upstream = Scripted::start_unix(&path, script).await;
    let gateway = gateway(&format!("unix:{}", path.display()), |_| {}).await;
    let host = gateway.url.strip_prefix("http://").unwrap();
    let client = Client::new(&gateway.url).unwrap();
    let response = client.send(Request::new(Method::GET, "/a")).await.unwrap();
    assert_eq!(response.body, host);
    let answer = Wire::talk(&gateway.url, "GET /a HTTP/1.0\r\n\r\n").await;
    assert!(answer.ends_with("\r\n\r\nlocalhost"), "{answer}");
}
