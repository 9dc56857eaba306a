//! How much account data goes to the homeserver, and how often.

use std::sync::Arc;

use kitbag_client::{Client, Method, Request, Scope};
use kitbag_domain::Limits;
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::scripted::{Asked, Scripted, ScriptedBody, json as answer};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::compare::PATH;
use crate::log;
use crate::support::{Lab, gateway, gateway_at};

/// Bytes of the largest content.
const LIMIT: usize = 1024 * 1024;

/// A homeserver where everybody but `none` is `@a:x`, and all is written.
async fn homeserver(asked: Asked) -> hyper::Response<ScriptedBody> {
    let token = asked.headers.get("authorization");
    if token.is_some_and(|token| token == "Bearer kt_none") {
        return answer(401, &json!({"errcode": "M_UNKNOWN_TOKEN", "error": ""}));
    }
    let path = asked.target.split('?').next().unwrap();
    match path.ends_with("/whoami") {
        true => answer(200, &json!({"user_id": "@a:x", "device_id": "D"})),
        false => answer(200, &json!({"device_id": "D"})),
    }
}

fn writes(upstream: &Scripted) -> Vec<Asked> {
    let asked = upstream.asked().into_iter();
    asked.filter(|asked| asked.target == PATH).collect()
}

/// The tag of a room.
const TAG: &str = "/_matrix/client/v3/user/@a:x/rooms/!r:x/tags/u.a";

#[tokio::test]
async fn a_content_that_is_too_large_is_413_behind_what_is_wrong_with_the_token() {
    let upstream = Scripted::start(homeserver).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    for (token, path, bytes, status) in [
        ("kt_one", PATH, LIMIT, 200),
        ("kt_one", PATH, LIMIT + 1, 413),
        ("kt_none", PATH, LIMIT + 1, 401),
        ("kt_one", &PATH.replace("@a", "@b"), LIMIT + 1, 403),
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
        "PUT {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer kt_one\r\n\
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

#[tokio::test]
async fn a_write_counts_by_its_size_also_where_that_is_not_told() {
    let upstream = Scripted::start(homeserver).await;
    for compares in [false, true] {
        let clock = Arc::<TestClock>::default();
        let change = |settings: &mut kitbag_gateway::Settings| settings.msc4547.enabled = compares;
        let limits = Limits::default();
        let gateway = gateway_at(&upstream.url(), Arc::clone(&clock), limits, change).await;
        let client = Client::new(&gateway.url).unwrap();
        let before = writes(&upstream).len();
        let write = async |path: &str, bytes| {
            let body = vec![b' '; bytes];
            let request = Request::new(Method::PUT, path).token("kt_one").body(body);
            client.send(request).await.unwrap()
        };
        // Of the 300 at once each takes 64.
        for _ in 0..2 {
            assert_eq!(write(PATH, LIMIT).await.status, 200);
            assert_eq!(send_in_pieces(&gateway.url, 16).await, 200);
        }
        assert_eq!(send_in_pieces(&gateway.url, 16).await, 429);
        let refused = write(PATH, LIMIT).await;
        let told: serde_json::Value = refused.json().unwrap();
        assert_eq!(
            (refused.status, &told["retry_after_ms"]),
            (429, &json!(10_000))
        );
        // None of those that were refused counts, or came through.
        assert_eq!(writes(&upstream).len() - before, 4);
        clock.advance(10_000);
        assert_eq!(write(PATH, LIMIT).await.status, 200);
        assert_eq!(write(PATH, 1).await.status, 429);
        // What is too large is refused as that, and counts as one.
        clock.advance(500);
        assert_eq!(write(PATH, LIMIT + 1).await.status, 413);
        assert_eq!(write(PATH, LIMIT + 1).await.status, 429);
        clock.advance(1_000);
        // Names of some length are as good as a content.
        let long = PATH.replace("example", &"x".repeat(20_000));
        assert_eq!(write(&long, 1).await.status, 200);
        assert_eq!(write(PATH, 1).await.status, 429);
    }
}

#[tokio::test]
async fn contents_of_devices_count_by_their_size_too() {
    let upstream = Scripted::start(homeserver).await;
    let gateway = gateway(&upstream.url(), |settings| settings.writes.burst = 10).await;
    let path = PATH.replace("account_data", "devices/D/account_data");
    let client = Client::new(&gateway.url).unwrap();
    let content = format!("{{\"a\":\"{}\"}}", "x".repeat(64 * 1024 - 8));
    let write = async |body: &str| {
        let request = Request::new(Method::PUT, &path).token("kt_one");
        client
            .send(request.body(body.to_owned()))
            .await
            .unwrap()
            .status
    };
    for (body, status) in [
        (&*content, 200),
        (&content, 200),
        (&content, 429),
        ("{}", 200),
        ("{}", 200),
        ("{}", 429),
    ] {
        assert_eq!(write(body).await, status, "{}", body.len());
    }
}

#[tokio::test]
async fn tags_count_as_writes_of_account_data_and_have_its_limits() {
    let log = log::capture();
    let upstream = Scripted::start(homeserver).await;
    for compares in [false, true] {
        let clock = Arc::<TestClock>::default();
        let change = |settings: &mut kitbag_gateway::Settings| {
            seldom(settings);
            settings.msc4547.enabled = compares;
        };
        let limits = Limits::default();
        let gateway = gateway_at(&upstream.url(), Arc::clone(&clock), limits, change).await;
        let client = Client::new(&gateway.url).unwrap();
        let write = async |method: Method, token: &str, path: &str, bytes| {
            let request = Request::new(method, path).token(token);
            let request = request.body(vec![b' '; bytes]);
            client.send(request).await.unwrap().status
        };
        let told_before = log.lines("event_type=\"m.tag\"").len();
        assert_eq!(write(Method::PUT, "kt_one", TAG, 2).await, 200);
        assert_eq!(write(Method::DELETE, "kt_one", TAG, 0).await, 200);
        for path in [TAG, PATH] {
            assert_eq!(write(Method::PUT, "kt_one", path, 2).await, 429, "{path}");
            assert_eq!(
                write(Method::DELETE, "kt_one", path, 0).await,
                429,
                "{path}"
            );
        }
        assert_eq!(log.lines("event_type=\"m.tag\"").len() - told_before, 1);
        // What is wrong with the token and the path is told before.
        for _ in 0..3 {
            assert_eq!(write(Method::PUT, "kt_none", TAG, 2).await, 401);
        }
        let strangers = TAG.replace("@a", "@b");
        assert_eq!(write(Method::PUT, "kt_one", &strangers, 2).await, 403);
        clock.advance(1_000);
        assert_eq!(write(Method::PUT, "kt_one", TAG, LIMIT + 1).await, 413);
        // Reads are not counted.
        assert_eq!(write(Method::GET, "kt_one", TAG, 0).await, 200);
    }
}

/// Two writes at once, and one a second behind them.
fn seldom(settings: &mut kitbag_gateway::Settings) {
    settings.writes.burst = 2;
    settings.writes.per_minute = 60;
}

#[tokio::test]
async fn a_session_that_writes_too_often_is_told_when_to_go_on() {
    let upstream = Scripted::start(homeserver).await;
    let clock = Arc::<TestClock>::default();
    let limits = Limits::default();
    let gateway = gateway_at(&upstream.url(), Arc::clone(&clock), limits, seldom).await;
    let client = Client::new(&gateway.url).unwrap();
    let write = async |method: Method, token: &str, path: &str| {
        let request = Request::new(method, path).token(token).body("{}");
        client.send(request).await.unwrap()
    };
    let in_room = PATH.replace("account_data", "rooms/!r:x/account_data");
    assert_eq!(write(Method::PUT, "kt_one", PATH).await.status, 200);
    assert_eq!(write(Method::DELETE, "kt_one", &in_room).await.status, 200);
    let response = write(Method::PUT, "kt_one", PATH).await;
    let told: serde_json::Value = response.json().unwrap();
    assert_eq!(
        (response.status, &told["errcode"]),
        (429, &json!("M_LIMIT_EXCEEDED"))
    );
    assert_eq!(told["retry_after_ms"], 1_000);
    assert_eq!(response.header("retry-after"), Some("1"));
    // Reads are not counted, and no session counts for another.
    assert_eq!(write(Method::GET, "kt_one", PATH).await.status, 200);
    assert_eq!(write(Method::PUT, "kt_two", PATH).await.status, 200);
    // What is refused anyway is told as that, and counts nothing.
    let protected = PATH.replace("org.example.a", "m.push_rules");
    assert_eq!(write(Method::PUT, "kt_one", &protected).await.status, 405);
    let strangers = PATH.replace("@a", "@b");
    assert_eq!(write(Method::PUT, "kt_one", &strangers).await.status, 403);
    clock.advance(1_000);
    assert_eq!(write(Method::PUT, "kt_one", PATH).await.status, 200);
    assert_eq!(write(Method::PUT, "kt_one", PATH).await.status, 429);
    // A token that is not one is told so, however often.
    for _ in 0..4 {
        assert_eq!(write(Method::PUT, "kt_none", PATH).await.status, 401);
    }
}

#[tokio::test]
async fn a_session_counts_as_one_whomever_its_query_names() {
    let upstream = Scripted::start(homeserver).await;
    let of_device = PATH.replace("account_data", "devices/D/account_data");
    for path in [PATH, &of_device] {
        let gateway = gateway(&upstream.url(), seldom).await;
        let client = Client::new(&gateway.url).unwrap();
        for (query, status) in [
            ("?user_id=@a:x", 200),
            ("?user_id=@a:x&device_id=A", 200),
            ("?device_id=B", 429),
            ("?org.matrix.msc3202.device_id=C", 429),
            ("?user_id=@c:x", 429),
        ] {
            let request = Request::new(Method::PUT, format!("{path}{query}"));
            let request = request.token("kt_one").body("{}");
            let response = client.send(request).await.unwrap();
            assert_eq!(response.status, status, "{path}{query}");
        }
    }
}

/// Else tokens that somebody made up would fill the memory for sessions. Nor does it free a session
/// whose token was shown in a form that the homeserver does not take.
#[tokio::test]
async fn a_write_that_the_homeserver_refuses_as_nobodys_counts_nothing() {
    let upstream = Scripted::start(homeserver).await;
    let of_device = PATH.replace("account_data", "devices/D/account_data");
    let ways = [PATH, TAG, &of_device].into_iter();
    for (path, compares) in ways.flat_map(|path| [(path, false), (path, true)]) {
        let url = upstream.url();
        let gateway = gateway(&url, |settings| {
            seldom(settings);
            settings.msc4547.enabled = compares;
        });
        let gateway = gateway.await;
        let client = Client::new(&gateway.url).unwrap();
        let write = async |authorization: &str| {
            let request = Request::new(Method::PUT, path).body("{}");
            let request = request.header("authorization", authorization);
            client.send(request).await.unwrap().status
        };
        for (authorization, status) in [
            ("Bearer kt_none", 401),
            ("Bearer kt_none", 401),
            ("Other kt_none", 200),
            ("Bearer kt_none", 401),
            ("Other kt_none", 200),
            ("Other kt_none", 429),
        ] {
            assert_eq!(write(authorization).await, status, "{path} {compares}");
        }
    }
}

#[tokio::test]
async fn the_log_names_a_session_that_writes_too_often_once_a_minute() {
    let log = log::capture();
    let upstream = Scripted::start(homeserver).await;
    let (clock, limits) = (Arc::<TestClock>::default(), Limits::default());
    let change = |settings: &mut kitbag_gateway::Settings| {
        settings.writes.burst = 1;
        settings.writes.per_minute = 1;
    };
    let gateway = gateway_at(&upstream.url(), Arc::clone(&clock), limits, change).await;
    let client = Client::new(&gateway.url).unwrap();
    // The log is watched for these.
    let write = async || {
        let request = Request::new(Method::PUT, PATH).token("kt_token");
        let request = request.header("user-agent", "Looping/1.0 (test)");
        client
            .send(request.body(r#"{"a": "kt_content"}"#))
            .await
            .unwrap()
            .status
    };
    let told = || log.lines("writes account data too often");
    assert_eq!((write().await, told().len()), (200, 0));
    for _ in 0..3 {
        assert_eq!((write().await, told().len()), (429, 1));
    }
    let line = told().remove(0);
    for named in [
        "WARN",
        "user=@a:x",
        "device=\"D\"",
        "event_type=\"org.example.a\"",
        "user_agent=\"Looping/1.0 (test)\"",
    ] {
        assert!(line.contains(named), "{line}");
    }
    clock.advance(59_999);
    assert_eq!((write().await, told().len()), (429, 1));
    clock.advance(1);
    assert_eq!((write().await, told().len()), (200, 1));
    assert_eq!((write().await, told().len()), (429, 2));
}

#[tokio::test]
async fn the_log_names_who_writes_what_is_too_large_once_a_minute() {
    let log = log::capture();
    let upstream = Scripted::start(homeserver).await;
    let of_device = PATH.replace("account_data", "devices/D/account_data");
    for (path, compares) in [(PATH, false), (PATH, true), (&of_device, false)] {
        let clock = Arc::<TestClock>::default();
        let change = |settings: &mut kitbag_gateway::Settings| settings.msc4547.enabled = compares;
        let limits = Limits::default();
        let gateway = gateway_at(&upstream.url(), Arc::clone(&clock), limits, change).await;
        let client = Client::new(&gateway.url).unwrap();
        let told_before = log.lines("account data that is too large").len();
        let told = || {
            log.lines("account data that is too large")
                .split_off(told_before)
        };
        // The log is watched for this token.
        let write = async |bytes| {
            let request = Request::new(Method::PUT, path).token("kt_token");
            let request = request.header("user-agent", "Growing/1.0 (test)");
            let body = format!("{{\"a\":\"{}\"}}", "x".repeat(bytes));
            client.send(request.body(body)).await.unwrap().status
        };
        assert_eq!((write(10).await, told().len()), (200, 0), "{path}");
        for _ in 0..3 {
            assert_eq!((write(LIMIT).await, told().len()), (413, 1), "{path}");
        }
        let line = told().remove(0);
        for named in [
            "WARN",
            "user=@a:x",
            "device=\"D\"",
            "event_type=\"org.example.a\"",
            "user_agent=\"Growing/1.0 (test)\"",
        ] {
            assert!(line.contains(named), "{line}");
        }
        clock.advance(60_000);
        assert_eq!((write(LIMIT).await, told().len()), (413, 2), "{path}");
    }
}

#[tokio::test]
async fn a_write_of_a_device_that_is_refused_costs_the_homeserver_few_questions() {
    let upstream = Scripted::start(homeserver).await;
    let gateway = gateway(&upstream.url(), |settings| settings.writes.burst = 4).await;
    let client = Client::new(&gateway.url).unwrap();
    let path = PATH.replace("account_data", "devices/D/account_data");
    let deletion = path.replace("v3", "unstable/org.matrix.msc3391");
    let mut asked_before = 0;
    for (method, path, body, status, questions) in [
        // Who writes, and the device once.
        (Method::PUT, &path, "no JSON", 400, &["whoami", "D"][..]),
        (Method::PUT, &path, "[]", 400, &["whoami"]),
        (
            Method::PUT,
            &path,
            "{}",
            200,
            &["whoami", "D", "sync", "org.example.a"],
        ),
        (
            Method::DELETE,
            &deletion,
            "",
            200,
            &["whoami", "D", "org.example.a"],
        ),
        // Who writes is known from before.
        (Method::PUT, &path, "{}", 429, &[]),
        (Method::DELETE, &deletion, "", 429, &[]),
    ] {
        let request = Request::new(method.clone(), path)
            .token("kt_one")
            .body(body);
        assert_eq!(
            client.send(request).await.unwrap().status,
            status,
            "{method} {body}"
        );
        let asked = upstream.asked().split_off(asked_before);
        asked_before += asked.len();
        let targets: Vec<_> = asked.iter().map(|asked| &*asked.target).collect();
        let is_expected =
            |target: &&&str| questions.iter().any(|question| target.contains(question));
        assert!(
            targets.iter().all(|target| is_expected(&target)),
            "{method} {body} {targets:?}"
        );
        let is_few = status == 200 || targets.len() == questions.len();
        assert!(is_few, "{method} {body} {targets:?}");
    }
}

#[tokio::test]
async fn writes_of_a_device_count_as_those_of_its_session() {
    let lab = Lab::with(seldom).await;
    let phone = lab.user("PHONE").await;
    let scope = Scope::Device("PHONE");
    phone
        .put(Scope::Global, "org.example.a", &json!({}))
        .await
        .unwrap();
    phone.put(scope, "org.example.a", &json!({})).await.unwrap();
    let limited = phone.put(scope, "org.example.a", &json!({})).await;
    assert_eq!(limited.unwrap_err().errcode(), Some("M_LIMIT_EXCEEDED"));
    let limited = phone.delete(scope, "org.example.a").await;
    assert_eq!(limited.unwrap_err().errcode(), Some("M_LIMIT_EXCEEDED"));
    assert!(phone.get(scope, "org.example.a").await.unwrap().is_some());
    lab.clock.advance(1_000);
    phone.delete(scope, "org.example.a").await.unwrap();
}

#[tokio::test]
async fn a_small_limit_of_other_contents_is_none_of_those_of_devices() {
    let limits = Limits {
        content_bytes_max: 100,
        ..Limits::default()
    };
    let lab = Lab::limited(limits, |_| {}).await;
    let phone = lab.user("PHONE").await;
    let content = json!({"a": "x".repeat(1_000)});
    let scope = Scope::Device("PHONE");
    phone.put(scope, "org.example.a", &content).await.unwrap();
    assert_eq!(
        phone.get(scope, "org.example.a").await.unwrap(),
        Some(content.clone())
    );
    let refused = phone.put(Scope::Global, "org.example.a", &content).await;
    assert_eq!(refused.unwrap_err().errcode(), Some("M_TOO_LARGE"));
}

#[tokio::test]
async fn writes_can_be_unlimited() {
    let upstream = Scripted::start(homeserver).await;
    let unlimited = |settings: &mut kitbag_gateway::Settings| {
        seldom(settings);
        settings.writes.enabled = false;
    };
    let gateway = gateway(&upstream.url(), unlimited).await;
    let client = Client::new(&gateway.url).unwrap();
    for _ in 0..10 {
        let request = Request::new(Method::PUT, PATH).token("kt_one").body("{}");
        assert_eq!(client.send(request).await.unwrap().status, 200);
    }
}
