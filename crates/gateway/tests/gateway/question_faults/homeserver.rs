//! A homeserver that answers one question of the gateway's as it should not.

use std::sync::Mutex;

use kitbag_client::Method;
use kitbag_testkit::scripted::{Asked, ScriptedBody, chunked, cut, json as answer, reset, whole};
use serde_json::{Value, json};

use super::CONTENT;
use crate::toy::{self, Stored, TOMBSTONE};

/// What the gateway asks by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Whoami,
    Device,
    Devices,
    Listing,
    Stored,
    Tombstone,
    PushRules,
    /// Not the gateway's own, but its answer is read where something is still to be emptied.
    Login,
}

impl Question {
    pub(super) fn is(self, asked: &Asked) -> bool {
        let path = asked.target.split('?').next().unwrap();
        let is_get = asked.method == Method::GET;
        match self {
            Self::Whoami => path.ends_with("/account/whoami"),
            Self::Device => is_get && path.contains("/v3/devices/"),
            Self::Devices => is_get && path.ends_with("/v3/devices"),
            Self::Listing => path.ends_with("/sync"),
            Self::Stored => is_get && path.contains("/account_data/"),
            Self::Tombstone => asked.method == Method::PUT && asked.body == TOMBSTONE,
            Self::PushRules => path.ends_with("/pushrules/"),
            Self::Login => path.ends_with("/login"),
        }
    }

    /// Bytes of an answer to it that are read.
    fn bytes_max(self) -> usize {
        match self {
            Self::Whoami | Self::Device | Self::Tombstone => 64 * 1024,
            Self::Login => 1024 * 1024,
            Self::Devices => 4 * 1024 * 1024,
            Self::Listing => 32 * 1024 * 1024,
            Self::Stored | Self::PushRules => 16 * 1024 * 1024,
        }
    }
}

/// How the homeserver answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not at all.
    Slow,
    /// The connection ends without an answer.
    Reset,
    /// The connection ends amid what would be the answer.
    Cut,
    /// At once, with a status and a body.
    Told(u16, &'static str),
    /// As it should be, but for spaces behind it: more than is read.
    Long,
    /// As it should be, in pieces.
    Chunked,
}

/// What the homeserver answers where it should not.
pub(super) async fn fail(
    question: Question,
    fault: Fault,
    asked: &Asked,
    stored: &Stored,
) -> http::Response<ScriptedBody> {
    let right = match question {
        Question::Whoami => json!({"user_id": "@alice:x", "device_id": "PHONE"}).to_string(),
        Question::Device => json!({"device_id": "PHONE"}).to_string(),
        Question::Devices => json!({"devices": [{"device_id": "LAPTOP"}]}).to_string(),
        Question::Listing => json!({"next_batch": "s"}).to_string(),
        Question::Stored => CONTENT.to_owned(),
        Question::Tombstone => "{}".to_owned(),
        Question::PushRules => json!({"global": {}}).to_string(),
        Question::Login => logged_in().to_string(),
    };
    match fault {
        Fault::Slow => std::future::pending().await,
        Fault::Reset => reset(),
        Fault::Cut => cut(200, right),
        Fault::Told(status, body) => {
            if (status, body.starts_with("{\"a\":1")) == (200, true) {
                drop(toy::answer(asked, stored));
            }
            let mut response = whole(status, body);
            let headers = response.headers_mut();
            headers.insert("retry-after", "7".parse().unwrap());
            if (300..400).contains(&status) {
                headers.insert("location", "https://elsewhere.example/".parse().unwrap());
            }
            response
        }
        Fault::Long => {
            let bytes = question.bytes_max() + 1;
            whole(200, right + &" ".repeat(bytes))
        }
        Fault::Chunked => {
            if question == Question::Login {
                return chunked(200, right);
            }
            let right = toy::answer(asked, stored).into_body();
            let right = http_body_util::BodyExt::collect(right).await.unwrap();
            chunked(200, right.to_bytes())
        }
    }
}

fn logged_in() -> Value {
    json!({"user_id": "@alice:x", "access_token": "alice.LAPTOP", "device_id": "LAPTOP"})
}

/// What it answers where it is well. The phone may end.
pub(super) fn well(
    asked: &Asked,
    stored: &Stored,
    has_ended: &Mutex<bool>,
) -> http::Response<ScriptedBody> {
    let path = asked.target.split('?').next().unwrap();
    let mut has_ended = has_ended.lock().unwrap();
    let is_end = ["/logout", "/account/password"]
        .iter()
        .any(|end| path.ends_with(end));
    if path.ends_with("/login") {
        return answer(200, &logged_in());
    }
    if is_end || asked.method == Method::DELETE {
        *has_ended = true;
        return answer(200, &json!({}));
    }
    match *has_ended {
        true if asked.headers["authorization"] == "Bearer alice.PHONE" => {
            toy::error(401, "M_UNKNOWN_TOKEN")
        }
        true if path.ends_with("/devices/PHONE") => toy::error(404, "M_NOT_FOUND"),
        true if path.ends_with("/devices") => {
            answer(200, &json!({"devices": [{"device_id": "LAPTOP"}]}))
        }
        _ => toy::answer(asked, stored),
    }
}
