//! The load: clients that send prepared requests over connections of their own, one after the
//! other, and read the answers with as little work as can be.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::answer::{Head, Length, joined_chunks};
use crate::process::{Load, Process};
use crate::stats::percentile;

/// Room for the head of an answer and a small body.
const BUFFER_BYTES: usize = 16 * 1_024;

/// A request in bytes, ready to be sent.
pub(crate) type Prepared = Arc<[u8]>;

/// Returns a request as a client would send it.
pub(crate) fn prepare(method: &str, path: &str, token: &str, body: &str) -> Prepared {
    let length = if method == "GET" {
        String::new()
    } else {
        format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        )
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: kitbag-bench\r\n\
         Accept: application/json\r\nAuthorization: Bearer {token}\r\n{length}\r\n{body}"
    );
    request.into_bytes().into()
}

/// A keep-alive connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of the head of the answer that came last.
    head_bytes: usize,
    /// The body of the answer that came last, where it came in chunks.
    joined: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        Self::open_with(address, BUFFER_BYTES).await
    }

    /// As [`Connection::open`], for short answers only.
    pub(crate) async fn open_with(address: SocketAddr, buffer_bytes: usize) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .context("cannot connect")?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; buffer_bytes],
            head_bytes: 0,
            joined: Vec::new(),
        })
    }

    /// Sends a request and returns the body of its answer, which must be a 200.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<&[u8]> {
        self.send(request).await?;
        self.receive().await
    }

    pub(crate) async fn send(&mut self, request: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(request).await?)
    }

    /// Tells whether the server has neither answered nor left.
    pub(crate) fn is_waiting(&self) -> bool {
        let nothing = self.stream.try_read(&mut [0]);
        nothing.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    pub(crate) async fn receive(&mut self) -> Result<&[u8]> {
        let (mut filled, mut head) = (0, None);
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(read > 0, "the server closed a connection");
            filled += read;
            if head.is_none() {
                head = Head::parse(&self.buffer[..filled])?;
            }
            let Some(Head { body_at, length }) = head else {
                ensure!(
                    filled < self.buffer.len(),
                    "the head of an answer is too long"
                );
                continue;
            };
            self.head_bytes = body_at;
            match length {
                Length::Known(length) => {
                    let end = body_at + length;
                    ensure!(filled <= end, "an answer is longer than it says");
                    if filled == end {
                        return Ok(&self.buffer[body_at..end]);
                    }
                    if end > self.buffer.len() {
                        self.buffer.resize(end, 0);
                    }
                }
                Length::Chunked => {
                    if let Some(body) = joined_chunks(&self.buffer[body_at..filled])? {
                        self.joined = body;
                        return Ok(&self.joined);
                    }
                    if filled == self.buffer.len() {
                        self.buffer.resize(2 * filled, 0);
                    }
                }
            }
        }
    }

    /// Returns the headers of the answer that came last, sorted, with their names in small letters.
    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        let head = String::from_utf8_lossy(&self.buffer[..self.head_bytes]);
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        let header = |(name, value): (&str, &str)| (name.to_lowercase(), value.trim().to_owned());
        let mut headers: Vec<_> = lines.map(header).collect();
        headers.sort();
        headers
    }
}

/// A connection and what is sent over it, by turns.
pub(crate) struct Client {
    connection: Connection,
    requests: Vec<Prepared>,
    next: usize,
}

impl Client {
    pub(crate) async fn open(address: SocketAddr, requests: Vec<Prepared>) -> Result<Self> {
        ensure!(!requests.is_empty(), "a client needs something to send");
        let connection = Connection::open(address).await?;
        Ok(Self {
            connection,
            requests,
            next: 0,
        })
    }

    /// Sends until `end`, and returns how long each answer took, in microseconds.
    async fn run(mut self, end: Instant) -> Result<(Self, Vec<u32>)> {
        let mut waits_us = Vec::new();
        let mut now = Instant::now();
        while now < end {
            let request = &self.requests[self.next];
            self.next = (self.next + 1) % self.requests.len();
            self.connection.exchange(request).await?;
            let answered = Instant::now();
            waits_us.push(micros(answered - now));
            now = answered;
        }
        Ok((self, waits_us))
    }
}

/// A wait in whole microseconds.
pub(crate) fn micros(wait: Duration) -> u32 {
    u32::try_from(wait.as_micros()).unwrap_or(u32::MAX)
}

/// A server and those who load it.
pub(crate) struct Target<'a> {
    process: &'a Process,
    clients: Vec<Client>,
}

/// What one measurement found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) requests_per_second: f64,
    /// CPU time of the server a request.
    pub(crate) cpu_us: Option<f64>,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// See [`Load::percent`].
    pub(crate) load_percent: Option<f64>,
}

impl<'a> Target<'a> {
    pub(crate) fn new(process: &'a Process, clients: Vec<Client>) -> Self {
        Self { process, clients }
    }

    /// Lets all clients send for `duration`.
    pub(crate) async fn measure(&mut self, duration: Duration) -> Result<Sample> {
        let (cpu_before, load) = (self.process.cpu(), Load::watch());
        let started = Instant::now();
        let mut running = JoinSet::new();
        for client in self.clients.drain(..) {
            running.spawn(client.run(started + duration));
        }
        let mut waits_us = Vec::new();
        while let Some(ended) = running.join_next().await {
            let (client, waits) = ended??;
            self.clients.push(client);
            waits_us.extend(waits);
        }
        let elapsed = started.elapsed();
        let load_percent = load.percent();
        let cpu = self.process.cpu().zip(cpu_before);
        let cpu = cpu.map(|(now, before)| now.since(&before));
        waits_us.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        let requests = waits_us.len() as f64;
        let nothing = "nothing was answered in time";
        Ok(Sample {
            requests_per_second: requests / elapsed.as_secs_f64(),
            cpu_us: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / requests),
            p50_us: percentile(&waits_us, 500).context(nothing)?,
            p99_us: percentile(&waits_us, 990).context(nothing)?,
            load_percent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_tells_the_length_of_its_body() {
        let put = prepare("PUT", "/a", "t", "{}");
        let put = String::from_utf8(put.to_vec()).unwrap();
        assert!(put.ends_with("Content-Length: 2\r\n\r\n{}"), "{put}");
        let get = prepare("GET", "/a", "t", "");
        assert!(get.ends_with(b"Bearer t\r\n\r\n"));
    }
}
