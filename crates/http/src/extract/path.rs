use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use kitbag_domain::{DeviceId, EventType, Key, RoomId, Scope};

use super::Authenticated;
use crate::error::ApiError;
use crate::state::App;

/// The variable segments of the path, decoded once.
pub(crate) struct PathParams(RawPathParams);

impl PathParams {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// Returns the device that the path names; one that cannot exist is one that does not.
    pub(crate) fn device(&self) -> Result<DeviceId, ApiError> {
        let device = self.get("device").unwrap_or_default();
        DeviceId::parse(device).map_err(|_| ApiError::NotFound("there is no such device"))
    }
}

impl FromRequestParts<App> for PathParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, app).await;
        let invalid = |_| ApiError::InvalidParam("the path is not UTF-8".to_owned());
        params.map(Self).map_err(invalid)
    }
}

/// A path below `/user/{user}` whose user is the requester.
pub(crate) struct OwnPath {
    pub(crate) auth: Authenticated,
    pub(crate) params: PathParams,
}

impl FromRequestParts<App> for OwnPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let auth = Authenticated::from_request_parts(parts, app).await?;
        let params = PathParams::from_request_parts(parts, app).await?;
        auth.check_owner(params.get("user").unwrap_or_default())?;
        Ok(Self { auth, params })
    }
}

/// The entry of the requester that an account-data path names, in whichever scope.
pub(crate) struct Target {
    pub(crate) auth: Authenticated,
    pub(crate) key: Key,
}

impl FromRequestParts<App> for Target {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let OwnPath { auth, params } = OwnPath::from_request_parts(parts, app).await?;
        // Before the device: what is wrong with the path comes before what is not there.
        let event_type = EventType::parse(params.get("type").unwrap_or_default())?;
        let scope = match params.get("room") {
            Some(room) => Scope::Room(RoomId::parse(room)?),
            None if params.get("device").is_some() => Scope::Device(params.device()?),
            None => Scope::Global,
        };
        Ok(Self {
            auth,
            key: Key::new(scope, event_type),
        })
    }
}
