//! Deletions of devices, and new passwords.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kitbag_client::{Account, Client, Method, Request};
use kitbag_testkit::scripted::{Asked, Scripted, json};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{got, has, homeserver, kept, login, post, three, tombstone, with_password};
use crate::support::{PASSWORD, gateway};
use crate::toy::{self, Stored, entry};

#[tokio::test]
async fn a_deletion_empties_when_it_is_done_and_not_when_it_is_challenged() {
    let (lab, [phone, laptop, _], user) = three().await;
    let request = Request::new(Method::DELETE, "/_matrix/client/r0/devices/LAPTOP");
    let challenge = phone.send(request.clone().json(&json!({}))).await.unwrap();
    assert_eq!(challenge.status, 401);
    assert!(has(&laptop, "LAPTOP").await);
    let (_, status) = with_password(&phone, request, &json!({})).await;
    assert_eq!(status, 200);
    assert_eq!(kept(&lab, &phone, "LAPTOP").await, tombstone());
    assert!(has(&phone, "PHONE").await);
    let again = login(&lab.beside(), &user, "LAPTOP").await;
    assert!(
        !has(
            &lab.client().with_session(again.session().clone()),
            "LAPTOP"
        )
        .await
    );
}

/// Sends a request that needs the password without it.
async fn see_the_challenge_empty_nothing(account: &Account, request: Request, body: &Value) {
    let challenge = account.send(request.json(body)).await.unwrap();
    assert_eq!(challenge.status, 401);
    for device in ["PHONE", "LAPTOP", "TABLET"] {
        assert!(has(account, device).await, "{device}");
    }
}

#[tokio::test]
async fn many_devices_are_deleted_at_once() {
    let (lab, [phone, ..], _) = three().await;
    let body = json!({"devices": ["LAPTOP", "TABLET", "NONE", ""]});
    see_the_challenge_empty_nothing(&phone, post("delete_devices"), &body).await;
    let (_, status) = with_password(&phone, post("delete_devices"), &body).await;
    assert_eq!(status, 200);
    assert_eq!(kept(&lab, &phone, "LAPTOP").await, tombstone());
    assert_eq!(kept(&lab, &phone, "TABLET").await, tombstone());
    assert!(has(&phone, "PHONE").await);
}

#[tokio::test]
async fn a_new_password_empties_the_other_devices_unless_they_stay() {
    let (lab, [phone, laptop, _], _) = three().await;
    let body = json!({"new_password": PASSWORD, "logout_devices": false});
    let (_, status) = with_password(&phone, post("account/password"), &body).await;
    assert_eq!(status, 200);
    assert!(has(&laptop, "LAPTOP").await);
    let body = json!({"new_password": PASSWORD});
    see_the_challenge_empty_nothing(&phone, post("account/password"), &body).await;
    let (_, status) = with_password(&phone, post("account/password"), &body).await;
    assert_eq!(status, 200);
    assert_eq!(kept(&lab, &phone, "LAPTOP").await, tombstone());
    assert_eq!(kept(&lab, &phone, "TABLET").await, tombstone());
    assert!(has(&phone, "PHONE").await);
}

#[tokio::test]
async fn a_deletion_is_done_to_its_end_where_the_client_goes_away() {
    // More than are emptied at once.
    const ENTRIES: usize = 9;
    let permits = Arc::new(Semaphore::new(ENTRIES));
    let upstream = homeserver(&Arc::default(), Some(&permits)).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    for number in 0..ENTRIES {
        let path = "/_matrix/client/v3/user/%40alice%3Ax/devices/PHONE/account_data";
        let write = Request::new(Method::PUT, format!("{path}/t{number}")).body("{}");
        let write = client.send(write.token("alice.PHONE")).await;
        assert_eq!(write.unwrap().status, 200);
    }
    let delete = Request::new(Method::DELETE, "/_matrix/client/v3/devices/PHONE");
    let delete = delete.token("alice.LAPTOP");
    let url = gateway.url.clone();
    let delete = tokio::spawn(async move { Client::new(&url).unwrap().send(delete).await });
    // The homeserver has deleted it, and the first entries are being emptied.
    got(&upstream, &Method::PUT, 2 * ENTRIES - 1).await;
    delete.abort();
    assert!(delete.await.is_err());
    // Long enough for the gateway to notice who went away.
    let early = got(&upstream, &Method::PUT, 2 * ENTRIES);
    assert!(timeout(Duration::from_millis(300), early).await.is_err());
    permits.add_permits(ENTRIES);
    got(&upstream, &Method::PUT, 2 * ENTRIES).await;
}

/// A toy that deletes devices without saying so, and takes new passwords.
async fn silent(status: u16) -> Scripted {
    let (stored, is_gone) = (Stored::default(), AtomicBool::new(false));
    let answer = move |asked: &Asked| {
        let path = asked.target.as_str();
        if asked.method == Method::DELETE {
            is_gone.store(true, Ordering::SeqCst);
            toy::error(status, "M_UNKNOWN")
        } else if path.ends_with("/devices") && is_gone.load(Ordering::SeqCst) {
            json(200, &json!({"devices": [{"device_id": "LAPTOP"}]}))
        } else if path.ends_with("/account/password") {
            json(200, &json!({}))
        } else {
            toy::answer(asked, &stored)
        }
    };
    let answer = Arc::new(answer);
    Scripted::start(move |asked| {
        let answer = Arc::clone(&answer);
        async move { answer(&asked) }
    })
    .await
}

#[tokio::test]
async fn a_deletion_whose_answer_is_lost_leaves_a_trace() {
    for told in [500, 503, 504, 520] {
        let upstream = silent(told).await;
        let gateway = gateway(&upstream.url(), |_| {}).await;
        let client = Client::new(&gateway.url).unwrap();
        let status = async |request| client.send(request).await.unwrap().status;
        let write = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{\"a\":1}");
        assert_eq!(status(write).await, 200);
        let delete = Request::new(Method::DELETE, "/_matrix/client/v3/devices/PHONE");
        assert_eq!(status(delete.token("alice.LAPTOP")).await, told);
        let read = entry(Method::GET, "PHONE", "", "alice.LAPTOP");
        assert_eq!(status(read).await, 404, "{told}");
    }
}

/// Those that the homeserver tells of afterwards may be new ones of the same ID.
#[tokio::test]
async fn what_a_new_password_ends_is_asked_for_before() {
    let upstream = silent(504).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let status = async |request| client.send(request).await.unwrap().status;
    for device in ["PHONE", "LAPTOP"] {
        let write = entry(Method::PUT, device, "", &format!("alice.{device}"));
        assert_eq!(status(write.body("{\"a\":1}")).await, 200);
    }
    let password = post("account/password").token("alice.LAPTOP");
    assert_eq!(
        status(password.json(&json!({"new_password": "a"}))).await,
        200
    );
    for (device, expected) in [("PHONE", 404), ("LAPTOP", 200)] {
        let read = entry(Method::GET, device, "", "alice.LAPTOP");
        assert_eq!(status(read).await, expected, "{device}");
    }
}

/// It may erase the entries, or keep them where nobody reads them.
#[tokio::test]
async fn a_deactivation_is_left_to_the_homeserver() {
    let stored = Stored::default();
    let kept = Stored::clone(&stored);
    let upstream = Scripted::start(move |asked| {
        let answer = match asked.target.ends_with("/account/deactivate") {
            true => json(200, &json!({"id_server_unbind_result": "success"})),
            false => toy::answer(&asked, &kept),
        };
        async move { answer }
    })
    .await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let write = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{\"a\":1}");
    assert_eq!(client.send(write).await.unwrap().status, 200);
    let before = upstream.asked().len();
    let deactivate = post("account/deactivate").token("alice.PHONE").body("{}");
    assert_eq!(client.send(deactivate).await.unwrap().status, 200);
    let asked = upstream.asked().split_off(before);
    let asked: Vec<&str> = asked.iter().map(|asked| asked.target.as_str()).collect();
    assert_eq!(asked, ["/_matrix/client/v3/account/deactivate"]);
    let stored: Vec<String> = stored.lock().unwrap().values().cloned().collect();
    assert_eq!(stored, ["{\"a\":1}"]);
}
