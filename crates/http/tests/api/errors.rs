//! The errcode table: each row shown by a request, and the members that some bodies have beside.

mod members;

use std::collections::BTreeSet;
use std::sync::Arc;

use kitbag_domain::{AccountStore as _, Allowance, MemoryStore, UserId};
use kitbag_domain::{DeviceSelection, Guard, Limits, Quota, Write, Writer};
use kitbag_http::{Passwords, Random, RegistrationMode};
use serde_json::json;

use crate::support::{
    Call, PASSWORD, Reply, Server, Session, ending_body, endless_body, password_hash, poll_once,
    ready,
};

const C3: &str = "/_matrix/client/v3";

/// Limits at which everything is full soon.
fn narrow() -> Limits {
    Limits {
        quota: Quota {
            entries_max: 3,
            bytes_max: 200,
            device_entries_max: 1,
            ..Quota::default()
        },
        devices_max: 1,
        filters_max: 1,
        ..Limits::default()
    }
}

/// Removes a device as its logout would.
fn remove_device(store: &MemoryStore, user: &UserId) {
    let write = Write {
        guard: Guard::Account,
        writer: Writer::Server,
        at: 0,
        allowance: Allowance::Ordinary,
    };
    ready(store.remove_devices(user, write, DeviceSelection::All)).unwrap();
}

fn login(password: &str) -> Call {
    let body = json!({"type": "m.login.password", "user": "alice", "password": password});
    Call::post(format!("{C3}/login"), body.to_string())
}

/// A user at a server, and requests by short names.
struct Lab {
    server: Server,
    alice: Session,
}

impl Lab {
    async fn new() -> Self {
        Self::on(Server::start()).await
    }

    async fn on(server: Server) -> Self {
        let alice = server.user("alice").await;
        Self { server, alice }
    }

    async fn narrow() -> Self {
        Self::on(Server::with(|setup| setup.limits = narrow())).await
    }

    async fn send(&self, call: Call) -> Reply {
        self.server.send(call.by(&self.alice)).await
    }

    async fn put(&self, path: &str, body: &str) -> Reply {
        self.send(Call::put(path, body.to_owned())).await
    }
}

/// Requests that need nothing but a user: method, path below the prefix, body, status, errcode.
#[rustfmt::skip] // a table is read by its columns
const PLAIN: &[(&str, &str, &str, u16, &str)] = &[
    ("POST", "/login", "[]", 400, "M_BAD_JSON"),
    ("POST", "/login", "{\"type\":1}", 400, "M_BAD_JSON"),
    ("POST", "/login", "{\"type\":\"m.login.sso\"}", 400, "M_UNKNOWN"),
    ("POST", "/login", "{}", 400, "M_MISSING_PARAM"),
    ("POST", "/login", "{", 400, "M_NOT_JSON"),
    ("POST", "/login", "", 400, "M_NOT_JSON"),
    ("POST", "/refresh", "{\"refresh_token\":\"x\"}", 401, "M_UNKNOWN_TOKEN"),
    ("POST", "/register?kind=guest", "{}", 403, "M_FORBIDDEN"),
    ("POST", "/register?kind=x", "{}", 400, "M_INVALID_PARAM"),
    ("POST", "/register", "{\"username\":\"x\",\"password\":\"\",\"auth\":{\"type\":\"m.login.dummy\"}}", 400, "M_WEAK_PASSWORD"),
    ("POST", "/register", "{\"username\":\"alice\"}", 400, "M_USER_IN_USE"),
    ("POST", "/register", "{\"username\":\"Älice\"}", 400, "M_INVALID_USERNAME"),
    ("GET", "/register/available?username=alice", "", 400, "M_USER_IN_USE"),
    ("GET", "/register/available?username=", "", 400, "M_INVALID_USERNAME"),
    ("GET", "/register/available", "", 400, "M_MISSING_PARAM"),
    ("GET", "/sync?since=s72594_4483_1934", "", 400, "M_INVALID_PARAM"),
    ("GET", "/sync?timeout=-1", "", 400, "M_INVALID_PARAM"),
    ("GET", "/sync?filter=77", "", 400, "M_INVALID_PARAM"),
    ("GET", "/sync?filter=%7B", "", 400, "M_NOT_JSON"),
    ("GET", "/devices/NOBODY", "", 404, "M_NOT_FOUND"),
    ("PUT", "/devices/NOBODY", "{}", 404, "M_NOT_FOUND"),
    ("PUT", "/devices/NOBODY", "{\"display_name\":\"x\"}", 404, "M_NOT_FOUND"),
    ("POST", "/delete_devices", "{}", 400, "M_MISSING_PARAM"),
    ("DELETE", "/devices/PHONE", "{}", 401, ""),
    ("GET", "/profile/alice", "", 400, "M_INVALID_PARAM"),
    ("GET", "/profile/@nobody:localhost", "", 404, "M_NOT_FOUND"),
    ("GET", "/profile/@alice:localhost/mood", "", 404, "M_NOT_FOUND"),
    ("GET", "/profile/@alice:localhost/displayname", "", 404, "M_NOT_FOUND"),
    ("PUT", "/profile/@alice:localhost/displayname", "{}", 400, "M_MISSING_PARAM"),
    ("PUT", "/profile/@alice:localhost/displayname", "{\"displayname\":1}", 400, "M_BAD_JSON"),
    ("PUT", "/profile/@bob:localhost/displayname", "{\"displayname\":\"x\"}", 403, "M_FORBIDDEN"),
    ("GET", "/user/@alice:localhost/filter/5", "", 404, "M_NOT_FOUND"),
    ("GET", "/user/@alice:localhost/filter/x", "", 404, "M_NOT_FOUND"),
    ("POST", "/user/@alice:localhost/filter", "[]", 400, "M_BAD_JSON"),
    ("POST", "/user/@alice:localhost/filter", "{\"room\":1}", 400, "M_BAD_JSON"),
    ("POST", "/user/@alice:localhost/filter", "", 400, "M_NOT_JSON"),
    ("GET", "/room_keys/version", "", 404, "M_NOT_FOUND"),
    ("GET", "/nothing", "", 404, "M_UNRECOGNIZED"),
    ("GET", "", "", 404, "M_UNRECOGNIZED"),
    ("GET", "/pushrules", "", 404, "M_UNRECOGNIZED"),
    ("GET", "/pushrules/global", "", 400, "M_UNRECOGNIZED"),
    ("GET", "/pushrules/global/nothing/a", "", 400, "M_UNRECOGNIZED"),
    ("GET", "/pushrules/global/room/a/nothing", "", 400, "M_UNRECOGNIZED"),
    ("GET", "/pushrules/global/room/a", "", 404, "M_NOT_FOUND"),
    ("GET", "/pushrules/global/room/%FF", "", 400, "M_INVALID_PARAM"),
    ("PUT", "/pushrules/", "{}", 400, "M_UNRECOGNIZED"),
    ("PUT", "/pushrules/global/room/.a", "{}", 400, "M_INVALID_PARAM"),
    ("PUT", "/pushrules/global/room/a%2Fb", "{}", 400, "M_INVALID_PARAM"),
    ("PUT", "/pushrules/global/room/a", "", 400, "M_NOT_JSON"),
    ("PUT", "/pushrules/global/room/a", "{}", 400, "M_MISSING_PARAM"),
    ("PUT", "/pushrules/global/room/a", "{\"actions\":[1]}", 400, "M_BAD_JSON"),
    ("PUT", "/pushrules/global/room/a?after=b", "{\"actions\":[]}", 400, "M_UNKNOWN"),
    ("PUT", "/pushrules/global/room/a/enabled", "{\"enabled\":true}", 404, "M_NOT_FOUND"),
    ("DELETE", "/pushrules/global/override/.m.rule.master", "", 400, "M_INVALID_PARAM"),
    ("DELETE", "/pushrules/global/room/a", "", 404, "M_NOT_FOUND"),
    ("DELETE", "/pushrules/global/room/a/enabled", "", 405, "M_UNRECOGNIZED"),
    ("DELETE", "/sync", "", 405, "M_UNRECOGNIZED"),
    ("PATCH", "/login", "", 405, "M_UNRECOGNIZED"),
];

#[tokio::test]
async fn plain_requests_are_refused_by_the_table() {
    let lab = Lab::new().await;
    for (method, path, body, status, errcode) in PLAIN {
        let call = Call::new(method, format!("{C3}{path}")).body(*body);
        let reply = lab.send(call).await;
        assert_eq!(
            reply.row(),
            (*status, (*errcode).to_owned()),
            "{method} {path} {body}"
        );
        assert_eq!(reply.headers["content-type"], "application/json", "{path}");
        assert_eq!(reply.headers["access-control-allow-origin"], "*", "{path}");
        assert!(reply.headers.contains_key("x-request-id"), "{path}");
        let has_text = reply.json()["error"].is_string();
        assert!(has_text || errcode.is_empty(), "{path}: a text for people");
    }
}

/// Contents that cannot be put: at global scope, with the limits as they are by default.
fn bad_contents() -> Vec<(String, u16, &'static str)> {
    let nested = format!("{{\"a\":{}{}}}", "[".repeat(128), "]".repeat(128));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1024 * 1024));
    let mut rows = vec![
        (nested, 400, "M_BAD_JSON"),
        (large, 413, "M_TOO_LARGE"),
        (" ".repeat(1024 * 1024 + 1), 413, "M_TOO_LARGE"),
    ];
    for text in ["[]", "\"x\"", "1", "null", "true"] {
        rows.push((text.to_owned(), 400, "M_BAD_JSON"));
    }
    for text in [
        "",
        "{",
        "{}{}",
        "{\"a\":01}",
        "\u{feff}{}",
        "{'a':1}",
        "{\"a\":NaN}",
        "{}x",
    ] {
        rows.push((text.to_owned(), 400, "M_NOT_JSON"));
    }
    rows
}

#[tokio::test]
async fn contents_are_refused_by_the_table() {
    let lab = Lab::new().await;
    let path = lab.alice.global("app.test");
    for (body, status, errcode) in bad_contents() {
        let reply = lab.put(&path, &body).await;
        let start: String = body.chars().take(20).collect();
        assert_eq!(reply.row(), (status, errcode.to_owned()), "{start}");
    }
    let invalid_utf8 = Call::put(&path, &b"{\"a\":\"\xff\"}"[..]);
    lab.send(invalid_utf8).await.assert_is(400, "M_NOT_JSON");
    assert!(lab.server.entries(&lab.alice).await.is_empty());
}

#[tokio::test]
async fn a_device_has_a_smaller_limit() {
    let lab = Lab::new().await;
    let body = format!("{{\"a\":\"{}\"}}", "x".repeat(64 * 1024));
    let reply = lab
        .put(&lab.alice.device_data("PHONE", "app.test"), &body)
        .await;
    reply.assert_is(413, "M_TOO_LARGE");
    assert_eq!(
        lab.put(&lab.alice.global("app.test"), &body).await.status,
        200
    );
}

#[tokio::test]
async fn bodies_that_break_off_are_not_json() {
    let lab = Lab::new().await;
    let call = Call::put(lab.alice.global("app.test"), "").by(&lab.alice);
    let request = call.request_with(ending_body("{\"a\":"));
    let response = lab.server.edge.answer([127, 0, 0, 1].into(), request);
    Reply::read(response.await)
        .await
        .assert_is(400, "M_NOT_JSON");
}

#[tokio::test(start_paused = true)]
async fn bodies_that_never_end_are_a_408() {
    let lab = Lab::new().await;
    let call = Call::put(lab.alice.global("app.test"), "").by(&lab.alice);
    let request = call.request_with(endless_body("{\"a\":"));
    let started = tokio::time::Instant::now();
    let response = lab.server.edge.answer([127, 0, 0, 1].into(), request);
    Reply::read(response.await)
        .await
        .assert_is(408, "M_UNKNOWN");
    assert!(started.elapsed().as_secs() >= 30, "the default is 30 s");
    assert!(started.elapsed().as_secs() < 60);
}

struct Zero;

impl Random for Zero {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

async fn too_many_password_checks() -> Reply {
    // Nobody ever gets a turn, so all wait.
    let passwords = Passwords::new(0, Arc::new(Zero)).unwrap();
    let lab = Lab::on(Server::with(|setup| setup.passwords = passwords)).await;
    let mut waiting = Vec::new();
    for number in 0..256 {
        let mut login = Box::pin(lab.server.send(login(PASSWORD)));
        assert!(poll_once(&mut login).is_pending(), "login {number} waits");
        waiting.push(login);
    }
    lab.server.send(login(PASSWORD)).await
}

async fn stored_hash_is_garbage() -> Reply {
    let lab = Lab::new().await;
    let write = Write {
        guard: Guard::Account,
        writer: Writer::Server,
        at: 0,
        allowance: Allowance::Ordinary,
    };
    let garbage = "canary of a hash".to_owned();
    let store = lab.server.store.memory();
    let changed = store.set_password(&lab.alice.user, write, garbage, None);
    changed.await.unwrap();
    lab.server.send(login(PASSWORD)).await
}

async fn conflict(query: &str, field: &str) -> Reply {
    let lab = Lab::new().await;
    let path = lab.alice.global("app.test");
    let stored = format!("{{ \"{field}\": \"1\",\"n\":1.0e0 }}");
    assert_eq!(lab.put(&path, &stored).await.status, 200);
    lab.put(&format!("{path}?{query}=2"), "{}").await
}

/// One reply for each row that needs more than [`PLAIN`].
async fn special_rows() -> Vec<Reply> {
    let lab = Lab::new().await;
    let alice = &lab.alice;
    let tablet = lab.server.device(&alice.user, "TABLET").await;
    let long_name = json!({"display_name": "x".repeat(101)}).to_string();
    let ignores_self = json!({"ignored_users": {alice.user.as_str(): {}}}).to_string();
    let full = Lab::narrow().await;
    assert_eq!(
        full.put(&full.alice.device_data("PHONE", "a"), "{}")
            .await
            .status,
        200
    );
    let closed = Server::with(|setup| setup.settings.registration.mode = RegistrationMode::Closed);
    let mut replies = vec![
        lab.server.send(Call::get(alice.global("app.test"))).await,
        lab.server
            .send(Call::get(alice.global("app.test")).token("kt_x"))
            .await,
        lab.send(Call::get(alice.global("app.test"))).await,
        lab.send(Call::get(alice.global(&"x".repeat(256)))).await,
        lab.send(Call::get(alice.room("r", "app.test"))).await,
        lab.put(&alice.global("m.push_rules"), "{}").await,
        lab.put(&alice.device_data("NOBODY", "a"), "{}").await,
        lab.put(&alice.device_data(tablet.device.as_str(), "a"), "{}")
            .await,
        lab.put(&format!("{C3}/devices/PHONE"), &long_name).await,
        lab.put(&alice.global("m.ignored_user_list"), &ignores_self)
            .await,
        full.put(&full.alice.device_data("PHONE", "b"), "{}").await,
        closed
            .send(Call::post(format!("{C3}/register"), "{}"))
            .await,
        lab.send(Call::get(alice.global("x").replace("@alice", "@bob")))
            .await,
        too_many_password_checks().await,
        stored_hash_is_garbage().await,
        conflict("expect_revision_id", "m.revision_id").await,
        conflict("com.beeper.expect_revision_id", "com.beeper.revision_id").await,
        members::deactivated_login().await,
        members::rate_limited_login().await,
    ];
    for (body, ..) in bad_contents() {
        replies.push(lab.put(&alice.global("app.test"), &body).await);
    }
    replies
}

/// Returns the pairs of the table, as its source writes them.
fn pairs_of_the_table() -> BTreeSet<(String, String)> {
    let source = include_str!("../../src/error.rs");
    let mut pairs = BTreeSet::new();
    for (at, _) in source.match_indices("(StatusCode::") {
        let row = &source[at + "(StatusCode::".len()..];
        let (status, rest) = row.split_once(',').unwrap();
        if let Some(errcode) = rest.trim_start().strip_prefix('"') {
            let errcode = errcode.split('"').next().unwrap();
            pairs.insert((status.to_owned(), errcode.to_owned()));
        }
    }
    pairs
}

#[tokio::test]
async fn each_pair_of_the_table_was_met() {
    let lab = Lab::new().await;
    // These have tests of their own, above and of the listener.
    let mut met = BTreeSet::from([408, 501].map(|status| (status, "M_UNKNOWN".to_owned())));
    for (method, path, body, ..) in PLAIN {
        let call = Call::new(method, format!("{C3}{path}")).body(*body);
        met.insert(lab.send(call).await.row());
    }
    met.extend(special_rows().await.iter().map(Reply::row));
    let pairs = pairs_of_the_table();
    assert!(pairs.len() > 20, "the table was read: {pairs:?}");
    for (status, errcode) in pairs {
        let number = match status.as_str() {
            "BAD_REQUEST" => 400,
            "CONFLICT" => 409,
            "FORBIDDEN" => 403,
            "INTERNAL_SERVER_ERROR" => 500,
            "METHOD_NOT_ALLOWED" => 405,
            "NOT_FOUND" => 404,
            "NOT_IMPLEMENTED" => 501,
            "PAYLOAD_TOO_LARGE" => 413,
            "REQUEST_TIMEOUT" => 408,
            "SERVICE_UNAVAILABLE" => 503,
            "TOO_MANY_REQUESTS" => 429,
            "UNAUTHORIZED" => 401,
            other => panic!("{other} has no number here"),
        };
        // 503 is met here by waiting passwords, and by every failure of a store elsewhere.
        assert!(
            met.contains(&(number, errcode.clone())),
            "{status} {errcode} was not met"
        );
    }
}

#[tokio::test]
async fn inside_errors_of_passwords_are_not_told() {
    for reply in [
        stored_hash_is_garbage().await,
        too_many_password_checks().await,
    ] {
        assert!(matches!(reply.status, 500 | 503));
        let expected = format!("internal error, request {}", reply.request_id());
        assert_eq!(
            reply.json(),
            json!({"errcode": "M_UNKNOWN", "error": expected})
        );
    }
}

#[tokio::test]
async fn a_password_changed_during_a_login_is_a_403() {
    let lab = Lab::new().await;
    let user = lab.alice.user.clone();
    lab.server.store.before("login", move |store| {
        let write = Write {
            guard: Guard::Account,
            writer: Writer::Server,
            at: 0,
            allowance: Allowance::Ordinary,
        };
        ready(store.set_password(&user, write, "other".to_owned(), None)).unwrap();
    });
    lab.server
        .send(login(PASSWORD))
        .await
        .assert_is(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn a_name_taken_during_a_registration_is_in_use() {
    let server = Server::start();
    server.store.before("register", |store| {
        let account = kitbag_domain::NewAccount {
            user: UserId::parse("@bob:localhost").unwrap(),
            password_hash: password_hash(),
            at: 0,
        };
        ready(store.register(account, None)).unwrap();
    });
    let body = json!({"username": "bob", "password": "x", "auth": {"type": "m.login.dummy"}});
    let reply = server
        .send(Call::post(format!("{C3}/register"), body.to_string()))
        .await;
    reply.assert_is(400, "M_USER_IN_USE");
}
