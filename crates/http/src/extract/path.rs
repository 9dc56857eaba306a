use std::str::Utf8Error;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use kitbag_domain::{DeviceId, EventType, Key, RoomId, Scope};
use percent_encoding::percent_decode_str;

use super::Authenticated;
use crate::error::ApiError;
use crate::state::Call;

/// Most variable segments that a path has.
const VARIABLES_MAX: usize = 4;

/// The variable segments of the path, decoded once.
pub(crate) struct PathParams {
    /// All values, one behind the other.
    text: String,
    /// The name of each value and where it ends, in the order of the text.
    ends: [(&'static str, usize); VARIABLES_MAX],
}

impl PathParams {
    /// Decodes what stands in `path` where `template`, which may lack a prefix, has names in braces.
    fn decode(path: &str, template: &'static str) -> Result<Self, Utf8Error> {
        let mut params = Self {
            text: String::with_capacity(path.len()),
            ends: [("", 0); VARIABLES_MAX],
        };
        let mut ends = params.ends.iter_mut();
        for (segment, wanted) in path.rsplit('/').zip(template.rsplit('/')) {
            if let Some(name) = variable(wanted) {
                params.text += &percent_decode_str(segment).decode_utf8()?;
                let end = ends.next().expect("no route has more variable segments");
                *end = (name, params.text.len());
            }
        }
        Ok(params)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let at = self.ends.iter().position(|(known, _)| *known == name)?;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before].1);
        Some(&self.text[start..self.ends[at].1])
    }

    /// Returns the entry that an account-data path names, in whichever scope.
    ///
    /// The type comes before the device: what is wrong with the path before what is not there.
    pub(crate) fn key(&self) -> Result<Key, ApiError> {
        let event_type = EventType::parse(self.get("type").unwrap_or_default())?;
        let scope = match self.get("room") {
            Some(room) => Scope::Room(RoomId::parse(room)?),
            None if self.get("device").is_some() => Scope::Device(self.device()?),
            None => Scope::Global,
        };
        Ok(Key::new(scope, event_type))
    }

    /// Returns the device that the path names; one that cannot exist is one that does not.
    pub(crate) fn device(&self) -> Result<DeviceId, ApiError> {
        let device = self.get("device").unwrap_or_default();
        DeviceId::parse(device).map_err(|_| ApiError::NotFound("there is no such device"))
    }
}

/// Returns the name of a segment in braces.
fn variable(segment: &'static str) -> Option<&'static str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

impl FromRequestParts<Call> for PathParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, call: &Call) -> Result<Self, ApiError> {
        let invalid = |_| ApiError::InvalidParam("the path is not UTF-8".to_owned());
        Self::decode(parts.uri.path(), call.template).map_err(invalid)
    }
}

/// A path below `/user/{user}` whose user is the requester.
pub(crate) struct OwnPath {
    pub(crate) auth: Authenticated,
    pub(crate) params: PathParams,
}

impl FromRequestParts<Call> for OwnPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, call: &Call) -> Result<Self, ApiError> {
        let auth = Authenticated::from_request_parts(parts, call).await?;
        let params = PathParams::from_request_parts(parts, call).await?;
        auth.check_owner(params.get("user").unwrap_or_default())?;
        Ok(Self { auth, params })
    }
}

/// The entry of the requester that an account-data path names, in whichever scope.
pub(crate) struct Target {
    pub(crate) auth: Authenticated,
    pub(crate) key: Key,
}

impl FromRequestParts<Call> for Target {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, call: &Call) -> Result<Self, ApiError> {
        let OwnPath { auth, params } = OwnPath::from_request_parts(parts, call).await?;
        let key = params.key()?;
        Ok(Self { auth, key })
    }
}
