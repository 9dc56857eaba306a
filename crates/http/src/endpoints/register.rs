//! `POST /register`, `GET /register/available`,
//! `GET /_matrix/client/v1/register/m.login.registration_token/validity`.
//!
//! Spec: CS API, Account registration and management.

use axum::extract::State;
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use kitbag_domain::{NewAccount, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::login::SessionRequest;
use crate::error::ApiError;
use crate::extract::{Client, JsonBody, MatrixQuery};
use crate::json::MatrixJson;
use crate::settings::RegistrationMode;
use crate::state::App;
use crate::uia::{AuthData, Purpose, Stage};

/// Characters of a generated user name.
const LOCALPART_CHARACTERS: usize = 12;

#[derive(Deserialize)]
pub(crate) struct RegisterQuery {
    kind: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct RegisterRequest {
    username: Option<String>,
    password: Option<String>,
    inhibit_login: Option<bool>,
    #[serde(flatten)]
    session: SessionRequest,
    auth: Option<AuthData>,
}

pub(crate) async fn register(
    State(app): State<App>,
    client: Client,
    uri: Uri,
    MatrixQuery(query): MatrixQuery<RegisterQuery>,
    JsonBody(body): JsonBody<RegisterRequest>,
) -> Result<Response, ApiError> {
    match query.kind.as_deref() {
        None | Some("user") => {}
        Some("guest") => return Err(ApiError::Forbidden("there are no guest accounts here")),
        Some(_) => {
            return Err(ApiError::InvalidParam(
                "`kind` is `user` or `guest`".to_owned(),
            ));
        }
    }
    // Counted before anything is looked up or a session for it is kept.
    app.rate_limits.registration(client.address)?;
    let stage = app.registration_stage(&client)?;
    let user = match &body.username {
        Some(name) => app.free_user(name).await?,
        None => {
            let name = app.random.id(LOCALPART_CHARACTERS).to_lowercase();
            UserId::for_new_account(&name, &app.server_name)?
        }
    };
    let purpose = Purpose {
        user: None,
        method: Method::POST,
        path: uri.path().to_owned(),
    };
    app.authorize(&client, purpose, stage, body.auth).await?;

    let password = body.password.ok_or(ApiError::MissingParam("password"))?;
    let hash = app.passwords.hash(&password).await?;
    let (login, answer) = app.new_session(&user, &client, body.session, hash.clone())?;
    let at = app.clock.now_ms();
    let account = NewAccount {
        user: user.clone(),
        password_hash: hash,
        at,
    };
    let login = (!body.inhibit_login.unwrap_or(false)).then_some(login);
    let logs_in = login.is_some();
    app.store.register(account, login).await?;
    Ok(if logs_in {
        MatrixJson(answer).into_response()
    } else {
        MatrixJson(json!({"user_id": user.as_str()})).into_response()
    })
}

#[derive(Deserialize)]
pub(crate) struct AvailableQuery {
    username: Option<String>,
}

pub(crate) async fn available(
    State(app): State<App>,
    MatrixQuery(query): MatrixQuery<AvailableQuery>,
) -> Result<MatrixJson<Value>, ApiError> {
    app.free_user(&query.username.ok_or(ApiError::MissingParam("username"))?)
        .await?;
    Ok(MatrixJson(json!({"available": true})))
}

#[derive(Deserialize)]
pub(crate) struct ValidityQuery {
    token: Option<String>,
}

pub(crate) async fn token_validity(
    State(app): State<App>,
    client: Client,
    MatrixQuery(query): MatrixQuery<ValidityQuery>,
) -> Result<MatrixJson<Value>, ApiError> {
    app.rate_limits.registration(client.address)?;
    let token = query.token.ok_or(ApiError::MissingParam("token"))?;
    Ok(MatrixJson(
        json!({"valid": app.is_registration_token(&token)}),
    ))
}

impl App {
    /// Returns what a client has to show to register, by the settings and by where it is.
    fn registration_stage(&self, client: &Client) -> Result<Stage, ApiError> {
        let settings = &self.settings.registration;
        let is_private = self.settings.is_loopback_only
            && self.settings.trusted_proxies.is_empty()
            && client.is_local;
        let is_open = match settings.mode {
            RegistrationMode::Auto => is_private,
            RegistrationMode::Closed => {
                return Err(ApiError::Forbidden("registration is closed on this server"));
            }
            RegistrationMode::Open => true,
            RegistrationMode::Token => false,
        };
        if is_open {
            Ok(Stage::Dummy)
        } else if settings.tokens.is_empty() {
            Err(ApiError::Forbidden(
                "registration needs a token, and the server has none: its operator can set \
                 `registration.tokens` or run `kitbag user add`",
            ))
        } else {
            Ok(Stage::RegistrationToken)
        }
    }

    /// Returns the ID of a new user, if it is well-formed and not taken.
    async fn free_user(&self, localpart: &str) -> Result<UserId, ApiError> {
        let user = UserId::for_new_account(localpart, &self.server_name)?;
        match self.store.account(&user).await? {
            Some(_) => Err(ApiError::UserInUse),
            None => Ok(user),
        }
    }
}
