use std::borrow::Cow;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use kitbag_domain::{Requester, Seen, Session, TokenError, TokenHash, UserId};
use tracing::debug;

use super::client::{Client, user_agent};
use crate::error::ApiError;
use crate::state::{App, Call};
use crate::tokens::Presented;

/// How often it is noted that a device is in use: a write each time.
const SEEN_INTERVAL_MS: u64 = 60 * 60 * 1_000;
const UNKNOWN: ApiError = ApiError::UnknownToken { soft_logout: false };

/// A request whose access token is valid.
#[derive(Clone, Debug)]
pub(crate) struct Authenticated {
    /// On whose behalf it is made.
    pub(crate) requester: Requester,
    /// The token, to look later whether its session still lives.
    pub(crate) token: TokenHash,
}

impl FromRequestParts<Call> for Authenticated {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, call: &Call) -> Result<Self, ApiError> {
        let mut token = Presented::read(parts, &call.app)?;
        let session = match token.known(&call.app) {
            Some(known) => known,
            None => call.app.store.session(&token.user, token.hash).await?,
        };
        token.admit(session, parts, call).await
    }
}

impl Presented {
    pub(super) fn read(parts: &Parts, app: &App) -> Result<Self, ApiError> {
        let header = parts.headers.get(AUTHORIZATION);
        if let Some(known) = header.and_then(|header| app.last_token().recall(header.as_bytes())) {
            return Ok(known);
        }
        let text = bearer(parts, app)?;
        let presented = Self::parse(&text).map_err(|TokenError| UNKNOWN)?;
        if let Some(header) = header {
            app.last_token().remember(header.as_bytes(), &presented);
        }
        Ok(presented)
    }

    /// Returns its session where that is in memory; `None` says nothing.
    pub(super) fn known(&mut self, app: &App) -> Option<Option<Session>> {
        if let Some(session) = self.session.take() {
            return Some(Some(session));
        }
        let found = app.store.peek_session(&self.user, self.hash)?;
        Some(found.map(|kept| {
            let session = kept.found().clone();
            app.last_token().keep(self.hash, kept);
            session
        }))
    }

    /// Lets the request in whose token has this session, and notes the use of it.
    pub(super) async fn admit(
        self,
        session: Option<Session>,
        parts: &mut Parts,
        call: &Call,
    ) -> Result<Authenticated, ApiError> {
        let Self { user, hash, .. } = self;
        let app = &call.app;
        let session = session.ok_or(UNKNOWN)?;
        let now = app.clock.now_ms();
        // Who it is is looked at where it is noted: it takes as long as all of the above.
        match Use::of(&session, now) {
            Use::Expired => return Err(ApiError::UnknownToken { soft_logout: true }),
            Use::First => {
                let Ok(client) = Client::from_request_parts(parts, call).await;
                app.store.touch(&user, hash, app.seen(&client)).await?;
            }
            Use::ToBeNoted => {
                let Ok(client) = Client::from_request_parts(parts, call).await;
                note_in_background(app.clone(), user.clone(), hash, app.seen(&client));
            }
            Use::Usual => {}
        }
        // It stands beside what is written: who only reads is not asked.
        let user_agent = match parts.method.is_safe() {
            true => None,
            false => user_agent(&parts.headers),
        };
        let requester = Requester {
            user,
            device: Some((session.device, session.incarnation)),
            user_agent,
        };
        Ok(Authenticated {
            requester,
            token: hash,
        })
    }
}

/// What the use of a session at some time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It has ended.
    Expired,
    /// It ends the session that it was made to replace.
    First,
    /// The last one that was noted was long ago.
    ToBeNoted,
    Usual,
}

impl Use {
    pub(super) fn of(session: &Session, now_ms: u64) -> Self {
        if session.expires_at.is_some_and(|end| end <= now_ms) {
            return Self::Expired;
        }
        if session.replaces_others {
            return Self::First;
        }
        match now_ms.saturating_sub(session.last_seen_at) >= SEEN_INTERVAL_MS {
            true => Self::ToBeNoted,
            false => Self::Usual,
        }
    }
}

/// Notes that a device is in use without making the request wait for the disk, or fail with it.
fn note_in_background(app: App, user: UserId, hash: TokenHash, seen: Seen) {
    tokio::spawn(async move {
        if let Err(error) = app.store.touch(&user, hash, seen).await {
            debug!(%error, "the use of a device was not noted");
        }
    });
}

fn bearer<'a>(parts: &'a Parts, app: &App) -> Result<Cow<'a, str>, ApiError> {
    if let Some(header) = parts.headers.get(AUTHORIZATION) {
        let text = header.to_str().map_err(|_| UNKNOWN)?;
        let (scheme, token) = text.split_once(' ').ok_or(ApiError::MissingToken)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(ApiError::MissingToken);
        }
        return Ok(token.trim().into());
    }
    if app.settings.compat.query_access_token
        && let Some(query) = parts.uri.query()
        && let Ok(pairs) = serde_urlencoded::from_str::<Vec<(String, String)>>(query)
        && let Some((_, token)) = pairs.into_iter().find(|(name, _)| name == "access_token")
    {
        return Ok(token.into());
    }
    Err(ApiError::MissingToken)
}
