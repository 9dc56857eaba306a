//! Devices that begin again under the same ID.

use std::sync::Arc;
use std::time::Duration;

use kitbag_client::{Client, Method, Request};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{SOON, got, has, homeserver, kept, login, post, put, three, tombstone};
use crate::support::{PASSWORD, gateway};
use crate::toy::entry;

#[tokio::test]
async fn a_login_with_the_same_id_keeps_the_entries() {
    let (lab, [_, laptop, _], user) = three().await;
    let again = login(&lab.client(), &user, "PHONE").await;
    assert!(has(&again, "PHONE").await);
    assert!(has(&laptop, "PHONE").await);
}

#[tokio::test]
async fn a_device_that_deleted_itself_is_emptied_by_the_next_session_of_its_user() {
    let (lab, [phone, laptop, _], user) = three().await;
    phone.delete_device("PHONE", PASSWORD).await.unwrap();
    // Its credentials died with it, so that its entry is still there, and told to nobody.
    assert_eq!(
        kept(&lab, &laptop, "PHONE").await,
        Some(json!({"of": "PHONE"}))
    );
    assert!(!has(&laptop, "PHONE").await);
    assert_eq!(kept(&lab, &laptop, "PHONE").await, tombstone());
    let again = login(&lab.beside(), &user, "PHONE").await;
    // And what it writes now is its own.
    let again = lab.client().with_session(again.session().clone());
    put(&again).await;
    assert!(has(&laptop, "PHONE").await);
}

/// What its ID has is of the device that ended, as it was not written through the gateway since.
#[tokio::test]
async fn a_device_that_deleted_itself_and_began_anew_past_the_gateway_starts_empty() {
    let (lab, [phone, ..], user) = three().await;
    phone.delete_device("PHONE", PASSWORD).await.unwrap();
    let again = login(&lab.beside(), &user, "PHONE").await;
    let again = lab.client().with_session(again.session().clone());
    assert!(!has(&again, "PHONE").await);
    assert_eq!(kept(&lab, &again, "PHONE").await, tombstone());
    put(&again).await;
    assert!(has(&again, "PHONE").await);
}

#[tokio::test]
async fn a_device_that_deleted_itself_starts_empty_also_after_days() {
    let (lab, [phone, ..], user) = three().await;
    phone.delete_device("PHONE", PASSWORD).await.unwrap();
    lab.clock.advance(30 * 24 * 60 * 60 * 1_000);
    let again = login(&lab.client(), &user, "PHONE").await;
    assert_eq!(kept(&lab, &again, "PHONE").await, tombstone());
}

#[tokio::test]
async fn a_device_that_deleted_itself_and_logs_in_again_starts_empty() {
    let (lab, [phone, ..], user) = three().await;
    phone.delete_device("PHONE", PASSWORD).await.unwrap();
    let again = login(&lab.client(), &user, "PHONE").await;
    assert_eq!(kept(&lab, &again, "PHONE").await, tombstone());
    assert!(has(&again, "LAPTOP").await);
}

#[tokio::test]
async fn a_login_waits_for_the_end_of_a_device_that_is_under_way() {
    let permits = Arc::new(Semaphore::new(1));
    let upstream = homeserver(&Arc::default(), Some(&permits)).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let write = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{\"a\":1}");
    assert_eq!(client.send(write).await.unwrap().status, 200);
    let delete = Request::new(Method::DELETE, "/_matrix/client/v3/devices/PHONE");
    let delete = delete.token("alice.LAPTOP");
    let url = gateway.url.clone();
    let delete = tokio::spawn(async move { Client::new(&url).unwrap().send(delete).await });
    // The homeserver has deleted it, and its entry is being emptied.
    got(&upstream, &Method::PUT, 2).await;
    let mut login = Box::pin(client.send(post("login")));
    // Long enough for what must not happen, were it not for the turn.
    let early = timeout(Duration::from_millis(300), &mut login).await;
    assert!(early.is_err());
    permits.add_permits(1);
    assert_eq!(timeout(SOON, login).await.unwrap().unwrap().status, 200);
    assert_eq!(
        timeout(SOON, delete)
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .status,
        200
    );
}
