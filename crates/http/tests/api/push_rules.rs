//! Push rules: what depends on settings, limits and what is stored. The rest is in `conformance`.

use kitbag_domain::{
    Allowance, Content, EntryStore as _, EventType, Expectation, Guard, Key, Op, Scope, Write,
    Writer,
};
use kitbag_push::limits::RULE_BYTES_MAX;
use serde_json::{Value, json};

use crate::support::{Call, Reply, Server, Session};

const C3: &str = "/_matrix/client/v3";

struct Lab {
    server: Server,
    alice: Session,
}

impl Lab {
    async fn of(server: Server) -> Self {
        let alice = server.user("alice").await;
        Self { server, alice }
    }

    async fn get(&self, place: &str) -> Reply {
        let call = Call::get(format!("{C3}/pushrules/{place}"));
        self.server.send(call.by(&self.alice)).await
    }

    async fn put(&self, place: &str, body: &Value) -> Reply {
        let call = Call::put(format!("{C3}/pushrules/{place}"), body.to_string());
        self.server.send(call.by(&self.alice)).await
    }

    /// Stores what this version of the program would not.
    async fn store(&self, text: &str) {
        let event_type = EventType::parse("m.push_rules").unwrap();
        let key = Key::new(Scope::Global, event_type);
        let content = Content::from_stored(text.to_owned().into());
        let write = Write {
            guard: Guard::Account,
            writer: Writer::Server,
            at: 1,
            allowance: Allowance::Ordinary,
        };
        let put = Op::Put(key, content, Expectation::default());
        let store = self.server.store.memory();
        store
            .apply(&self.alice.user, write, vec![put])
            .await
            .unwrap();
    }

    async fn stored(&self) -> String {
        let entries = self.server.entries(&self.alice).await;
        entries[0].1.as_ref().unwrap().as_str().to_owned()
    }
}

async fn last_version(server: &Server) -> Value {
    let versions = server.send(Call::get("/_matrix/client/versions")).await;
    let versions = versions.assert_ok()["versions"].clone();
    versions.as_array().unwrap().last().unwrap().clone()
}

#[tokio::test]
async fn with_the_legacy_mention_rules_no_version_without_them_is_advertised() {
    let without = Lab::of(Server::start()).await;
    assert_eq!(last_version(&without.server).await, "v1.18");
    let legacy = Server::with(|setup| setup.settings.compat.legacy_mention_rules = true);
    let with = Lab::of(legacy).await;
    assert_eq!(last_version(&with.server).await, "v1.16");
    for rule in [
        "override/.m.rule.contains_display_name",
        "override/.m.rule.roomnotif",
        "content/.m.rule.contains_user_name",
    ] {
        let place = format!("global/{rule}");
        without.get(&place).await.assert_is(404, "M_NOT_FOUND");
        assert_eq!(with.get(&place).await.assert_ok()["default"], true);
    }
    let rules = with.get("").await.assert_ok();
    assert_eq!(rules["global"]["content"][0]["pattern"], "alice");
}

#[tokio::test]
async fn rules_beyond_the_limits_of_a_user_are_403_with_a_page_to_read() {
    let server = Server::with(|setup| {
        setup.limits.content_bytes_max = 300;
        setup.settings.limits_info_uri = Some("https://kitbag.test/full".to_owned());
    });
    let lab = Lab::of(server).await;
    let rule = json!({"actions": [], "note": "x".repeat(100)});
    assert_eq!(lab.put("global/room/a", &rule).await.status, 200);
    let before = lab.get("").await;
    let full = lab.put("global/room/b", &rule).await;
    full.assert_is(403, "M_USER_LIMIT_EXCEEDED");
    assert_eq!(full.json()["info_uri"], "https://kitbag.test/full");
    assert_eq!(lab.get("").await.text(), before.text());
    let fewer = json!({"actions": []});
    let fewer = lab.put("global/room/a", &fewer).await;
    assert_eq!(fewer.status, 200, "what does not grow is allowed");
}

#[tokio::test]
async fn other_actions_do_not_make_a_rule_larger_than_it_may_be() {
    let lab = Lab::of(Server::start()).await;
    let note = "x".repeat(RULE_BYTES_MAX - "{'actions':[],'note':''}".len());
    let rule = json!({"actions": [], "note": note});
    assert_eq!(lab.put("global/room/a", &rule).await.status, 200);
    let more = json!({"actions": ["notify"]});
    let refused = lab.put("global/room/a/actions", &more).await;
    refused.assert_is(413, "M_TOO_LARGE");
    assert_eq!(
        lab.get("global/room/a/actions").await.assert_ok()["actions"],
        json!([])
    );
    let larger = json!({"actions": ["notify"], "note": note});
    let refused = lab.put("global/room/a", &larger).await;
    refused.assert_is(413, "M_TOO_LARGE");
    // Of a default rule the actions alone are stored.
    let of_default = "global/underride/.m.rule.message/actions";
    assert_eq!(lab.put(of_default, &more).await.status, 200);
}

#[tokio::test]
async fn a_rule_is_switched_off_where_no_byte_is_left() {
    let rule = json!({"actions": []});
    let lab = Lab::of(Server::start()).await;
    assert_eq!(lab.put("global/room/a", &rule).await.status, 200);
    let bytes = lab.stored().await.len() as u64;
    let full = Server::with(|setup| setup.limits.content_bytes_max = bytes);
    let lab = Lab::of(full).await;
    assert_eq!(lab.put("global/room/a", &rule).await.status, 200);
    let actions = json!({"actions": ["notify"]});
    let more = lab.put("global/room/a/actions", &actions).await;
    more.assert_is(403, "M_USER_LIMIT_EXCEEDED");
    for place in ["global/room/a", "global/underride/.m.rule.message"] {
        let place = format!("{place}/enabled");
        let off = lab.put(&place, &json!({"enabled": false})).await;
        assert_eq!(off.status, 200, "{place}");
        assert_eq!(lab.get(&place).await.assert_ok()["enabled"], false);
    }
    assert!(lab.stored().await.len() as u64 > bytes);
}

#[tokio::test]
async fn rules_that_cannot_be_read_are_kept_and_the_defaults_are_served() {
    let lab = Lab::of(Server::start()).await;
    let defaults = lab.get("").await;
    let unreadable = "{\"version\":77,\"own\":\"of a newer program\"}";
    lab.store(unreadable).await;
    assert_eq!(lab.get("").await.text(), defaults.text());
    let edit = lab.put("global/room/a", &json!({"actions": []})).await;
    edit.assert_is(500, "M_UNKNOWN");
    assert!(!edit.text().contains("newer"), "{}", edit.text());
    assert_eq!(lab.stored().await, unreadable);
}

#[tokio::test]
async fn one_unreadable_rule_hides_no_other_and_outlives_edits() {
    let lab = Lab::of(Server::start()).await;
    let strange = "{\"rule_id\":[],\"of\":\"a newer program\"}";
    let known = "{\"rule_id\":\"a\",\"enabled\":true,\"rule\":{\"actions\":[]}}";
    lab.store(&format!(
        "{{\"version\":1,\"own\":{{\"room\":[{strange},{known}]}}}}"
    ))
    .await;
    let edit = lab.put("global/room/b", &json!({"actions": []})).await;
    assert_eq!(edit.status, 200);
    let rules = lab.get("global/room/").await.assert_ok();
    let ids: Vec<&Value> = rules
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["rule_id"])
        .collect();
    assert_eq!(ids, ["b", "a"]);
    assert!(lab.stored().await.contains(strange));
}

/// A body, a query or a path that is wrong, in the order in which they are told.
#[tokio::test]
async fn the_earliest_fault_of_an_edit_is_told() {
    let lab = Lab::of(Server::start()).await;
    let faults = [
        ("global/nothing/.a?before=x", "[]", 400, "M_UNRECOGNIZED"),
        ("global/room/.a?before=x", "[]", 400, "M_INVALID_PARAM"),
        (
            "global/room/a?before=x&before=y",
            "[]",
            400,
            "M_INVALID_PARAM",
        ),
        ("global/room/a?before=x", "[]", 400, "M_BAD_JSON"),
        ("global/room/a?before=x", "{}", 400, "M_MISSING_PARAM"),
        (
            "global/room/a?before=x",
            "{\"actions\":[]}",
            400,
            "M_UNKNOWN",
        ),
        ("global/room/a", "{\"actions\":[]}", 200, ""),
    ];
    for (place, body, status, errcode) in faults {
        let call = Call::put(format!("{C3}/pushrules/{place}"), body);
        let anonymous = lab.server.send(call.clone()).await;
        anonymous.assert_is(401, "M_MISSING_TOKEN");
        let reply = lab.server.send(call.by(&lab.alice)).await;
        assert_eq!(reply.row(), (status, errcode.to_owned()), "{place} {body}");
    }
}
