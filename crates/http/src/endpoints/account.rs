//! `GET /account/whoami`, `POST /account/password`, `POST /account/deactivate`.
//!
//! Spec: CS API, Account management.

use axum::extract::State;
use axum::http::{Method, Uri};
use kitbag_domain::{DeviceSelection, Requester};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::extract::{Authenticated, Client, JsonBody};
use crate::json::{EmptyObject, MatrixJson};
use crate::state::App;
use crate::uia::{AuthData, Purpose, Stage};

pub(crate) async fn whoami(auth: Authenticated) -> MatrixJson<Value> {
    let Requester { user, device, .. } = &auth.requester;
    let mut body = json!({"user_id": user.as_str(), "is_guest": false});
    if let Some((device, _)) = device {
        body["device_id"] = device.as_str().into();
    }
    MatrixJson(body)
}

#[derive(Deserialize)]
pub(crate) struct ChangePassword {
    new_password: Option<String>,
    logout_devices: Option<bool>,
    auth: Option<AuthData>,
}

/// The other devices are removed, with their entries, unless the client says otherwise.
pub(crate) async fn change_password(
    State(app): State<App>,
    auth: Authenticated,
    client: Client,
    uri: Uri,
    JsonBody(body): JsonBody<ChangePassword>,
) -> Result<EmptyObject, ApiError> {
    let purpose = auth.purpose(Method::POST, &uri);
    app.authorize(&client, purpose, Stage::Password, body.auth)
        .await?;
    let password = body
        .new_password
        .ok_or(ApiError::MissingParam("new_password"))?;
    let hash = app.passwords.hash(&password).await?;
    let others = match &auth.requester.device {
        Some((device, _)) => DeviceSelection::AllExcept(device.clone()),
        None => DeviceSelection::All,
    };
    let logout = body.logout_devices.unwrap_or(true).then_some(others);
    let write = auth.requester.write_at(app.clock.now_ms());
    app.store
        .set_password(&auth.requester.user, write, hash, logout)
        .await?;
    Ok(EmptyObject)
}

#[derive(Deserialize)]
pub(crate) struct Deactivate {
    auth: Option<AuthData>,
}

/// Account data goes whatever `erase` says, as on Synapse; there is nobody left to read it.
pub(crate) async fn deactivate(
    State(app): State<App>,
    auth: Authenticated,
    client: Client,
    uri: Uri,
    JsonBody(body): JsonBody<Deactivate>,
) -> Result<MatrixJson<Value>, ApiError> {
    let purpose = auth.purpose(Method::POST, &uri);
    app.authorize(&client, purpose, Stage::Password, body.auth)
        .await?;
    app.store
        .deactivate(
            &auth.requester.user,
            auth.requester.write_at(app.clock.now_ms()),
        )
        .await?;
    // No identity server is known here, so there is none to unbind from.
    Ok(MatrixJson(json!({"id_server_unbind_result": "no-support"})))
}

impl Authenticated {
    /// Returns what a UIA session for this request is bound to.
    pub(crate) fn purpose(&self, method: Method, uri: &Uri) -> Purpose {
        let user = Some(self.requester.user.clone());
        Purpose {
            user,
            method,
            path: uri.path().to_owned(),
        }
    }
}
