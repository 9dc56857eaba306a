//! Places for work that goes on where its client leaves.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use kitbag_client::{Method, Request};
use kitbag_testkit::scripted::{Scripted, json};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{SOON, post};
use crate::support::{Running, gateway, send, until};
use crate::toy::{self, Stored, count, entry};

/// A homeserver that lets deletions of a user wait for permits, and questions for the device `GONE`,
/// and a gateway before it that remembers nothing.
async fn held() -> (Scripted, Running, Arc<Semaphore>) {
    let (permits, stored) = (Arc::new(Semaphore::new(0)), Stored::default());
    let waiting = Arc::clone(&permits);
    let upstream = Scripted::start(move |asked| {
        let (permits, stored) = (Arc::clone(&waiting), Stored::clone(&stored));
        async move {
            let is_end = asked.method == Method::DELETE || asked.target.contains("/logout");
            if asked.method == Method::DELETE || asked.target.ends_with("/devices/GONE") {
                permits.acquire().await.unwrap().forget();
            }
            match is_end {
                true => json(200, &json!({})),
                false => toy::answer(&asked, &stored),
            }
        }
    })
    .await;
    let gateway = gateway(&upstream.url(), |settings| {
        settings.upstream.remember_ms = 0;
    })
    .await;
    (upstream, gateway, permits)
}

/// Returns the status of whoever is answered first.
async fn first(sent: &mut FuturesUnordered<JoinHandle<u16>>) -> u16 {
    let first = timeout(SOON, sent.next()).await;
    first.expect("all wait").unwrap().unwrap()
}

/// One token is not to keep others from logging out.
#[tokio::test]
async fn of_one_user_so_many_ends_are_under_way_and_others_have_theirs() {
    const ENDS: usize = 64;
    let (_upstream, gateway, permits) = held().await;
    let delete = || {
        let delete = Request::new(Method::DELETE, "/_matrix/client/v3/devices/LAPTOP");
        send(&gateway, delete.token("alice.PHONE"))
    };
    let mut deleted: FuturesUnordered<_> = (0..=ENDS).map(|_| delete()).collect();
    assert_eq!(first(&mut deleted).await, 503);
    let logout = send(&gateway, post("logout").token("bob.PHONE"));
    assert_eq!(timeout(SOON, logout).await.unwrap().unwrap(), 200);
    permits.add_permits(10 * ENDS);
    while !deleted.is_empty() {
        assert_eq!(first(&mut deleted).await, 200, "{} are left", deleted.len());
    }
    assert_eq!(timeout(SOON, delete()).await.unwrap().unwrap(), 200);
}

/// What is read as none is not emptied where too much is already.
#[tokio::test]
async fn what_can_be_emptied_later_does_not_wait_where_enough_is_under_way() {
    const EMPTYINGS: usize = 8;
    let (upstream, gateway, permits) = held().await;
    let read = || {
        let read = entry(Method::GET, "GONE", "", "alice.PHONE");
        send(&gateway, read)
    };
    let mut reads: FuturesUnordered<_> = (0..=EMPTYINGS).map(|_| read()).collect();
    // All of them hear that it is gone before any of them empties, which asks for it once more.
    until(|| count(&upstream, "/devices/GONE") == EMPTYINGS + 1).await;
    permits.add_permits(EMPTYINGS + 1);
    assert_eq!(first(&mut reads).await, 404);
    permits.add_permits(2 * EMPTYINGS);
    while !reads.is_empty() {
        assert_eq!(first(&mut reads).await, 404);
    }
    assert_eq!(count(&upstream, "/sync"), EMPTYINGS, "as many emptied");
}
