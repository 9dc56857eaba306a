//! MSC3391, switched on and off.

use serde_json::{Value, json};

use crate::support::{Call, Reply, Server, Session};

const UNSTABLE: &str = "/_matrix/client/unstable/org.matrix.msc3391";

struct Lab {
    server: Server,
    alice: Session,
}

impl Lab {
    async fn new(enabled: bool, put_empty_deletes: bool) -> Self {
        let server = Server::with(|setup| {
            setup.settings.features.msc3391.enabled = enabled;
            setup.settings.features.msc3391.put_empty_deletes = put_empty_deletes;
        });
        let alice = server.user("alice").await;
        Self { server, alice }
    }

    async fn send(&self, call: Call) -> Reply {
        self.server.send(call.by(&self.alice)).await
    }

    async fn put(&self, path: &str, body: &'static str) {
        assert_eq!(self.send(Call::put(path, body)).await.status, 200, "{path}");
    }

    async fn sync(&self, since: Option<&str>) -> Value {
        let since = since.map_or(String::new(), |since| format!("?since={since}"));
        let path = format!("/_matrix/client/v3/sync{since}");
        self.send(Call::get(path)).await.assert_ok()
    }

    async fn advertises(&self) -> bool {
        let versions = self
            .send(Call::get("/_matrix/client/versions"))
            .await
            .json();
        versions["unstable_features"]["org.matrix.msc3391"] == true
    }
}

/// Returns the content of a type in a sync.
fn content(sync: &Value, event_type: &str) -> Option<Value> {
    let events = sync["account_data"]["events"].as_array().unwrap();
    let event = events.iter().find(|event| event["type"] == event_type)?;
    Some(event["content"].clone())
}

#[tokio::test]
async fn switched_off_there_is_no_such_endpoint_but_protected_types_stay_protected() {
    let lab = Lab::new(false, false).await;
    let alice = &lab.alice;
    lab.put(&alice.global("app.test"), "{\"a\":1}").await;
    let unstable = |path: String| path.replace("/_matrix/client/v3", UNSTABLE);
    for path in [
        alice.global("app.test"),
        alice.room("!r", "app.test"),
        alice.device_data("PHONE", "app.test"),
        alice.device_data("NOBODY", "app.test"),
    ] {
        let reply = lab.send(Call::delete(unstable(path))).await;
        reply.assert_is(404, "M_UNRECOGNIZED");
    }
    for path in [
        alice.global("m.push_rules"),
        alice.room("!r", "m.fully_read"),
        alice.device_data("PHONE", "m.push_rules"),
    ] {
        lab.send(Call::delete(unstable(path)))
            .await
            .assert_is(405, "M_BAD_JSON");
    }
    let get = Call::get(alice.global("app.test"));
    assert_eq!(lab.send(get).await.text(), "{\"a\":1}");
    assert!(!lab.advertises().await);
}

#[tokio::test]
async fn on_stable_paths_a_protected_type_is_told_as_such_whatever_the_device() {
    let lab = Lab::new(true, false).await;
    for device in ["PHONE", "NOBODY"] {
        let protected = lab.alice.device_data(device, "m.push_rules");
        lab.send(Call::delete(protected))
            .await
            .assert_is(405, "M_BAD_JSON");
        let ordinary = lab.alice.device_data(device, "app.test");
        lab.send(Call::delete(ordinary))
            .await
            .assert_is(405, "M_UNRECOGNIZED");
    }
}

#[tokio::test]
async fn as_by_default_an_empty_object_is_a_value() {
    let lab = Lab::new(true, false).await;
    let path = lab.alice.global("app.test");
    lab.put(&path, "{}").await;
    assert_eq!(lab.send(Call::get(&path)).await.text(), "{}");
    assert_eq!(content(&lab.sync(None).await, "app.test"), Some(json!({})));
    assert!(!lab.advertises().await);
}

#[tokio::test]
async fn an_empty_object_deletes_where_it_is_told_to() {
    let lab = Lab::new(true, true).await;
    let alice = &lab.alice;
    assert!(lab.advertises().await);
    for path in [alice.global("app.test"), alice.room("!r", "app.test")] {
        for empty in ["{}", " { \n\t} "] {
            lab.put(&path, "{\"a\":1}").await;
            assert_eq!(lab.send(Call::get(&path)).await.status, 200);
            lab.put(&path, empty).await;
            lab.send(Call::get(&path))
                .await
                .assert_is(404, "M_NOT_FOUND");
        }
    }
    assert!(lab.server.entries(alice).await.is_empty());

    let device = alice.device_data("PHONE", "app.test");
    lab.put(&device, "{}").await;
    assert_eq!(
        lab.send(Call::get(&device)).await.text(),
        "{}",
        "never at device scope"
    );
    let protected = lab
        .send(Call::put(alice.global("m.push_rules"), "{}"))
        .await;
    protected.assert_is(405, "M_BAD_JSON");
}

/// SDKs wait for the echo of their `PUT {}`, also of a type that never was (law 11).
#[tokio::test]
async fn an_empty_object_that_deletes_is_told_by_sync() {
    let lab = Lab::new(true, true).await;
    let since = lab.sync(None).await["next_batch"]
        .as_str()
        .unwrap()
        .to_owned();
    for event_type in ["app.test", "app.never"] {
        if event_type == "app.test" {
            lab.put(&lab.alice.global(event_type), "{\"a\":1}").await;
        }
        lab.put(&lab.alice.global(event_type), "{}").await;
        let sync = lab.sync(Some(&since)).await;
        assert_eq!(content(&sync, event_type), Some(json!({})), "{event_type}");
        assert_eq!(
            content(&lab.sync(None).await, event_type),
            None,
            "{event_type}"
        );
    }
}

#[tokio::test]
async fn an_empty_object_that_deletes_heeds_the_expectation() {
    let lab = Lab::new(true, true).await;
    let path = lab.alice.global("app.test");
    lab.put(&path, "{\"m.revision_id\":\"1\"}").await;
    let stale = Call::put(format!("{path}?expect_revision_id=0"), "{}");
    lab.send(stale)
        .await
        .assert_is(409, "M_REVISION_ID_MISMATCH");
    assert_eq!(
        lab.send(Call::get(&path)).await.text(),
        "{\"m.revision_id\":\"1\"}"
    );
    lab.put(&format!("{path}?expect_revision_id=1"), "{}").await;
    lab.send(Call::get(&path))
        .await
        .assert_is(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn with_deletion_off_an_empty_object_does_not_delete() {
    let lab = Lab::new(false, true).await;
    let path = lab.alice.global("app.test");
    lab.put(&path, "{}").await;
    assert_eq!(lab.send(Call::get(&path)).await.text(), "{}");
    assert!(!lab.advertises().await);
}
