//! User-interactive authentication: sessions in memory, stages of one step each.

mod sessions;

use axum::http::Method;
use kitbag_domain::UserId;
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use crate::endpoints::login::Identifier;
use crate::error::ApiError;
use crate::extract::Client;
use crate::state::App;

pub(crate) use sessions::UiaSessions;

/// Characters of a session's ID.
const ID_CHARACTERS: usize = 24;

/// What a request has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Dummy,
    Password,
    RegistrationToken,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Dummy => "m.login.dummy",
            Self::Password => "m.login.password",
            Self::RegistrationToken => "m.login.registration_token",
        }
    }
}

/// The member `auth` of a request.
#[derive(Deserialize)]
pub(crate) struct AuthData {
    #[serde(rename = "type")]
    stage: Option<String>,
    session: Option<String>,
    identifier: Option<Identifier>,
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
}

/// What a session is bound to: it is of no use for another request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Purpose {
    pub(crate) user: Option<UserId>,
    pub(crate) method: Method,
    pub(crate) path: String,
}

/// The answer of 401 that asks for a stage.
#[derive(Debug)]
pub(crate) struct Challenge {
    stage: &'static str,
    session: String,
    /// What was wrong with the try, if there was one.
    failure: Option<(&'static str, &'static str)>,
}

impl Challenge {
    pub(crate) fn errcode(&self) -> &'static str {
        self.failure.map_or("M_FORBIDDEN", |(errcode, _)| errcode)
    }

    pub(crate) fn body(&self) -> Value {
        let mut body = json!({
            "flows": [{"stages": [self.stage]}],
            "params": {},
            "session": self.session,
        });
        if let Some((errcode, error)) = self.failure {
            body["errcode"] = errcode.into();
            body["error"] = error.into();
            body["completed"] = json!([]);
        }
        body
    }
}

impl App {
    /// Goes on where `auth` shows what `stage` asks for, and otherwise asks for it.
    ///
    /// As there is one step only, `auth` may come without a session, as SDKs send it.
    /// # Errors
    /// [`ApiError::Uia`] with what to show; 403 where another user's password was shown.
    pub(crate) async fn authorize(
        &self,
        client: &Client,
        purpose: Purpose,
        stage: Stage,
        auth: Option<AuthData>,
    ) -> Result<(), ApiError> {
        let Some(auth) = auth else {
            return Err(self.challenge(stage, purpose, None));
        };
        let now = self.clock.now_ms();
        if let Some(id) = &auth.session
            && !self.uia.contains(id, &purpose, now)
        {
            let failure = (
                "M_UNKNOWN",
                "the session is not known, or is for another request",
            );
            return Err(self.challenge(stage, purpose, Some(failure)));
        }
        let Some(name) = &auth.stage else {
            return Err(self.challenge(stage, purpose, None));
        };
        if name != stage.name() {
            let failure = ("M_UNRECOGNIZED", "this stage is not part of any flow");
            return Err(self.challenge(stage, purpose, Some(failure)));
        }
        let failure = match stage {
            Stage::Dummy => None,
            Stage::Password => self.check_password(client, &purpose, &auth).await?,
            Stage::RegistrationToken => self.check_registration_token(&auth),
        };
        match failure {
            None => {
                if let Some(id) = &auth.session {
                    self.uia.remove(id);
                }
                Ok(())
            }
            Some(failure) => Err(self.challenge(stage, purpose, Some(failure))),
        }
    }

    fn challenge(
        &self,
        stage: Stage,
        purpose: Purpose,
        failure: Option<(&'static str, &'static str)>,
    ) -> ApiError {
        let session = self.random.id(ID_CHARACTERS);
        self.uia.insert(&session, purpose, self.clock.now_ms());
        ApiError::Uia(Box::new(Challenge {
            stage: stage.name(),
            session,
            failure,
        }))
    }

    async fn check_password(
        &self,
        client: &Client,
        purpose: &Purpose,
        auth: &AuthData,
    ) -> Result<Option<(&'static str, &'static str)>, ApiError> {
        let user = purpose
            .user
            .as_ref()
            .expect("a password is asked of a known user");
        let named = auth
            .identifier
            .as_ref()
            .and_then(Identifier::user)
            .or(auth.user.as_deref());
        if let Some(named) = named
            && self.local_user(named).as_ref() != Some(user)
        {
            return Err(ApiError::Forbidden(
                "the password of another user was shown",
            ));
        }
        let Some(password) = &auth.password else {
            return Ok(Some(("M_MISSING_PARAM", "`password` is missing")));
        };
        self.rate_limits.login(client.address, user)?;
        let hash = self
            .store
            .account(user)
            .await?
            .and_then(|account| account.password_hash);
        let is_right = self.passwords.verify(hash.as_deref(), password).await?;
        Ok((!is_right).then_some(("M_FORBIDDEN", "the password is wrong")))
    }

    fn check_registration_token(&self, auth: &AuthData) -> Option<(&'static str, &'static str)> {
        match &auth.token {
            None => Some(("M_MISSING_PARAM", "`token` is missing")),
            Some(token) if self.is_registration_token(token) => None,
            Some(_) => Some(("M_UNAUTHORIZED", "the registration token is not valid")),
        }
    }

    /// Compares with every token in constant time.
    pub(crate) fn is_registration_token(&self, token: &str) -> bool {
        let tokens = self.settings.registration.tokens.iter();
        tokens.fold(false, |found, known| {
            found | bool::from(known.as_bytes().ct_eq(token.as_bytes()))
        })
    }
}
