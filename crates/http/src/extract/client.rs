use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::{FORWARDED, HOST, ORIGIN, USER_AGENT};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri};
use kitbag_domain::limit::USER_AGENT_BYTES_MAX;

use crate::state::Call;

/// The header in which each proxy adds the address that a request came from.
pub const X_FORWARDED_FOR: &str = "x-forwarded-for";
/// Headers that only a proxy sends.
const PROXY_HEADERS: [&str; 4] = [
    X_FORWARDED_FOR,
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];

/// Who sent the request, as far as the network tells.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// The client's address: the right-most untrusted one.
    pub(crate) address: IpAddr,
    /// What it calls itself, cut to its limit.
    pub(crate) user_agent: Option<Arc<str>>,
    /// Whether it runs on this machine and came without a proxy.
    pub(crate) is_local: bool,
}

impl FromRequestParts<Call> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, call: &Call) -> Result<Self, Infallible> {
        let peer = call.peer;
        let proxies = &call.app.settings.trusted_proxies;
        let is_trusted = |address: &IpAddr| proxies.iter().any(|net| net.contains(address));
        let came_by_proxy = parts.headers.contains_key(FORWARDED)
            || PROXY_HEADERS
                .iter()
                .any(|name| parts.headers.contains_key(*name));
        Ok(Self {
            address: client_address(peer, &parts.headers, is_trusted),
            user_agent: user_agent(&parts.headers),
            is_local: peer.is_loopback()
                && !came_by_proxy
                && has_loopback_host(parts)
                && !has_foreign_origin(parts),
        })
    }
}

/// Walks `X-Forwarded-For` from the right, as far as each hop is trusted.
pub fn client_address(
    peer: IpAddr,
    headers: &HeaderMap,
    is_trusted: impl Fn(&IpAddr) -> bool,
) -> IpAddr {
    let values: Vec<&str> = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let mut hops = values.iter().rev().flat_map(|value| value.rsplit(','));
    let mut address = peer;
    while is_trusted(&address) {
        match hops.next().map(|hop| hop.trim().parse()) {
            Some(Ok(next)) => address = next,
            Some(Err(_)) | None => break,
        }
    }
    address
}

/// Returns what the client calls itself, cut to its limit.
pub fn user_agent(headers: &HeaderMap) -> Option<Arc<str>> {
    let text = headers.get(USER_AGENT)?.to_str().ok()?;
    Some(text[..text.floor_char_boundary(USER_AGENT_BYTES_MAX)].into())
}

/// A name of another host that leads to loopback (DNS rebinding) shows in the `Host`.
fn has_loopback_host(parts: &Parts) -> bool {
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse::<Authority>().ok());
    authority.is_some_and(|authority| is_loopback(authority.host()))
}

/// A page of the web can send requests to loopback, and says where it is from; `null` is nowhere.
fn has_foreign_origin(parts: &Parts) -> bool {
    parts.headers.get(ORIGIN).is_some_and(|origin| {
        let origin = origin.to_str().ok();
        let origin = origin.and_then(|origin| origin.parse::<Uri>().ok());
        !origin.is_some_and(|origin| origin.host().is_some_and(is_loopback))
    })
}

fn is_loopback(host: &str) -> bool {
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn address(forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(X_FORWARDED_FOR, value.parse().unwrap());
        }
        let trusted: Vec<IpAddr> = trusted.iter().map(|ip| ip.parse().unwrap()).collect();
        client_address([10, 0, 0, 1].into(), &headers, |ip| trusted.contains(ip)).to_string()
    }

    #[test]
    fn forwarded_addresses_count_behind_trusted_hops_only() {
        assert_eq!(address(&["1.1.1.1"], &[]), "10.0.0.1", "nobody is trusted");
        assert_eq!(
            address(&["6.6.6.6, 1.1.1.1"], &["10.0.0.1"]),
            "1.1.1.1",
            "no spoofing"
        );
        assert_eq!(
            address(&["6.6.6.6", "1.1.1.1, 2.2.2.2"], &["10.0.0.1", "2.2.2.2"]),
            "1.1.1.1"
        );
        assert_eq!(address(&["garbage"], &["10.0.0.1"]), "10.0.0.1");
        assert_eq!(address(&[], &["10.0.0.1"]), "10.0.0.1");
    }

    #[test]
    fn pages_of_other_hosts_are_told_by_their_origin() {
        let rows = [
            (None, false),
            (Some("http://localhost:3000"), false),
            (Some("http://127.0.0.1"), false),
            (Some("http://[::1]:8080"), false),
            (Some("https://evil.example"), true),
            (Some("http://localhost.evil.example"), true),
            (Some("null"), true),
        ];
        for (origin, is_foreign) in rows {
            let mut request = Request::builder();
            if let Some(origin) = origin {
                request = request.header(ORIGIN, origin);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(has_foreign_origin(&parts), is_foreign, "{origin:?}");
        }
    }
}
