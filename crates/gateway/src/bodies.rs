//! The bodies of writes, whose sizes are known before they go on.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use bytes::Bytes;
use kitbag_domain::{Content, ContentError, Limits};
use kitbag_http::shared::{Denial, read_body_within};

use crate::aside::aside;
use crate::gateway::Gateway;
use crate::metrics;

/// A body, and how many bytes it has.
pub(crate) struct Measured {
    pub(crate) body: Body,
    pub(crate) bytes: u64,
}

/// Returns a body that has `limit_bytes` at most. It is read here only where its length is not told.
///
/// # Errors
/// 413, and those of [`whole`].
pub(crate) async fn measure(
    gateway: &Gateway,
    body: Body,
    limit_bytes: u64,
) -> Result<Measured, Denial> {
    match body.size_hint().exact() {
        Some(bytes) if bytes > limit_bytes => Err(ContentError::TooLarge { limit_bytes }.into()),
        Some(bytes) => Ok(Measured { body, bytes }),
        None => {
            let body = whole(gateway, body, limit_bytes).await?;
            let bytes = body.len() as u64;
            let body = Body::from(body);
            Ok(Measured { body, bytes })
        }
    }
}

/// Reads a body that may have `limit_bytes`, in the time that the settings allow.
///
/// # Errors
/// 413, 408, or 400 where it is not sent to its end.
pub(crate) async fn whole(
    gateway: &Gateway,
    body: Body,
    limit_bytes: u64,
) -> Result<Bytes, Denial> {
    let allowed = Duration::from_millis(gateway.settings().listener.body_timeout_ms);
    metrics::for_client(read_body_within(body, limit_bytes, allowed)).await
}

/// Returns what a body is to store.
///
/// # Errors
/// As of [`Content::parse`].
pub(crate) fn content(body: Bytes, limits: &Limits) -> Result<Content, ContentError> {
    aside(body.len(), || Content::parse(body, limits))
}
