//! `GET /profile/{userId}`, `GET` and `PUT /profile/{userId}/{field}`: `displayname`, `avatar_url`.
//!
//! Spec: CS API, Profiles. Anyone may read; other fields (v1.16) are not kept.

use std::collections::HashMap;

use axum::extract::State;
use kitbag_domain::{Profile, ProfileField, UserId, limit};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::extract::{JsonBody, OwnPath, PathParams};
use crate::json::{EmptyObject, MatrixJson};
use crate::state::App;

const NO_PROFILE: ApiError = ApiError::NotFound("there is no such user");
const NO_FIELD: ApiError = ApiError::NotFound("the profile has no such field");

pub(crate) async fn get(
    State(app): State<App>,
    params: PathParams<'static>,
) -> Result<MatrixJson<Value>, ApiError> {
    let profile = app.profile(&params).await?;
    let mut body = json!({});
    for field in [ProfileField::AvatarUrl, ProfileField::Displayname] {
        if let Some(value) = value(&profile, field) {
            body[name(field)] = value.into();
        }
    }
    Ok(MatrixJson(body))
}

pub(crate) async fn get_field(
    State(app): State<App>,
    params: PathParams<'static>,
) -> Result<MatrixJson<Value>, ApiError> {
    let field = field(&params)?;
    let profile = app.profile(&params).await?;
    let value = value(&profile, field).ok_or(NO_FIELD)?;
    let mut body = json!({});
    body[name(field)] = value.into();
    Ok(MatrixJson(body))
}

pub(crate) async fn set_field(
    State(app): State<App>,
    OwnPath { auth, params }: OwnPath,
    JsonBody(mut body): JsonBody<HashMap<String, Value>>,
) -> Result<EmptyObject, ApiError> {
    let field = field(&params)?;
    let value = match body.remove(name(field)) {
        None => return Err(ApiError::MissingParam(name(field))),
        Some(Value::Null) => None,
        Some(Value::String(value)) if value.is_empty() => None,
        Some(Value::String(value)) => Some(value),
        Some(_) => return Err(ApiError::BadJson(format!("`{}` is a string", name(field)))),
    };
    let bytes = value.as_ref().map_or(0, String::len);
    if bytes > limit::PROFILE_FIELD_BYTES_MAX {
        let limit_bytes = limit::PROFILE_FIELD_BYTES_MAX as u64;
        return Err(ApiError::BodyTooLarge { limit_bytes });
    }
    let user = &auth.requester.user;
    app.store
        .set_profile(user, auth.requester.guard(), field, value)
        .await?;
    Ok(EmptyObject)
}

impl App {
    async fn profile(&self, params: &PathParams<'_>) -> Result<Profile, ApiError> {
        let user = UserId::parse(params.get("user").unwrap_or_default())?;
        self.store.profile(&user).await?.ok_or(NO_PROFILE)
    }
}

fn field(params: &PathParams<'_>) -> Result<ProfileField, ApiError> {
    match params.get("field") {
        Some("avatar_url") => Ok(ProfileField::AvatarUrl),
        Some("displayname") => Ok(ProfileField::Displayname),
        _ => Err(NO_FIELD),
    }
}

fn name(field: ProfileField) -> &'static str {
    match field {
        ProfileField::AvatarUrl => "avatar_url",
        ProfileField::Displayname => "displayname",
    }
}

fn value(profile: &Profile, field: ProfileField) -> Option<&str> {
    match field {
        ProfileField::AvatarUrl => profile.avatar_url.as_deref(),
        ProfileField::Displayname => profile.displayname.as_deref(),
    }
}
