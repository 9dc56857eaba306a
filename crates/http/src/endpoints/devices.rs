//! `GET /devices`, `GET`, `PUT` and `DELETE /devices/{deviceId}`, `POST /delete_devices`.
//!
//! Spec: CS API, Device management. MSC4331: `account_data` of a device object.

use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use kitbag_domain::{DeviceId, DeviceSelection, DeviceWithEntries, LiveEntry, limit};
use serde::Deserialize;

use crate::error::ApiError;
use crate::extract::{Authenticated, Client, JsonBody, OptionalJsonBody, PathParams};
use crate::json::{EmptyObject, JsonObject, json_response};
use crate::state::App;
use crate::sync::write_events;
use crate::uia::{AuthData, Stage};

pub(crate) async fn list(
    State(app): State<App>,
    auth: Authenticated,
) -> Result<Response, ApiError> {
    let devices = app.devices(&auth, None).await?;
    let mut body = JsonObject::new();
    body.array("devices", &devices, write_device);
    Ok(json_response(StatusCode::OK, body.finish()))
}

pub(crate) async fn get(
    State(app): State<App>,
    auth: Authenticated,
    params: PathParams<'static>,
) -> Result<Response, ApiError> {
    let devices = app.devices(&auth, Some(params.device()?)).await?;
    let device = devices.first();
    let device = device.ok_or(ApiError::NotFound("there is no such device"))?;
    let mut body = JsonObject::new();
    write_device(&mut body, device);
    Ok(json_response(StatusCode::OK, body.finish()))
}

#[derive(Deserialize)]
pub(crate) struct Rename {
    display_name: Option<String>,
}

pub(crate) async fn rename(
    State(app): State<App>,
    auth: Authenticated,
    params: PathParams<'static>,
    JsonBody(body): JsonBody<Rename>,
) -> Result<EmptyObject, ApiError> {
    let (user, id) = (&auth.requester.user, params.device()?);
    let Some(name) = body.display_name else {
        // An omitted name stays; the device must exist all the same.
        let device = app.store.device(user, &id).await?;
        return device
            .map(|_| EmptyObject)
            .ok_or(ApiError::NotFound("there is no such device"));
    };
    check_name(&name)?;
    app.store
        .rename_device(user, auth.requester.guard(), &id, Some(name))
        .await?;
    Ok(EmptyObject)
}

#[derive(Default, Deserialize)]
pub(crate) struct Delete {
    auth: Option<AuthData>,
}

pub(crate) async fn delete(
    State(app): State<App>,
    auth: Authenticated,
    client: Client,
    params: PathParams<'static>,
    uri: Uri,
    OptionalJsonBody(body): OptionalJsonBody<Delete>,
) -> Result<EmptyObject, ApiError> {
    let purpose = auth.purpose(Method::DELETE, &uri);
    app.authorize(&client, purpose, Stage::Password, body.auth)
        .await?;
    match params.device() {
        Ok(device) => {
            app.remove_devices(&auth, DeviceSelection::These(vec![device]))
                .await
        }
        Err(_) => Ok(EmptyObject), // what cannot exist is gone
    }
}

#[derive(Deserialize)]
pub(crate) struct DeleteMany {
    devices: Option<Vec<String>>,
    auth: Option<AuthData>,
}

pub(crate) async fn delete_many(
    State(app): State<App>,
    auth: Authenticated,
    client: Client,
    uri: Uri,
    JsonBody(body): JsonBody<DeleteMany>,
) -> Result<EmptyObject, ApiError> {
    let devices = body.devices.ok_or(ApiError::MissingParam("devices"))?;
    let purpose = auth.purpose(Method::POST, &uri);
    app.authorize(&client, purpose, Stage::Password, body.auth)
        .await?;
    let devices = devices
        .into_iter()
        .filter_map(|device| DeviceId::parse(device).ok());
    app.remove_devices(&auth, DeviceSelection::These(devices.collect()))
        .await
}

/// Checks the length of a device's display name.
pub(crate) fn check_name(name: &str) -> Result<(), ApiError> {
    let limit = limit::DEVICE_NAME_CHARS_MAX;
    if name.chars().count() > limit {
        Err(ApiError::NameTooLong { limit })
    } else {
        Ok(())
    }
}

impl App {
    /// Returns the devices of who asks, or one of them, with what is told of their account data.
    async fn devices(
        &self,
        auth: &Authenticated,
        device: Option<DeviceId>,
    ) -> Result<Vec<DeviceWithEntries>, ApiError> {
        if self.settings.features.msc4331.in_devices {
            return Ok(self.data.devices(&auth.requester, device).await?);
        }
        let user = &auth.requester.user;
        let devices = match device {
            None => self.store.devices(user).await?,
            Some(id) => self.store.device(user, &id).await?.into_iter().collect(),
        };
        Ok(DeviceWithEntries::of(devices, Vec::new()))
    }
}

fn write_device(out: &mut JsonObject, found: &DeviceWithEntries) {
    let DeviceWithEntries { device, entries } = found;
    out.string("device_id", device.id.as_str());
    // Null where unknown, as on Synapse: matrix-nio refuses a device without the member.
    out.optional_string("display_name", device.display_name.as_deref());
    out.optional_string("last_seen_ip", device.seen.ip.as_deref());
    out.raw("last_seen_ts", device.seen.at.to_string());
    if !entries.is_empty() {
        let entries = entries.iter().map(LiveEntry::of);
        out.object("account_data", |out| write_events(out, entries));
    }
}
