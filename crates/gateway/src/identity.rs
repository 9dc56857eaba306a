//! Who a request is from: the homeserver is asked, with the request's own credentials.

use std::sync::Arc;

use axum::http::Method;
use bytes::Bytes;
use kitbag_domain::{DeviceId, UserId};
use serde::Deserialize;

use crate::answer::{Failure, broken};
use crate::credentials::Credentials;
use crate::upstream::Upstream;

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

/// Bytes of what the homeserver says of an identity.
const WHOAMI_BYTES_MAX: usize = 64 * 1024;

/// Whose a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) user: UserId,
    /// `None` for a token without a device, as application services have.
    pub(crate) device: Option<DeviceId>,
}

#[derive(Deserialize)]
struct Whoami {
    user_id: String,
    device_id: Option<String>,
}

/// The identities that the homeserver told of.
#[derive(Default)]
pub(crate) struct Identities {}

impl Identities {
    /// Returns whose a request is, asked for now: what the homeserver answers to a token that it does
    /// not take is the client's answer.
    pub(crate) async fn fresh(
        &self,
        upstream: &Upstream,
        credentials: &Credentials,
    ) -> Result<Arc<Identity>, Failure> {
        let request = credentials.request(Method::GET, WHOAMI, Bytes::new());
        let told = upstream.ask(request, WHOAMI_BYTES_MAX).await?.done()?;
        let Whoami { user_id, device_id } = told.json()?;
        let device = device_id.map(DeviceId::parse).transpose();
        Ok(Arc::new(Identity {
            user: UserId::parse(user_id).map_err(|_| broken())?,
            device: device.map_err(|_| broken())?,
        }))
    }

    /// Returns whose a request is, as it was told a short time ago at most.
    pub(crate) async fn recent(
        &self,
        upstream: &Upstream,
        credentials: &Credentials,
    ) -> Result<Arc<Identity>, Failure> {
        self.fresh(upstream, credentials).await
    }
}
