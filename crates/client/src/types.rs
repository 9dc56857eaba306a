//! The shapes that calls take and return.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::path;

/// A logged-in device. `Debug` does not show the tokens.
#[derive(Clone, Deserialize, Serialize)]
pub struct Session {
    /// The full user ID, such as `@alice:localhost`.
    pub user_id: String,
    /// The device's ID.
    pub device_id: String,
    /// The token that every request of the device carries.
    pub access_token: String,
    /// The token that gets a new access token, if refresh tokens were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// The life of the access token, if it is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("user_id", &self.user_id)
            .field("device_id", &self.device_id)
            .finish_non_exhaustive()
    }
}

/// What a registration asks for. `Default` leaves everything to the server.
#[derive(Clone, Copy, Default)]
pub struct Register<'a> {
    /// The localpart.
    pub username: Option<&'a str>,
    /// The password.
    pub password: Option<&'a str>,
    /// The device ID; the server makes one if absent.
    pub device_id: Option<&'a str>,
    /// The name that people see for the device.
    pub initial_device_display_name: Option<&'a str>,
    /// The registration token, where the server asks for one.
    pub registration_token: Option<&'a str>,
    /// Whether to ask for a refresh token.
    pub refresh_token: bool,
}

impl Register<'_> {
    pub(crate) fn body(&self) -> Value {
        let mut body = Map::new();
        put_text(&mut body, "username", self.username);
        put_text(&mut body, "password", self.password);
        put_text(&mut body, "device_id", self.device_id);
        put_text(
            &mut body,
            "initial_device_display_name",
            self.initial_device_display_name,
        );
        if self.refresh_token {
            body.insert("refresh_token".to_owned(), true.into());
        }
        Value::Object(body)
    }
}

/// What a login with a password asks for.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// The localpart or the full user ID.
    pub user: &'a str,
    /// The password.
    pub password: &'a str,
    /// The device to log in again as, or to make; the server makes one if absent.
    pub device_id: Option<&'a str>,
    /// The name that people see for a new device.
    pub initial_device_display_name: Option<&'a str>,
    /// Whether to ask for a refresh token.
    pub refresh_token: bool,
}

impl<'a> Login<'a> {
    /// A login on a new device.
    #[must_use]
    pub fn password(user: &'a str, password: &'a str) -> Self {
        Self {
            user,
            password,
            device_id: None,
            initial_device_display_name: None,
            refresh_token: false,
        }
    }

    pub(crate) fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("type".to_owned(), "m.login.password".into());
        body.insert(
            "identifier".to_owned(),
            json!({"type": "m.id.user", "user": self.user}),
        );
        put_text(&mut body, "password", Some(self.password));
        put_text(&mut body, "device_id", self.device_id);
        put_text(
            &mut body,
            "initial_device_display_name",
            self.initial_device_display_name,
        );
        if self.refresh_token {
            body.insert("refresh_token".to_owned(), true.into());
        }
        Value::Object(body)
    }
}

/// Whom a token belongs to.
#[derive(Clone, Debug, Deserialize)]
pub struct Whoami {
    /// The full user ID.
    pub user_id: String,
    /// The device, absent only for tokens of application services.
    #[serde(default)]
    pub device_id: Option<String>,
}

/// What a server says it speaks.
#[derive(Clone, Debug, Deserialize)]
pub struct Versions {
    /// Versions of the specification, such as `v1.18`.
    pub versions: Vec<String>,
    /// Flags of proposals.
    #[serde(default)]
    pub unstable_features: BTreeMap<String, bool>,
}

/// One of the user's devices.
#[derive(Clone, Debug, Deserialize)]
pub struct Device {
    /// The device's ID.
    pub device_id: String,
    /// The name that people see.
    #[serde(default)]
    pub display_name: Option<String>,
    /// The address it was last seen at.
    #[serde(default)]
    pub last_seen_ip: Option<String>,
    /// When it was last seen, in milliseconds since 1970.
    #[serde(default)]
    pub last_seen_ts: Option<u64>,
    /// Its account data (MSC4331), if it has any and the server shows it here.
    #[serde(default)]
    pub account_data: Option<EventBatch>,
}

/// One entry of account data as sync delivers it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct AccountDataEvent {
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The content; `{}` where an entry was deleted.
    pub content: Value,
}

/// A list of entries.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct EventBatch {
    /// The entries.
    #[serde(default)]
    pub events: Vec<AccountDataEvent>,
}

/// What a sync asks for. `Default` is an initial sync that returns at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct SyncParams<'a> {
    /// The `next_batch` of the sync before; absent for an initial sync.
    pub since: Option<&'a str>,
    /// How long the server may wait for something new.
    pub timeout: Duration,
    /// A filter's ID, or a filter as JSON.
    pub filter: Option<&'a str>,
    /// Whether to send everything again.
    pub full_state: bool,
}

impl SyncParams<'_> {
    /// Path and query of the request.
    #[must_use]
    pub fn path(&self) -> String {
        let mut path = format!("{}/sync?timeout={}", path::V3, self.timeout.as_millis());
        for (name, value) in [("since", self.since), ("filter", self.filter)] {
            if let Some(value) = value {
                path = format!("{path}&{name}={}", path::segment(value));
            }
        }
        if self.full_state {
            path.push_str("&full_state=true");
        }
        path
    }
}

/// The parts of a sync that carry account data.
#[derive(Clone, Debug, Deserialize)]
pub struct SyncResponse {
    /// The token for the next sync.
    pub next_batch: String,
    /// Changes of global account data.
    #[serde(default)]
    pub account_data: EventBatch,
    /// Changes of rooms.
    #[serde(default)]
    pub rooms: Rooms,
    /// Changes of device account data (MSC4331), by device ID.
    #[serde(default, rename = "org.matrix.msc4331.device_account_data")]
    pub device_account_data: BTreeMap<String, EventBatch>,
}

/// The rooms of a sync.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Rooms {
    /// Joined rooms, by room ID.
    #[serde(default)]
    pub join: BTreeMap<String, RoomUpdate>,
}

/// What a sync says of one room.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RoomUpdate {
    /// Changes of the room's account data.
    #[serde(default)]
    pub account_data: EventBatch,
}

fn put_text(body: &mut Map<String, Value>, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        body.insert(key.to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_a_session_hides_its_tokens() {
        let session = Session {
            user_id: "@a:b".to_owned(),
            device_id: "D".to_owned(),
            access_token: "secret-1".to_owned(),
            refresh_token: Some("secret-2".to_owned()),
            expires_in_ms: None,
        };
        assert!(!format!("{session:?}").contains("secret"));
    }

    #[test]
    fn sync_path_has_its_values_encoded() {
        let params = SyncParams {
            since: Some("s1&x"),
            timeout: Duration::from_secs(1),
            filter: Some("{}"),
            full_state: true,
        };
        assert_eq!(
            params.path(),
            "/_matrix/client/v3/sync?timeout=1000&since=s1%26x&filter=%7B%7D&full_state=true"
        );
    }
}
