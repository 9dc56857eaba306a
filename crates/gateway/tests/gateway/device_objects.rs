//! Devices that are told with their account data, while something ends.

use std::sync::Arc;
use std::time::Duration;

use kitbag_client::{Client, Method, Request};
use kitbag_testkit::scripted::{Asked, Scripted, json};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::support::gateway;
use crate::toy::{self, Stored, entry};

const SOON: Duration = Duration::from_secs(10);

/// A toy that deletes devices, which begin anew at once, and holds answers to writes up.
async fn homeserver(permits: &Arc<Semaphore>) -> Scripted {
    let (stored, permits) = (Stored::default(), Arc::clone(permits));
    Scripted::start(move |asked| {
        let (stored, permits) = (Arc::clone(&stored), Arc::clone(&permits));
        async move {
            match asked.method {
                Method::DELETE => return json(200, &json!({})),
                Method::PUT => permits.acquire().await.unwrap().forget(),
                _ => {}
            }
            toy::answer(&asked, &stored)
        }
    })
    .await
}

#[tokio::test]
async fn a_device_that_began_anew_is_told_without_what_is_being_emptied() {
    let permits = Arc::new(Semaphore::new(1));
    let upstream = homeserver(&permits).await;
    let gateway = gateway(&upstream.url(), |set| set.msc4331.in_devices = true).await;
    let client = Client::new(&gateway.url).unwrap();
    let told = async || {
        let request = Request::new(Method::GET, "/_matrix/client/v3/devices/PHONE");
        let answer = client.send(request.token("alice.LAPTOP")).await.unwrap();
        answer.json::<Value>().unwrap()
    };
    let write = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{\"a\":1}");
    assert_eq!(client.send(write).await.unwrap().status, 200);
    assert!(told().await["account_data"].is_object());
    let delete = Request::new(Method::DELETE, "/_matrix/client/v3/devices/PHONE");
    let (delete, url) = (delete.token("alice.LAPTOP"), gateway.url.clone());
    let delete = tokio::spawn(async move { Client::new(&url).unwrap().send(delete).await });
    let is_emptying = async || {
        let is_write = |asked: &&Asked| asked.method == Method::PUT;
        while upstream.asked().iter().filter(is_write).count() < 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, is_emptying()).await.unwrap();
    let mut telling = Box::pin(told());
    // Long enough for what must not happen, were it not for the turn.
    let early = timeout(Duration::from_millis(300), &mut telling).await;
    assert!(early.is_err(), "{early:?}");
    permits.add_permits(1);
    let told = timeout(SOON, telling).await.unwrap();
    assert_eq!(told, json!({"device_id": "PHONE"}));
    assert_eq!(delete.await.unwrap().unwrap().status, 200);
}
