//! Push rules: what is refused, and how.

use kitbag_client::{Method, Request, path};
use serde_json::{Value, json};

use crate::actor::Actor;
use crate::expect::{Outcome, check_json};
use crate::lab::Lab;
use crate::rules::{KINDS, all, expect_ids, make, rule_of};
use crate::scenario::{Feature, Scenario};

const API: &str = "CS API, Push rules API";
const TORTURE: &str = "Sytest 61push/80torture.pl";

/// Bytes of a rule as a client sends it.
const RULE_BYTES_MAX: usize = 16 * 1024;
const RULE_ID_BYTES_MAX: usize = 512;
const CONDITIONS_MAX: usize = 64;
const ACTIONS_MAX: usize = 32;
const WILDCARDS_MAX: usize = 64;

#[expect(clippy::too_many_lines, reason = "a list, not a procedure")]
pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "push_rule_refusals/no_token_is_401",
            API,
            "every method on every path needs a token, and it is checked before the path",
            no_token,
        ),
        Scenario::new(
            "push_rule_refusals/bare_path_is_404",
            "Sytest 61push/80torture.pl; D10",
            "GET /pushrules without a slash is 404 M_UNRECOGNIZED",
            bare_path,
        ),
        Scenario::new(
            "push_rule_refusals/misplaced_requests_are_400_unrecognized",
            "Sytest 61push/80torture.pl; D10",
            "unknown scope, kind and attribute, a missing slash and a missing ID, GET or PUT",
            misplaced,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "push_rule_refusals/unknown_rule_is_404_not_found",
            "CS API, Push rules API; Sytest 61push/05_set_actions.pl, 07_set_enabled.pl",
            "GET, DELETE, /enabled and /actions of own and default rules that are not there",
            unknown_rule,
        ),
        Scenario::new(
            "push_rule_refusals/default_rules_are_not_made_or_deleted",
            API,
            "IDs with a leading dot are 400, and so is the deletion of a default rule",
            no_defaults,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "push_rule_refusals/slashes_in_an_id_are_400",
            "CS API, Push rules API; Sytest 61push/80torture.pl",
            "neither / nor \\ stand in the ID of a rule, however encoded",
            slashes,
        ),
        Scenario::new(
            "push_rule_refusals/id_that_is_not_utf8_is_400",
            "RFC 3986; D19",
            "a percent-encoded byte that is no UTF-8 is 400",
            not_utf8,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "push_rule_refusals/malformed_rules_are_400",
            TORTURE,
            "no actions or conditions or pattern, a condition without kind, invalid actions",
            malformed,
        ),
        Scenario::new(
            "push_rule_refusals/malformed_rules_have_their_errcodes",
            "CS API, Standard error response; D15",
            "M_MISSING_PARAM for what is missing, M_BAD_JSON for what is wrong",
            errcodes,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "push_rule_refusals/bodies_that_are_no_objects_are_400",
            "CS API, Standard error response; D2",
            "M_NOT_JSON for broken JSON and M_BAD_JSON for other values, at all three doors",
            no_objects,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "push_rule_refusals/enabled_must_be_a_boolean",
            TORTURE,
            "anything else is 400 and changes nothing",
            enabled_boolean,
        ),
        Scenario::new(
            "push_rule_refusals/limits_of_a_rule_are_inclusive",
            "DESIGN, law 10; SPEC 7.2",
            "a rule of 16 KiB, an ID of 512 bytes, and so on; one more is refused",
            limits,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "push_rule_refusals/other_methods_are_405",
            "CS API, Unrecognized requests",
            "POST everywhere and DELETE of an attribute are 405 M_UNRECOGNIZED",
            other_methods,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "push_rule_refusals/refused_edits_change_nothing",
            API,
            "after refusals of each sort the rules are what they were",
            change_nothing,
        ),
    ]
}

async fn no_token(lab: Lab) -> Outcome {
    let rule = path::push_rule("room", "a");
    let base = format!("{}/pushrules", path::V3);
    for (method, path) in [
        (Method::GET, format!("{base}/")),
        (Method::GET, format!("{base}/global/")),
        (Method::GET, rule.clone()),
        (Method::PUT, rule.clone()),
        (Method::DELETE, rule.clone()),
        (Method::GET, format!("{rule}/enabled")),
        (Method::PUT, format!("{rule}/enabled")),
        (Method::GET, format!("{rule}/actions")),
        (Method::PUT, format!("{rule}/actions")),
    ] {
        let request = Request::new(method, path).body("{}");
        lab.send(request.clone())
            .await?
            .expect_error(401, "M_MISSING_TOKEN")?;
        lab.send(request.token("kt_nothing"))
            .await?
            .expect_error(401, "M_UNKNOWN_TOKEN")?;
    }
    Ok(())
}

async fn bare_path(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.get(&format!("{}/pushrules", path::V3))
        .await?
        .expect_error(404, "M_UNRECOGNIZED")?;
    Ok(())
}

async fn misplaced(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    make(&user, "room", "a").await?;
    let everywhere = [
        "global",
        "device/",
        "Global/",
        "device/room/a",
        "global/room",
        "global/nothing/",
        "global/postcontent/a",
        "global/Room/a",
        "global/nothing/a",
        "global/room/a/nothing",
        "global/nothing/a/enabled",
        "device/room/a/enabled",
    ];
    let put_only = ["", "global/", "global/room/"];
    for place in everywhere.into_iter().chain(put_only) {
        let path = format!("{}/pushrules/{place}", path::V3);
        user.put(&path, &json!({"actions": [], "enabled": true}))
            .await?
            .expect_error(400, "M_UNRECOGNIZED")?;
        if !put_only.contains(&place) {
            user.get(&path).await?.expect_error(400, "M_UNRECOGNIZED")?;
        }
        // The attributes have no DELETE, whatever they are of.
        if place != "global/nothing/a/enabled" {
            let reply = user.delete(&path).await?;
            reply.expect_error(400, "M_UNRECOGNIZED")?;
        }
        let request = Request::new(Method::PUT, path).body("{}");
        let reply = lab.send(request).await?;
        reply.expect_error(401, "M_MISSING_TOKEN")?;
    }
    expect_ids(&user, "room", &["a"]).await
}

async fn unknown_rule(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in KINDS {
        for rule_id in ["nothing", ".m.rule.nothing"] {
            let place = path::push_rule(kind, rule_id);
            for door in [
                place.clone(),
                format!("{place}/enabled"),
                format!("{place}/actions"),
            ] {
                user.get(&door).await?.expect_error(404, "M_NOT_FOUND")?;
            }
            let state = json!({"enabled": true});
            let reply = user.put(&format!("{place}/enabled"), &state).await?;
            reply.expect_error(404, "M_NOT_FOUND")?;
            let state = json!({"actions": []});
            let reply = user.put(&format!("{place}/actions"), &state).await?;
            reply.expect_error(404, "M_NOT_FOUND")?;
            let reply = user.delete(&place).await?;
            reply.expect_error(404, "M_NOT_FOUND")?;
        }
    }
    Ok(())
}

async fn no_defaults(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let before = all(&user).await?;
    for kind in KINDS {
        for rule_id in [".m.rule.master", ".mine", "."] {
            let place = path::push_rule(kind, rule_id);
            // Written out, since a lone dot is a step in a path and not an ID.
            let place = place.replace("/.", "/%2E");
            user.put(&place, &rule_of(kind, &json!(["notify"])))
                .await?
                .expect_error(400, "M_INVALID_PARAM")?;
        }
    }
    for (kind, rule_id) in [
        ("override", ".m.rule.master"),
        ("underride", ".m.rule.call"),
    ] {
        let place = path::push_rule(kind, rule_id);
        user.set(&format!("{place}/actions"), &json!({"actions": []}))
            .await?;
        let reply = user.delete(&place).await?;
        reply.expect_error(400, "M_INVALID_PARAM")?;
        user.get(&format!("{place}/actions"))
            .await?
            .expect_json(&json!({"actions": []}))?;
    }
    let mut expected = before;
    expected["underride"][0]["actions"] = json!([]);
    check_json(&all(&user).await?, &expected, "rules")
}

async fn slashes(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in KINDS {
        for rule_id in ["a/b", "/", "\\", "a\\b", "enabled/", "a/enabled"] {
            let place = path::push_rule(kind, rule_id);
            user.put(&place, &rule_of(kind, &json!(["notify"])))
                .await?
                .expect_status(400)?;
        }
        expect_ids(&user, kind, &[]).await?;
    }
    Ok(())
}

async fn not_utf8(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let place = format!("{}%FF", path::push_rule("room", ""));
    user.put(&place, &json!({"actions": []}))
        .await?
        .expect_error(400, "M_INVALID_PARAM")?;
    Ok(())
}

/// Kinds and bodies that are no rules, with the errcode that Kitbag gives.
fn no_rules() -> Vec<(&'static str, Value, &'static str)> {
    let match_type = json!({"kind": "event_match", "key": "type", "pattern": "a"});
    let conditions = |condition: Value| json!({"actions": [], "conditions": [condition]});
    let mut rows = vec![
        ("override", json!({"actions": []}), "M_MISSING_PARAM"),
        ("underride", json!({"actions": []}), "M_MISSING_PARAM"),
        ("content", json!({"actions": []}), "M_MISSING_PARAM"),
        (
            "override",
            json!({"actions": [], "conditions": {}}),
            "M_BAD_JSON",
        ),
        (
            "override",
            json!({"actions": [], "conditions": match_type}),
            "M_BAD_JSON",
        ),
        (
            "content",
            json!({"actions": [], "pattern": 1}),
            "M_BAD_JSON",
        ),
        (
            "content",
            json!({"actions": [], "pattern": null}),
            "M_BAD_JSON",
        ),
    ];
    for condition in [
        json!({}),
        json!("event_match"),
        json!({"key": "type", "pattern": "a"}),
        json!({"kind": 1}),
        json!({"kind": "event_match", "pattern": "a"}),
        json!({"kind": "event_match", "key": "type"}),
        json!({"kind": "event_match", "key": 1, "pattern": "a"}),
        json!({"kind": "event_property_is", "key": "type"}),
        json!({"kind": "event_property_contains", "value": "a"}),
        json!({"kind": "room_member_count"}),
        json!({"kind": "room_member_count", "is": "many"}),
        json!({"kind": "sender_notification_permission"}),
    ] {
        rows.push(("override", conditions(condition), "M_BAD_JSON"));
    }
    for actions in [
        json!({}),
        json!("notify"),
        json!(null),
        json!(["stun"]),
        json!([1]),
        json!([{}]),
        json!([["notify"]]),
        json!([{"set_tweak": 1}]),
        json!([{"value": "default"}]),
    ] {
        rows.push(("room", json!({"actions": actions}), "M_BAD_JSON"));
    }
    for kind in KINDS {
        let mut rule = rule_of(kind, &json!([]));
        rule.as_object_mut().map(|rule| rule.remove("actions"));
        rows.push((kind, rule, "M_MISSING_PARAM"));
    }
    rows
}

async fn malformed(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    // Of conditions these are what Sytest sends; the other rows are Kitbag's.
    let tortures = no_rules().into_iter().filter(|(_, rule, _)| {
        let condition = &rule["conditions"][0];
        condition.is_null() || condition["kind"].is_null()
    });
    for (kind, rule, _) in tortures {
        let place = path::push_rule(kind, "a");
        user.put(&place, &rule).await?.expect_status(400)?;
        expect_ids(&user, kind, &[]).await?;
    }
    Ok(())
}

async fn errcodes(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for (kind, rule, errcode) in no_rules() {
        let place = path::push_rule(kind, "a");
        user.put(&place, &rule).await?.expect_error(400, errcode)?;
        expect_ids(&user, kind, &[]).await?;
    }
    make(&user, "room", "a").await?;
    let door = format!("{}/actions", path::push_rule("room", "a"));
    for (body, errcode) in [
        (json!({}), "M_MISSING_PARAM"),
        (json!({"actions": "notify"}), "M_BAD_JSON"),
        (json!({"actions": ["stun"]}), "M_BAD_JSON"),
    ] {
        user.put(&door, &body).await?.expect_error(400, errcode)?;
    }
    user.get(&door)
        .await?
        .expect_json(&json!({"actions": ["notify"]}))
}

async fn no_objects(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    make(&user, "room", "a").await?;
    let place = path::push_rule("room", "a");
    for door in [
        place.clone(),
        format!("{place}/enabled"),
        format!("{place}/actions"),
    ] {
        for (body, errcode) in [
            (&b""[..], "M_NOT_JSON"),
            (b"{", "M_NOT_JSON"),
            (b"{\"actions\":[]}}", "M_NOT_JSON"),
            (b"{\"actions\":[\"\xff\"]}", "M_NOT_JSON"),
            (b"[]", "M_BAD_JSON"),
            (b"null", "M_BAD_JSON"),
            (b"\"notify\"", "M_BAD_JSON"),
        ] {
            let reply = user.put_bytes(&door, body).await?;
            reply.expect_error(400, errcode)?;
        }
    }
    user.get(&format!("{place}/actions"))
        .await?
        .expect_json(&json!({"actions": ["notify"]}))
}

async fn enabled_boolean(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    make(&user, "room", "a").await?;
    let door = format!("{}/enabled", path::push_rule("room", "a"));
    for body in [
        json!({"enabled": "true"}),
        json!({"enabled": 0}),
        json!({"enabled": null}),
        json!({}),
    ] {
        user.put(&door, &body).await?.expect_status(400)?;
    }
    user.get(&door)
        .await?
        .expect_json(&json!({"enabled": true}))
}

async fn limits(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let room = path::push_rule("room", "a");
    let frame = r#"{"actions":[],"x":""}"#.len();
    let sized = |bytes: usize| json!({"actions": [], "x": "x".repeat(bytes - frame)});
    accepts_up_to(&user, &room, RULE_BYTES_MAX, sized, (413, "M_TOO_LARGE")).await?;
    for unit in ["x", "é"] {
        let id = |bytes: usize| path::push_rule("room", &unit.repeat(bytes / unit.len()));
        let rule = json!({"actions": []});
        user.set(&id(RULE_ID_BYTES_MAX), &rule).await?;
        let reply = user.put(&id(RULE_ID_BYTES_MAX + 2), &rule).await?;
        reply.expect_error(400, "M_INVALID_PARAM")?;
    }
    let many = (400, "M_INVALID_PARAM");
    let actions = |count| json!({"actions": vec!["notify"; count]});
    accepts_up_to(&user, &room, ACTIONS_MAX, actions, many).await?;
    let door = format!("{room}/actions");
    accepts_up_to(&user, &door, ACTIONS_MAX, actions, many).await?;
    let place = path::push_rule("override", "a");
    let unknown = json!({"kind": "x"});
    let conditions = |count| json!({"actions": [], "conditions": vec![&unknown; count]});
    accepts_up_to(&user, &place, CONDITIONS_MAX, conditions, many).await?;
    let pattern = |count| "*?".repeat(count / 2) + &"*".repeat(count % 2);
    let condition = |count| {
        let condition = json!({"kind": "event_match", "key": "type", "pattern": pattern(count)});
        json!({"actions": [], "conditions": [condition]})
    };
    accepts_up_to(&user, &place, WILDCARDS_MAX, condition, many).await?;
    let content = |count| json!({"actions": [], "pattern": pattern(count)});
    let place = path::push_rule("content", "a");
    accepts_up_to(&user, &place, WILDCARDS_MAX, content, many).await
}

/// Fails unless a body of `limit` is taken and one of one more refused so.
async fn accepts_up_to(
    user: &Actor,
    path: &str,
    limit: usize,
    body: impl Fn(usize) -> Value,
    (status, errcode): (u16, &str),
) -> Outcome {
    user.set(path, &body(limit)).await?;
    let reply = user.put(path, &body(limit + 1)).await?;
    reply.expect_error(status, errcode)?;
    Ok(())
}

async fn other_methods(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    make(&user, "room", "a").await?;
    let rule = path::push_rule("room", "a");
    let base = format!("{}/pushrules", path::V3);
    let attributes = [format!("{rule}/enabled"), format!("{rule}/actions")];
    for path in [format!("{base}/"), format!("{base}/global/"), rule]
        .iter()
        .chain(&attributes)
    {
        let reply = user.post(path, &json!({"actions": []})).await?;
        reply.expect_error(405, "M_UNRECOGNIZED")?;
    }
    for path in &attributes {
        let reply = user.delete(path).await?;
        reply.expect_error(405, "M_UNRECOGNIZED")?;
    }
    expect_ids(&user, "room", &["a"]).await
}

async fn change_nothing(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    make(&user, "room", "a").await?;
    let before = all(&user).await?;
    let known = path::push_rule("room", "a");
    let unknown = path::push_rule("room", "b");
    for (path, body) in [
        (known.clone(), json!({"actions": ["stun"]})),
        (format!("{known}?before=b"), json!({"actions": []})),
        (format!("{known}/enabled"), json!({"enabled": "no"})),
        (format!("{known}/actions"), json!({"actions": [{}]})),
        (format!("{unknown}?after=c"), json!({"actions": []})),
        (format!("{unknown}/enabled"), json!({"enabled": false})),
        (format!("{unknown}/actions"), json!({"actions": []})),
    ] {
        user.put(&path, &body).await?.expect_refusal()?;
    }
    user.delete(&unknown).await?.expect_refusal()?;
    check_json(&all(&user).await?, &before, "the rules")
}
