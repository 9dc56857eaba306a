//! `GET` and `POST /login`, `POST /refresh`.
//!
//! Spec: CS API, Login, Refreshing access tokens.

use axum::extract::State;
use kitbag_domain::{DeviceId, Login, Token, TokenKind, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::devices;
use crate::error::ApiError;
use crate::extract::{Client, JsonBody};
use crate::json::MatrixJson;
use crate::state::App;
use crate::tokens::TokensBody;

/// Characters of a generated device ID, as on other servers.
const DEVICE_ID_CHARACTERS: usize = 10;
const PASSWORD: &str = "m.login.password";

pub(crate) async fn flows() -> MatrixJson<Value> {
    MatrixJson(json!({"flows": [{"type": PASSWORD}]}))
}

/// A user identifier; only `m.id.user` names somebody here.
#[derive(Deserialize)]
pub(crate) struct Identifier {
    #[serde(rename = "type")]
    kind: String,
    user: Option<String>,
}

impl Identifier {
    /// Returns the user name or user ID.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref().filter(|_| self.kind == "m.id.user")
    }
}

/// What a client may ask of the session that a login or a registration starts.
#[derive(Deserialize)]
pub(crate) struct SessionRequest {
    device_id: Option<String>,
    initial_device_display_name: Option<String>,
    refresh_token: Option<bool>,
}

#[derive(Deserialize)]
pub(crate) struct LoginRequest {
    #[serde(rename = "type")]
    kind: Option<String>,
    identifier: Option<Identifier>,
    user: Option<String>,
    password: Option<String>,
    #[serde(flatten)]
    session: SessionRequest,
}

#[derive(Serialize)]
pub(crate) struct LoginBody {
    user_id: String,
    device_id: String,
    #[serde(flatten)]
    tokens: TokensBody,
}

pub(crate) async fn login(
    State(app): State<App>,
    client: Client,
    JsonBody(body): JsonBody<LoginRequest>,
) -> Result<MatrixJson<LoginBody>, ApiError> {
    if body.kind.ok_or(ApiError::MissingParam("type"))? != PASSWORD {
        return Err(ApiError::UnknownLoginType);
    }
    let named = match &body.identifier {
        Some(identifier) => identifier.user(),
        None => body.user.as_deref(),
    };
    let named = named.ok_or(ApiError::MissingParam("identifier"))?;
    let password = body.password.ok_or(ApiError::MissingParam("password"))?;
    const WRONG: ApiError = ApiError::Forbidden("the user name or the password is wrong");
    let user = app.local_user(named).ok_or(WRONG)?;
    app.rate_limits.login(client.address, &user)?;

    let account = app.store.account(&user).await?;
    let is_deactivated = account
        .as_ref()
        .is_some_and(|known| known.deactivated_at.is_some());
    let hash = account.and_then(|account| account.password_hash);
    if !app.passwords.verify(hash.as_deref(), &password).await? {
        return Err(if is_deactivated {
            ApiError::UserDeactivated
        } else {
            WRONG
        });
    }
    let (login, body) = app.new_session(&user, &client, body.session, hash.unwrap_or_default())?;
    app.store.login(&user, login).await?;
    Ok(MatrixJson(body))
}

#[derive(Deserialize)]
pub(crate) struct Refresh {
    refresh_token: Option<String>,
}

pub(crate) async fn refresh(
    State(app): State<App>,
    client: Client,
    JsonBody(body): JsonBody<Refresh>,
) -> Result<MatrixJson<TokensBody>, ApiError> {
    app.rate_limits.refresh(client.address)?;
    let text = body
        .refresh_token
        .ok_or(ApiError::MissingParam("refresh_token"))?;
    let unknown = |_| ApiError::UnknownToken { soft_logout: false };
    let token = Token::parse(TokenKind::Refresh, &text).map_err(unknown)?;
    let (tokens, body) = app.new_tokens(token.user(), true);
    app.store
        .refresh(token.user(), token.hash(), tokens, app.seen(&client))
        .await?;
    Ok(MatrixJson(body))
}

impl App {
    /// Returns the user whom a client names by localpart or user ID, if this is their server.
    pub(crate) fn local_user(&self, named: &str) -> Option<UserId> {
        UserId::named(named, &self.server_name).ok()
    }

    /// Returns a session to be started, and what to answer once it is.
    pub(crate) fn new_session(
        &self,
        user: &UserId,
        client: &Client,
        request: SessionRequest,
        verified_hash: String,
    ) -> Result<(Login, LoginBody), ApiError> {
        let name = request.initial_device_display_name;
        name.as_deref().map_or(Ok(()), devices::check_name)?;
        let device = request
            .device_id
            .unwrap_or_else(|| self.random.id(DEVICE_ID_CHARACTERS));
        let device = DeviceId::parse(device)?;
        let (tokens, tokens_body) = self.new_tokens(user, request.refresh_token.unwrap_or(false));
        let body = LoginBody {
            user_id: user.to_string(),
            device_id: device.to_string(),
            tokens: tokens_body,
        };
        let seen = self.seen(client);
        Ok((
            Login {
                verified_hash,
                device,
                display_name: name,
                tokens,
                seen,
            },
            body,
        ))
    }
}
