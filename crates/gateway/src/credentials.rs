//! What a request shows of who sent it: handed on to the homeserver, never kept.

use std::borrow::Cow;
use std::fmt;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use bytes::Bytes;
use kitbag_http::shared::GatewayError;
use percent_encoding::percent_decode_str;
use sha2::{Digest as _, Sha256};

/// Parameters of a query that say who asks: the token, and whom an application service acts as
/// [spec, Application Service API, "Identity assertion"; MSC3202, MSC4326].
const QUERY_NAMES: [&str; 4] = [
    "access_token",
    "user_id",
    "device_id",
    "org.matrix.msc3202.device_id",
];

/// Headers that go along, so that the homeserver's limits and log see the client.
const FORWARDED_NAMES: [HeaderName; 4] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
    USER_AGENT,
];

/// The hash of some credentials.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint([u8; 32]);

/// Who a request says it is from. `Debug` shows nothing of it.
#[derive(Clone)]
pub(crate) struct Credentials {
    headers: HeaderMap,
    /// The parameters of the query that belong to it, as they were sent.
    query: String,
}

impl Credentials {
    /// Reads them out of a request whose `X-Forwarded-*` headers are those for the homeserver.
    pub(crate) fn of(parts: &Parts) -> Self {
        let mut headers = HeaderMap::new();
        for name in [AUTHORIZATION].into_iter().chain(FORWARDED_NAMES) {
            for value in parts.headers.get_all(&name) {
                headers.append(&name, value.clone());
            }
        }
        let query = asking_query(&parts.uri);
        Self { headers, query }
    }

    /// Returns those of another token, which came the same way; `None` where it can be none.
    pub(crate) fn bearer(&self, token: &str) -> Option<Self> {
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        value.set_sensitive(true);
        let mut headers = self.headers.clone();
        headers.insert(AUTHORIZATION, value);
        let query = String::new();
        Some(Self { headers, query })
    }

    /// Returns what tells these credentials from others, without holding them.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let values = self.headers.get_all(AUTHORIZATION).iter();
        Fingerprint::of(values, &self.query)
    }

    /// Returns what tells the token from others, however it is written and whomever it acts as.
    /// Requests with none, or with several, are all alike: homeservers refuse them, or should.
    pub(crate) fn session(&self) -> Fingerprint {
        let headers = self.headers.get_all(AUTHORIZATION).iter();
        let in_headers = headers.map(|value| {
            let value = value.as_bytes();
            let scheme = value.iter().position(u8::is_ascii_whitespace);
            Cow::from(value[scheme.unwrap_or_default()..].trim_ascii())
        });
        let in_query = self.query.split('&').filter_map(|pair| {
            let (name, token) = pair.split_once('=')?;
            let is_token = percent_decode_str(name).eq("access_token".bytes());
            is_token.then(|| percent_decode_str(token).into())
        });
        let mut tokens = in_headers.chain(in_query);
        let mut hash = Sha256::new();
        if let (Some(token), None) = (tokens.next(), tokens.next()) {
            hash.update(token);
        }
        Fingerprint(hash.finalize().into())
    }

    /// Returns a request to the homeserver on behalf of whoever they are of.
    ///
    /// `target` is a path, encoded, and may have a query.
    ///
    /// # Errors
    /// [`GatewayError::QueryTooLong`]: with the target, the query is longer than a request can have.
    pub(crate) fn request(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<Request<Body>, GatewayError> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = [query, self.query.as_str()];
        let pairs: Vec<&str> = pairs.into_iter().filter(|pair| !pair.is_empty()).collect();
        let target = match pairs.as_slice() {
            [] => path.to_owned(),
            pairs => format!("{path}?{}", pairs.join("&")),
        };
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().map_err(|_| GatewayError::QueryTooLong)?;
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }
}

/// As little of a request as its fingerprint can be made of, should the answer call for it.
pub(crate) struct Shown {
    authorization: Option<HeaderValue>,
    uri: Uri,
}

impl Shown {
    /// Keeps it of a request on its way; nothing is copied.
    pub(crate) fn of(headers: &HeaderMap, uri: &Uri) -> Self {
        Self {
            authorization: headers.get(AUTHORIZATION).cloned(),
            uri: uri.clone(),
        }
    }

    /// As [`Credentials::fingerprint`].
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.authorization.iter(), &asking_query(&self.uri))
    }
}

impl Fingerprint {
    fn of<'a>(authorization: impl Iterator<Item = &'a HeaderValue>, query: &str) -> Self {
        let mut hash = Sha256::new();
        for value in authorization {
            hash.update(value.len().to_le_bytes());
            hash.update(value);
        }
        // Behind the headers, whose lengths are told: nothing can be taken for something else.
        hash.update(usize::MAX.to_le_bytes());
        hash.update(query);
        Self(hash.finalize().into())
    }
}

/// Returns the parameters that say who asks, as they were sent.
fn asking_query(uri: &Uri) -> String {
    let is_of_them = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        let name = percent_decode_str(name);
        QUERY_NAMES
            .iter()
            .any(|known| name.clone().eq(known.bytes()))
    };
    let query = uri.query().unwrap_or_default();
    // Twisted, and with it Synapse, parts a query at semicolons too.
    let query: Vec<&str> = query.split(['&', ';']).filter(is_of_them).collect();
    query.join("&")
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[&str], query: &str) -> Credentials {
        let mut request = Request::builder().uri(format!("/path?{query}"));
        for value in headers {
            request = request.header(AUTHORIZATION, *value);
        }
        Credentials::of(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn a_session_is_a_token_however_it_is_written_and_whomever_it_acts_as() {
        let session = |headers: &[&str], query: &str| of(headers, query).session();
        let own = session(&["Bearer ab"], "");
        for (header, query) in [
            (Some("bearer  ab"), ""),
            (Some("Bearer ab"), "user_id=@a:x&device_id=A"),
            (None, "access_token=ab"),
            (None, "access%5ftoken=%61b&org.matrix.msc3202.device_id=B"),
            (None, "x=1;access_token=ab"),
            (None, "access_token=ab;x=1&user_id=@a:x;y=2"),
        ] {
            assert!(
                session(header.as_slice(), query) == own,
                "{header:?} {query}"
            );
        }
        assert!(session(&["Bearer ac"], "") != own);
        let none = session(&[], "");
        assert!(none != own);
        assert!(session(&["Bearer ab"], "access_token=1") == none);
        assert!(session(&["Bearer ab"], "x=1;access_token=1") == none);
        assert!(session(&["Bearer ab", "Bearer ac"], "") == none);
    }

    #[test]
    fn semicolons_part_a_query_too() {
        let asked = |query: &str| {
            let request = of(&[], query).request(Method::GET, "/a?b=c", Bytes::new());
            request.unwrap().uri().to_string()
        };
        for query in [
            "access_token=T&user_id=@a:x",
            "x=1;access_token=T&y=2;user_id=@a:x;z",
            "access_token=T;user_id=@a:x",
        ] {
            let expected = "/a?b=c&access_token=T&user_id=@a:x";
            assert_eq!(asked(query), expected, "{query}");
        }
        // Nothing comes along that could change what is asked.
        assert_eq!(asked("x=1;since=s1&access%3Btoken=T"), "/a?b=c");
    }

    #[test]
    fn who_asks_by_a_query_that_makes_no_target_is_refused() {
        let credentials = of(&[], &format!("user_id={}", "a".repeat(65_000)));
        let request = |target: &str| credentials.request(Method::GET, target, Bytes::new());
        assert!(request("/a").is_ok());
        let target = format!("/{}", "a".repeat(1_000));
        let refused = request(&target).unwrap_err();
        assert_eq!(refused, GatewayError::QueryTooLong);
    }
}
