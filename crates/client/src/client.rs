//! The connection to one server, and the endpoints that need no session.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::{Client as HyperClient, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::account::Account;
use crate::error::Error;
use crate::path::V3;
use crate::request::Request;
use crate::response::Response;
use crate::types::{Login, Register, Session, Versions};

/// How long a connection may take to open: a server that is there answers at once.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a whole answer may take, unless the request says otherwise: password hashing on a
/// loaded machine takes seconds, not half a minute. Syncs add their own waiting time.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest body that is read: an initial sync of the largest account that Kitbag keeps
/// (128 MiB), with room for its wrapping.
pub const RESPONSE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A connection pool to one server. Cloning is cheap and shares the pool.
#[derive(Clone, Debug)]
pub struct Client {
    base_url: String,
    http: HyperClient<HttpConnector, Full<Bytes>>,
}

impl Client {
    /// A client for the server at `base_url`, such as `http://127.0.0.1:8008`.
    ///
    /// # Errors
    /// [`Error::Transport`] if this is not a URL with scheme `http` and a host.
    pub fn new(base_url: &str) -> Result<Self, Error> {
        let uri: Uri = base_url.parse().map_err(Error::transport)?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(Error::transport(format!(
                "`{base_url}` is not an http:// URL"
            )));
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let http = HyperClient::builder(TokioExecutor::new()).build(connector);
        Ok(Self {
            base_url: base_url.trim_end_matches('/').to_owned(),
            http,
        })
    }

    /// The URL before every path, without a final slash.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// This client, acting as `session`.
    #[must_use]
    pub fn with_session(&self, session: Session) -> Account {
        Account::new(self.clone(), session)
    }

    /// Sends a request and returns the answer as it came, whatever its status.
    ///
    /// # Errors
    /// [`Error::Transport`], [`Error::Timeout`], and [`Error::BadBody`] over
    /// [`RESPONSE_BYTES_MAX`].
    pub async fn send(&self, request: Request) -> Result<Response, Error> {
        let timeout = request.timeout;
        match tokio::time::timeout(timeout, self.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout {
                waited_ms: timeout.as_millis(),
            }),
        }
    }

    /// Returns the versions and unstable features that the server says it has.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn versions(&self) -> Result<Versions, Error> {
        let request = Request::new(Method::GET, "/_matrix/client/versions");
        self.send(request).await?.success()?.json()
    }

    /// Registers an account and logs it in.
    ///
    /// Goes through the interactive authentication with the stages that it can do:
    /// `m.login.dummy`, and `m.login.registration_token` if a token is given.
    ///
    /// # Errors
    /// All of [`Error`]; [`Error::Matrix`] with status 401 if the server wants other stages.
    pub async fn register(&self, account: &Register<'_>) -> Result<Account, Error> {
        let path = format!("{V3}/register");
        let mut body = account.body();
        let mut response = self.post(&path, &body).await?;
        for stage in next_stages(&response, account.registration_token.is_some()) {
            let state: Value = response.json()?;
            let mut auth = json!({"type": stage, "session": state["session"]});
            if let (REGISTRATION_TOKEN, Some(token)) = (stage.as_str(), account.registration_token)
            {
                auth["token"] = token.into();
            }
            body["auth"] = auth;
            response = self.post(&path, &body).await?;
            if response.status != 401 {
                break;
            }
        }
        Ok(self.with_session(response.success()?.json()?))
    }

    /// Logs in, making or keeping a device.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn login(&self, login: &Login<'_>) -> Result<Account, Error> {
        let response = self.post(&format!("{V3}/login"), &login.body()).await?;
        Ok(self.with_session(response.success()?.json()?))
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Response, Error> {
        self.send(Request::new(Method::POST, path).json(body)).await
    }

    async fn exchange(&self, request: Request) -> Result<Response, Error> {
        let mut builder = http::Request::builder()
            .method(request.method)
            .uri(format!("{}{}", self.base_url, request.path));
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        let outgoing = builder
            .body(Full::new(request.body))
            .map_err(Error::transport)?;
        let (parts, body) = self
            .http
            .request(outgoing)
            .await
            .map_err(Error::transport)?
            .into_parts();
        let body = match Limited::new(body, RESPONSE_BYTES_MAX).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(Error::BadBody(format!(
                    "body is over {RESPONSE_BYTES_MAX} bytes"
                )));
            }
            Err(error) => return Err(Error::Transport(error)),
        };
        Ok(Response {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        })
    }
}

const DUMMY: &str = "m.login.dummy";
const REGISTRATION_TOKEN: &str = "m.login.registration_token";

/// The stages of the first flow that this client can complete; none if the answer is final.
fn next_stages(response: &Response, has_token: bool) -> Vec<String> {
    if response.status != 401 {
        return Vec::new();
    }
    let state: Value = response.json().unwrap_or(Value::Null);
    let possible = |stage: &str| stage == DUMMY || (has_token && stage == REGISTRATION_TOKEN);
    let flows = state["flows"].as_array().cloned().unwrap_or_default();
    flows
        .iter()
        .map(|flow| {
            let stages = flow["stages"].as_array().cloned().unwrap_or_default();
            stages
                .iter()
                .map(|s| s.as_str().unwrap_or("").to_owned())
                .collect::<Vec<_>>()
        })
        .find(|stages| !stages.is_empty() && stages.iter().all(|stage| possible(stage)))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(flows: &Value) -> Response {
        let body = json!({"session": "s", "flows": flows, "params": {}}).to_string();
        Response {
            status: 401,
            headers: http::HeaderMap::new(),
            body: body.into(),
        }
    }

    #[test]
    fn first_possible_flow_is_taken() {
        let flows = json!([{"stages": [REGISTRATION_TOKEN]}, {"stages": [DUMMY]}]);
        assert_eq!(next_stages(&challenge(&flows), false), [DUMMY]);
        assert_eq!(next_stages(&challenge(&flows), true), [REGISTRATION_TOKEN]);
    }

    #[test]
    fn impossible_flows_give_no_stage() {
        let flows = json!([{"stages": ["m.login.recaptcha", DUMMY]}]);
        assert!(next_stages(&challenge(&flows), true).is_empty());
    }

    #[test]
    fn only_http_urls_with_a_host_are_taken() {
        assert!(Client::new("http://localhost:8008/").is_ok());
        assert!(Client::new("https://localhost").is_err());
        assert!(Client::new("localhost:8008").is_err());
        assert!(Client::new("/path").is_err());
    }
}
