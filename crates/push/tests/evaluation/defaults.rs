//! The default rules, each by events that it decides and events that it does not.

use kitbag_push::{Action, explain, highlights, notifies, sound};

use super::*;

/// What the deciding rule does, in short.
fn outcome(served: &str, event_json: &Value, room: &RoomContext) -> String {
    let rules = Ruleset::compile(served, USER);
    let event = event(event_json);
    let member = MemberContext::named(room, NAME);
    let rule = rules.deciding(&event, &member);
    let actions: &[Action] = rules.evaluate(&event, &member);
    let mut outcome = rule.map_or("none", Rule::id).replace(".m.rule.", "");
    if notifies(actions) {
        outcome.push_str(" notify");
    }
    if let Some(sound) = sound(actions) {
        outcome.push_str(" sound=");
        outcome.push_str(sound);
    }
    if highlights(actions) {
        outcome.push_str(" highlight");
    }
    outcome
}

fn state(kind: &str, state_key: &str, content: &Value) -> Value {
    let mut event = message(content);
    event["type"] = kind.into();
    event["state_key"] = state_key.into();
    event
}

fn of_type(kind: &str, content: &Value) -> Value {
    let mut event = message(content);
    event["type"] = kind.into();
    event
}

fn expect(defaults: Defaults, cases: &[(Value, RoomContext, &str)]) {
    let served = by_default(defaults);
    for (event, room, expected) in cases {
        assert_eq!(outcome(&served, event, room), *expected, "{event}");
    }
}

#[test]
fn each_default_override_rule_decides_what_it_is_for() {
    let replaced = json!({"body": "* x", "m.relates_to": {"rel_type": "m.replace"}});
    let annotated = json!({"m.relates_to": {"rel_type": "m.annotation"}});
    let notice = json!({"msgtype": "m.notice", "body": "x"});
    let acl = "m.room.server_acl";
    let message_notifies = "message notify";
    expect(
        Defaults::spec(),
        &[
            (message(&notice), room(), "suppress_notices"),
            (
                message(&json!({"msgtype": "m.notices"})),
                room(),
                message_notifies,
            ),
            (
                state("m.room.member", USER, &json!({"membership": "invite"})),
                room(),
                "invite_for_me notify sound=default",
            ),
            (
                state(
                    "m.room.member",
                    "@eve:example.org",
                    &json!({"membership": "invite"}),
                ),
                room(),
                "member_event",
            ),
            (
                state("m.room.member", USER, &json!({"membership": "join"})),
                room(),
                "member_event",
            ),
            (
                state("m.room.tombstone", "", &json!({})),
                room(),
                "tombstone notify highlight",
            ),
            (state("m.room.tombstone", "x", &json!({})), room(), "none"),
            (of_type("m.room.tombstone", &json!({})), room(), "none"),
            (of_type("m.reaction", &annotated), room(), "reaction"),
            (state(acl, "", &json!({})), room(), "room.server_acl"),
            (state(acl, "x", &json!({})), room(), "none"),
            (message(&replaced), room(), "suppress_edits"),
        ],
    );
}

#[test]
fn mentions_are_those_that_the_event_names() {
    let mentions = |mentions: Value| message(&json!({"body": "x", "m.mentions": mentions}));
    let powerful = RoomContext {
        sender_power_level: Some(50),
        ..room()
    };
    let mention = "is_user_mention notify sound=default highlight";
    expect(
        Defaults::spec(),
        &[
            (mentions(json!({"user_ids": [USER]})), room(), mention),
            (
                mentions(json!({"user_ids": ["@eve:x", USER]})),
                room(),
                mention,
            ),
            (
                mentions(json!({"user_ids": ["@Alice:example.org"]})),
                room(),
                "message notify",
            ),
            (
                mentions(json!({"user_ids": USER})),
                room(),
                "message notify",
            ),
            (
                mentions(json!({"room": true})),
                powerful.clone(),
                "is_room_mention notify highlight",
            ),
            (mentions(json!({"room": true})), room(), "message notify"),
            (
                mentions(json!({"room": "true"})),
                powerful.clone(),
                "message notify",
            ),
            (
                message(&json!({"body": "alice @room"})),
                powerful,
                "message notify",
            ),
        ],
    );
}

#[test]
fn each_default_underride_rule_decides_what_it_is_for() {
    let two = RoomContext {
        joined_members: 2,
        ..room()
    };
    expect(
        Defaults::spec(),
        &[
            (
                of_type("m.call.invite", &json!({})),
                room(),
                "call notify sound=ring",
            ),
            (
                of_type("m.room.encrypted", &json!({})),
                two.clone(),
                "encrypted_room_one_to_one notify sound=default",
            ),
            (
                of_type("m.room.encrypted", &json!({})),
                room(),
                "encrypted notify",
            ),
            (
                message(&json!({})),
                two,
                "room_one_to_one notify sound=default",
            ),
            (message(&json!({})), room(), "message notify"),
            (of_type("m.sticker", &json!({})), room(), "none"),
        ],
    );
}

#[test]
fn legacy_mention_rules_are_for_events_without_mentions_of_their_own() {
    let powerful = RoomContext {
        sender_power_level: Some(50),
        ..room()
    };
    let body = |body: &str| message(&json!({"body": body}));
    let with =
        |body: &str, mentions: Value| message(&json!({"body": body, "m.mentions": mentions}));
    let named = "contains_display_name notify sound=default highlight";
    expect(
        Defaults::with_legacy_mentions(),
        &[
            (body("hi Alice"), room(), named),
            (
                body("@room"),
                powerful.clone(),
                "roomnotif notify highlight",
            ),
            (body("@room"), room(), "message notify"),
            (with("hi Alice", json!({})), room(), "message notify"),
            (with("hi Alice", Value::Null), room(), "message notify"),
            (
                with("@room", json!({"user_ids": []})),
                powerful.clone(),
                "message notify",
            ),
        ],
    );
    let served = by_default(Defaults::with_legacy_mentions());
    let rules = Ruleset::compile(&served, USER);
    let renamed = MemberContext::named(&powerful, "Somebody");
    let id = |event_json| {
        let rule = rules.deciding(&event(&event_json), &renamed);
        rule.map(|rule| rule.id().to_owned())
    };
    assert_eq!(id(body("alice!")).unwrap(), ".m.rule.contains_user_name");
    assert_eq!(id(with("alice!", json!({}))).unwrap(), ".m.rule.message");
}

/// User IDs of old can have what is a wildcard elsewhere.
#[test]
fn the_name_of_the_user_in_a_default_rule_has_no_wildcards() {
    let odd = "@a*i?e:example.org";
    let served_to = |user| served(&Changes::default(), &Defaults::with_legacy_mentions(), user);
    let decides = |rules: &str, event_json: &Value| {
        let room = room();
        let member = MemberContext::new(&room);
        let told = explain(rules, odd, &event(event_json), &member);
        told.decided_by.map(|rule| rule.rule_id).unwrap()
    };
    let invited = |who| state("m.room.member", who, &json!({"membership": "invite"}));
    let body = |body: &str| message(&json!({"body": body}));
    let rules = served_to(odd);
    for (event, rule) in [
        (invited("@A*I?E:example.org"), ".m.rule.invite_for_me"),
        (invited("@alice:example.org"), ".m.rule.member_event"),
        (body("hey a*i?e!"), ".m.rule.contains_user_name"),
        (body("hey alice!"), ".m.rule.message"),
    ] {
        assert_eq!(decides(&rules, &event), rule, "{event}");
    }
    // What is no name, and what a user wrote, means what it says.
    let widget = json!({"kind": "event_match", "key": "state_key", "pattern": "*"});
    let name = json!({"kind": "event_match", "key": "state_key", "pattern": odd});
    for (condition, default) in [(widget, true), (name, false)] {
        let rule = json!({
            "rule_id": "any", "default": default, "enabled": true,
            "conditions": [condition], "actions": [],
        });
        let rules = json!({"global": {"override": [rule]}}).to_string();
        assert_eq!(decides(&rules, &invited("@alice:example.org")), "any");
    }
}

#[test]
fn own_rules_by_the_names_of_legacy_ones_are_for_all_events() {
    let rule = json!([{
        "rule_id": ".m.rule.roomnotif", "default": false, "conditions": [], "actions": [],
    }]);
    let event = message(&json!({"m.mentions": {}}));
    let found = deciding(&only("override", &rule), &event, &room());
    assert_eq!(found.as_deref(), Some(".m.rule.roomnotif"));
}
