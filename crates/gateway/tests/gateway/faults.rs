//! A homeserver that fails in every way, and clients that do.

mod bodies;
mod outages;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kitbag_client::{Client, Method, Request, Response};
use kitbag_gateway::Gateway;
use kitbag_testkit::scripted::{Scripted, whole};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixSocket, UnixStream};
use tokio::sync::{Barrier, mpsc, watch};
use tokio::time::{self, Instant};

use crate::support::{Running, gateway, serve, set_up};
use crate::wire::{DEADLINE, Wire, has_line, values};

/// Starts a homeserver whose script has each connection, and a gateway before it.
async fn raw<F, A>(script: F) -> (Scripted, Running)
where
    F: Fn(Wire) -> A + Send + Sync + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let upstream = Scripted::raw(move |stream| script(Wire(stream))).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    (upstream, gateway)
}

async fn ask(gateway: &Running, method: Method) -> Response {
    let client = Client::new(&gateway.url).unwrap();
    client.send(Request::new(method, "/a")).await.unwrap()
}

/// Checks that an answer is the gateway's own.
fn assert_failed(response: &Response, status: u16) {
    assert_eq!(response.status, status, "{:?}", response.body);
    let body: Value = response.json().unwrap();
    assert_eq!(body["errcode"], "M_UNKNOWN");
    assert_eq!(response.headers["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn a_homeserver_that_is_not_there_is_a_502_that_says_when_to_come_again() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("unix:{}/nobody.sock", directory.path().display());
    let gateway = gateway(&url, |_| {}).await;
    let response = ask(&gateway, Method::GET).await;
    assert_failed(&response, 502);
    assert_eq!(response.headers["retry-after"], "2");
}

#[tokio::test]
async fn after_failures_in_a_row_nobody_waits_for_a_connect_and_few_are_tried() {
    let connects = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&connects);
    // Whoever greets it by TLS waits for ever.
    let upstream = Scripted::raw(move |stream| {
        count.fetch_add(1, Ordering::Relaxed);
        async move {
            let mut wire = Wire(stream);
            wire.rest().await.unwrap_or_default();
        }
    })
    .await;
    let url = format!("https://{}", upstream.address());
    let gateway = gateway(&url, |settings| {
        settings.upstream.connect_timeout_ms = 100;
        let ca = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/ca.pem");
        settings.upstream.ca_file = Some(ca.into());
    })
    .await;
    for _ in 0..5 {
        assert_failed(&ask(&gateway, Method::GET).await, 502);
    }
    let before = connects.load(Ordering::Relaxed);
    assert_eq!(before, 5);
    let started = Instant::now();
    for _ in 0..100 {
        let response = ask(&gateway, Method::GET).await;
        assert_failed(&response, 502);
        assert_eq!(response.headers["retry-after"], "2");
    }
    // What connects now is the probe: each time after a pause.
    let probes = connects.load(Ordering::Relaxed) - before;
    let pauses = started.elapsed().as_millis() / 200;
    assert!(u128::from(probes) <= pauses + 1, "{probes} in {pauses}");
}

/// Answers one request, if it comes.
async fn answer_if_asked(mut wire: Wire<UnixStream>) {
    if wire.head().await.ends_with("\r\n\r\n") {
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
    }
}

/// Of a unix socket whose queue is full the system says so at once.
#[tokio::test]
async fn a_burst_that_fills_the_queue_of_a_unix_socket_waits_for_its_turn() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("homeserver.sock");
    let socket = UnixSocket::new_stream().unwrap();
    socket.bind(&path).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    let full = loop {
        match UnixStream::connect(&path).await {
            Ok(stream) => waiting.push(stream),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);
    let gateway = set_up(&format!("unix:{}", path.display()), |_| {}).unwrap();
    let (stop, stopping) = watch::channel(false);
    let running = serve(gateway.clone(), stop, stopping).await;
    let answer = async {
        time::sleep(Duration::from_millis(100)).await;
        drop(waiting);
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer_if_asked(Wire(stream)));
        }
    };
    let asking = futures_util::future::join_all((0..20).map(|_| ask(&running, Method::POST)));
    let answers = tokio::select! {
        answers = asking => answers,
        () = answer => unreachable!("it goes on"),
    };
    assert!(answers.iter().all(|answer| answer.body == "ok"));
    assert!(!gateway.stats().breaker_is_open);
}

/// When a homeserver that is back is noticed, on a machine that does much else.
const RECOVERY_MAX: Duration = Duration::from_secs(2);

/// Waits until a probe found the homeserver.
async fn until_closed(gateway: &Gateway) {
    let closed = async {
        while gateway.stats().breaker_is_open {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(RECOVERY_MAX, closed).await.unwrap();
}

#[tokio::test]
async fn a_homeserver_that_comes_back_is_noticed_without_a_request() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("homeserver.sock");
    let gateway = set_up(&format!("unix:{}", path.display()), |_| {}).unwrap();
    let (stop, stopping) = watch::channel(false);
    let running = serve(gateway.clone(), stop, stopping).await;
    for round in 1..=2 {
        for _ in 0..5 {
            assert_failed(&ask(&running, Method::POST).await, 502);
        }
        assert!(gateway.stats().breaker_is_open);
        let upstream = Scripted::start_unix(&path, |_| async { whole(200, "here") }).await;
        until_closed(&gateway).await;
        assert_eq!(ask(&running, Method::POST).await.body, "here");
        assert_eq!(gateway.stats().breaker_openings, round);
        drop(upstream);
        std::fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn what_is_no_answer_is_a_502() {
    for answer in [
        "",
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5",
        "HTTP/1.1 200 OK\r\nContent-Length: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ] {
        let (_upstream, gateway) = raw(move |mut wire| async move {
            wire.head().await;
            wire.send(answer).await;
        })
        .await;
        let response = ask(&gateway, Method::POST).await;
        assert_failed(&response, 502);
        assert!(!response.headers.contains_key("retry-after"), "{answer}");
    }
}

/// Ends a connection in a way that drops what was not taken yet.
fn reset(wire: Wire) {
    wire.0.set_zero_linger().unwrap();
    drop(wire);
}

#[tokio::test]
async fn an_answer_that_is_cut_is_not_taken_for_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        for is_reset in [false, true] {
            let cut = if is_reset { reset } else { drop };
            let (_upstream, gateway) = raw(move |mut wire| async move {
                wire.head().await;
                wire.send(answer).await;
                cut(wire);
            })
            .await;
            let mut client = Wire::to(&gateway.url).await;
            client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
            // Of what was reset nothing may have come.
            let told = client.rest().await.unwrap_or_default();
            assert!(
                is_reset || told.starts_with("HTTP/1.1 200 OK\r\n"),
                "{told}"
            );
            let (head, body) = told.split_once("\r\n\r\n").unwrap_or_default();
            let is_chunked = has_line(head, "transfer-encoding: chunked");
            assert!(is_chunked || body.len() < 10, "{told}");
            assert!(!body.ends_with("0\r\n\r\n"), "{told}");
        }
    }
}

#[tokio::test]
async fn of_an_answer_with_two_lengths_the_pieces_count() {
    let (_upstream, gateway) = raw(|mut wire| async move {
        while wire.head().await.starts_with("GET ") {
            wire.send(
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n0\r\n\r\n",
            )
            .await;
        }
    })
    .await;
    for _ in 0..2 {
        let response = ask(&gateway, Method::GET).await;
        assert_eq!(response.body, "hello");
        assert_eq!(response.header("content-length"), None);
    }
}

#[tokio::test]
async fn a_success_that_answers_nothing_is_not_the_clients() {
    let upstream = Scripted::start(|_| async { whole(202, "") }).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let path = "/_matrix/client/v3/user/@a:x/devices/D/account_data/t";
    let put = Request::new(Method::PUT, path).token("kt_t").body("{}");
    let client = Client::new(&gateway.url).unwrap();
    assert_failed(&client.send(put).await.unwrap(), 502);
}

#[tokio::test]
async fn an_answer_that_comes_slowly_is_waited_for_piece_by_piece() {
    let upstream = Scripted::raw(|stream| async move {
        let mut wire = Wire(stream);
        wire.head().await;
        // Two of these pauses are longer than the time that each piece has, the head too.
        let pieces = ["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "ab", "c"];
        for piece in pieces {
            time::sleep(Duration::from_millis(1_200)).await;
            wire.send(piece).await;
        }
    })
    .await;
    let gateway = gateway(&upstream.url(), |settings| {
        settings.upstream.response_timeout_ms = 2_000;
    })
    .await;
    assert_eq!(ask(&gateway, Method::GET).await.body, "abc");
}

#[tokio::test]
async fn an_upload_may_take_longer_than_an_answer_as_long_as_it_goes_on() {
    let upstream = Scripted::start(|asked| async move { whole(200, asked.body) }).await;
    let gateway = gateway(&upstream.url(), |settings| {
        settings.upstream.response_timeout_ms = 1_500;
    })
    .await;
    let mut client = Wire::to(&gateway.url).await;
    client
        .send("PUT /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\n")
        .await;
    for piece in ["a", "b", "c", "d"] {
        time::sleep(Duration::from_millis(600)).await;
        client.send(piece).await;
    }
    let answer = client.rest().await.unwrap();
    assert!(answer.ends_with("\r\n\r\nabcd"), "{answer}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_504_and_one_that_stops_is_cut() {
    let upstream = Scripted::raw(|stream| async move {
        let mut wire = Wire(stream);
        if wire.head().await.starts_with("GET /stops ") {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
                .await;
        }
        wire.rest().await.unwrap_or_default();
    })
    .await;
    let gateway = gateway(&upstream.url(), |settings| {
        settings.upstream.response_timeout_ms = 100;
    })
    .await;
    assert_failed(&ask(&gateway, Method::GET).await, 504);
    let mut client = Wire::to(&gateway.url).await;
    client.send("GET /stops HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await;
    let rest = client.rest().await.unwrap_or_default();
    assert!(rest.len() < 10, "{rest}");
}

/// Starts a homeserver that answers the first request of each connection, and ends the connection
/// when a second one comes. Returns the lines of all requests too.
async fn forgetful() -> (Scripted, Running, mpsc::UnboundedReceiver<String>) {
    let (tell, told) = mpsc::unbounded_channel();
    let (upstream, gateway) = raw(move |mut wire| {
        let tell = tell.clone();
        async move {
            for _ in 0..2 {
                let head = wire.head().await;
                tell.send(head.lines().next().unwrap_or_default().to_owned())
                    .unwrap();
                let is_first = head.contains("/first");
                if !is_first {
                    break;
                }
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
            }
        }
    })
    .await;
    (upstream, gateway, told)
}

/// Returns what is told next.
async fn next<T>(told: &mut mpsc::UnboundedReceiver<T>) -> T {
    time::timeout(DEADLINE, told.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_get_on_a_connection_that_just_ended_is_sent_once_more_and_a_post_is_not() {
    for (method, times) in [("GET", 2), ("HEAD", 2), ("POST", 1), ("DELETE", 1)] {
        let (_upstream, gateway, mut told) = forgetful().await;
        let mut client = Wire::to(&gateway.url).await;
        client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.head().await;
        assert_eq!(client.exactly(2).await, "ok");
        // Of a connection that was used just now it is not believed.
        time::sleep(Duration::from_millis(250)).await;
        let second = format!("{method} /second HTTP/1.1");
        client.send(format!("{second}\r\nHost: a\r\n\r\n")).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
        assert_eq!(next(&mut told).await, "GET /first HTTP/1.1");
        for _ in 0..times {
            assert_eq!(next(&mut told).await, second);
        }
        assert!(told.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_connection_that_ended_while_nobody_used_it_is_not_used() {
    let (ended, mut has_ended) = mpsc::unbounded_channel();
    let (_upstream, gateway) = raw(move |mut wire| {
        let ended = ended.clone();
        async move {
            wire.head().await;
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
            drop(wire);
            ended.send(()).unwrap();
        }
    })
    .await;
    for _ in 0..20 {
        assert_eq!(ask(&gateway, Method::POST).await.body, "ok");
        next(&mut has_ended).await;
        // The end has to come to the gateway too, which shares this thread.
        time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn connections_are_used_again_and_ended_when_nobody_needs_them() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let upstream = Scripted::raw(move |stream| {
        let tell = tell.clone();
        async move {
            tell.send("begun").unwrap();
            let mut wire = Wire(stream);
            while wire.head().await.ends_with("\r\n\r\n") {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
            }
            tell.send("ended").unwrap();
        }
    })
    .await;
    let gateway = gateway(&upstream.url(), |settings| {
        settings.upstream.idle_timeout_ms = 1_000;
    })
    .await;
    for _ in 0..20 {
        assert_eq!(ask(&gateway, Method::PUT).await.body, "ok");
    }
    assert_eq!(next(&mut told).await, "begun");
    assert!(told.try_recv().is_err(), "one was enough");
    assert_eq!(next(&mut told).await, "ended", "nobody asked for another");
}

#[tokio::test]
async fn no_more_connections_are_kept_than_may_be() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let all_asked = Arc::new(Barrier::new(8));
    let upstream = Scripted::raw(move |stream| {
        let (tell, all_asked) = (tell.clone(), Arc::clone(&all_asked));
        async move {
            let mut wire = Wire(stream);
            wire.head().await;
            all_asked.wait().await;
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
            wire.rest().await.unwrap();
            tell.send(Instant::now()).unwrap();
        }
    })
    .await;
    let gateway = gateway(&upstream.url(), |settings| {
        settings.upstream.idle_connections_max = 2;
        settings.upstream.idle_timeout_ms = 2_000;
    })
    .await;
    let asking = (0..8).map(|_| ask(&gateway, Method::GET));
    futures_util::future::join_all(asking).await;
    let answered = Instant::now();
    let mut ended = Vec::new();
    for _ in 0..8 {
        let next = next(&mut told).await;
        ended.push(next.duration_since(answered) > Duration::from_secs(1));
    }
    assert_eq!(ended.iter().filter(|was_kept| **was_kept).count(), 2);
}

/// The time that a head may take does not run while an answer is on its way.
#[tokio::test]
async fn an_answer_that_pauses_for_longer_than_a_head_may_take_goes_on() {
    const PAUSE: Duration = Duration::from_millis(500);
    let upstream = Scripted::raw(|stream| async move {
        let mut wire = Wire(stream);
        wire.head().await;
        time::sleep(PAUSE).await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
            .await;
        time::sleep(PAUSE).await;
        wire.send("def").await;
        wire.rest().await.unwrap_or_default();
    })
    .await;
    let gateway = gateway(&upstream.url(), |settings| {
        settings.listener.header_timeout_ms = 100;
    })
    .await;
    let mut client = Wire::to(&gateway.url).await;
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await;
    assert_eq!(client.exactly(6).await, "abcdef");
}

#[tokio::test]
async fn when_the_client_leaves_the_homeserver_sees_it_at_once() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    for (answer, ahead) in [("", ""), (cut, ""), ("", "G"), (cut, "G")] {
        let (tell, mut told) = mpsc::unbounded_channel();
        let (_upstream, gateway) = raw(move |mut wire| {
            let tell = tell.clone();
            async move {
                wire.head().await;
                wire.send(answer).await;
                tell.send("asked").unwrap();
                wire.rest().await.unwrap_or_default();
                tell.send("left").unwrap();
            }
        })
        .await;
        let mut client = Wire::to(&gateway.url).await;
        client
            .send(format!("GET /a HTTP/1.1\r\nHost: a\r\n\r\n{ahead}"))
            .await;
        assert_eq!(next(&mut told).await, "asked");
        if !answer.is_empty() {
            client.head().await;
            client.exactly(3).await;
        }
        drop(client);
        assert_eq!(next(&mut told).await, "left");
    }
}

/// Names everybody but `nobody`, whom it keeps waiting, and never ends a session.
async fn name_and_hang(mut wire: Wire, tell: mpsc::UnboundedSender<&'static str>) {
    let head = wire.head().await;
    let token = values(&head, "authorization")[0].strip_prefix("Bearer ");
    let token = token.unwrap();
    let is_nobody = token == "nobody";
    if !is_nobody && head.contains("/whoami") {
        // Nobody waits for the turn of another.
        let who = format!("{{\"user_id\":\"@{token}:x\"}}");
        let length = who.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        wire.send(head + &who).await;
        wire.head().await;
    }
    let told = if is_nobody { "nobody" } else { "somebody" };
    tell.send(told).unwrap();
    wire.rest().await.unwrap_or_default();
    tell.send("left").unwrap();
}

/// What ends devices is done to its end, which a client could ask for again and again.
#[tokio::test]
async fn for_clients_that_left_no_more_is_under_way_than_may_be_connected() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let upstream = Scripted::raw(move |stream| name_and_hang(Wire(stream), tell.clone())).await;
    let gateway = gateway(&upstream.url(), |settings| {
        settings.listener.connections_max = 2.try_into().unwrap();
    })
    .await;
    let log_out = |token: &str| {
        let head = "POST /_matrix/client/v3/logout HTTP/1.1\r\nHost: a\r\n";
        format!("{head}Authorization: Bearer {token}\r\n\r\n")
    };
    // Nothing goes on for whom the homeserver has not named.
    for _ in 0..3 {
        let mut client = Wire::to(&gateway.url).await;
        client.send(log_out("nobody")).await;
        assert_eq!(next(&mut told).await, "nobody");
        drop(client);
        assert_eq!(next(&mut told).await, "left");
    }
    for token in ["one", "two"] {
        let mut client = Wire::to(&gateway.url).await;
        client.send(log_out(token)).await;
        assert_eq!(next(&mut told).await, "somebody");
    }
    let mut client = Wire::to(&gateway.url).await;
    client.send(log_out("three")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(has_line(&head, "retry-after: 2"), "{head}");
}

#[tokio::test]
async fn when_the_client_leaves_in_the_midst_of_a_body_the_homeserver_gets_no_end_of_it() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let (_upstream, gateway) = raw(move |mut wire| {
        let tell = tell.clone();
        async move {
            wire.head().await;
            tell.send(wire.exactly("3\r\nabc\r\n".len()).await).unwrap();
            tell.send(wire.rest().await.unwrap_or_default()).unwrap();
        }
    })
    .await;
    let mut client = Wire::to(&gateway.url).await;
    client
        .send("PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await;
    assert_eq!(next(&mut told).await, "3\r\nabc\r\n");
    drop(client);
    assert_eq!(next(&mut told).await, "");
}
