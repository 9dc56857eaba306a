//! Bodies that are long, late, cut off, or answered before their end.

use super::*;

#[tokio::test]
async fn a_body_that_ends_with_trailers_was_read_to_its_end() {
    let (_upstream, gateway) = raw(|mut wire| async move {
        wire.head().await;
        wire.exactly("3\r\nabc\r\n".len()).await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        wire.rest().await.unwrap_or_default();
    })
    .await;
    let mut client = Wire::to(&gateway.url).await;
    let head = "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client
        .send(format!("{head}3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"))
        .await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(!head.contains("connection: close"), "{head}");
}

/// The homeserver's own time, which is far longer, would begin anew with each byte.
#[tokio::test]
async fn a_body_of_which_nothing_comes_is_a_408_and_the_end_of_both_connections() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let upstream = Scripted::raw(move |stream| {
        let tell = tell.clone();
        async move {
            let mut wire = Wire(stream);
            wire.head().await;
            tell.send(wire.rest().await.unwrap_or_default()).unwrap();
        }
    })
    .await;
    let gateway = gateway(&upstream.url(), |settings| {
        settings.listener.body_timeout_ms = 400;
    })
    .await;
    let mut client = Wire::to(&gateway.url).await;
    client
        .send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        .await;
    for piece in ["a", "b", "c"] {
        // Each piece in its time, all of them not.
        time::sleep(Duration::from_millis(200)).await;
        client.send(piece).await;
    }
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert_eq!(next(&mut told).await, "abc");
}

#[tokio::test]
async fn a_body_that_breaks_is_a_400_and_not_laid_to_the_homeserver() {
    let upstream = Scripted::raw(|stream| async move {
        let mut wire = Wire(stream);
        wire.head().await;
        wire.rest().await.unwrap_or_default();
    })
    .await;
    let gateway = set_up(&upstream.url(), |_| {}).unwrap();
    let (stop, stopping) = watch::channel(false);
    let running = serve(gateway.clone(), stop, stopping).await;
    for (body, is_shut) in [
        (
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nnonsense\r\n",
            false,
        ),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", true),
        ("Content-Length: 9\r\n\r\nabc", true),
    ] {
        let mut client = Wire::to(&running.url).await;
        client
            .send(format!("POST /a HTTP/1.1\r\nHost: a\r\n{body}"))
            .await;
        if is_shut {
            client.0.shutdown().await.unwrap();
        }
        let answer = client.rest().await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{body}: {answer}");
        assert!(answer.contains("\"M_NOT_JSON\""), "{answer}");
    }
    let refusals = gateway.stats().http.refusals;
    let refusals = refusals.iter().filter(|refusal| refusal.count > 0);
    let reasons: Vec<_> = refusals.map(|refusal| refusal.reason).collect();
    assert_eq!(reasons, ["body_broken"]);
}

/// The client is still sending: nothing is wrong with its body.
#[tokio::test]
async fn a_body_whose_taker_is_lost_is_a_502_and_not_laid_to_the_client() {
    for (framing, taken) in [
        ("Content-Length: 1000000\r\n\r\nabc", "abc"),
        (
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "3\r\nabc\r\n",
        ),
    ] {
        for cut in [reset, drop] {
            let (_upstream, gateway) = raw(move |mut wire| async move {
                wire.head().await;
                assert_eq!(wire.exactly(taken.len()).await, taken);
                cut(wire);
            })
            .await;
            let mut client = Wire::to(&gateway.url).await;
            client
                .send(format!("PUT /a HTTP/1.1\r\nHost: a\r\n{framing}"))
                .await;
            let head = client.head().await;
            assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
            assert!(has_line(&head, "connection: close"), "{head}");
            let body = client.rest().await.unwrap();
            assert!(body.contains("\"M_UNKNOWN\""), "{body}");
        }
    }
}

#[tokio::test]
async fn a_body_with_a_coding_below_its_pieces_is_not_handed_on_as_plain() {
    let upstream = Scripted::start(|_| async { whole(200, "taken") }).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let head = "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n";
    let answer = Wire::talk(&gateway.url, &format!("{head}3\r\nabc\r\n0\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 501 "), "{answer}");
    assert!(answer.contains("\"M_UNKNOWN\""), "{answer}");
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_body_reaches_the_client() {
    let (_upstream, gateway) = raw(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 2\r\n\r\nno")
            .await;
        wire.rest().await.unwrap_or_default();
    })
    .await;
    let mut client = Wire::to(&gateway.url).await;
    client
        .send("PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc")
        .await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert_eq!(client.exactly(2).await, "no");
}

/// Bytes that are far more than the system keeps of a connection.
const MANY_BYTES: usize = 200 * 1024 * 1024;
/// Bytes that may be under way: what the system keeps of both connections, and a few of the gateway's.
const UNDER_WAY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// When nothing was taken for so long, nothing more is.
const STALL: Duration = Duration::from_millis(700);

/// Writes many bytes, waits for `go` where nobody takes them, and returns how many had been taken by
/// then.
async fn pour(stream: &mut TcpStream, go: &mut watch::Receiver<bool>) -> usize {
    let piece = vec![b'x'; 64 * 1024];
    let (mut written, mut at_stall) = (0, None);
    while written < MANY_BYTES {
        let piece = &piece[..piece.len().min(MANY_BYTES - written)];
        match time::timeout(STALL, stream.write(piece)).await {
            Ok(bytes) => written += bytes.unwrap(),
            Err(_) if at_stall.is_none() => {
                at_stall = Some(written);
                go.wait_for(|go| *go).await.unwrap();
            }
            Err(_) => {}
        }
    }
    at_stall.unwrap_or(written)
}

/// Reads so many bytes as there are many.
async fn drain(stream: &mut TcpStream) -> usize {
    let mut piece = vec![0; 64 * 1024];
    let mut read = 0;
    while read < MANY_BYTES {
        let bytes = stream.read(&mut piece).await.unwrap();
        assert!(bytes > 0, "it ended after {read}");
        read += bytes;
    }
    read
}

#[tokio::test]
async fn of_a_long_answer_no_more_is_taken_than_the_client_takes() {
    let (go, gone) = watch::channel(false);
    let (tell, mut told) = mpsc::unbounded_channel();
    let (_upstream, gateway) = raw(move |mut wire| {
        let (mut gone, tell) = (gone.clone(), tell.clone());
        async move {
            wire.head().await;
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {MANY_BYTES}\r\n\r\n"
            ))
            .await;
            tell.send(pour(&mut wire.0, &mut gone).await).unwrap();
        }
    })
    .await;
    let mut client = Wire::to(&gateway.url).await;
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await;
    time::sleep(2 * STALL).await;
    go.send(true).unwrap();
    assert_eq!(drain(&mut client.0).await, MANY_BYTES);
    let under_way = next(&mut told).await;
    assert!(under_way < UNDER_WAY_BYTES_MAX, "{under_way}");
}

#[tokio::test]
async fn of_a_long_body_no_more_is_taken_than_the_homeserver_takes() {
    let (go, gone) = watch::channel(false);
    let reading = gone.clone();
    let (_upstream, gateway) = raw(move |mut wire| {
        let mut reading = reading.clone();
        async move {
            wire.head().await;
            reading.wait_for(|go| *go).await.unwrap();
            let read = drain(&mut wire.0).await.to_string();
            let length = read.len();
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{read}"
            ))
            .await;
        }
    })
    .await;
    let mut client = Wire::to(&gateway.url).await;
    client
        .send(format!(
            "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: {MANY_BYTES}\r\n\r\n"
        ))
        .await;
    tokio::spawn(async move {
        time::sleep(2 * STALL).await;
        go.send(true).unwrap();
    });
    let under_way = pour(&mut client.0, &mut gone.clone()).await;
    client.head().await;
    let read = MANY_BYTES.to_string();
    assert_eq!(client.exactly(read.len()).await, read);
    assert!(under_way < UNDER_WAY_BYTES_MAX, "{under_way}");
}
