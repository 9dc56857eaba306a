use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::PATIENCE;

const C3: &str = "/_matrix/client/v3";

/// Speaks HTTP/1.1 to one server, a connection for each request.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) token: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            token: None,
        }
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        self.try_send(method, path, body).unwrap()
    }

    pub(crate) fn try_send(&self, method: &str, path: &str, body: &str) -> io::Result<Answer> {
        let mut stream = self.connect()?;
        stream.write_all(self.request(method, path, body).as_bytes())?;
        Self::read(&mut stream)
    }

    pub(crate) fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Returns the text of a request after which the server closes the connection.
    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> String {
        let token = self.token.as_deref().map_or(String::new(), |token| {
            format!("authorization: Bearer {token}\r\n")
        });
        let length = body.len();
        format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             {token}content-length: {length}\r\n\r\n{body}"
        )
    }

    /// Reads an answer behind which the connection ends.
    pub(crate) fn read(stream: &mut TcpStream) -> io::Result<Answer> {
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let broken = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(broken)?;
        let status = head.split(' ').nth(1).ok_or_else(broken)?;
        Ok(Answer {
            status: status.parse().unwrap(),
            body: body.to_owned(),
        })
    }

    fn session(&self, path: &str, body: &Value) -> Self {
        let answer = self.send("POST", &format!("{C3}{path}"), &body.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        let token = answer.json()["access_token"].as_str().unwrap().to_owned();
        Self {
            token: Some(token),
            ..self.clone()
        }
    }

    /// Registers a user and returns their client.
    pub(crate) fn register(&self, name: &str, password: &str) -> Self {
        let auth = json!({"type": "m.login.dummy"});
        let body = json!({"username": name, "password": password, "auth": auth});
        self.session("/register", &body)
    }

    pub(crate) fn login(&self, name: &str, password: &str) -> Answer {
        let body = json!({"type": "m.login.password", "user": name, "password": password});
        self.send("POST", &format!("{C3}/login"), &body.to_string())
    }

    /// Returns the client of the same session on a server that was started again.
    pub(crate) fn at(&self, address: SocketAddr) -> Self {
        Self {
            address,
            ..self.clone()
        }
    }

    pub(crate) fn put(&self, name: &str, event_type: &str, body: &str) -> Answer {
        self.send("PUT", &entry(name, event_type), body)
    }

    pub(crate) fn get(&self, name: &str, event_type: &str) -> Answer {
        self.send("GET", &entry(name, event_type), "")
    }

    pub(crate) fn whoami(&self) -> Answer {
        self.send("GET", &format!("{C3}/account/whoami"), "")
    }

    pub(crate) fn versions(&self) -> Answer {
        self.send("GET", "/_matrix/client/versions", "")
    }
}

pub(crate) fn entry(name: &str, event_type: &str) -> String {
    format!("{C3}/user/@{name}:localhost/account_data/{event_type}")
}
