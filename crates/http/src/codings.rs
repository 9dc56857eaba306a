//! The codings of a body on its way, below which hyper takes off the pieces alone.

use axum::body::{Body, HttpBody as _};
use axum::http::header::TRANSFER_ENCODING;
use axum::http::{HeaderMap, Request};

/// Tells whether `Transfer-Encoding` names more than `chunked` [RFC 9112, 6.1]. What is below would
/// be taken for the plain body.
#[must_use]
pub fn has_unknown_coding(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |value: &[u8]| value.trim_ascii().eq_ignore_ascii_case(b"chunked");
    match (values.next(), values.next()) {
        (None, _) => false,
        (Some(only), None) => !is_chunked(only.as_bytes()),
        (Some(_), Some(_)) => true,
    }
}

/// As [`has_unknown_coding`], of a request: of one whose length is known hyper has seen to it.
pub(crate) fn is_unreadable(request: &Request<Body>) -> bool {
    request.body().size_hint().exact().is_none() && has_unknown_coding(request.headers())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunked_alone_is_known() {
        for (values, is_unknown) in [
            (&[][..], false),
            (&["chunked"], false),
            (&[" Chunked "], false),
            (&["gzip, chunked"], true),
            (&["gzip", "chunked"], true),
            (&["chunked", "chunked"], true),
            (&["gzip"], true),
            (&[""], true),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(TRANSFER_ENCODING, value.parse().unwrap());
            }
            assert_eq!(has_unknown_coding(&headers), is_unknown, "{values:?}");
        }
    }
}
