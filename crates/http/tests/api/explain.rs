//! Why an event notifies the user who asks.

use serde_json::{Value, json};

use crate::support::{Call, Reply, Server, Session};

const EXPLAIN: &str = "/_kitbag/client/v1/pushrules/explain";

fn question() -> Value {
    json!({
        "event": {
            "type": "m.room.message",
            "sender": "@bob:localhost",
            "content": {"body": "there is cake for Alice"},
        },
        "room_id": "!kitchen:localhost",
        "display_name": "Alice",
        "room": {"joined_members": 2, "sender_power_level": 50, "notification_levels": {}},
    })
}

async fn ask(server: &Server, user: &Session, body: impl ToString) -> Reply {
    let call = Call::post(EXPLAIN, body.to_string());
    server.send(call.by(user)).await
}

async fn put_rule(server: &Server, user: &Session, path: &str, body: &Value) {
    let path = format!("/_matrix/client/v3/pushrules/global/{path}");
    let reply = server
        .send(Call::put(path, body.to_string()).by(user))
        .await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn an_event_is_explained_by_the_rules_of_who_asks() {
    let server = Server::start();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let cake = json!({"actions": ["notify", {"set_tweak": "highlight"}], "pattern": "cake"});
    put_rule(&server, &alice, "content/cake", &cake).await;
    let told = ask(&server, &alice, question()).await.json();
    assert_eq!(told["user_id"], "@alice:localhost");
    assert_eq!(
        told["decided_by"],
        json!({"kind": "content", "rule_id": "cake"})
    );
    assert_eq!(told["notifies"], true);
    let rules = told["rules"].as_array().unwrap();
    let of = |id: &str| rules.iter().find(|rule| rule["rule_id"] == id).unwrap();
    assert_eq!(of("cake")["outcome"], "decides");
    assert_eq!(of(".m.rule.room_one_to_one")["outcome"], "overruled");
    assert_eq!(of(".m.rule.master")["outcome"], "disabled");
    // Who sent it is not notified, and has rules of their own.
    let told = ask(&server, &bob, question()).await.json();
    assert_eq!(told["own_event"], true);
    assert_eq!(told["decided_by"], Value::Null);
    assert!(
        !told.to_string().contains("cake\""),
        "a rule of another user"
    );
}

#[tokio::test]
async fn the_room_of_an_event_from_a_sync_can_be_told() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let quiet = json!({"actions": []});
    put_rule(&server, &alice, "room/!kitchen:localhost", &quiet).await;
    let told = ask(&server, &alice, question()).await.json();
    assert_eq!(told["decided_by"]["kind"], "room");
    let mut question = question();
    question.as_object_mut().unwrap().remove("room_id");
    let told = ask(&server, &alice, question).await.json();
    assert_eq!(told["decided_by"]["kind"], "underride");
}

#[tokio::test]
async fn each_account_has_a_number_of_explanations_a_minute() {
    let server = Server::with(|setup| {
        setup.settings.rate_limits.enabled = true;
        setup.settings.rate_limits.explanation_burst = 2;
        setup.settings.rate_limits.explanation_per_minute = 1;
    });
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for _ in 0..2 {
        ask(&server, &alice, question()).await.assert_ok();
    }
    let limited = ask(&server, &alice, question()).await;
    limited.assert_is(429, "M_LIMIT_EXCEEDED");
    assert!(limited.json()["retry_after_ms"].as_u64() > Some(50_000));
    ask(&server, &bob, question()).await.assert_ok();
}

#[tokio::test]
async fn what_cannot_be_explained_is_refused_by_the_table() {
    let server = Server::start();
    let alice = server.user("alice").await;
    for (body, status, errcode) in [
        ("", 400, "M_NOT_JSON"),
        ("{", 400, "M_NOT_JSON"),
        ("{}", 400, "M_MISSING_PARAM"),
        ("[{},null,\"\",{}]", 400, "M_BAD_JSON"),
        ("{\"event\":[]}", 400, "M_BAD_JSON"),
        (
            "{\"event\":{},\"user_id\":\"@bob:localhost\"}",
            400,
            "M_BAD_JSON",
        ),
        (
            "{\"event\":{},\"room\":{\"joined_members\":-1}}",
            400,
            "M_BAD_JSON",
        ),
        ("{\"event\":{},\"room\":{\"members\":1}}", 400, "M_BAD_JSON"),
    ] {
        ask(&server, &alice, body).await.assert_is(status, errcode);
    }
    let large = json!({"event": {"body": "x".repeat(128 * 1024)}});
    ask(&server, &alice, large)
        .await
        .assert_is(413, "M_TOO_LARGE");
    let reply = server.send(Call::post(EXPLAIN, "{\"event\":{}}")).await;
    reply.assert_is(401, "M_MISSING_TOKEN");
}
