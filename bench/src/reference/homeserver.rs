//! The least that can stand behind the gateway: fixed answers to what the gateway asks by itself, the
//! same bytes to all reading, `{}` to a body once it was read, and syncs that wait for ever.

use std::convert::Infallible;
use std::future::pending;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::{Request, Response};

use super::fixed;

/// The one user, with the one device.
pub(crate) const USER_ID: &str = "@user:localhost";
pub(crate) const DEVICE_ID: &str = "DEVICE";

const WHOAMI: &[u8] = br#"{"user_id":"@user:localhost","device_id":"DEVICE","is_guest":false}"#;
const DEVICE: &[u8] = br#"{"device_id":"DEVICE","display_name":"A device of the bench"}"#;
const DONE: &[u8] = b"{}";

/// Answers as a homeserver whose every entry is `entry`.
pub(super) async fn answer(
    entry: &'static [u8],
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    let body = if path.ends_with("/sync") {
        drop(request);
        return pending().await;
    } else if path.ends_with("/account/whoami") {
        WHOAMI
    } else if path.ends_with("/devices/DEVICE") {
        DEVICE
    } else if request.body().is_end_stream() {
        entry
    } else {
        read(request.into_body()).await;
        DONE
    };
    fixed::answer(body).await
}

/// Reads a body to its end, or to where its client leaves.
async fn read(mut body: Incoming) {
    while let Some(Ok(_piece)) = body.frame().await {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_the_device_is_of_the_user_who_asks() {
        let whoami: serde_json::Value = serde_json::from_slice(WHOAMI).unwrap();
        let device: serde_json::Value = serde_json::from_slice(DEVICE).unwrap();
        assert_eq!(whoami["user_id"], USER_ID);
        assert_eq!(whoami["device_id"], DEVICE_ID);
        assert_eq!(device["device_id"], DEVICE_ID);
    }
}
