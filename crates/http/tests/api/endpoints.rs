//! A call of every endpoint, checked against the route table.

use std::collections::BTreeSet;

use kitbag_domain::UserId;
use serde_json::json;

use crate::support::{Call, PASSWORD, Server, Session};

const C3: &str = "/_matrix/client/v3";

/// Returns a call of each endpoint and method that succeeds or, where nothing is kept, is a 404.
pub(crate) fn every_call(alice: &Session, filter: &str) -> Vec<Call> {
    let own = account_calls(alice)
        .into_iter()
        .chain(small_calls(alice, filter))
        .chain(entry_calls(alice))
        .chain(push_rule_calls());
    let mut calls = public_calls(alice);
    calls.extend(own.map(|call| call.by(alice)));
    calls.extend(admin_calls(&alice.user).into_iter().map(Call::admin));
    calls
}

fn public_calls(alice: &Session) -> Vec<Call> {
    let user = &alice.user;
    let register = json!({"username": "bob", "password": "x", "auth": {"type": "m.login.dummy"}});
    let login = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": PASSWORD,
    });
    vec![
        Call::get("/.well-known/matrix/client"),
        Call::get("/_matrix/client/versions"),
        Call::get("/health"),
        Call::get("/_matrix/client/v1/register/m.login.registration_token/validity?token=x"),
        Call::get(format!("{C3}/login")),
        Call::post(format!("{C3}/login"), login.to_string()),
        Call::post(format!("{C3}/register"), register.to_string()),
        Call::get(format!("{C3}/register/available?username=carol")),
        Call::get(format!("{C3}/profile/{user}")),
        Call::get(format!("{C3}/profile/{user}/displayname")),
    ]
}

/// Calls that need the password.
fn account_calls(alice: &Session) -> Vec<Call> {
    let auth = alice.password_auth(PASSWORD);
    let rows = [
        (
            "POST",
            "/account/password",
            json!({"auth": auth, "new_password": "x"}),
        ),
        ("POST", "/account/deactivate", json!({"auth": auth})),
        (
            "POST",
            "/delete_devices",
            json!({"auth": auth, "devices": ["TABLET"]}),
        ),
        ("DELETE", "/devices/TABLET", json!({"auth": auth})),
    ];
    let call = |(method, path, body): (_, _, serde_json::Value)| {
        Call::new(method, format!("{C3}{path}")).body(body.to_string())
    };
    rows.map(call).into()
}

fn small_calls(alice: &Session, filter: &str) -> Vec<Call> {
    let (user, base) = (&alice.user, alice.base());
    let mut calls = vec![
        Call::get(format!("{C3}/sync?full_state=true&filter={filter}")),
        Call::get(format!("{base}/filter/{filter}")),
        Call::post(format!("{base}/filter"), "{}"),
        Call::post(format!("{C3}/logout"), ""),
        Call::post(format!("{C3}/logout/all"), ""),
        Call::put(format!("{C3}/devices/PHONE"), "{\"display_name\":\"x\"}"),
        Call::put(format!("{C3}/devices/PHONE"), "{}"),
        Call::put(format!("{C3}/presence/{user}/status"), "{}"),
        Call::put(
            format!("{C3}/profile/{user}/displayname"),
            "{\"displayname\":\"x\"}",
        ),
    ];
    for path in [
        "/account/whoami",
        "/capabilities",
        "/devices",
        "/devices/PHONE",
        "/joined_rooms",
        "/presence/@a:x/status",
        "/pushers",
        "/room_keys/version",
        "/sync",
        "/thirdparty/protocols",
        "/voip/turnServer",
    ] {
        calls.push(Call::get(format!("{C3}{path}")));
    }
    calls
}

fn push_rule_calls() -> Vec<Call> {
    let rules = format!("{C3}/pushrules");
    let mut calls = Vec::new();
    for place in ["/", "/global/", "/global/override/"] {
        calls.push(Call::get(format!("{rules}{place}")));
    }
    for rule in ["override/.m.rule.master", "room/!r:x"] {
        let rule = format!("{rules}/global/{rule}");
        calls.push(Call::get(&rule));
        for (attribute, body) in [("actions", "[]"), ("enabled", "true")] {
            let path = format!("{rule}/{attribute}");
            calls.push(Call::get(&path));
            calls.push(Call::put(&path, format!("{{\"{attribute}\":{body}}}")));
        }
    }
    let rule = format!("{rules}/global/room/!r:x");
    calls.push(Call::put(&rule, "{\"actions\":[]}"));
    calls.push(Call::delete(rule));
    let explain = "/_kitbag/client/v1/pushrules/explain";
    calls.push(Call::post(explain, "{\"event\":{}}"));
    calls
}

/// Returns calls of paths that look like those of push rules, which are refused as such.
fn misplaced_calls() -> Vec<Call> {
    let mut calls = Vec::new();
    for place in [
        "/",
        "/global",
        "/global/",
        "/device/",
        "/global/room",
        "/global/room/",
        "/device/room/",
        "/device/room/a",
        "/global/room/a/x",
    ] {
        let path = format!("{C3}/pushrules{place}");
        calls.push(Call::put(&path, "{\"actions\":[]}"));
        calls.push(Call::delete(&path));
        calls.push(Call::get(path));
    }
    calls
}

fn entry_calls(alice: &Session) -> Vec<Call> {
    let (user, base) = (&alice.user, alice.base());
    let deletion = "/_matrix/client/unstable/org.matrix.msc3391/user";
    let mut calls = Vec::new();
    for rest in [
        "/account_data/app.test",
        "/rooms/!r:x/account_data/app.test",
        "/devices/PHONE/account_data/app.test",
        "/devices/PHONE/net.zemos.account_data/app.test",
    ] {
        calls.push(Call::get(format!("{base}{rest}")));
        calls.push(Call::put(format!("{base}{rest}"), "{}"));
        calls.push(Call::delete(format!("{base}{rest}")));
        calls.push(Call::delete(format!("{deletion}/{user}{rest}")));
        // Of another device, so that a store could be asked about it.
        let other = rest.replace("PHONE", "TABLET");
        calls.push(Call::delete(format!("{base}{other}")));
    }
    calls
}

/// Returns a call of each endpoint of the admin API.
pub(crate) fn admin_calls(user: &UserId) -> Vec<Call> {
    let base = "/_kitbag/admin/v1";
    let mut calls = vec![Call::get(format!(
        "/_synapse/admin/v1/users/{user}/accountdata"
    ))];
    for path in [
        "/changes",
        "/device_account_data?type=app.test",
        "/device_account_data/lacking?type=app.test&pointer=/a&lacks=1",
        "/device_account_data/summary?type=app.test&pointer=/a",
        "/openapi.json",
        "/users",
    ] {
        calls.push(Call::get(format!("{base}{path}")));
    }
    let base = format!("{base}/users/{user}");
    calls.push(Call::get(format!("{base}/account_data?device_id=PHONE")));
    for rest in ["", "/rooms/!r:x", "/devices/PHONE"] {
        let path = format!("{base}{rest}/account_data/app.test");
        calls.push(Call::get(&path));
        calls.push(Call::put(&path, "{}"));
        calls.push(Call::delete(path));
    }
    calls
}

/// Returns a call of `POST /refresh`, which needs a token of its own.
pub(crate) async fn refresh_call(server: &Server, alice: &Session) -> Call {
    use kitbag_domain::{AccountStore as _, Token, TokenKind};
    let token = Token::new(TokenKind::Refresh, alice.user.clone(), [9; 32]);
    let (mut login, _) = server.new_session(&alice.user, "REFRESHING");
    login.tokens.refresh = Some(token.hash());
    let store = server.store.memory();
    store.login(&alice.user, login).await.unwrap();
    let body = json!({"refresh_token": token.reveal()});
    Call::post("/_matrix/client/v3/refresh", body.to_string())
}

/// Returns the methods and templates of the route table, as its source writes them.
pub(crate) fn routes() -> BTreeSet<(String, String)> {
    let source = include_str!("../../src/routes.rs");
    let mut routes = BTreeSet::new();
    for (at, _) in source.match_indices("(\"/") {
        let row = &source[at + 2..];
        let (path, rest) = row.split_once('"').unwrap();
        let end = rest.find(";\n").unwrap_or(rest.len());
        let end = rest.find("(\"/").unwrap_or(end).min(end);
        let methods = &rest[..end];
        let named = ["get(", "put(", "post(", "delete("];
        for name in named.into_iter().filter(|name| {
            methods.contains(&format!(" {name}")) || methods.contains(&format!(".{name}"))
        }) {
            let method = name.trim_end_matches('(').to_uppercase();
            routes.insert((method, path.to_owned()));
        }
        if methods.contains("::entry()") {
            for method in ["GET", "PUT", "DELETE"] {
                routes.insert((method.to_owned(), path.to_owned()));
            }
        }
    }
    // On the private listener, and asked for in `metrics.rs`.
    assert!(routes.remove(&("GET".to_owned(), "/metrics".to_owned())));
    routes
}

/// Tells whether the end of `path` fits `template`, whose `{…}` stand for one segment.
pub(crate) fn fits(template: &str, path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    let wanted: Vec<&str> = template.split('/').skip(1).collect();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    segments.len() >= wanted.len()
        && segments[segments.len() - wanted.len()..]
            .iter()
            .zip(wanted)
            .all(|(segment, wanted)| wanted.starts_with('{') || *segment == wanted)
}

#[tokio::test]
async fn every_endpoint_of_the_route_table_is_called() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let mut calls = every_call(&alice, "0");
    calls.push(refresh_call(&server, &alice).await);
    calls.extend(misplaced_calls());
    let routes = routes();
    assert!(routes.len() > 40, "the table was read: {routes:?}");
    for (method, template) in routes {
        let is_called = calls
            .iter()
            .any(|call| call.method == method.as_str() && fits(&template, &call.path));
        assert!(is_called, "{method} {template} has no call in every_call");
    }
}
