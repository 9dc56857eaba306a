//! Bare connections, for what no HTTP library would send or show.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time;

/// How long anything may take that is expected to happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A connection whose bytes are written and read as they are.
pub(crate) struct Wire<S = TcpStream>(pub(crate) S);

impl Wire {
    /// Connects to the server at a base URL.
    pub(crate) async fn to(url: &str) -> Self {
        let address = url.strip_prefix("http://").unwrap();
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// Sends a whole request to the server at a base URL, and returns all that comes until the
    /// connection ends. The request has to ask for that.
    pub(crate) async fn talk(url: &str, request: &str) -> String {
        let mut wire = Self::to(url).await;
        wire.send(request).await;
        wire.rest().await.unwrap()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads a head, with the empty line that ends it; what came until the end where there is none.
    pub(crate) async fn head(&mut self) -> String {
        let mut head = Vec::new();
        let read = async {
            while !head.ends_with(b"\r\n\r\n") {
                match self.0.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
        };
        time::timeout(DEADLINE, read).await.unwrap();
        String::from_utf8(head).unwrap()
    }

    /// Reads so many bytes.
    pub(crate) async fn exactly(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        let read = time::timeout(DEADLINE, self.0.read_exact(&mut bytes));
        read.await.unwrap().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Reads until the connection ends.
    pub(crate) async fn rest(&mut self) -> io::Result<String> {
        let mut bytes = Vec::new();
        let read = time::timeout(DEADLINE, self.0.read_to_end(&mut bytes));
        read.await.unwrap()?;
        Ok(String::from_utf8(bytes).unwrap())
    }
}

/// Tells whether a head has a line, whatever the case of the header's name.
pub(crate) fn has_line(head: &str, line: &str) -> bool {
    lines(head).any(|found| found.eq_ignore_ascii_case(line))
}

/// Returns the values of a header, in their order.
pub(crate) fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let headers = lines(head).filter_map(|line| line.split_once(": "));
    let of_name = headers.filter(|(found, _)| found.eq_ignore_ascii_case(name));
    of_name.map(|(_, value)| value).collect()
}

fn lines(head: &str) -> impl Iterator<Item = &str> {
    let end = head.find("\r\n\r\n").unwrap_or(head.len());
    head[..end].split("\r\n")
}
