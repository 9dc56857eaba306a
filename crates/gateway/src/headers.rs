//! What a proxy does to headers: those of one hop stay on it, and the homeserver is told where a
//! request came from.
//!
//! Every request and every answer comes through here, and most have nothing to take off: so names are
//! looked at once each, and nothing is asked for that is seldom there.

use std::io::Write as _;
use std::net::IpAddr;

use axum::http::header::{CONNECTION, HOST};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use kitbag_http::shared;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static(shared::X_FORWARDED_FOR);
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Room for one address: most requests have one hop.
const ADDRESS_BYTES: usize = 40;

/// Takes off what is for one hop only.
pub(crate) fn take_hop_by_hop_off(headers: &mut HeaderMap) {
    let mut names = names(headers, is_of_one_hop);
    if names.contains(&CONNECTION) {
        let named = headers.get_all(CONNECTION).iter();
        let named = named.filter_map(|value| value.to_str().ok());
        let named = named.flat_map(|value| value.split(','));
        let named = named.filter_map(|name| name.trim().parse::<HeaderName>().ok());
        names.extend(named.filter(|name| !is_for_all_hops(name)));
    }
    for name in names {
        headers.remove(name);
    }
}

/// Says where a request came from. What is said already counts where a trusted proxy sent it.
pub(crate) fn tell_where_from(headers: &mut HeaderMap, peer: IpAddr, trusted: &[IpNet]) {
    let is_trusted = trusted.iter().any(|net| net.contains(&peer));
    if !is_trusted {
        for name in names(headers, tells_where_from) {
            headers.remove(name);
        }
    }
    let hops = hops(headers, peer);
    headers.insert(X_FORWARDED_FOR, hops);
    if !is_trusted || !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if let Some(host) = headers.get(HOST).cloned()
        && (!is_trusted || !headers.contains_key(X_FORWARDED_HOST))
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

/// Tells whether a header is of one hop, beside those that `Connection` names (RFC 9110, 7.6.1). What
/// `Transfer-Encoding` said is said anew for each hop. `Expect` stays until the request is sent on: it
/// says what the client waits for.
fn is_of_one_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Tells whether a header stays even where `Connection` names it: a client could have that of a proxy
/// name what the proxy itself put on.
fn is_for_all_hops(name: &HeaderName) -> bool {
    matches!(name.as_str(), "authorization" | "content-length" | "host")
        || tells_where_from(name.as_str())
}

/// Tells whether a header is one of those by which proxies say where a request came from.
fn tells_where_from(name: &str) -> bool {
    matches!(
        name,
        "forwarded" | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto" | "x-real-ip"
    )
}

/// Returns those names that are asked for; where there are none, nothing is allocated.
fn names(headers: &HeaderMap, is_asked_for: fn(&str) -> bool) -> Vec<HeaderName> {
    let names = headers.keys();
    let names = names.filter(|name| is_asked_for(name.as_str()));
    names.cloned().collect()
}

/// Returns the hops that are told, and the peer as the last one.
fn hops(headers: &HeaderMap, peer: IpAddr) -> HeaderValue {
    let mut hops: Vec<u8> = Vec::with_capacity(ADDRESS_BYTES);
    for value in headers.get_all(X_FORWARDED_FOR) {
        hops.extend_from_slice(value.as_bytes());
        hops.extend_from_slice(b", ");
    }
    match peer {
        // By hand: formatting takes more than all else that is done to the headers of a request.
        IpAddr::V4(peer) => {
            for (number, octet) in peer.octets().into_iter().enumerate() {
                if number > 0 {
                    hops.push(b'.');
                }
                push_octet(&mut hops, octet);
            }
        }
        IpAddr::V6(peer) => write!(hops, "{peer}").expect("a vector takes all that is written"),
    }
    HeaderValue::from_bytes(&hops).expect("values of headers and an address")
}

fn push_octet(text: &mut Vec<u8>, octet: u8) {
    if octet >= 100 {
        text.push(b'0' + octet / 100);
    }
    if octet >= 10 {
        text.push(b'0' + octet / 10 % 10);
    }
    text.push(b'0' + octet % 10);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_the_standard_library_writes_them() {
        let numbers = [0, 1, 9, 10, 11, 99, 100, 101, 199, 200, 255];
        for (first, last) in numbers.iter().flat_map(|a| numbers.map(|b| (*a, b))) {
            let peer = IpAddr::from([first, 0, 10, last]);
            let mut headers = HeaderMap::new();
            tell_where_from(&mut headers, peer, &[]);
            assert_eq!(headers[X_FORWARDED_FOR], peer.to_string());
        }
        let peer: IpAddr = "2001:db8::1".parse().unwrap();
        let mut headers = HeaderMap::new();
        tell_where_from(&mut headers, peer, &[]);
        assert_eq!(headers[X_FORWARDED_FOR], "2001:db8::1");
    }

    #[test]
    fn headers_of_one_hop_and_those_that_it_names_are_taken_off_alone() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-One"),
            ("connection", " x-two,, not a name"),
            ("connection", "X-Forwarded-For, host, authorization"),
            ("authorization", "Bearer x"),
            ("host", "a.example"),
            ("x-forwarded-for", "192.0.2.1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-two", "3"),
            ("x-three", "4"),
            ("x-three", "5"),
            ("accept", "*/*"),
        ] {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_static(value));
        }
        take_hop_by_hop_off(&mut headers);
        let mut left: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        left.sort_unstable();
        let expected = [
            "accept",
            "authorization",
            "host",
            "x-forwarded-for",
            "x-three",
            "x-three",
        ];
        assert_eq!(left, expected);
    }

    #[test]
    fn what_is_told_counts_of_a_trusted_proxy_alone() {
        let told = |trusted: &[IpNet]| {
            let mut headers = HeaderMap::new();
            for (name, value) in [
                ("host", "b.example"),
                ("forwarded", "for=192.0.2.1"),
                ("x-forwarded-for", "192.0.2.1"),
                ("x-forwarded-for", "192.0.2.2"),
                ("x-forwarded-host", "a.example"),
                ("x-forwarded-proto", "https"),
                ("x-real-ip", "192.0.2.1"),
            ] {
                let name: HeaderName = name.parse().unwrap();
                headers.append(name, HeaderValue::from_static(value));
            }
            tell_where_from(&mut headers, IpAddr::from([198, 51, 100, 7]), trusted);
            let mut left: Vec<String> = headers
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            left.sort();
            left
        };
        let by_nobody = [
            "host: b.example",
            "x-forwarded-for: 198.51.100.7",
            "x-forwarded-host: b.example",
            "x-forwarded-proto: http",
        ];
        assert_eq!(told(&[]), by_nobody);
        assert_eq!(told(&["198.51.100.0/30".parse().unwrap()]), by_nobody);
        let by_proxy = [
            "forwarded: for=192.0.2.1",
            "host: b.example",
            "x-forwarded-for: 192.0.2.1, 192.0.2.2, 198.51.100.7",
            "x-forwarded-host: a.example",
            "x-forwarded-proto: https",
            "x-real-ip: 192.0.2.1",
        ];
        assert_eq!(told(&["198.51.100.0/24".parse().unwrap()]), by_proxy);
    }
}
