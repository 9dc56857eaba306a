//! The gateway stops.

use std::time::Duration;

use kitbag_testkit::scripted::Scripted;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time;

use crate::support::set_up;
use crate::wire::{DEADLINE, Wire, has_line};

/// A gateway that can be stopped, before a homeserver that answers when it is told to.
struct Stopping {
    _upstream: Scripted,
    url: String,
    stop: watch::Sender<bool>,
    served: JoinHandle<()>,
    /// Each time the homeserver was asked, and each time it was left.
    told: mpsc::UnboundedReceiver<&'static str>,
    answer: watch::Sender<bool>,
}

async fn start(shutdown_timeout_ms: u64) -> Stopping {
    let (tell, told) = mpsc::unbounded_channel();
    let (answer, may_answer) = watch::channel(false);
    let upstream = Scripted::raw(move |stream| {
        let (tell, mut may_answer) = (tell.clone(), may_answer.clone());
        async move {
            let mut wire = Wire(stream);
            wire.head().await;
            tell.send("asked").unwrap();
            let may_answer = async { may_answer.wait_for(|may_answer| *may_answer).await.is_ok() };
            tokio::select! {
                true = may_answer => {
                    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde").await;
                }
                _ = wire.rest() => tell.send("left").unwrap(),
            }
        }
    })
    .await;
    let gateway = set_up(&upstream.url(), |settings| {
        settings.listener.shutdown_timeout_ms = shutdown_timeout_ms;
    });
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopping) = watch::channel(false);
    let served = tokio::spawn(kitbag_http::serve(listener, gateway.unwrap(), stopping));
    Stopping {
        _upstream: upstream,
        url,
        stop,
        served,
        told,
        answer,
    }
}

/// Waits until nobody is let in any more.
async fn until_closed(url: &str) {
    let address = url.strip_prefix("http://").unwrap();
    let closed = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(DEADLINE, closed).await.unwrap();
}

#[tokio::test]
async fn what_is_under_way_when_it_stops_is_answered() {
    let mut lab = start(60_000).await;
    let mut client = Wire::to(&lab.url).await;
    client
        .send("GET /_matrix/client/v3/sync HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(lab.told.recv().await, Some("asked"));
    lab.stop.send(true).unwrap();
    until_closed(&lab.url).await;
    let cut = time::timeout(Duration::from_millis(100), &mut lab.served).await;
    assert!(
        cut.is_err(),
        "it goes on while somebody waits for an answer"
    );
    lab.answer.send(true).unwrap();
    let answer = client.rest().await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nabcde"), "{answer}");
    assert!(has_line(&answer, "connection: close"), "{answer}");
    time::timeout(DEADLINE, lab.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_takes_too_long_when_it_stops_is_cut_on_both_sides() {
    let mut lab = start(200).await;
    let mut client = Wire::to(&lab.url).await;
    client
        .send("GET /_matrix/client/v3/sync HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(lab.told.recv().await, Some("asked"));
    lab.stop.send(true).unwrap();
    time::timeout(DEADLINE, lab.served).await.unwrap().unwrap();
    assert_eq!(client.rest().await.unwrap_or_default(), "");
    let next = time::timeout(DEADLINE, lab.told.recv()).await.unwrap();
    assert_eq!(next, Some("left"));
}
