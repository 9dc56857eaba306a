//! Which devices there are: the homeserver is asked, with the caller's credentials.

use axum::http::{Method, StatusCode};
use bytes::Bytes;
use kitbag_domain::{DeviceId, PermitError, UserId};

use crate::answer::Failure;
use crate::credentials::Credentials;
use crate::mapped::segment;
use crate::upstream::Upstream;

/// Bytes of what the homeserver says of one device.
const DEVICE_BYTES_MAX: usize = 64 * 1024;

/// The devices that the homeserver told of.
#[derive(Default)]
pub(crate) struct Devices {}

impl Devices {
    /// Asks now whether the caller has a device.
    ///
    /// # Errors
    /// 404 where there is none, and what the homeserver says else.
    pub(crate) async fn exists_now(
        &self,
        upstream: &Upstream,
        credentials: &Credentials,
        device: &DeviceId,
    ) -> Result<(), Failure> {
        let target = format!("/_matrix/client/v3/devices/{}", segment(device.as_str()));
        let request = credentials.request(Method::GET, &target, Bytes::new());
        let told = upstream.ask(request, DEVICE_BYTES_MAX).await?;
        if told.status() == StatusCode::NOT_FOUND {
            return Err(PermitError::NoSuchDevice.into());
        }
        told.done().map(drop)
    }

    /// As [`Devices::exists_now`], as it was told a short time ago at most.
    pub(crate) async fn exists_recently(
        &self,
        upstream: &Upstream,
        credentials: &Credentials,
        _user: &UserId,
        device: &DeviceId,
    ) -> Result<(), Failure> {
        self.exists_now(upstream, credentials, device).await
    }
}
