//! Who may read and write what of devices (SPEC.md 3.4), in both forms of the path and on r0.

use kitbag_client::{Account, Client, Login, Method, Request};
use kitbag_testkit::scripted::Scripted;
use serde_json::{Value, json};

use crate::support::{Lab, PASSWORD, gateway, told};
use crate::toy::{self, Stored, count, entry, toy};

/// Path of an entry: prefix, user, device, name of the kind, type.
fn path(prefix: &str, user: &str, device: &str, name: &str, kind: &str) -> String {
    let user = user.replace('@', "%40").replace(':', "%3A");
    format!("/_matrix/client/{prefix}/user/{user}/devices/{device}/{name}/{kind}")
}

/// Sends a write, or a read, with a token or none.
async fn send(client: &Client, method: Method, path: &str, token: Option<&str>) -> (u16, Value) {
    let mut request = Request::new(method.clone(), path);
    if method == Method::PUT {
        request = request.body("{\"a\":1}");
    }
    let request = match token {
        Some(token) => request.token(token),
        None => request,
    };
    told(&client.send(request).await.unwrap())
}

async fn sibling(lab: &Lab, of: &Account, device: &str) -> Account {
    let login = Login {
        device_id: Some(device),
        ..Login::password(&of.session().user_id, PASSWORD)
    };
    lab.client().login(&login).await.unwrap()
}

#[tokio::test]
async fn the_table_of_who_may_do_what_holds_on_each_path() {
    let lab = Lab::start().await;
    let phone = lab.user("PHONE").await;
    let laptop = sibling(&lab, &phone, "LAPTOP").await;
    let bob = lab.user("PHONE").await;
    let client = lab.client();
    let (user, bob_user) = (&phone.session().user_id, &bob.session().user_id);
    let token = |account: &Account| account.session().access_token.clone();
    let (phone, laptop) = (token(&phone), token(&laptop));
    let ok = (200, Value::Null);
    let refused = |status: u16, errcode: &str| (status, json!(errcode));
    let forms = [
        ("v3", "account_data"),
        ("v3", "net.zemos.account_data"),
        ("r0", "account_data"),
        ("r0", "net.zemos.account_data"),
    ];
    for (number, (prefix, name)) in forms.into_iter().enumerate() {
        let kind = format!("org.example.{number}");
        let path = |user: &str, device: &str| path(prefix, user, device, name, &kind);
        let own = path(user, "PHONE");
        let missing = refused(401, "M_MISSING_TOKEN");
        let unknown = refused(401, "M_UNKNOWN_TOKEN");
        let nothing = refused(404, "M_NOT_FOUND");
        let forbidden = refused(403, "M_FORBIDDEN");
        let rows = [
            (&own, None, &missing, &missing),
            (&own, Some("nonsense"), &unknown, &unknown),
            (&own, Some(laptop.as_str()), &nothing, &forbidden),
            (
                &path(user, "NONE"),
                Some(phone.as_str()),
                &nothing,
                &nothing,
            ),
            (
                &path(bob_user, "PHONE"),
                Some(phone.as_str()),
                &forbidden,
                &forbidden,
            ),
            (
                &path("@nobody:localhost", "PHONE"),
                Some(phone.as_str()),
                &forbidden,
                &forbidden,
            ),
            (
                &path("@far:away", "NONE"),
                Some(phone.as_str()),
                &forbidden,
                &forbidden,
            ),
            (&own, Some(phone.as_str()), &nothing, &ok),
            (&own, Some(laptop.as_str()), &ok, &forbidden),
        ];
        for (path, token, read, written) in rows {
            assert_eq!(
                &send(&client, Method::GET, path, token).await,
                read,
                "{path} {token:?}"
            );
            let write = send(&client, Method::PUT, path, token).await;
            assert_eq!(&write, written, "{path} {token:?}");
        }
    }
}

#[tokio::test]
async fn a_session_without_a_device_reads_and_never_writes() {
    let upstream = toy().await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let status = async |method, token| {
        let request = entry(method, "PHONE", "", token).body("{\"a\":1}");
        client.send(request).await.unwrap().status
    };
    assert_eq!(status(Method::PUT, "alice.").await, 403);
    assert_eq!(status(Method::GET, "alice.").await, 404);
    assert_eq!(status(Method::PUT, "alice.PHONE").await, 200);
    assert_eq!(status(Method::PUT, "alice.").await, 403);
    assert_eq!(status(Method::GET, "alice.").await, 200);
}

#[tokio::test]
async fn what_the_homeserver_says_of_who_asks_is_told_as_it_came() {
    // An application service that acts as a device that is not there.
    let device = r#"{"errcode":"M_UNKNOWN_DEVICE","error":"device"}"#;
    let locked = r#"{"errcode":"M_USER_LOCKED","soft_logout":true,"error":"locked"}"#;
    let guest = r#"{"errcode":"M_GUEST_ACCESS_FORBIDDEN","error":"guest"}"#;
    let limited = r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":5}"#;
    for (status, body) in [(400, device), (401, locked), (403, guest), (429, limited)] {
        let upstream = Scripted::start(move |_| async move {
            let mut response = toy::error(status, "");
            *response.body_mut() = kitbag_testkit::scripted::whole(status, body).into_body();
            response.headers_mut().insert("x-own", "1".parse().unwrap());
            response
        });
        let upstream = upstream.await;
        let gateway = gateway(&upstream.url(), |_| {}).await;
        let client = Client::new(&gateway.url).unwrap();
        for method in [Method::GET, Method::PUT] {
            let request = entry(method, "PHONE", "", "alice.PHONE");
            let response = client.send(request).await.unwrap();
            assert_eq!(
                (response.status, &response.body[..]),
                (status, body.as_bytes())
            );
            assert_eq!(response.header("x-own"), Some("1"));
        }
    }
}

#[tokio::test]
async fn a_guest_hears_of_the_entry_itself_what_the_homeserver_says() {
    let stored = Stored::default();
    let upstream = Scripted::start(move |asked| {
        let answer = match asked.target.contains("/account_data/") {
            true => toy::error(403, "M_GUEST_ACCESS_FORBIDDEN"),
            false => toy::answer(&asked, &stored),
        };
        async move { answer }
    });
    let upstream = upstream.await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    for method in [Method::GET, Method::PUT] {
        let request = entry(method, "PHONE", "", "alice.PHONE").body("{}");
        let response = client.send(request).await.unwrap();
        let refused = (403, json!("M_GUEST_ACCESS_FORBIDDEN"));
        assert_eq!(told(&response), refused);
    }
}

#[tokio::test]
async fn checks_come_in_the_order_of_the_api() {
    let lab = Lab::start().await;
    let phone = lab.user("PHONE").await;
    sibling(&lab, &phone, "LAPTOP").await;
    let user = phone.session().user_id.clone();
    let client = lab.client();
    let token = phone.session().access_token.clone();
    let long = "a".repeat(256);
    let too_large = format!("{{\"a\":\"{}\"}}", "a".repeat(64 * 1024));
    // Each is wrong in the ways of all further down too.
    let rows: [(&str, &str, &str, &str, u16, &str); 9] = [
        ("nonsense", "@bob:x", "NONE", &long, 401, "M_UNKNOWN_TOKEN"),
        (&token, "@bob:x", "NONE", &long, 403, "M_FORBIDDEN"),
        (&token, &user, "NONE", &long, 400, "M_INVALID_PARAM"),
        (&token, &user, "NONE", "m.push_rules", 404, "M_NOT_FOUND"),
        (&token, &user, "LAPTOP", "m.push_rules", 405, "M_BAD_JSON"),
        (&token, &user, "LAPTOP", "m.fully_read", 405, "M_BAD_JSON"),
        (&token, &user, "PHONE", "m.push_rules", 405, "M_BAD_JSON"),
        (&token, &user, "LAPTOP", "org.example.a", 403, "M_FORBIDDEN"),
        (&token, &user, "PHONE", "org.example.a", 413, "M_TOO_LARGE"),
    ];
    for (token, user, device, kind, status, errcode) in rows {
        for (method, prefix) in [
            (Method::PUT, "v3"),
            (Method::DELETE, "unstable/org.matrix.msc3391"),
        ] {
            if status == 413 && method == Method::DELETE {
                continue;
            }
            let path = path(prefix, user, device, "account_data", kind);
            let request = Request::new(method, path)
                .token(token)
                .body(too_large.clone());
            let response = client.send(request).await.unwrap();
            assert_eq!(told(&response), (status, json!(errcode)), "{kind} {device}");
        }
    }
    let own = path("v3", &user, "PHONE", "account_data", "org.example.a");
    for (body, errcode) in [
        ("{", "M_NOT_JSON"),
        ("[]", "M_BAD_JSON"),
        ("", "M_NOT_JSON"),
    ] {
        let request = Request::new(Method::PUT, &own).token(&token).body(body);
        let response = client.send(request).await.unwrap();
        assert_eq!(told(&response), (400, json!(errcode)), "{body}");
    }
}

#[tokio::test]
async fn a_delete_on_the_paths_of_devices_is_405_and_says_so_of_protected_types() {
    let lab = Lab::start().await;
    let phone = lab.user("PHONE").await;
    let user = phone.session().user_id.clone();
    let client = lab.client();
    let token = phone.session().access_token.clone();
    let long = "a".repeat(256);
    let rows: [(&str, &str, &str, u16, &str); 6] = [
        ("nonsense", "@bob:x", &long, 401, "M_UNKNOWN_TOKEN"),
        (&token, "@bob:x", &long, 403, "M_FORBIDDEN"),
        (&token, &user, &long, 400, "M_INVALID_PARAM"),
        (&token, &user, "m.push_rules", 405, "M_BAD_JSON"),
        (&token, &user, "m%2Efully_read", 405, "M_BAD_JSON"),
        (&token, &user, "org.example.a", 405, "M_UNRECOGNIZED"),
    ];
    for (token, user, kind, status, errcode) in rows {
        for (prefix, name) in [
            ("v3", "account_data"),
            ("v3", "net.zemos.account_data"),
            ("r0", "account_data"),
        ] {
            let path = path(prefix, user, "PHONE", name, kind);
            let expected = (status, json!(errcode));
            let told = send(&client, Method::DELETE, &path, Some(token)).await;
            assert_eq!(told, expected, "{path}");
            // No server differs in it from Kitbag's own.
            let beside = send(&lab.beside(), Method::DELETE, &path, Some(token)).await;
            assert_eq!(beside, expected, "{path}");
        }
    }
}

#[tokio::test]
async fn another_user_is_refused_before_any_device_is_asked_about() {
    let upstream = toy().await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    for method in [Method::GET, Method::PUT] {
        let request = entry(method, "PHONE", "", "bob.PHONE");
        assert_eq!(client.send(request).await.unwrap().status, 403);
    }
    assert_eq!(count(&upstream, "/devices/"), 0);
}

#[tokio::test]
async fn with_the_stable_path_off_only_the_unstable_one_is_the_gateways() {
    let upstream = toy().await;
    let off = |set: &mut kitbag_gateway::Settings| set.msc4331.stable_path = false;
    let gateway = gateway(&upstream.url(), off).await;
    let client = Client::new(&gateway.url).unwrap();
    for (name, asked) in [("net.zemos.account_data", 0), ("account_data", 1)] {
        let path = path("v3", "@alice:x", "PHONE", name, "org.example.a");
        let request = Request::new(Method::PUT, &path).token("alice.PHONE");
        client.send(request.json(&json!({}))).await.unwrap();
        assert_eq!(count(&upstream, &path), asked, "{name}");
    }
}

#[tokio::test]
async fn browsers_may_read_the_gateways_own_answers() {
    let lab = Lab::start().await;
    let phone = lab.user("A").await;
    let path = path(
        "v3",
        &phone.session().user_id,
        "A",
        "account_data",
        "org.example.a",
    );
    for (method, status) in [
        (Method::GET, 404),
        (Method::PUT, 200),
        (Method::GET, 200),
        (Method::HEAD, 200),
        (Method::OPTIONS, 204),
        (Method::POST, 405),
    ] {
        let request = Request::new(method.clone(), &path).body("{\"a\": 1.0 }");
        let response = phone.send(request).await.unwrap();
        assert_eq!(response.status, status, "{method}");
        let origin = response.header("access-control-allow-origin");
        assert_eq!(origin, Some("*"), "{method}");
        let id = response.header("x-request-id");
        assert!(id.is_some_and(|id| !id.is_empty()), "{method}");
        if (&method, status) == (&Method::GET, 200) {
            assert_eq!(response.body, "{\"a\": 1.0 }");
        }
    }
}
