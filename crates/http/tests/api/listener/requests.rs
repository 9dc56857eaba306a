//! Requests of every form that HTTP/1.1 knows, and some that it does not.

use std::time::Duration;

use super::wire::Wire;
use super::{Listening, versions};
use crate::support::Call;

const UPGRADE: &str = "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\n";

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let listening = Listening::start().await;
    let mut wire = listening.connect().await;
    let requests = [
        listening.put("a", "{\"n\":1}"),
        listening.get("a"),
        listening.put("a", "{\"n\":2}"),
        listening.get("a"),
        listening.get("b"),
    ];
    wire.send(requests.concat()).await;
    let expected = [
        (200, "{}"),
        (200, "{\"n\":1}"),
        (200, "{}"),
        (200, "{\"n\":2}"),
    ];
    for (status, body) in expected {
        let reply = wire.reply().await;
        assert_eq!((reply.status, reply.body.as_str()), (status, body));
    }
    wire.reply().await.assert_is(404, "M_NOT_FOUND");
}

/// They come while the first one waits, and are more than is read ahead.
#[tokio::test]
async fn requests_sent_ahead_of_an_answer_are_answered_behind_it() {
    const AHEAD: usize = 400;
    let listening = Listening::start().await;
    let (sync, _) = listening.waiting_sync().await;
    let mut wire = listening.connect().await;
    wire.send(format!("{}{sync}", versions())).await;
    assert_eq!(wire.reply().await.status, 200);
    let ahead = versions().repeat(AHEAD);
    let (first, rest) = ahead.split_at(10);
    wire.send(first).await;
    wire.assert_pauses(Duration::from_millis(50)).await;
    wire.send(rest).await;
    wire.assert_pauses(Duration::from_millis(50)).await;
    assert_eq!(listening.stored("a").await.0, 404);
    let put = Call::put(listening.alice.global("a"), "{}").by(&listening.alice);
    assert_eq!(listening.server.send(put).await.status, 200);
    let synced = wire.reply().await;
    assert_eq!(synced.status, 200);
    assert!(synced.body.contains(r#""type":"a""#), "{synced:?}");
    for number in 0..AHEAD {
        assert_eq!(wire.reply().await.status, 200, "request {number}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_leaves_the_connection_usable() {
    let listening = Listening::start().await;
    let mut wire = listening.connect().await;
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1024 * 1024));
    wire.send(listening.put("a", &large)).await;
    let reply = wire.reply().await;
    reply.assert_is(413, "M_TOO_LARGE");
    assert!(!reply.headers.contains_key("connection"), "{reply:?}");
    wire.send(listening.get("a")).await;
    wire.reply().await.assert_is(404, "M_NOT_FOUND");
}

/// Else it sends its next request on the connection, which is closed at that moment.
#[tokio::test]
async fn a_client_whose_body_is_not_read_to_its_end_is_told_that_the_connection_closes() {
    let listening = Listening::start().await;
    let large = listening.put("a", &"x".repeat(7 * 1024 * 1024));
    let broken = listening
        .put("a", "{}")
        .replace("content-length: 2", "content-length: 3")
        .replace("Bearer", "Basic");
    for (request, status, errcode) in [
        (large, 413, "M_TOO_LARGE"),
        (broken, 401, "M_MISSING_TOKEN"),
    ] {
        let mut wire = listening.connect().await;
        wire.send(&request).await;
        let reply = wire.reply().await;
        reply.assert_is(status, errcode);
        assert_eq!(reply.headers["connection"], "close", "{errcode}");
        wire.assert_closes().await;
    }
}

/// A connection that is gone answers to the next piece with a reset, which can take the answer along.
#[tokio::test]
async fn what_comes_behind_an_early_answer_is_still_taken() {
    let listening = Listening::start().await;
    let request = listening.put("a", "{}").replace("Bearer", "Basic");
    let request = request.replace("content-length: 2", "content-length: 5");
    // As curl does where it is to speak HTTP/2 if it can.
    let upgradable = request.replace("\r\n\r\n", &format!("\r\n{UPGRADE}\r\n"));
    for request in [request, upgradable] {
        let mut wire = listening.connect().await;
        wire.send(&request).await;
        wire.assert_pauses(Duration::from_secs(1)).await;
        for piece in ["x", "y"] {
            wire.send(piece).await;
            wire.assert_pauses(Duration::from_millis(50)).await;
        }
        wire.reply().await.assert_is(401, "M_MISSING_TOKEN");
        wire.assert_closes().await;
    }
}

/// What such a client still sends must not reset the connection, nor take the refusal along.
#[tokio::test]
async fn a_refused_head_of_who_asked_for_another_protocol_is_told_while_more_is_sent() {
    let listening = Listening::start().await;
    let head = "GET / HTTP/1.1\r\nhost: localhost\r\n";
    let rows = [
        (431, format!("{head}x: {}\r\n\r\n", "x".repeat(3_000_000))),
        (
            400,
            format!("{head}no colon\r\n\r\n{}", "x".repeat(3_000_000)),
        ),
    ];
    for (status, refused) in rows {
        let mut wire = listening.connect().await;
        let upgradable = versions().replace("\r\n\r\n", &format!("\r\n{UPGRADE}\r\n"));
        wire.send(upgradable).await;
        assert_eq!(wire.reply().await.status, 200);
        wire.send(refused).await;
        assert_eq!(wire.reply().await.status, status);
        wire.assert_closes().await;
    }
}

#[tokio::test]
async fn the_last_answer_to_who_asked_for_another_protocol_comes_whole() {
    let listening = Listening::start().await;
    let sync = listening.large_sync().await;
    let mut wire = Wire::connect_narrow(listening.address).await;
    // Of the body nothing comes, so that this answer is the last one.
    wire.send(format!("{sync}{UPGRADE}content-length: 1\r\n\r\n"))
        .await;
    assert!(wire.reply().await.body.len() > 8_000_000);
    wire.assert_closes().await;
}

#[tokio::test]
async fn a_coding_below_the_pieces_is_a_501_and_the_end() {
    let listening = Listening::start().await;
    let put = listening.head("PUT", &listening.alice.global("a"));
    for codings in [
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked",
    ] {
        let mut wire = listening.connect().await;
        wire.send(format!("{put}{codings}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"))
            .await;
        let reply = wire.reply().await;
        reply.assert_is(501, "M_UNKNOWN");
        assert!(reply.body.contains("only `chunked` is"), "{reply:?}");
        assert_eq!(reply.headers["access-control-allow-origin"], "*");
        assert!(reply.headers.contains_key("x-request-id"));
        wire.assert_closes().await;
    }
    assert_eq!(listening.stored("a").await.0, 404);
}

#[tokio::test]
async fn other_refusals_leave_the_connection_usable() {
    let listening = Listening::start().await;
    let mut wire = listening.connect().await;
    let refused = [
        (listening.put("m.push_rules", "{}"), 405, "M_BAD_JSON"),
        (listening.put("a", "{"), 400, "M_NOT_JSON"),
        (
            listening.put("a", "{}").replace("Bearer", "Basic"),
            401,
            "M_MISSING_TOKEN",
        ),
        (
            listening.put("a", "{}").replace("@alice", "@bob"),
            403,
            "M_FORBIDDEN",
        ),
        (
            listening.put("a", "{}").replace("PUT", "PATCH"),
            405,
            "M_UNRECOGNIZED",
        ),
        (
            listening.put("a", "{}").replace("account_data", "x"),
            404,
            "M_UNRECOGNIZED",
        ),
    ];
    for (request, status, errcode) in refused {
        wire.send(&request).await;
        wire.reply().await.assert_is(status, errcode);
    }
    wire.send(versions()).await;
    assert_eq!(wire.reply().await.status, 200);
}

#[tokio::test]
async fn whoever_asks_before_sending_is_told_to_go_on_or_refused() {
    let listening = Listening::start().await;
    let mut wire = listening.connect().await;
    let request = listening
        .put("a", "")
        .replace("content-length: 0", "content-length: 7");
    let request = request.replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
    wire.send(&request).await;
    assert_eq!(wire.head().await.status, 100);
    wire.send("{\"n\":1}").await;
    assert_eq!(wire.reply().await.status, 200);
    assert_eq!(listening.stored("a").await.1, "{\"n\":1}");

    wire.send(request.replace("Bearer", "Basic")).await;
    let reply = wire.reply().await;
    reply.assert_is(401, "M_MISSING_TOKEN");
    assert_eq!(reply.headers["connection"], "close");
    wire.assert_closes().await;
}

#[tokio::test]
async fn chunked_bodies_are_read() {
    let listening = Listening::start().await;
    let mut wire = listening.connect().await;
    let head = listening.head("PUT", &listening.alice.global("a"));
    let head = format!("{head}transfer-encoding: chunked\r\n\r\n");
    wire.send(format!(
        "{head}3\r\n{{\"n\r\n4;ext=1\r\n\":1}}\r\n0\r\n\r\n"
    ))
    .await;
    assert_eq!(wire.reply().await.status, 200);
    assert_eq!(listening.stored("a").await.1, "{\"n\":1}");

    wire.send(format!(
        "{head}{:x}\r\n{}\r\n0\r\n\r\n",
        2_000_000,
        " ".repeat(2_000_000)
    ))
    .await;
    wire.reply().await.assert_is(413, "M_TOO_LARGE");
    wire.send(versions()).await;
    assert_eq!(wire.reply().await.status, 200, "and the connection goes on");

    wire.send(format!("{head}nonsense\r\n{{}}\r\n0\r\n\r\n"))
        .await;
    wire.reply().await.assert_is(400, "M_NOT_JSON");
    wire.assert_closes().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_kept() {
    let listening = Listening::start().await;
    let mut wire = listening.connect().await;
    let request = listening
        .put("a", "{}")
        .replace("content-length: 2", "content-length: 3");
    wire.send(request).await;
    wire.shut().await;
    // Whether there is an answer for somebody who left is all the same.
    assert_eq!(listening.stored("a").await.0, 404);
    listening.assert_alive().await;
}

/// Two readings of where a request ends are what smuggling needs.
#[tokio::test]
async fn requests_with_two_lengths_are_not_two_requests() {
    let listening = Listening::start().await;
    let head = listening.head("PUT", &listening.alice.global("a"));
    let smuggled = listening.put("smuggled", "{}");
    let both = "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n";
    let mut wire = listening.connect().await;
    wire.send(format!("{head}{both}{}", versions())).await;
    wire.reply().await.assert_is(400, "M_NOT_JSON");

    let different = "content-length: 2\r\ncontent-length: 3\r\n\r\n{}";
    let mut wire = listening.connect().await;
    wire.send(format!("{head}{different}{smuggled}")).await;
    assert_eq!(wire.reply().await.status, 400);
    wire.assert_closes().await;

    for wrong in [
        "content-length: +2",
        "content-length: -1",
        "transfer-encoding: x",
    ] {
        let mut wire = listening.connect().await;
        wire.send(format!("{head}{wrong}\r\n\r\n{{}}")).await;
        assert_eq!(wire.reply().await.status, 400, "{wrong}");
        wire.assert_closes().await;
    }
    assert_eq!(listening.stored("a").await.0, 404);
    assert_eq!(listening.stored("smuggled").await.0, 404);
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let listening = Listening::start().await;
    let mut wire = listening.connect().await;
    wire.send(listening.put("a", "{\"n\":1}")).await;
    wire.reply().await;
    for (event_type, status) in [("a", 200), ("b", 404)] {
        wire.send(listening.get(event_type)).await;
        let get = wire.reply().await;
        wire.send(listening.get(event_type).replace("GET", "HEAD"))
            .await;
        let head = wire.head().await;
        assert_eq!((head.status, get.status), (status, status));
        assert_eq!(head.headers["content-type"], get.headers["content-type"]);
        let length = (
            head.headers.get("content-length"),
            get.headers.get("content-length"),
        );
        assert_eq!(length.0, length.1, "{event_type}");
    }
    wire.send(versions()).await;
    assert_eq!(
        wire.reply().await.status,
        200,
        "nothing was left on the wire"
    );
}

#[tokio::test]
async fn targets_in_other_forms_are_understood_or_refused() {
    let listening = Listening::start().await;
    let rows = [
        ("GET", "http://localhost/_matrix/client/versions", 200),
        (
            "GET",
            "http://elsewhere.example/_matrix/client/versions",
            200,
        ),
        ("GET", "//_matrix/client/versions", 404),
        ("GET", "/_matrix/client//versions", 404),
        ("GET", "/_matrix/client/versions/", 404),
        ("GET", "/%FF%FE", 404),
        ("GET", "/_matrix/client/v3/profile/%FF", 400),
        ("GET", "/", 404),
        ("GET", "*", 404),
        ("OPTIONS", "*", 204),
        ("OPTIONS", "/nothing", 204),
        ("CONNECT", "localhost:80", 404),
    ];
    for (method, target, status) in rows {
        let mut wire = listening.connect().await;
        wire.send(format!(
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\n\r\n"
        ))
        .await;
        assert_eq!(wire.reply().await.status, status, "{method} {target}");
    }
    listening.assert_alive().await;
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_closed() {
    let listening = Listening::start().await;
    let rows: [&[u8]; 5] = [
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a hello of TLS\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
    ];
    for bytes in rows {
        let mut wire = listening.connect().await;
        wire.send(bytes).await;
        assert_eq!(wire.reply().await.status, 400, "{}", bytes.escape_ascii());
        wire.assert_closes().await;
    }
    let mut http2 = listening.connect().await;
    http2.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    http2.assert_closes().await;
    listening.assert_alive().await;
}

#[tokio::test]
async fn old_clients_get_an_answer_and_the_end() {
    let listening = Listening::start().await;
    let mut wire = listening.connect().await;
    wire.send("GET /_matrix/client/versions HTTP/1.0\r\n\r\n")
        .await;
    assert_eq!(wire.reply().await.status, 200);
    wire.assert_closes().await;
    let mut wire = listening.connect().await;
    wire.send(versions().replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n"))
        .await;
    assert_eq!(wire.reply().await.status, 200);
    wire.assert_closes().await;
}
