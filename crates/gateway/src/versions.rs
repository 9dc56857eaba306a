//! `GET /_matrix/client/versions`: what the homeserver says, and what the gateway adds.
//!
//! Spec: CS API, API versions. Everything but the flags of the gateway stays byte for byte.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::answer::Answer;
use crate::call::Call;
use crate::gateway::Gateway;

/// Bytes of the homeserver's answer: Synapse's has some 3,000.
pub(crate) const VERSIONS_BYTES_MAX: usize = 256 * 1024;

/// Device account data; the proposal names no flag.
const DEVICE_DATA_FLAG: &str = "org.matrix.msc4331";

/// Compare-and-swap; the proposal names no flag, and the prefix of its other names is this.
const COMPARE_FLAG: &str = "com.beeper.msc4547";

/// Where the flags stand.
const FEATURES: &str = "unstable_features";

/// Headers that would make the answer another one than the whole of it, as plain text.
const REFINEMENTS: [HeaderName; 5] = [
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    RANGE,
    ACCEPT_ENCODING,
];

/// The homeserver is told who asks, if anybody is: what it answers can depend on that.
pub(crate) async fn get(gateway: &Gateway, call: Call) -> Answer {
    let mut request = Request::from_parts(call.head.parts, Body::empty());
    // Also of a HEAD, so that the length of what is added is known.
    *request.method_mut() = Method::GET;
    for name in &REFINEMENTS {
        request.headers_mut().remove(name);
    }
    request.headers_mut().remove(CONTENT_LENGTH);
    let plain = HeaderValue::from_static("identity");
    request.headers_mut().insert(ACCEPT_ENCODING, plain);
    let told = gateway.upstream().ask(request, VERSIONS_BYTES_MAX).await?;
    let is_done = told.status() == StatusCode::OK;
    let flags = match gateway.settings().msc4547.enabled {
        true => &[DEVICE_DATA_FLAG, COMPARE_FLAG][..],
        false => &[DEVICE_DATA_FLAG],
    };
    let added = is_done.then(|| with_flags(told.body(), flags)).flatten();
    let mut response = told.into_response();
    if let Some(added) = added {
        response.headers_mut().remove(ETAG);
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, added.len().into());
        *response.body_mut() = Body::from(added);
    }
    Ok(response)
}

/// Returns what was told with these flags set; `None` where it is no such object.
fn with_flags(told: &Bytes, flags: &[&str]) -> Option<String> {
    let told = std::str::from_utf8(told).ok()?;
    let members = members(told)?;
    let features = members
        .get(FEATURES)
        .map_or("{}", |features| features.get());
    let set_flag = |features: String, flag: &&str| with_member(&features, flag, "true");
    let features = flags.iter().try_fold(features.to_owned(), set_flag)?;
    with_member(told, FEATURES, &features)
}

/// Returns an object with one member set to `value`; the rest stays as it is written.
fn with_member(object: &str, name: &str, value: &str) -> Option<String> {
    let members = members(object)?;
    if let Some(before) = members.get(name).map(|before| before.get()) {
        // A part of the very same text.
        let start = before.as_ptr().addr() - object.as_ptr().addr();
        let end = start + before.len();
        return Some([&object[..start], value, &object[end..]].concat());
    }
    let (before, after) = object.rsplit_once('}')?;
    let comma = if members.is_empty() { "" } else { "," };
    Some(format!("{before}{comma}\"{name}\":{value}}}{after}"))
}

/// Returns the members of an object, of those with one name the last.
fn members(object: &str) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(object).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_added_and_all_else_stays_as_it_is_written() {
        for (told, expected) in [
            ("{}", r#"{"unstable_features":{"a":true}}"#),
            (
                r#" { "versions" : ["v1.1"], "x": 1.0e2 } "#,
                r#" { "versions" : ["v1.1"], "x": 1.0e2 ,"unstable_features":{"a":true}} "#,
            ),
            (
                r#"{"unstable_features" : { "b" : false, "ü}": true } , "versions": []}"#,
                r#"{"unstable_features" : { "b" : false, "ü}": true ,"a":true} , "versions": []}"#,
            ),
            (
                r#"{"unstable_features":{"a":false,"b":true}}"#,
                r#"{"unstable_features":{"a":true,"b":true}}"#,
            ),
            (
                r#"{"unstable_features":{"a": true}}"#,
                r#"{"unstable_features":{"a": true}}"#,
            ),
        ] {
            let told = Bytes::from_static(told.as_bytes());
            assert_eq!(with_flags(&told, &["a"]).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_is_no_such_object_is_left_alone() {
        for told in [
            &b""[..],
            b"[]",
            b"[{}]",
            b"{",
            b"{} {}",
            b"<html>",
            b"\xff",
            b"{\"unstable_features\":null}",
            b"{\"unstable_features\":[]}",
        ] {
            assert_eq!(
                with_flags(&Bytes::from_static(told), &["a"]),
                None,
                "{told:?}"
            );
        }
    }
}
