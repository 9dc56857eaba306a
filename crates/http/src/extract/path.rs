use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use kitbag_domain::{DeviceId, EventType, Key, RoomId, Scope};
use percent_encoding::percent_decode_str;

use super::Authenticated;
use crate::dispatch::VARIABLES_MAX;
use crate::error::ApiError;
use crate::state::Call;

/// The variable segments of the path, decoded once.
pub(crate) struct PathParams {
    /// All values, one behind the other.
    text: String,
    names: [&'static str; VARIABLES_MAX],
    /// Where each value ends in the text.
    ends: [usize; VARIABLES_MAX],
}

/// A segment that does not encode UTF-8.
#[derive(Debug)]
struct NotUtf8;

impl PathParams {
    fn decode<'a>(
        segments: impl Iterator<Item = &'a str>,
        names: [&'static str; VARIABLES_MAX],
        bytes: usize,
    ) -> Result<Self, NotUtf8> {
        let (mut text, mut ends) = (Vec::with_capacity(bytes), [0; VARIABLES_MAX]);
        for (segment, end) in segments.zip(&mut ends) {
            if segment.as_bytes().contains(&b'%') {
                text.extend(percent_decode_str(segment));
            } else {
                text.extend_from_slice(segment.as_bytes());
            }
            *end = text.len();
        }
        let text = String::from_utf8(text).map_err(|_| NotUtf8)?;
        // Not only all of it: none may end amid a character that the next one completes.
        if ends.into_iter().all(|end| text.is_char_boundary(end)) {
            Ok(Self { text, names, ends })
        } else {
            Err(NotUtf8)
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let at = self.names.iter().position(|known| *known == name)?;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.text[start..self.ends[at]])
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

impl FromRequestParts<Call> for PathParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, call: &Call) -> Result<Self, ApiError> {
        let path = parts.uri.path();
        let decoded = Self::decode(call.variables.of(path), call.names, path.len());
        decoded.map_err(|NotUtf8| ApiError::InvalidParam("the path is not UTF-8".to_owned()))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(segments: &[&str]) -> Result<PathParams, NotUtf8> {
        let names = ["user", "room", "type", ""];
        PathParams::decode(segments.iter().copied(), names, 0)
    }

    #[test]
    fn segments_are_decoded_once_each_for_itself() {
        let params = decode(&["%40a%3Ax", "!r", "%2541%2F+\u{e9}%C3%a9%zz%"]).unwrap();
        assert_eq!(params.get("user"), Some("@a:x"));
        assert_eq!(params.get("room"), Some("!r"));
        assert_eq!(params.get("type"), Some("%41/+\u{e9}\u{e9}%zz%"));
        assert_eq!(params.get("device"), None);
    }

    #[test]
    fn a_segment_that_is_not_utf8_by_itself_is_refused() {
        for segments in [["%FF", "b"], ["a", "%C3"], ["%C3", "%A9"], ["a%C3", "%A9b"]] {
            assert!(decode(&segments).is_err(), "{segments:?}");
        }
    }
}
