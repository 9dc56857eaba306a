//! A homeserver that few ask for while it is gone.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kitbag_client::Method;
use kitbag_testkit::scripted::{Scripted, whole};
use tokio::sync::{Semaphore, watch};
use tokio::time;

use super::{ask, assert_failed, until_closed};
use crate::log;
use crate::support::{serve, set_up, until};

/// Longer than connects may fail in a row.
const LONG: Duration = Duration::from_millis(1_100);

/// The second request comes late enough, and no other does.
#[tokio::test]
async fn a_homeserver_that_few_ask_for_is_found_down_too_and_the_log_says_why() {
    let log = log::capture();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("homeserver.sock");
    let gateway = set_up(&format!("unix:{}", path.display()), |_| {}).unwrap();
    let (stop, stopping) = watch::channel(false);
    let running = serve(gateway.clone(), stop, stopping).await;
    assert_failed(&ask(&running, Method::GET).await, 502);
    assert!(!gateway.stats().breaker_is_open);
    time::sleep(LONG).await;
    let response = ask(&running, Method::GET).await;
    assert_failed(&response, 502);
    let body = String::from_utf8_lossy(&response.body);
    assert!(!body.contains("no such socket"), "{body}");
    assert!(gateway.stats().breaker_is_open);
    let lines = log.lines("WARN");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("the homeserver cannot be reached"));
    assert!(lines[0].contains("no such socket"));
    let _upstream = Scripted::start_unix(&path, |_| async { whole(200, "here") }).await;
    until_closed(&gateway).await;
    assert_eq!(ask(&running, Method::GET).await.body, "here");
}

/// As where the homeserver takes no further connections for a moment, now and then.
#[tokio::test]
async fn failures_with_answers_between_them_are_no_outage() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("homeserver.sock");
    let permits = Arc::new(Semaphore::new(1));
    let asked = Arc::new(AtomicU64::new(0));
    let (permitted, count) = (Arc::clone(&permits), Arc::clone(&asked));
    let _upstream = Scripted::start_unix(&path, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let permits = Arc::clone(&permitted);
        async move {
            permits.acquire().await.unwrap().forget();
            whole(200, "here")
        }
    })
    .await;
    let gateway = set_up(&format!("unix:{}", path.display()), |_| {}).unwrap();
    let (stop, stopping) = watch::channel(false);
    let running = serve(gateway.clone(), stop, stopping).await;
    assert_eq!(ask(&running, Method::GET).await.body, "here");
    // The connection that there is stays.
    fs::remove_file(&path).unwrap();
    for round in 2..5 {
        let answered = ask(&running, Method::GET);
        let refused = async {
            until(|| asked.load(Ordering::SeqCst) == round).await;
            assert_failed(&ask(&running, Method::POST).await, 502);
            permits.add_permits(1);
        };
        let (answered, ()) = tokio::join!(answered, refused);
        assert_eq!(answered.body, "here");
        time::sleep(LONG).await;
    }
    assert!(!gateway.stats().breaker_is_open);
}
