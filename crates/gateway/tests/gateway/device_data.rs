//! Device account data, kept in the homeserver.

use std::sync::Arc;

use kitbag_client::{Account, Login, Method, Request, Response, Scope};
use kitbag_domain::Limits;
use kitbag_gateway::Settings;
use serde_json::{Value, json};

use crate::support::{Lab, PASSWORD, gateway, gateway_at, told};
use crate::toy::{count, entry, toy};

/// Path of an entry of the account's own device.
fn own(account: &Account, kind: &str) -> String {
    let session = account.session();
    let user = session.user_id.replace('@', "%40").replace(':', "%3A");
    let device = &session.device_id;
    format!("/_matrix/client/v3/user/{user}/devices/{device}/account_data/{kind}")
}

/// Logs in once more.
async fn sibling(lab: &Lab, of: &Account, device: &str) -> Account {
    let login = Login {
        device_id: Some(device),
        ..Login::password(&of.session().user_id, PASSWORD)
    };
    lab.client().login(&login).await.unwrap()
}

#[tokio::test]
async fn what_a_device_writes_its_siblings_read_and_the_homeserver_has_as_global_data() {
    let lab = Lab::start().await;
    let phone = lab.user("A.B").await;
    let sibling = sibling(&lab, &phone, "LAPTOP").await;
    let scope = Scope::Device("A.B");
    assert_eq!(sibling.get(scope, "org.example.a").await.unwrap(), None);
    let content = json!({"versions": ["12"]});
    phone.put(scope, "org.example.a", &content).await.unwrap();
    let stored = sibling.get(scope, "org.example.a").await.unwrap();
    assert_eq!(stored, Some(content.clone()));
    let beside = lab.beside().with_session(phone.session().clone());
    let mapped = "org.matrix.msc4331.device_account_data.A%2EB.org.example.a";
    let upstream = beside.get(Scope::Global, mapped).await.unwrap();
    assert_eq!(upstream, Some(content));
    phone.delete(scope, "org.example.a").await.unwrap();
    assert_eq!(sibling.get(scope, "org.example.a").await.unwrap(), None);
    // What is not there can be deleted, and an empty object is there.
    phone.delete(scope, "org.example.a").await.unwrap();
    phone.put(scope, "org.example.a", &json!({})).await.unwrap();
    let stored = sibling.get(scope, "org.example.a").await.unwrap();
    assert_eq!(stored, Some(json!({})));
}

#[tokio::test]
async fn a_content_comes_back_byte_for_byte_and_a_head_has_none() {
    let lab = Lab::start().await;
    let phone = lab.user("A").await;
    let path = own(&phone, "org.example.a%2Fb");
    for content in [
        r#"{"n": 1.0, "big": 123456789012345678901234567890, "a":1,"a":2}"#,
        "{ }",
        "{\"\u{e9}\": \"\\u00e9\\n\"}",
    ] {
        let write = Request::new(Method::PUT, &path).body(content);
        phone.send(write).await.unwrap().success().unwrap();
        let read = phone.send(Request::new(Method::GET, &path)).await.unwrap();
        assert_eq!((read.status, &read.body[..]), (200, content.as_bytes()));
        assert_eq!(read.header("content-type"), Some("application/json"));
        let head = phone.send(Request::new(Method::HEAD, &path)).await.unwrap();
        assert_eq!((head.status, head.body.len()), (200, 0));
    }
}

#[tokio::test]
async fn a_content_has_64_kib_at_most() {
    let lab = Lab::start().await;
    let phone = lab.user("A").await;
    let path = own(&phone, "org.example.a");
    let of_bytes = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    for (bytes, status) in [(64 * 1024, 200), (64 * 1024 + 1, 413)] {
        let write = Request::new(Method::PUT, &path).body(of_bytes(bytes));
        let response = phone.send(write).await.unwrap();
        assert_eq!(response.status, status, "{bytes}");
    }
}

#[tokio::test]
async fn what_is_written_as_deep_as_is_set_can_be_written_again() {
    for compares in [false, true] {
        let upstream = toy().await;
        let limits = Limits {
            json_depth_max: 200,
            ..Limits::default()
        };
        let on = |settings: &mut Settings| settings.msc4547.enabled = compares;
        let gateway = gateway_at(&upstream.url(), Arc::default(), limits, on).await;
        let client = kitbag_client::Client::new(&gateway.url).unwrap();
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(199), "]".repeat(199));
        for query in ["", "", "?expect_revision_id=1"] {
            let write = entry(Method::PUT, "PHONE", query, "alice.PHONE").body(deep.clone());
            let status = client.send(write).await.unwrap().status;
            assert_eq!(status, 200, "{compares} {query}");
        }
    }
}

#[tokio::test]
async fn a_type_has_255_bytes_at_most_whatever_becomes_of_it_upstream() {
    let upstream = toy().await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = kitbag_client::Client::new(&gateway.url).unwrap();
    let path = "/_matrix/client/v3/user/%40alice%3Ax/devices/PHONE/account_data/";
    for (bytes, status) in [(255, 200), (256, 400)] {
        let path = format!("{path}{}", "t".repeat(bytes));
        let write = Request::new(Method::PUT, &path)
            .token("alice.PHONE")
            .body("{}");
        assert_eq!(client.send(write).await.unwrap().status, status, "{bytes}");
    }
}

async fn write(account: &Account, kind: &str) -> Response {
    let request = Request::new(Method::PUT, own(account, kind)).body("{}");
    account.send(request).await.unwrap()
}

#[tokio::test]
async fn a_device_has_so_many_entries_and_deleted_ones_do_not_count() {
    let mut limits = Limits::default();
    limits.quota.device_entries_max = 3;
    let lab = Lab::limited(limits, |_| {}).await;
    let phone = lab.user("A").await;
    let laptop = sibling(&lab, &phone, "LAPTOP").await;
    for kind in ["a", "b", "c"] {
        assert_eq!(write(&phone, kind).await.status, 200);
    }
    let refused = write(&phone, "d").await;
    assert_eq!(told(&refused), (403, json!("M_USER_LIMIT_EXCEEDED")));
    // Those that are there can be written, and another device has a number of its own.
    assert_eq!(write(&phone, "c").await.status, 200);
    assert_eq!(write(&laptop, "d").await.status, 200);
    phone.delete(Scope::Device("A"), "b").await.unwrap();
    assert_eq!(write(&phone, "d").await.status, 200);
    assert_eq!(write(&phone, "b").await.status, 403);
}

/// What is deleted stays in the homeserver for ever, and is told with the rest.
#[tokio::test]
async fn a_device_has_had_so_many_types_and_those_that_it_had_it_may_write_again() {
    const TYPES: usize = 8;
    let mut limits = Limits {
        // So large that there is room for so many beside them.
        device_content_bytes_max: (32 * 1024 * 1024 - TYPES as u64 * 2 * 1024) / 2 / 6,
        ..Limits::default()
    };
    limits.quota.device_entries_max = 2;
    let lab = Lab::limited(limits, |_| {}).await;
    let phone = lab.user("A").await;
    let laptop = sibling(&lab, &phone, "LAPTOP").await;
    let delete = async |kind: &str| phone.delete(Scope::Device("A"), kind).await.unwrap();
    assert_eq!(write(&phone, "kept").await.status, 200);
    for number in 1..TYPES {
        let kind = format!("t{number}");
        assert_eq!(write(&phone, &kind).await.status, 200, "{kind}");
        delete(&kind).await;
    }
    let refused = write(&phone, "new").await;
    assert_eq!(refused.status, 403);
    let told: Value = refused.json().unwrap();
    assert_eq!(told["errcode"], "M_USER_LIMIT_EXCEEDED");
    assert!(told["info_uri"].is_string(), "{told}");
    let expected = "the device has had entries of 8 types, which is its limit";
    assert_eq!(told["error"], expected);
    // Those that it had are no new ones to the homeserver, however often they go and come.
    for kind in ["kept", "t1", "t7", "t1"] {
        assert_eq!(write(&phone, kind).await.status, 200, "{kind}");
        delete(kind).await;
    }
    assert_eq!(write(&phone, "new").await.status, 403);
    assert_eq!(write(&laptop, "new").await.status, 200, "each for itself");
}

#[tokio::test]
async fn entries_that_are_added_at_once_are_counted_one_by_one() {
    let mut limits = Limits::default();
    limits.quota.device_entries_max = 3;
    let lab = Lab::limited(limits, |_| {}).await;
    let phone = lab.user("A").await;
    let writes = (0..12).map(|number| {
        let phone = phone.clone();
        let request = Request::new(Method::PUT, own(&phone, &format!("t{number}"))).body("{}");
        tokio::spawn(async move { phone.send(request).await.unwrap().status })
    });
    let writes: Vec<_> = writes.collect();
    let mut done = 0;
    for write in writes {
        match write.await.unwrap() {
            200 => done += 1,
            status => assert_eq!(status, 403),
        }
    }
    assert_eq!(done, 3);
}

#[tokio::test]
async fn entries_of_other_devices_do_not_count_where_a_homeserver_ignores_filters() {
    let upstream = toy().await;
    let mut limits = Limits::default();
    limits.quota.device_entries_max = 1;
    let url = upstream.url();
    let gateway = gateway_at(&url, Arc::default(), limits, |_| {}).await;
    let client = kitbag_client::Client::new(&gateway.url).unwrap();
    for device in ["PHONE", "LAPTOP"] {
        let write = entry(Method::PUT, device, "", &format!("alice.{device}")).body("{}");
        assert_eq!(client.send(write).await.unwrap().status, 200, "{device}");
    }
}

#[tokio::test]
async fn only_what_adds_an_entry_has_them_counted() {
    let upstream = toy().await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = kitbag_client::Client::new(&gateway.url).unwrap();
    for _ in 0..3 {
        let write = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{}");
        assert_eq!(client.send(write).await.unwrap().status, 200);
    }
    assert_eq!(count(&upstream, "/sync"), 1);
}

#[tokio::test]
async fn devices_are_told_with_their_entries_where_that_is_switched_on() {
    for is_on in [false, true] {
        let lab = Lab::with(|settings| settings.msc4331.in_devices = is_on).await;
        let phone = lab.user("A").await;
        let laptop = sibling(&lab, &phone, "LAPTOP").await;
        let content = json!({"n": 1});
        phone
            .put(Scope::Device("A"), "org.example.a", &content)
            .await
            .unwrap();
        let beside = lab.beside().with_session(laptop.session().clone());
        for (path, pointer) in [
            ("/_matrix/client/v3/devices/A", ""),
            ("/_matrix/client/v3/devices", "/devices/0"),
        ] {
            let request = Request::new(Method::GET, path);
            let plain = beside.send(request.clone()).await.unwrap();
            let plain: Value = plain.json().unwrap();
            let told: Value = laptop.send(request.clone()).await.unwrap().json().unwrap();
            let mut expected = plain.clone();
            if is_on {
                let events = json!({"events": [{"type": "org.example.a", "content": content}]});
                expected.pointer_mut(pointer).unwrap()["account_data"] = events;
            }
            assert_eq!(told, expected, "{path}");
            let head = Request::new(Method::HEAD, path);
            assert_eq!(laptop.send(head).await.unwrap().status, 200);
        }
    }
}
