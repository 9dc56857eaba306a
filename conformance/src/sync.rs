//! A sync answer, read with the eyes of a client that looks for account data.

use serde_json::Value;

use crate::expect::{Failure, Outcome, Reply, check_eq, shorten};

/// The key under which Kitbag delivers device account data.
pub(crate) const DEVICE_KEY: &str = "org.matrix.msc4331.device_account_data";

/// The answer to a sync.
#[derive(Clone, Debug)]
pub(crate) struct Sync {
    pub(crate) next_batch: String,
    pub(crate) body: Value,
}

impl Sync {
    pub(crate) fn of(reply: &Reply) -> Outcome<Self> {
        let body = reply.clone().ok()?;
        let Some(next_batch) = body["next_batch"].as_str() else {
            return Err(reply.failure("200 with `next_batch`"));
        };
        Ok(Self {
            next_batch: next_batch.to_owned(),
            body,
        })
    }

    /// The contents of this type in the global section.
    pub(crate) fn global(&self, kind: &str) -> Vec<Value> {
        contents(&self.body["account_data"]["events"], kind)
    }

    /// The contents of this type in the room's section.
    pub(crate) fn room(&self, room_id: &str, kind: &str) -> Vec<Value> {
        contents(
            &self.body["rooms"]["join"][room_id]["account_data"]["events"],
            kind,
        )
    }

    /// The contents of this type in the device's section.
    pub(crate) fn device(&self, device_id: &str, kind: &str) -> Vec<Value> {
        contents(&self.body[DEVICE_KEY][device_id]["events"], kind)
    }

    /// The types in the global section, in their order.
    pub(crate) fn global_types(&self) -> Vec<String> {
        let events = self.body["account_data"]["events"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        events
            .iter()
            .map(|e| e["type"].as_str().unwrap_or("").to_owned())
            .collect()
    }

    /// Whether no account data of any scope is in it.
    pub(crate) fn is_quiet(&self) -> bool {
        let rooms = self.body["rooms"]["join"].as_object();
        let mut of_rooms = rooms
            .into_iter()
            .flatten()
            .map(|(_, room)| &room["account_data"]);
        self.global_types().is_empty()
            && self.body.get(DEVICE_KEY).is_none()
            && of_rooms.all(|data| data["events"].as_array().is_none_or(Vec::is_empty))
    }

    /// Fails unless the type is in the global section just once, with this content.
    pub(crate) fn expect_global(&self, kind: &str, content: &Value) -> Outcome {
        self.expect_one(&self.global(kind), &format!("global `{kind}`"), content)
    }

    /// Fails unless the type is in the room's section just once, with this content.
    pub(crate) fn expect_room(&self, room_id: &str, kind: &str, content: &Value) -> Outcome {
        self.expect_one(
            &self.room(room_id, kind),
            &format!("room `{kind}`"),
            content,
        )
    }

    /// Fails unless the type is in the device's section just once, with this content.
    pub(crate) fn expect_device(&self, device_id: &str, kind: &str, content: &Value) -> Outcome {
        self.expect_one(
            &self.device(device_id, kind),
            &format!("device `{kind}`"),
            content,
        )
    }

    /// Fails if the type is in the global section.
    pub(crate) fn expect_no_global(&self, kind: &str) -> Outcome {
        check_eq(
            &self.global(kind),
            &Vec::new(),
            &format!("no global `{kind}` in sync:"),
        )
    }

    /// Fails if the type is in the room's section.
    pub(crate) fn expect_no_room(&self, room_id: &str, kind: &str) -> Outcome {
        check_eq(
            &self.room(room_id, kind),
            &Vec::new(),
            &format!("no room `{kind}` in sync:"),
        )
    }

    /// Fails if the type is in the device's section.
    pub(crate) fn expect_no_device(&self, device_id: &str, kind: &str) -> Outcome {
        let what = format!("no device `{kind}` in sync:");
        check_eq(&self.device(device_id, kind), &Vec::new(), &what)
    }

    pub(crate) fn failure(&self, expected: impl Into<String>) -> Failure {
        Failure::new(
            expected,
            format!("sync {}", shorten(&self.body.to_string())),
        )
    }

    fn expect_one(&self, found: &[Value], what: &str, content: &Value) -> Outcome {
        match found {
            [only] if only == content => Ok(()),
            _ => Err(self.failure(format!("{what} once in sync, with content {content}"))),
        }
    }
}

fn contents(events: &Value, kind: &str) -> Vec<Value> {
    let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
    events
        .iter()
        .filter(|e| e["type"] == kind)
        .map(|e| e["content"].clone())
        .collect()
}
