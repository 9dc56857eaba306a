//! Cheap honest answers to what clients ask at start and this server does not have.
//!
//! Each says "there is none" in the form that the specification gives; docs/spec.md lists them.

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::extract::{Authenticated, JsonBody, OwnPath};
use crate::json::{EmptyObject, MatrixJson};

/// `GET /joined_rooms`: there are no rooms.
pub(crate) async fn joined_rooms(_auth: Authenticated) -> MatrixJson<Value> {
    MatrixJson(json!({"joined_rooms": []}))
}

/// `GET /room_keys/version`: there is no key backup.
pub(crate) async fn key_backup(_auth: Authenticated) -> ApiError {
    ApiError::NotFound("there is no key backup")
}

/// `GET /presence/{userId}/status`: everybody's is unknown.
pub(crate) async fn presence(_auth: Authenticated) -> ApiError {
    ApiError::NotFound("presence is not kept")
}

/// `PUT /presence/{userId}/status`: accepted and not kept.
pub(crate) async fn set_presence(
    _path: OwnPath,
    _body: JsonBody<serde::de::IgnoredAny>,
) -> EmptyObject {
    EmptyObject
}

/// `GET /pushers`: there are none.
pub(crate) async fn pushers(_auth: Authenticated) -> MatrixJson<Value> {
    MatrixJson(json!({"pushers": []}))
}

/// `GET /thirdparty/protocols`: there are none.
pub(crate) async fn third_party_protocols(_auth: Authenticated) -> EmptyObject {
    EmptyObject
}

/// `GET /voip/turnServer`: there is none.
pub(crate) async fn turn_server(_auth: Authenticated) -> EmptyObject {
    EmptyObject
}
