use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame};
use kitbag_http::REQUEST_ID_HEADER;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{ADMIN_TOKEN, Session};

/// A request to be made.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) peer: IpAddr,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Call {
    pub(crate) fn new(method: &str, path: impl Into<String>) -> Self {
        Self {
            method: method.parse().unwrap(),
            path: path.into(),
            peer: Ipv4Addr::LOCALHOST.into(),
            headers: vec![("host", "localhost:8008".to_owned())],
            body: Bytes::new(),
        }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path)
    }

    pub(crate) fn put(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self::new("PUT", path).body(body)
    }

    pub(crate) fn post(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self::new("POST", path).body(body)
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new("DELETE", path)
    }

    pub(crate) fn by(self, session: &Session) -> Self {
        self.token(&session.token)
    }

    /// By the operator.
    pub(crate) fn admin(self) -> Self {
        self.token(ADMIN_TOKEN)
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    pub(crate) fn is_by(&self, session: &Session) -> bool {
        let token = format!("Bearer {}", session.token);
        let mut headers = self.headers.iter();
        headers.any(|(name, value)| *name == "authorization" && *value == token)
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self
    }

    pub(crate) fn from(mut self, peer: &str) -> Self {
        self.peer = peer.parse().unwrap();
        self
    }

    pub(crate) fn request(self) -> Request<Body> {
        let body = self.body.clone();
        self.request_with(Body::from(body))
    }

    pub(crate) fn request_with(self, body: Body) -> Request<Body> {
        let mut request = Request::builder().method(self.method).uri(self.path);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        request.body(body).unwrap()
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) async fn read(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Returns status and errcode; none is empty.
    pub(crate) fn row(&self) -> (u16, String) {
        let errcode = self.json()["errcode"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        (self.status, errcode)
    }

    pub(crate) fn request_id(&self) -> &str {
        self.headers[REQUEST_ID_HEADER].to_str().unwrap()
    }

    #[track_caller]
    pub(crate) fn assert_is(&self, status: u16, errcode: &str) {
        assert_eq!(self.row(), (status, errcode.to_owned()), "{self:?}");
        assert_ne!(
            self.json()["error"],
            Value::Null,
            "a text for people: {self:?}"
        );
        assert_eq!(self.headers["content-type"], "application/json");
    }

    #[track_caller]
    pub(crate) fn assert_ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }
}

/// Returns a body of which nothing more comes than `start`.
pub(crate) fn endless_body(start: &'static str) -> Body {
    Body::new(StaticBody {
        start,
        end: End::Never,
    })
}

/// Returns a body, and what feeds it: it ends when the feeder is dropped.
pub(crate) fn fed_body() -> (Body, mpsc::UnboundedSender<&'static str>) {
    let (feeder, fed) = mpsc::unbounded_channel();
    (Body::new(FedBody(fed)), feeder)
}

struct FedBody(mpsc::UnboundedReceiver<&'static str>);

impl HttpBody for FedBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let fed = self.0.poll_recv(context);
        fed.map(|fed| fed.map(|bytes| Ok(Frame::data(bytes.into()))))
    }
}

/// Returns a body that breaks off with an error behind `start`.
pub(crate) fn ending_body(start: &'static str) -> Body {
    Body::new(StaticBody {
        start,
        end: End::Broken,
    })
}

struct StaticBody {
    start: &'static str,
    end: End,
}

#[derive(Clone, Copy)]
enum End {
    Broken,
    Never,
}

impl HttpBody for StaticBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let start = std::mem::take(&mut self.start);
        if !start.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(start.into()))));
        }
        match self.end {
            End::Never => Poll::Pending,
            End::Broken => Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into()))),
        }
    }
}
