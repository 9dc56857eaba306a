//! What a proxy does to headers: those of one hop stay on it, and the homeserver is told where a
//! request came from.

use std::net::IpAddr;

use axum::http::header::{
    CONNECTION, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use kitbag_http::shared::X_FORWARDED_FOR;

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Headers of one hop, beside those that `Connection` names (RFC 9110, 7.6.1). What `Transfer-Encoding`
/// said is said anew for each hop, and `Expect` is answered here.
const HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    EXPECT,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Takes off what is for one hop only.
pub(crate) fn take_hop_by_hop_off(headers: &mut HeaderMap) {
    if let Some(named) = headers.get(CONNECTION).cloned()
        && let Ok(named) = named.to_str()
    {
        for name in named.split(',') {
            headers.remove(name.trim());
        }
        // Those behind the first are seldom, and lead to a copy of all.
        let others: Vec<_> = headers
            .get_all(CONNECTION)
            .iter()
            .skip(1)
            .cloned()
            .collect();
        for named in others.iter().filter_map(|value| value.to_str().ok()) {
            for name in named.split(',') {
                headers.remove(name.trim());
            }
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Says where a request came from. What is said already counts where a trusted proxy sent it.
pub(crate) fn tell_where_from(headers: &mut HeaderMap, peer: IpAddr, trusted: &[IpNet]) {
    let is_trusted = trusted.iter().any(|net| net.contains(&peer));
    if !is_trusted {
        for name in [
            &FORWARDED,
            &X_FORWARDED_HOST,
            &X_FORWARDED_PROTO,
            &X_REAL_IP,
        ] {
            headers.remove(name);
        }
        headers.remove(X_FORWARDED_FOR);
    }
    let before = headers.get_all(X_FORWARDED_FOR).iter();
    let mut hops: Vec<u8> = Vec::new();
    for value in before {
        hops.extend_from_slice(value.as_bytes());
        hops.extend_from_slice(b", ");
    }
    hops.extend_from_slice(peer.to_string().as_bytes());
    let hops = HeaderValue::from_maybe_shared(bytes::Bytes::from(hops));
    headers.insert(
        X_FORWARDED_FOR,
        hops.expect("values of headers and an address"),
    );
    if !headers.contains_key(&X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if let Some(host) = headers.get(HOST).cloned()
        && !headers.contains_key(&X_FORWARDED_HOST)
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
}
