//! A homeserver of a few lines: what Kitbag's own does not have, such as application services, and
//! what a test has to hold up or count.
//!
//! A token reads `LOCALPART.DEVICE`, or `LOCALPART.` for one without a device; that of an application
//! service is `kt_as`, and acts as whom the query names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use kitbag_client::{Method, Request};
use kitbag_testkit::scripted::{Asked, Scripted, ScriptedBody, json, whole};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

/// What the types begin with that hold device account data in a homeserver.
pub(crate) const PREFIX: &str = "org.matrix.msc4331.device_account_data.";

/// What stands there for an entry that was deleted or emptied.
pub(crate) const TOMBSTONE: &str = "{\"org.matrix.msc4331.deleted\": true}";

/// What it keeps: global account data by user and type.
pub(crate) type Stored = Arc<Mutex<HashMap<(String, String), String>>>;

/// Starts a toy that holds nothing up.
pub(crate) async fn toy() -> Scripted {
    let stored = Stored::default();
    Scripted::start(move |asked| {
        let answer = answer(&asked, &stored);
        async move { answer }
    })
    .await
}

/// Returns what the toy answers.
pub(crate) fn answer(asked: &Asked, stored: &Stored) -> http::Response<ScriptedBody> {
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    let Some((user, device)) = who(asked, query) else {
        return error(401, "M_UNKNOWN_TOKEN");
    };
    let path = path.trim_start_matches("/_matrix/client/v3/");
    let segments: Vec<String> = path
        .split('/')
        .map(|segment| percent_decode_str(segment).decode_utf8().unwrap().into())
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (asked.method.as_str(), segments.as_slice()) {
        ("GET", ["account", "whoami"]) => {
            let mut body = json!({"user_id": user});
            if let Some(device) = device {
                body["device_id"] = json!(device);
            }
            json(200, &body)
        }
        ("GET", ["devices", "PHONE" | "LAPTOP"]) => json(200, &json!({"device_id": segments[1]})),
        ("GET", ["devices"]) => {
            let devices = json!([{"device_id": "PHONE"}, {"device_id": "LAPTOP"}]);
            json(200, &json!({"devices": devices}))
        }
        ("GET", ["pushrules", ""]) => json(200, &json!({"global": {}})),
        ("GET", ["sync"]) => {
            let stored = stored.lock().unwrap();
            let of_user = stored.iter().filter(|((owner, _), _)| *owner == user);
            let events = of_user.map(|((_, kind), content)| {
                let content: Value = serde_json::from_str(content).unwrap();
                json!({"type": kind, "content": content})
            });
            let events: Vec<Value> = events.collect();
            json(
                200,
                &json!({"next_batch": "s", "account_data": {"events": events}}),
            )
        }
        ("GET", ["user", owner, "account_data", kind]) if *owner == user => {
            let key = ((*owner).to_owned(), (*kind).to_owned());
            match stored.lock().unwrap().get(&key) {
                Some(content) => whole(200, content.clone()),
                None => error(404, "M_NOT_FOUND"),
            }
        }
        ("PUT", ["user", owner, "account_data", kind]) if *owner == user => {
            let key = ((*owner).to_owned(), (*kind).to_owned());
            let content = String::from_utf8(asked.body.to_vec()).unwrap();
            stored.lock().unwrap().insert(key, content);
            json(200, &json!({}))
        }
        _ => error(404, "M_NOT_FOUND"),
    }
}

/// Returns an error as homeservers have it.
pub(crate) fn error(status: u16, errcode: &str) -> http::Response<ScriptedBody> {
    json(status, &json!({"errcode": errcode, "error": "no"}))
}

fn who(asked: &Asked, query: &str) -> Option<(String, Option<String>)> {
    let query: HashMap<String, String> = serde_urlencoded::from_str(query).unwrap();
    let token = match asked.headers.get("authorization") {
        Some(authorization) => authorization.to_str().unwrap().strip_prefix("Bearer ")?,
        None => query.get("access_token")?,
    };
    let user = |localpart: &str| format!("@{localpart}:x");
    match (token, token.split_once('.')) {
        ("kt_bad", _) => None,
        ("kt_as", _) => {
            let named = query.get("user_id").cloned();
            let names = ["device_id", "org.matrix.msc3202.device_id"];
            let device = names.iter().find_map(|name| query.get(*name).cloned());
            Some((named.unwrap_or(user("as")), device))
        }
        (_, Some((localpart, ""))) => Some((user(localpart), None)),
        (_, Some((localpart, device))) => Some((user(localpart), Some(device.to_owned()))),
        (_, None) => None,
    }
}

/// Returns a request for an entry of a device of alice.
pub(crate) fn entry(method: Method, device: &str, query: &str, token: &str) -> Request {
    let user = "%40alice%3Ax";
    let path =
        format!("/_matrix/client/v3/user/{user}/devices/{device}/account_data/org.example.a");
    Request::new(method, path + query).token(token)
}

/// Returns how often something was asked for.
pub(crate) fn count(toy: &Scripted, part: &str) -> usize {
    let asked = toy.asked();
    asked
        .iter()
        .filter(|asked| asked.target.contains(part))
        .count()
}
