//! Ends of devices while something else is under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kitbag_client::{Client, Method, Request};
use kitbag_testkit::scripted::{Scripted, json};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::support::gateway;
use crate::toy::{self, Stored, count, entry};
use crate::wire::DEADLINE;

/// Waits until the homeserver was asked for something so many times.
async fn asked(upstream: &Scripted, part: &str, times: usize) {
    let asked = async {
        while count(upstream, part) < times {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, asked).await.unwrap();
}

/// It is refused as by the homeserver itself, and not for what its own end left.
#[tokio::test]
async fn a_write_that_waits_while_its_device_deletes_itself_is_told_that_the_session_ended() {
    let (stored, is_gone) = (Stored::default(), Arc::<AtomicBool>::default());
    let permits = Arc::new(Semaphore::new(0));
    let (gone, held) = (Arc::clone(&is_gone), Arc::clone(&permits));
    let upstream = Scripted::start(move |asked| {
        let (stored, gone, held) = (Stored::clone(&stored), Arc::clone(&gone), Arc::clone(&held));
        async move {
            if asked.method == Method::DELETE {
                held.acquire().await.unwrap().forget();
                gone.store(true, Ordering::SeqCst);
                return json(200, &json!({}));
            }
            match gone.load(Ordering::SeqCst) {
                true => toy::error(401, "M_UNKNOWN_TOKEN"),
                false => toy::answer(&asked, &stored),
            }
        }
    })
    .await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let send = |request: Request| {
        let client = Client::new(&gateway.url).unwrap();
        tokio::spawn(async move { client.send(request).await.unwrap().status })
    };
    let delete = Request::new(Method::DELETE, "/_matrix/client/v3/devices/PHONE");
    let delete = send(delete.token("alice.PHONE"));
    asked(&upstream, "/devices/PHONE", 1).await;
    let write = send(entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{}"));
    asked(&upstream, "/whoami", 2).await;
    // Its session is known, and it waits for its turn, or soon will.
    permits.add_permits(1);
    let statuses = async { (delete.await.unwrap(), write.await.unwrap()) };
    assert_eq!(timeout(DEADLINE, statuses).await.unwrap(), (200, 401));
}
