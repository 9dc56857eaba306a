//! HTTP as bytes: requests go out as they are written, answers are taken apart and not judged.
//!
//! A client library would mend what is odd on purpose, and hide what differs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// Longer than any poll that is asked for.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An answer as it came.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    /// The whole status line, without its end.
    pub(crate) line: String,
    pub(crate) status: u16,
    /// In their order, the names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The first header of this name, in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// Reads the body, `null` where it is no JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A connection that is kept.
#[derive(Debug)]
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request and reads its answer.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        self.0.get_mut().write_all(request)?;
        self.answer(request.starts_with(b"HEAD "))
    }

    fn answer(&mut self, is_of_head: bool) -> anyhow::Result<Answer> {
        loop {
            let line = self.line()?;
            let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
            let status: u16 = status.with_context(|| format!("`{line}` is no status"))?;
            let headers = self.headers()?;
            // What comes before the answer itself, such as 100 (Continue).
            if !(100..200).contains(&status) {
                let mut answer = Answer {
                    line,
                    status,
                    headers,
                    body: Vec::new(),
                };
                if !is_of_head && !matches!(status, 204 | 304) {
                    answer.body = self.body(&answer)?;
                }
                return Ok(answer);
            }
        }
    }

    fn headers(&mut self) -> anyhow::Result<Vec<(String, String)>> {
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(headers);
            }
            let (name, value) = line
                .split_once(':')
                .with_context(|| format!("`{line}` is no header"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn body(&mut self, answer: &Answer) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.line()?;
                let size = usize::from_str_radix(&size, 16)
                    .with_context(|| format!("`{size}` is no size of a chunk"))?;
                self.read_into(&mut body, size)?;
                ensure!(self.line()?.is_empty(), "a chunk is longer than it says");
                if size == 0 {
                    return Ok(body);
                }
            }
        }
        match answer.header("content-length") {
            Some(length) => self.read_into(&mut body, length.parse()?)?,
            None => drop(self.0.read_to_end(&mut body)?),
        }
        Ok(body)
    }

    fn read_into(&mut self, body: &mut Vec<u8>, count: usize) -> anyhow::Result<()> {
        let start = body.len();
        body.resize(start + count, 0);
        let read = self.0.read_exact(&mut body[start..]);
        read.context("the body ended early")
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
            None => bail!("the answer ended early"),
        }
    }
}

/// Writes a request; a body brings its length along.
pub(crate) fn request(method: &str, target: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    if !body.is_empty() {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    request
}

/// Asks on a connection of its own.
pub(crate) fn get(address: SocketAddr, target: &str) -> anyhow::Result<Answer> {
    Connection::open(address)?.exchange(&request("GET", target, &[], b""))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What is read of this, which is sent and followed by the end of the connection.
    fn read(method: &str, sent: &'static str) -> anyhow::Result<Answer> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut head = [0; 64];
            assert!(stream.read(&mut head).unwrap() > 0);
            stream.write_all(sent.as_bytes()).unwrap();
        });
        let answer = Connection::open(address)?.exchange(&request(method, "/", &[], b""));
        server.join().unwrap();
        answer
    }

    #[test]
    fn body_is_read_as_it_is_framed() {
        for sent in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc and more",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nabc",
        ] {
            let answer = read("GET", sent).unwrap();
            assert_eq!((&*answer.line, answer.status), ("HTTP/1.1 200 OK", 200));
            assert_eq!(answer.body, b"abc", "{sent}");
        }
        let head = read("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").unwrap();
        assert_eq!(head.header("content-length"), Some("3"));
    }

    #[test]
    fn answer_that_ends_early_is_an_error() {
        for sent in [
            "",
            "HTTP/1.1 200",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        ] {
            assert!(read("GET", sent).is_err(), "{sent}");
        }
    }
}
