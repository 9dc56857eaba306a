use std::borrow::Cow;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::Request;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use kitbag_domain::{
    Content, DeviceId, EventType, GetError, Key, PermitError, RoomId, Scope, UserId,
};
use memchr::memchr;
use percent_encoding::percent_decode_str;

use super::auth::{Authenticated, Use};
use crate::dispatch::{Named, VARIABLES_MAX};
use crate::error::{ApiError, Denial};
use crate::state::{App, Call};
use crate::tokens::Presented;

/// The variable segments of a path, decoded once; what needs no decoding is not copied.
pub struct PathParams<'a> {
    names: [&'static str; VARIABLES_MAX],
    values: [Cow<'a, str>; VARIABLES_MAX],
}

impl<'a> PathParams<'a> {
    /// Decodes these, each for itself.
    ///
    /// # Errors
    /// 400 `M_INVALID_PARAM` where one is not UTF-8.
    pub fn decode(named: impl Iterator<Item = (&'static str, &'a str)>) -> Result<Self, Denial> {
        const EMPTY: Cow<'_, str> = Cow::Borrowed("");
        let mut params = Self {
            names: [""; VARIABLES_MAX],
            values: [EMPTY; VARIABLES_MAX],
        };
        let places = params.names.iter_mut().zip(&mut params.values);
        for ((known, segment), (name, value)) in named.zip(places) {
            *name = known;
            *value = match memchr(b'%', segment.as_bytes()) {
                None => segment.into(),
                Some(_) => percent_decode_str(segment)
                    .decode_utf8()
                    .map_err(|_| ApiError::InvalidParam("the path is not UTF-8".to_owned()))?,
            };
        }
        Ok(params)
    }

    /// Reads what stands behind the user in a path, who must be the one that asks: others are told
    /// of nothing else.
    ///
    /// # Errors
    /// 403 where the path names somebody else, then those of [`PathParams::decode`].
    pub fn of_owner(
        mut named: impl Iterator<Item = (&'static str, &'a str)>,
        user: &UserId,
    ) -> Result<Self, Denial> {
        match named.next() {
            Some(("user", named)) if is_encoded(user, named) => {}
            _ => return Err(Denial::not_own_account()),
        }
        Self::decode(named)
    }

    /// Returns the value of a variable segment; `None` where the path has none of this name.
    ///
    /// Where the name is written out, it is compared as the number that its letters are.
    #[inline]
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.names.iter().position(|known| *known == name)?;
        Some(&self.values[at])
    }

    /// Returns the same with a copy of what stands in the path.
    fn into_owned(self) -> PathParams<'static> {
        PathParams {
            names: self.names,
            values: self.values.map(|value| Cow::Owned(value.into_owned())),
        }
    }

    /// Returns the entry that an account-data path names, in whichever scope.
    ///
    /// The type comes before the device: what is wrong with the path before what is not there.
    ///
    /// # Errors
    /// 400 for an ID that is not valid, 404 for a device that cannot exist.
    pub fn key(&self) -> Result<Key, Denial> {
        let event_type = EventType::parse(self.get("type").unwrap_or_default())?;
        let scope = match self.get("room") {
            Some(room) => Scope::Room(RoomId::parse(room)?),
            None if self.get("device").is_some() => Scope::Device(self.device()?),
            None => Scope::Global,
        };
        Ok(Key::new(scope, event_type))
    }

    /// Returns the device that the path names; one that cannot exist is one that does not.
    ///
    /// # Errors
    /// 404.
    pub fn device(&self) -> Result<DeviceId, Denial> {
        let device = self.get("device").unwrap_or_default();
        DeviceId::parse(device).map_err(|_| PermitError::NoSuchDevice.into())
    }
}

impl FromRequestParts<Call> for PathParams<'static> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, call: &Call) -> Result<Self, ApiError> {
        let params = PathParams::decode(call.named(parts.uri.path()))?;
        Ok(params.into_owned())
    }
}

/// Tells whether a segment encodes this user ID, byte for byte.
fn is_encoded(user: &UserId, segment: &str) -> bool {
    percent_decode_str(segment).eq(user.as_str().bytes())
}

/// A path below `/user/{user}` whose user is the requester.
pub(crate) struct OwnPath {
    pub(crate) auth: Authenticated,
    pub(crate) params: PathParams<'static>,
}

impl FromRequestParts<Call> for OwnPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, call: &Call) -> Result<Self, ApiError> {
        let auth = Authenticated::from_request_parts(parts, call).await?;
        let named = call.named(parts.uri.path());
        let params = PathParams::of_owner(named, &auth.requester.user)?.into_owned();
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
        let auth = Authenticated::from_request_parts(parts, call).await?;
        let key = own_key(&auth.requester.user, call.named(parts.uri.path()))?;
        Ok(Self { auth, key })
    }
}

/// Returns the entry that the path names, which must be one of `user`.
fn own_key<'a>(
    user: &UserId,
    named: impl Iterator<Item = (&'static str, &'a str)>,
) -> Result<Key, Denial> {
    let params = PathParams::of_owner(named, user)?;
    let key = params.key()?;
    Ok(key)
}

/// What a `GET` of an entry asks for.
pub(crate) struct Stored(pub(crate) Content);

impl FromRequestParts<Call> for Stored {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, call: &Call) -> Result<Self, ApiError> {
        let mut token = Presented::read(parts, &call.app)?;
        let content = match token.known(&call.app) {
            Some(known) => {
                let auth = token.admit(known, parts, call).await?;
                let key = own_key(&auth.requester.user, call.named(parts.uri.path()))?;
                call.app.data.get(&auth.requester, &key).await
            }
            None => Self::read_with_session(token, parts, call).await?,
        };
        Ok(Self(content?))
    }
}

impl Stored {
    /// Returns the content where that and the session are in memory, and nothing else is to be done
    /// for the request.
    pub(crate) fn peek(
        app: &App,
        request: &Request<Body>,
        named: Named<'_, '_>,
    ) -> Option<Content> {
        let header = request.headers().get(AUTHORIZATION)?;
        app.last_token().peek(header.as_bytes(), |user, session| {
            if Use::of(session, app.clock.now_ms()) != Use::Usual {
                return None;
            }
            let key = own_key(user, named).ok()?;
            app.data.peek(user, &key)
        })
    }

    /// Asks the store once for both, where the session is not in memory.
    async fn read_with_session(
        token: Presented,
        parts: &mut Parts,
        call: &Call,
    ) -> Result<Result<Content, GetError>, ApiError> {
        let app = &call.app;
        // What is wrong with the path is told behind what is wrong with the session.
        let key = own_key(&token.user, call.named(parts.uri.path()));
        let Presented { user, hash, .. } = &token;
        let (session, content) = match &key {
            Ok(key) => match app.data.get_in_session(user, *hash, key).await? {
                Some((session, content)) => (Some(session), content),
                None => (None, None),
            },
            Err(_) => (app.store.session(user, *hash).await?, None),
        };
        token.admit(session, parts, call).await?;
        key?;
        Ok(content.ok_or(GetError::NotFound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode<'a>(segments: &[&'a str]) -> Option<PathParams<'a>> {
        let names = ["user", "room", "type"].into_iter();
        PathParams::decode(names.zip(segments.iter().copied())).ok()
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
            assert!(decode(&segments).is_none(), "{segments:?}");
        }
    }
}
