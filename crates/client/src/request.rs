//! A request before it is sent.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use crate::client::REQUEST_TIMEOUT;

/// A request: method, path, and whatever else it is to carry.
#[derive(Clone, Debug)]
pub struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    pub(crate) timeout: Duration,
}

impl Request {
    /// A request without a body or token.
    ///
    /// `path` goes behind the base URL as it is: percent-encoding is the caller's (see
    /// [`crate::path`]), so that odd spellings can be sent on purpose.
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            timeout: REQUEST_TIMEOUT,
        }
    }

    /// Sends the access token with the request, in the `Authorization` header.
    #[must_use]
    pub fn token(self, access_token: &str) -> Self {
        self.header("authorization", format!("Bearer {access_token}"))
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sends these bytes, without a content type.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends this value as `application/json`.
    #[must_use]
    pub fn json(self, value: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(value.to_string())
    }

    /// How long to wait for the whole answer; [`REQUEST_TIMEOUT`] if not set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Method and path, for messages. Never holds the token.
    #[must_use]
    pub fn summary(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}
