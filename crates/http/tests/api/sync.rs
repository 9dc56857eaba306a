//! `GET /sync`: what it tells, and what ends its waiting. Time is tokio's, paused.

mod content;
mod waiting;

use serde_json::{Value, json};

use crate::support::{Call, Reply, Server, Session, Setup};

const DEVICE_DATA: &str = "org.matrix.msc4331.device_account_data";

struct Lab {
    server: Server,
    alice: Session,
    tablet: Session,
}

impl Lab {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let server = Server::with(change);
        let alice = server.user("alice").await;
        let tablet = server.device(&alice.user, "TABLET").await;
        Self {
            server,
            alice,
            tablet,
        }
    }

    /// Returns the call of a sync with this query.
    fn sync(&self, query: &str) -> Call {
        Call::get(format!("/_matrix/client/v3/sync?{query}")).by(&self.alice)
    }

    async fn told(&self, query: &str) -> Value {
        self.server.send(self.sync(query)).await.assert_ok()
    }

    /// Returns the token behind everything so far.
    async fn now(&self) -> String {
        next_batch(&self.told("").await)
    }

    async fn put(&self, by: &Session, path: &str, body: &'static str) {
        let reply = self.server.send(Call::put(path, body).by(by)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    async fn delete(&self, by: &Session, path: &str) {
        let path = path.replace("/v3/", "/unstable/org.matrix.msc3391/");
        assert_eq!(
            self.server.send(Call::delete(path).by(by)).await.status,
            200
        );
    }
}

fn next_batch(sync: &Value) -> String {
    sync["next_batch"].as_str().unwrap().to_owned()
}

/// Returns types and contents of the global part.
fn global(sync: &Value) -> Vec<(String, Value)> {
    events(&sync["account_data"])
}

fn events(part: &Value) -> Vec<(String, Value)> {
    let events = part["events"].as_array().unwrap().iter();
    events
        .map(|event| {
            assert_eq!(
                event.as_object().unwrap().len(),
                2,
                "type and content: {event}"
            );
            (
                event["type"].as_str().unwrap().to_owned(),
                event["content"].clone(),
            )
        })
        .collect()
}

fn event(event_type: &str, content: Value) -> (String, Value) {
    (event_type.to_owned(), content)
}

/// Checks that the answer has what SDKs parse, and returns its names.
#[track_caller]
fn check_shape(reply: &Reply) -> Vec<String> {
    let sync = reply.assert_ok();
    assert!(sync["next_batch"].is_string());
    assert!(sync["account_data"]["events"].is_array());
    assert_eq!(
        sync["rooms"],
        json!({"join": {}, "invite": {}, "leave": {}, "knock": {}})
    );
    assert_eq!(sync["to_device"], json!({"events": []}));
    assert_eq!(sync["presence"], json!({"events": []}));
    assert_eq!(sync["device_lists"], json!({"changed": [], "left": []}));
    assert_eq!(sync["device_one_time_keys_count"], json!({}));
    assert_eq!(sync["device_unused_fallback_key_types"], json!([]));
    sync.as_object().unwrap().keys().cloned().collect()
}
