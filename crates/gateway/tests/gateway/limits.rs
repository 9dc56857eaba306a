//! How much account data goes to the homeserver, and how often.

use kitbag_client::{Client, Method, Request};
use kitbag_testkit::scripted::{Asked, Scripted, ScriptedBody, json as answer};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::gateway;

const PATH: &str = "/_matrix/client/v3/user/@a:x/account_data/org.example.a";

/// Bytes of the largest content.
const LIMIT: usize = 1024 * 1024;

/// A homeserver where everybody but `none` is `@a:x`, and all is written.
async fn homeserver(asked: Asked) -> hyper::Response<ScriptedBody> {
    let token = asked.headers.get("authorization");
    if token.is_some_and(|token| token == "Bearer none") {
        return answer(401, &json!({"errcode": "M_UNKNOWN_TOKEN", "error": ""}));
    }
    match asked.target.ends_with("/whoami") {
        true => answer(200, &json!({"user_id": "@a:x", "device_id": "D"})),
        false => answer(200, &json!({})),
    }
}

fn writes(upstream: &Scripted) -> Vec<Asked> {
    let asked = upstream.asked().into_iter();
    asked.filter(|asked| asked.target == PATH).collect()
}

#[tokio::test]
async fn a_content_that_is_too_large_is_413_behind_what_is_wrong_with_the_token() {
    let upstream = Scripted::start(homeserver).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    for (token, path, bytes, status) in [
        ("one", PATH, LIMIT, 200),
        ("one", PATH, LIMIT + 1, 413),
        ("none", PATH, LIMIT + 1, 401),
        ("one", &PATH.replace("@a", "@b"), LIMIT + 1, 403),
    ] {
        let request = Request::new(Method::PUT, path)
            .token(token)
            .body(vec![b' '; bytes]);
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status, status, "{token} {path} {bytes}");
        if status == 413 {
            let told: serde_json::Value = response.json().unwrap();
            assert_eq!(told["errcode"], "M_TOO_LARGE");
        }
    }
    let written = writes(&upstream);
    assert_eq!(written.len(), 1);
    // Its length was told, so it was not gathered here: it went on as it came.
    assert_eq!(written[0].headers["content-length"], LIMIT.to_string());
    assert_eq!(written[0].body.len(), LIMIT);
}

/// Sends a body in pieces whose number nobody tells, and returns the status.
async fn send_in_pieces(url: &str, pieces: usize) -> u16 {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    let head = format!(
        "PUT {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer one\r\n\
         connection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut piece = b"10000\r\n".to_vec();
    piece.resize(piece.len() + 0x10000, b' ');
    piece.extend_from_slice(b"\r\n");
    for _ in 0..pieces {
        stream.write_all(&piece).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    let response = String::from_utf8(response).unwrap();
    response.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_content_whose_length_is_not_told_has_the_same_limit() {
    let upstream = Scripted::start(homeserver).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    assert_eq!(send_in_pieces(&gateway.url, 16).await, 200);
    assert_eq!(send_in_pieces(&gateway.url, 17).await, 413);
    let written = writes(&upstream);
    assert_eq!(written.len(), 1);
    assert_eq!(written[0].body.len(), LIMIT);
}
