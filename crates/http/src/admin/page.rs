//! What the lists of the admin API have in common: their pages, and how they are written.

use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kitbag_domain::{DeviceId, DevicePlace, EventType, StoreError, UserId, limit};
use serde::Serialize;

use crate::error::ApiError;
use crate::json::json_response;

/// Bytes of contents after which a page ends before its limit: it is in memory twice.
pub(super) const PAGE_BYTES_MAX: u64 = limit::DEVICE_PAGE_BYTES_MAX;

/// What stands between user and device in the `from` of a list of devices: neither can hold it.
const SEPARATOR: char = '\0';

/// Returns how many items a page may have.
pub(super) fn limit(
    asked: Option<usize>,
    default: usize,
    limit_max: usize,
) -> Result<usize, ApiError> {
    match asked {
        None => Ok(default),
        Some(0) => Err(ApiError::InvalidParam(
            "`limit` must be at least 1".to_owned(),
        )),
        Some(asked) => Ok(asked.min(limit_max)),
    }
}

/// Reads the type that a query must name.
pub(super) fn event_type(text: Option<&str>) -> Result<EventType, ApiError> {
    Ok(EventType::parse(
        text.ok_or(ApiError::MissingParam("type"))?,
    )?)
}

/// Writes the `from` behind a device.
pub(super) fn from_place(place: &DevicePlace) -> String {
    let DevicePlace { user, device } = place;
    URL_SAFE_NO_PAD.encode(format!("{user}{SEPARATOR}{device}"))
}

/// Reads the `from` of a list of devices.
pub(super) fn place(from: Option<&str>) -> Result<Option<DevicePlace>, ApiError> {
    let invalid = || ApiError::InvalidParam("`from` is not the `next_batch` of a page".to_owned());
    let read = |from: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(from).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (user, device) = text.split_once(SEPARATOR)?;
        Some(DevicePlace {
            user: UserId::parse(user).ok()?,
            device: DeviceId::parse(device).ok()?,
        })
    };
    from.map(|from| read(from).ok_or_else(invalid)).transpose()
}

/// Writes an answer of 200, which fails where a stored content is not JSON.
pub(super) fn json<T: Serialize>(page: &T) -> Result<Response, ApiError> {
    let body = serde_json::to_vec(page).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    Ok(json_response(StatusCode::OK, body.into()))
}
