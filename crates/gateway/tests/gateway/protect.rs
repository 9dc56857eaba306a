//! What clients do not write through account data (MSC4010), and what it takes to refuse it.

use kitbag_client::path::{Naming, account_data};
use kitbag_client::{Account, Client, Method, Request, Response, Scope};
use kitbag_gateway::Protection;
use kitbag_testkit::scripted::{Asked, Scripted, ScriptedBody, json as answer};
use serde_json::{Value, json};

use crate::log;
use crate::support::{Lab, gateway, told};

/// A type that holds an entry of a device.
const MAPPED: &str = "org.matrix.msc4331.device_account_data.D.org.example.a";

const PREFIXES: [&str; 6] = [
    "r0",
    "v1",
    "v3",
    "unstable",
    "api/v1",
    "unstable/org.matrix.msc3391",
];

async fn write(account: &Account, method: Method, target: &str) -> Response {
    let request = Request::new(method, target).json(&json!({"a": 1}));
    account.send(request).await.unwrap()
}

#[tokio::test]
async fn protected_types_are_405_and_mapped_ones_403_by_every_prefix_scope_and_method() {
    let lab = Lab::start().await;
    let phone = lab.user("PHONE").await;
    let user = phone.session().user_id.clone();
    let mut rows = Vec::new();
    for prefix in PREFIXES {
        let base = format!("/_matrix/client/{prefix}/user/{user}");
        rows.push((format!("{base}/account_data/{MAPPED}"), 403, "M_FORBIDDEN"));
        for event_type in ["m.push_rules", "m.fully_read", "m%2Epush_rules"] {
            let below = format!("account_data/{event_type}");
            rows.push((format!("{base}/{below}"), 405, "M_BAD_JSON"));
            rows.push((format!("{base}/rooms/!r:x/{below}"), 405, "M_BAD_JSON"));
        }
    }
    for (target, status, errcode) in rows {
        for method in [Method::PUT, Method::DELETE] {
            let response = write(&phone, method.clone(), &target).await;
            let expected = (status, json!(errcode));
            assert_eq!(told(&response), expected, "{method} {target}");
        }
    }
    // In a room the type is one as any other.
    phone
        .put(Scope::Room("!r:x"), MAPPED, &json!({}))
        .await
        .unwrap();
}

/// A homeserver where everybody is `@a:x` but for the token `none`, and all is written.
async fn homeserver(asked: Asked) -> hyper::Response<ScriptedBody> {
    let token = asked.headers.get("authorization");
    if token.is_some_and(|token| token == "Bearer kt_none") {
        let soft = json!({"errcode": "M_UNKNOWN_TOKEN", "error": "of the homeserver", "soft_logout": true});
        return answer(401, &soft);
    }
    match asked.target.ends_with("/whoami") {
        true => answer(200, &json!({"user_id": "@a:x", "device_id": "D"})),
        false => answer(200, &json!({})),
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_token_and_the_path_is_told_before_the_type() {
    let upstream = Scripted::start(homeserver).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let long = "x".repeat(255);
    for (token, path, status, errcode) in [
        (
            "kt_none",
            "@b:x/account_data/m.push_rules",
            401,
            "M_UNKNOWN_TOKEN",
        ),
        (
            "kt_one",
            "@b:x/rooms/r/account_data/m.push_rules",
            403,
            "M_FORBIDDEN",
        ),
        (
            "kt_one",
            "@a:x/rooms/r/account_data/m.push_rules",
            400,
            "M_INVALID_PARAM",
        ),
        (
            "kt_one",
            &format!("@a:x/account_data/{MAPPED}{long}"),
            400,
            "M_INVALID_PARAM",
        ),
        (
            "kt_one",
            "%40a:x/rooms/!r/account_data/m.push_rules",
            405,
            "M_BAD_JSON",
        ),
        (
            "kt_one",
            "@a:x/account_data/m.push_rules",
            405,
            "M_BAD_JSON",
        ),
    ] {
        let target = format!("/_matrix/client/v3/user/{path}");
        let request = Request::new(Method::PUT, &target)
            .token(token)
            .body("no JSON");
        let response = client.send(request).await.unwrap();
        assert_eq!(told(&response), (status, json!(errcode)), "{path}");
        if status == 401 {
            // As the homeserver told it, in every member.
            assert_eq!(response.json::<Value>().unwrap()["soft_logout"], true);
        }
    }
    let asked = upstream.asked();
    assert!(
        asked.iter().all(|asked| asked.target.ends_with("/whoami")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn an_ordinary_write_costs_the_homeserver_no_other_request() {
    let upstream = Scripted::start(homeserver).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    // Also what is wrong with it is the homeserver's to say.
    for target in [
        "@a:x/account_data/m.direct",
        "nobody/rooms/r/account_data/m%FF",
    ] {
        let target = format!("/_matrix/client/v3/user/{target}?a=%7e");
        for method in [Method::PUT, Method::DELETE, Method::POST] {
            let request = Request::new(method, &target).token("kt_one").body("{ }");
            assert_eq!(client.send(request).await.unwrap().status, 200);
            let asked = upstream.asked();
            let last = asked.last().unwrap();
            assert_eq!((&*last.target, &last.body[..]), (&*target, &b"{ }"[..]));
        }
    }
    assert_eq!(upstream.asked().len(), 6);
}

#[tokio::test]
async fn observed_push_rules_go_to_the_homeserver_and_read_markers_never_do() {
    let upstream = Scripted::start(homeserver).await;
    let observe = |settings: &mut kitbag_gateway::Settings| {
        settings.protect.push_rules = Protection::Observe;
    };
    let gateway = gateway(&upstream.url(), observe).await;
    let client = Client::new(&gateway.url).unwrap();
    for scope in [Scope::Global, Scope::Room("!r:x")] {
        for (event_type, status) in [("m.push_rules", 200), ("m.fully_read", 405)] {
            for method in [Method::PUT, Method::DELETE] {
                let target = account_data("@a:x", scope, Naming::Stable, event_type);
                let request = Request::new(method, target).token("kt_one").body("{}");
                assert_eq!(client.send(request).await.unwrap().status, status);
            }
        }
    }
    let asked = upstream.asked();
    let written = asked
        .iter()
        .filter(|asked| asked.target.contains("account_data"));
    assert!(
        written
            .clone()
            .all(|asked| asked.target.ends_with("/m.push_rules"))
    );
    assert_eq!(written.count(), 4);
}

#[tokio::test]
async fn what_is_observed_is_told_once_a_minute_by_program_and_what_is_refused_is_not() {
    let log = log::capture();
    let upstream = Scripted::start(homeserver).await;
    let observe = |settings: &mut kitbag_gateway::Settings| {
        settings.protect.push_rules = Protection::Observe;
    };
    let gateway = gateway(&upstream.url(), observe).await;
    let client = Client::new(&gateway.url).unwrap();
    for (event_type, user_agent) in [
        ("m.push_rules", "Cinny/4.0"),
        ("m.fully_read", "Cinny/4.0"),
        ("m.push_rules", "Cinny/4.1"),
        ("m.push_rules", "Element/1"),
    ] {
        let target = account_data("@a:x", Scope::Global, Naming::Stable, event_type);
        let request = Request::new(Method::PUT, target)
            .token("kt_token")
            .body("{}");
        client
            .send(request.header("user-agent", user_agent))
            .await
            .unwrap();
    }
    let lines = log.lines("push rules were written");
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, told) in lines.iter().zip([
        "user_agent=\"Cinny/4.0\" agent=\"cinny\" count=1",
        "user_agent=\"Element/1\" agent=\"element\" count=1",
    ]) {
        assert!(line.contains("INFO") && line.contains(told), "{lines:?}");
    }
}

#[tokio::test]
async fn what_did_not_go_through_is_not_told_as_observed() {
    let log = log::capture();
    let upstream = Scripted::start(homeserver).await;
    let observe = |settings: &mut kitbag_gateway::Settings| {
        settings.protect.push_rules = Protection::Observe;
        settings.writes.burst = 1;
        settings.writes.per_minute = 1;
    };
    let gateway = gateway(&upstream.url(), observe).await;
    let client = Client::new(&gateway.url).unwrap();
    let large = " ".repeat(2 * 1024 * 1024);
    for (token, body, status, told) in [
        ("kt_none", "{}", 401, 0),
        ("kt_large", &large, 413, 0),
        ("kt_one", "{}", 200, 1),
        ("kt_one", "{}", 429, 1),
    ] {
        let target = account_data("@a:x", Scope::Global, Naming::Stable, "m.push_rules");
        let request = Request::new(Method::PUT, target).token(token);
        let response = client.send(request.body(body.to_owned())).await.unwrap();
        let lines = log.lines("push rules were written");
        assert_eq!((response.status, lines.len()), (status, told), "{token}");
    }
}

const PUSH_RULES: &str = "/_matrix/client/v3/user/@a:x/account_data/m.push_rules";

/// A homeserver that has push rules by their own path alone, or not even there.
async fn homeserver_without(rules: Option<Value>, asked: Asked) -> hyper::Response<ScriptedBody> {
    match &*asked.target {
        "/_matrix/client/v3/account/whoami" => answer(200, &json!({"user_id": "@a:x"})),
        "/_matrix/client/v3/pushrules/" => match rules {
            Some(rules) => answer(200, &rules),
            None => answer(404, &json!({"errcode": "M_UNRECOGNIZED", "error": ""})),
        },
        _ => answer(
            404,
            &json!({"errcode": "M_NOT_FOUND", "error": "of the homeserver"}),
        ),
    }
}

#[tokio::test]
async fn push_rules_are_read_where_the_homeserver_has_them() {
    let rules = json!({"global": {"override": [], "content": [{"rule_id": "a"}]}});
    let told = Some(rules.clone());
    let upstream = Scripted::start(move |asked| homeserver_without(told.clone(), asked)).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let read = |method, path: &str| client.send(Request::new(method, path).token("kt_T"));
    for path in [
        PUSH_RULES,
        &PUSH_RULES.replace("v3", "r0"),
        &PUSH_RULES.replace('.', "%2E"),
    ] {
        let response = read(Method::GET, path).await.unwrap();
        assert_eq!(
            (response.status, response.json::<Value>().unwrap()),
            (200, rules.clone())
        );
    }
    let head = read(Method::HEAD, PUSH_RULES).await.unwrap();
    let length = rules.to_string().len().to_string();
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some(&*length))
    );
    for (path, status) in [
        // Nobody else's are told, whatever the homeserver looks at first.
        (PUSH_RULES.replace("@a", "@b"), 403),
        (PUSH_RULES.replace("@a:x", "@a:x/rooms/!r"), 404),
        (PUSH_RULES.replace("push_rules", "direct"), 404),
    ] {
        assert_eq!(
            read(Method::GET, &path).await.unwrap().status,
            status,
            "{path}"
        );
    }
}

#[tokio::test]
async fn where_no_push_rules_are_the_answer_is_that_of_the_homeserver() {
    let upstream = Scripted::start(|asked| homeserver_without(None, asked)).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let response = client
        .send(Request::new(Method::GET, PUSH_RULES))
        .await
        .unwrap();
    assert_eq!(told(&response), (404, json!("M_NOT_FOUND")));
    assert_eq!(
        response.json::<Value>().unwrap()["error"],
        "of the homeserver"
    );
}

#[tokio::test]
async fn account_data_is_read_as_the_homeserver_tells_it() {
    let lab = Lab::start().await;
    let phone = lab.user("PHONE").await;
    let user = phone.session().user_id.clone();
    phone
        .put(Scope::Global, "org.example.a", &json!({"a": 1}))
        .await
        .unwrap();
    let beside = lab.beside().with_session(phone.session().clone());
    for event_type in ["org.example.a", "m.push_rules", "nothing"] {
        for method in [Method::GET, Method::HEAD] {
            let path = account_data(&user, Scope::Global, Naming::Stable, event_type);
            let request = || Request::new(method.clone(), &path);
            let (through, past) = (phone.send(request()).await, beside.send(request()).await);
            let (through, past) = (through.unwrap(), past.unwrap());
            assert_eq!(through.status, past.status, "{method} {event_type}");
            let length = past.header("content-length");
            assert_eq!(
                through.header("content-length"),
                length,
                "{method} {event_type}"
            );
            if past.status == 200 {
                assert_eq!(through.body, past.body, "{method} {event_type}");
            }
        }
    }
}
