//! The description of the admin API against what is served.

mod schema;

use std::collections::BTreeSet;

use kitbag_domain::{Limits, Quota};
use serde_json::Value;

use self::schema::Schemas;
use super::{Lab, V1};
use crate::endpoints::{admin_calls, fits, routes};
use crate::support::{Call, PASSWORD, Reply, endless_body};

/// Larger than [`small()`] allows.
const TOO_LARGE: &str = "{\"a\":\"01234567890123456789012345678901234567890123456789012345\"}";

/// Method, template, status and errcode.
type Row = (String, String, u16, String);

async fn description(lab: &Lab) -> Value {
    let call = Call::get(format!("{V1}/openapi.json"));
    lab.send(call).await.assert_ok()
}

fn operations(description: &Value) -> BTreeSet<(String, String)> {
    let paths = description["paths"].as_object().unwrap().iter();
    let methods = paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(|method| (method.to_uppercase(), path.clone()))
    });
    methods.collect()
}

/// Returns every refusal that the description names.
fn refusals(description: &Value) -> BTreeSet<Row> {
    let mut refusals = BTreeSet::new();
    for (method, path) in operations(description) {
        let operation = &description["paths"][&path][method.to_lowercase()];
        for (status, response) in operation["responses"].as_object().unwrap() {
            let errcodes = response["x-errcodes"].as_array().into_iter().flatten();
            for errcode in errcodes {
                let errcode = errcode.as_str().unwrap().to_owned();
                let status = status.parse().unwrap();
                refusals.insert((method.clone(), path.clone(), status, errcode));
            }
        }
    }
    refusals
}

/// Returns method and template of the operation that a call is of.
fn operation(operations: &BTreeSet<(String, String)>, call: &Call) -> (String, String) {
    let known = operations.iter().find(|(method, template)| {
        call.method == method.as_str()
            && fits(template, &call.path)
            && template.split('/').count()
                == call.path.split('?').next().unwrap().split('/').count()
    });
    let known = known.unwrap_or_else(|| panic!("{call:?} is in no operation"));
    known.clone()
}

fn row(operations: &BTreeSet<(String, String)>, call: &Call, reply: &Reply) -> Row {
    let (method, template) = operation(operations, call);
    let (status, errcode) = reply.row();
    (method, template, status, errcode)
}

#[tokio::test]
async fn it_describes_every_route_and_method() {
    let lab = Lab::new().await;
    let description = description(&lab).await;
    assert_eq!(description["openapi"], "3.1.0");
    let served = routes().into_iter();
    let served = served
        .filter(|(_, path)| path.starts_with("/_kitbag/admin") || path.starts_with("/_synapse"));
    assert_eq!(operations(&description), served.collect());
}

#[tokio::test]
async fn every_reference_in_it_leads_somewhere() {
    let lab = Lab::new().await;
    let description = description(&lab).await;
    let text = description.to_string();
    let references: BTreeSet<&str> = text
        .split("\"$ref\":\"#")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert!(references.len() > 5, "{references:?}");
    for reference in references {
        assert!(description.pointer(reference).is_some(), "{reference}");
    }
}

/// Calls that are refused, each for another reason, as (method, path, body).
fn wrong_calls() -> Vec<(&'static str, String, &'static str)> {
    let mut calls = Vec::new();
    for place in ["", "/devices/PHONE", "/rooms/!r:x"] {
        let path = |user: &str, event_type: &str| {
            format!("{V1}/users/{user}{place}/account_data/{event_type}")
        };
        for method in ["GET", "PUT", "DELETE"] {
            calls.push((method, path("alice", "app.test"), "{}"));
            calls.push((method, path("@nobody:localhost", "app.test"), "{}"));
            calls.push((method, path("@alice:localhost", "m.push_rules"), "{}"));
        }
        for body in ["{", "[]", TOO_LARGE] {
            calls.push(("PUT", path("@alice:localhost", "app.test"), body));
        }
        let large = "{\"a\":\"01234567890123456789012\"}";
        calls.push(("PUT", path("@alice:localhost", "app.other"), large));
        for expected in ["expect_revision_id=1", "com.beeper.expect_revision_id=1"] {
            let path = path("@alice:localhost", "app.test");
            calls.push(("PUT", format!("{path}?{expected}"), "{}"));
        }
    }
    for path in [
        "/_kitbag/admin/v1/users?limit=0",
        "/_kitbag/admin/v1/users/alice/account_data",
        "/_kitbag/admin/v1/users/@nobody:localhost/account_data",
        "/_kitbag/admin/v1/device_account_data",
        "/_kitbag/admin/v1/device_account_data?type=a&limit=0",
        "/_kitbag/admin/v1/device_account_data/summary",
        "/_kitbag/admin/v1/device_account_data/summary?type=a&pointer=a",
        "/_kitbag/admin/v1/device_account_data/lacking",
        "/_kitbag/admin/v1/device_account_data/lacking?type=a&pointer=a",
        "/_kitbag/admin/v1/changes?since=x",
        "/_synapse/admin/v1/users/alice/accountdata",
        "/_synapse/admin/v1/users/@nobody:localhost/accountdata",
    ] {
        calls.push(("GET", path.to_owned(), ""));
    }
    calls
}

async fn small() -> Lab {
    let lab = Lab::with(|setup| {
        let limits = &mut setup.settings.rate_limits;
        limits.enabled = true;
        (limits.admin_burst, limits.admin_per_minute) = (1_000, 1);
        setup.limits = Limits {
            content_bytes_max: 60,
            device_content_bytes_max: 60,
            quota: Quota {
                bytes_max: 200,
                reserve_bytes: 0,
                ..Quota::default()
            },
            ..Limits::default()
        };
    });
    let lab = lab.await;
    let content = r#"{"m.revision_id":"2","com.beeper.revision_id":"2"}"#;
    lab.tell(&lab.alice, "app.test", content).await;
    for path in [
        lab.alice.global("app.test"),
        lab.alice.room("!r:x", "app.test"),
    ] {
        let put = Call::put(path, content).by(&lab.alice);
        lab.send(put).await.assert_ok();
    }
    lab
}

#[tokio::test(start_paused = true)]
async fn every_refusal_that_it_names_happens_and_no_other() {
    let lab = small().await;
    let description = description(&lab).await;
    let operations = operations(&description);
    let mut happened = BTreeSet::new();
    let schemas = Schemas::of(&description);
    let mut calls: Vec<Call> = wrong_calls()
        .into_iter()
        .map(|(method, path, body)| Call::new(method, path).body(body).admin())
        .collect();
    for call in admin_calls(&lab.alice.user) {
        if !call.path.ends_with("openapi.json") {
            calls.push(call.clone());
            calls.push(call.token("none-of-the-tokens"));
        }
    }
    for call in &calls {
        let reply = lab.send(call.clone()).await;
        if reply.status != 200 {
            happened.insert(row(&operations, call, &reply));
            assert_shape(&description, &schemas, call, &reply);
        }
        if call.method == "PUT" && reply.status == 401 {
            let admin = call.clone().admin();
            let slow = admin.clone().request_with(endless_body("{"));
            let slow = lab.server.private.answer(call.peer, slow).await;
            happened.insert(row(&operations, call, &Reply::read(slow).await));
        }
    }
    // The last wrong tokens that are looked at.
    let wrong = || Call::get(format!("{V1}/users")).token("none-of-the-tokens");
    while lab.send(wrong()).await.status == 401 {}
    for call in &calls {
        let reply = lab.send(call.clone()).await;
        happened.insert(row(&operations, call, &reply));
        assert_shape(&description, &schemas, call, &reply);
    }
    let mut unseen = schemas.unseen();
    unseen.retain(|property| property.starts_with("Error."));
    assert!(unseen.is_empty(), "in no refusal: {unseen:?}");
    let named = refusals(&description).into_iter();
    // What a failing store leads to is tried call by call in `store_failures`.
    let named: BTreeSet<Row> = named.filter(|(_, _, status, _)| *status < 500).collect();
    let only_named: Vec<_> = named.difference(&happened).collect();
    let only_happened: Vec<_> = happened.difference(&named).collect();
    assert!(only_named.is_empty(), "did not happen: {only_named:#?}");
    assert!(only_happened.is_empty(), "is not named: {only_happened:#?}");
}

/// Checks that a reply is as the description says of its status.
fn assert_shape(description: &Value, schemas: &Schemas<'_>, call: &Call, reply: &Reply) {
    let (method, path) = operation(&operations(description), call);
    let response = &description["paths"][&path][method.to_lowercase()]["responses"];
    let content = &response[reply.status.to_string()]["content"]["application/json"];
    let schema = &content["schema"];
    assert!(schema.is_object(), "{call:?}: {reply:?}");
    if let Err(finding) = schemas.check(schema, &reply.json()) {
        panic!("{call:?}: {finding}: {reply:?}");
    }
}

/// Has something for each word of the description: entries of every scope and writer, a device with
/// a name, pages that go on, deletions and an account that ended.
async fn full() -> Lab {
    let lab = Lab::new().await;
    for path in [
        lab.alice.global("app.test"),
        lab.alice.room("!r:x", "app.test"),
    ] {
        let put = Call::put(path, "{\"a\":1}").by(&lab.alice);
        let put = put.header("user-agent", "a client");
        lab.send(put).await.assert_ok();
    }
    for session in [&lab.alice, &lab.tablet, &lab.bob] {
        lab.tell(session, "app.test", "{\"a\":[2]}").await;
    }
    lab.tell(&lab.tablet, "app.gone", "{}").await;
    lab.delete(&lab.tablet, "app.gone").await;
    for session in [&lab.alice, &lab.tablet] {
        let path = format!("/_matrix/client/v3/devices/{}", session.device);
        let name = Call::put(path, "{\"display_name\":\"A device\"}");
        lab.send(name.by(session)).await.assert_ok();
    }
    let operators = format!("{V1}/users/{}/account_data/app.by_operator", lab.alice.user);
    lab.send(Call::put(operators, "{}").admin())
        .await
        .assert_ok();
    let auth = serde_json::json!({"auth": lab.bob.password_auth(PASSWORD)});
    let end = Call::post("/_matrix/client/v3/account/deactivate", auth.to_string());
    lab.send(end.by(&lab.bob)).await.assert_ok();
    lab
}

#[tokio::test]
async fn every_answer_has_the_shape_that_it_describes() {
    let lab = full().await;
    let description = description(&lab).await;
    let operations = operations(&description);
    let schemas = Schemas::of(&description);
    let mut calls: Vec<Call> = [
        "/users?limit=1",
        &format!("/users/{}/account_data", lab.alice.user),
        "/device_account_data?type=app.test&limit=1",
        "/device_account_data/lacking?type=app.test&pointer=/a&lacks=1&limit=1",
    ]
    .map(|path| Call::get(format!("{V1}{path}")).admin())
    .into();
    calls.extend(admin_calls(&lab.alice.user).into_iter().map(Call::admin));
    let mut described = BTreeSet::new();
    for call in calls {
        let reply = lab.send(call.clone()).await;
        reply.assert_ok();
        assert_shape(&description, &schemas, &call, &reply);
        described.insert(operation(&operations, &call));
    }
    assert_eq!(described, operations, "each operation was seen to succeed");
    let mut unseen = schemas.unseen();
    unseen.retain(|property| !property.starts_with("Error."));
    assert!(unseen.is_empty(), "in no reply: {unseen:?}");
}
