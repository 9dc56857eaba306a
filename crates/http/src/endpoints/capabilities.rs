//! `GET /capabilities`
//!
//! Spec: CS API, Capabilities negotiation.

use serde_json::{Value, json};

use crate::extract::Authenticated;
use crate::json::MatrixJson;

/// The version of rooms that clients should assume: the one that the specification recommends.
const ROOM_VERSION: &str = "12";

pub(crate) async fn get(_auth: Authenticated) -> MatrixJson<Value> {
    MatrixJson(json!({"capabilities": {
        "m.change_password": {"enabled": true},
        "m.room_versions": {"default": ROOM_VERSION, "available": {ROOM_VERSION: "stable"}},
        "m.set_avatar_url": {"enabled": true},
        "m.set_displayname": {"enabled": true},
        "m.3pid_changes": {"enabled": false},
        "m.get_login_token": {"enabled": false},
        "m.profile_fields": {"enabled": true, "allowed": ["avatar_url", "displayname"]},
    }}))
}
