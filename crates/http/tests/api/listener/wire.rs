use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time;

use super::PATIENCE;

const SEND_BUFFER_BYTES: u32 = 16 * 1024;

/// One connection, spoken to byte by byte.
pub(super) struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

/// An answer as it stood on the wire.
#[derive(Debug)]
pub(super) struct WireReply {
    pub(super) status: u16,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl WireReply {
    #[track_caller]
    pub(super) fn assert_is(&self, status: u16, errcode: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let expected = format!("\"errcode\":\"{errcode}\"");
        assert!(self.body.contains(&expected), "{self:?}");
    }
}

impl Wire {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap()
    }

    pub(super) async fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Self::connect_by(TcpSocket::new_v4()?, address).await
    }

    /// Connects so that hardly anything of an answer waits in the client's own system.
    pub(super) async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 * 1024).unwrap();
        Self::connect_by(socket, address).await.unwrap()
    }

    async fn connect_by(socket: TcpSocket, address: SocketAddr) -> io::Result<Self> {
        // So that what is sent cannot all wait in the client's own system.
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            read: Vec::new(),
        })
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    pub(super) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let sent = time::timeout(PATIENCE, self.stream.write_all(bytes.as_ref()));
        sent.await.expect("the server takes what is sent")
    }

    /// Ends the client's direction.
    pub(super) async fn shut(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Reads one answer with its body.
    pub(super) async fn reply(&mut self) -> WireReply {
        let head = self.head().await;
        let length = head.headers.get("content-length");
        let length = length.map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            assert!(self.more().await, "the answer breaks off: {head:?}");
        }
        let body = self.read.drain(..length).collect();
        WireReply {
            body: String::from_utf8(body).unwrap(),
            ..head
        }
    }

    /// Reads one answer that has no body whatever its headers say.
    pub(super) async fn head(&mut self) -> WireReply {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let so_far = String::from_utf8_lossy(&self.read).into_owned();
            assert!(self.more().await, "no answer but {so_far:?}");
        };
        let head: Vec<u8> = self.read.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap();
        let status = status.split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        WireReply {
            status,
            headers: headers.collect(),
            body: String::new(),
        }
    }

    /// Checks that the server closes the connection, in good order and without another byte.
    pub(super) async fn assert_closes(&mut self) {
        let more = self.try_more().await;
        let rest = String::from_utf8_lossy(&self.read);
        assert!(matches!(more, Ok(false)), "{more:?}, and {rest:?}");
        assert_eq!(rest, "");
    }

    /// Checks that nothing comes for a while: that the server waits cannot be seen otherwise.
    pub(super) async fn assert_silent(&mut self, for_a_while: time::Duration) {
        let more = time::timeout(for_a_while, self.stream.readable()).await;
        assert!(more.is_err(), "something came");
    }

    /// Reads nothing for a while.
    pub(super) async fn assert_pauses(&mut self, for_a_while: time::Duration) {
        time::sleep(for_a_while).await;
    }

    async fn more(&mut self) -> bool {
        self.try_more().await.unwrap()
    }

    async fn try_more(&mut self) -> io::Result<bool> {
        let read = self.stream.read_buf(&mut self.read);
        let read = time::timeout(PATIENCE, read).await;
        read.expect("the server goes on").map(|bytes| bytes > 0)
    }
}
