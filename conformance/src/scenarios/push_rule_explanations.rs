//! Why an event notifies a user, as Kitbag explains it.

use kitbag_client::{Method, Request, path};
use serde_json::{Value, json};

use crate::actor::Actor;
use crate::expect::{Failure, Outcome, check, check_eq, check_json};
use crate::lab::Lab;
use crate::rules::KINDS;
use crate::scenario::{Feature, Scenario};

const API: &str = "Kitbag, README of kitbag-push";
const EVALUATION: &str = "CS API, Push Notifications, Push Rules";
const EXPLAIN: &str = "/_kitbag/client/v1/pushrules/explain";
const BODY_BYTES_MAX: usize = 128 * 1024;

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenarios = vec![
        Scenario::new(
            "push_rule_explanations/deciding_rule_is_named",
            EVALUATION,
            "an own content rule decides before the default rules of the room, with its actions",
            deciding_rule,
        ),
        Scenario::new(
            "push_rule_explanations/all_rules_are_there_in_their_order",
            EVALUATION,
            ".m.rule.master, then the rules as GET /pushrules/ has them, each with its conditions",
            shape,
        ),
        Scenario::new(
            "push_rule_explanations/conditions_tell_what_they_saw",
            API,
            "a condition says whether it holds, what it saw, and why it does not hold",
            conditions,
        ),
        Scenario::new(
            "push_rule_explanations/edits_are_explained_at_once",
            API,
            "a rule that is made, switched off and deleted is explained as it is now",
            edits,
        ),
        Scenario::new(
            "push_rule_explanations/rules_are_those_of_who_asks",
            API,
            "nobody is told anything of the rules of another user, whom a request cannot name",
            own_rules,
        ),
        Scenario::new(
            "push_rule_explanations/own_events_never_notify",
            EVALUATION,
            "of an event of one's own no rule decides, whichever would match",
            own_event,
        ),
        Scenario::new(
            "push_rule_explanations/bad_questions_are_400",
            API,
            "no JSON, no object, no event, an unknown member: 400; too large: 413",
            bad_questions,
        ),
        Scenario::new(
            "push_rule_explanations/no_or_unknown_token_is_401",
            "CS API, Client Authentication",
            "without a token it is 401 M_MISSING_TOKEN, with an unknown one 401 M_UNKNOWN_TOKEN",
            no_token,
        ),
    ];
    let kitbags = |scenario: Scenario| scenario.needs(Feature::Kitbag);
    scenarios.into_iter().map(kitbags).collect()
}

fn question(body: &str) -> Value {
    json!({
        "event": {
            "type": "m.room.message",
            "sender": "@sender:example.org",
            "room_id": "!kitchen:example.org",
            "content": {"msgtype": "m.text", "body": body},
        },
        "room": {"joined_members": 2},
    })
}

async fn explained(user: &Actor, question: &Value) -> Outcome<Value> {
    user.post(EXPLAIN, question).await?.ok()
}

async fn make_cake(user: &Actor) -> Outcome {
    let actions = json!(["notify", {"set_tweak": "highlight"}]);
    let rule = json!({"actions": actions, "pattern": "ca?e"});
    user.set(&path::push_rule("content", "cake"), &rule).await
}

/// What became of the rule of this ID.
fn outcome<'a>(told: &'a Value, rule_id: &str) -> Option<&'a str> {
    let mut rules = told["rules"].as_array().into_iter().flatten();
    let rule = rules.find(|rule| rule["rule_id"] == rule_id)?;
    rule["outcome"].as_str()
}

fn check_decided(told: &Value, kind: &str, rule_id: &str) -> Outcome {
    let name = json!({"kind": kind, "rule_id": rule_id});
    check_json(&told["decided_by"], &name, "decided by")?;
    check_eq(&outcome(told, rule_id), &Some("decides"), "its outcome")
}

async fn deciding_rule(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    make_cake(&user).await?;
    let told = explained(&user, &question("there is CAKE, all")).await?;
    check_decided(&told, "content", "cake")?;
    let actions = json!(["notify", {"set_tweak": "highlight", "value": true}]);
    check_json(&told["actions"], &actions, "the actions")?;
    check_json(&told["notifies"], &json!(true), "notifies")?;
    check_json(&told["user_id"], &json!(user.user_id()), "the user")?;
    check_json(&told["own_event"], &json!(false), "own event")?;
    let overruled = outcome(&told, ".m.rule.room_one_to_one");
    check_eq(&overruled, &Some("overruled"), "what would match too")?;
    let told = explained(&user, &question("pancakes")).await?;
    check_decided(&told, "underride", ".m.rule.room_one_to_one")
}

async fn shape(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    make_cake(&user).await?;
    let top = json!({"actions": [], "conditions": []});
    user.set(&path::push_rule("override", "top"), &top).await?;
    let served = user.read(&format!("{}/pushrules/", path::V3)).await?;
    let told = explained(&user, &question("hello")).await?;
    let mut expected = Vec::new();
    for kind in KINDS {
        let rules = served["global"][kind].as_array().into_iter().flatten();
        expected.extend(rules.map(|rule| json!([kind, rule["rule_id"], rule["default"]])));
    }
    let rules = told["rules"].as_array().cloned().unwrap_or_default();
    let names = rules.iter();
    let names = names.map(|rule| json!([rule["kind"], rule["rule_id"], rule["default"]]));
    check_json(&names.collect(), &expected.into(), "the rules")?;
    let first = &rules[0];
    check_json(&first["rule_id"], &json!(".m.rule.master"), "the first")?;
    check_json(&first["outcome"], &json!("disabled"), "its outcome")?;
    check_decided(&told, "override", "top")?;
    check_json(&told["notifies"], &json!(false), "notifies")?;
    let of_each = |member: &str, is_it: fn(&Value) -> bool| {
        let all = rules.iter().all(|rule| is_it(&rule[member]));
        check(all, format!("`{member}` of each rule"), told.to_string())
    };
    of_each("outcome", Value::is_string)?;
    of_each("conditions", Value::is_array)
}

async fn conditions(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    make_cake(&user).await?;
    let told = explained(&user, &question("hello")).await?;
    let rules = told["rules"].as_array().into_iter().flatten();
    let conditions = |rule_id: &str| {
        let mut rules = rules.clone();
        let rule = rules.find(|rule| rule["rule_id"] == rule_id);
        let conditions = rule.map(|rule| rule["conditions"].clone());
        conditions.ok_or_else(|| Failure::new(rule_id, told.to_string()))
    };
    let cake = &conditions("cake")?[0];
    let written = json!({"kind": "event_match", "key": "content.body", "pattern": "ca?e"});
    check_json(&cake["condition"], &written, "what a content rule asks")?;
    check_json(&cake["holds"], &json!(false), "holds")?;
    check_json(&cake["seen"], &json!("hello"), "seen")?;
    check(cake["because"].is_string(), "a reason", cake.to_string())?;
    let expected = json!([
        {
            "condition": {"kind": "room_member_count", "is": "2"},
            "holds": true,
            "seen": {"joined_members": 2},
        },
        {
            "condition": {"kind": "event_match", "key": "type", "pattern": "m.room.message"},
            "holds": true,
            "seen": "m.room.message",
        },
    ]);
    let told = conditions(".m.rule.room_one_to_one")?;
    check_json(
        &told,
        &expected,
        "the conditions of .m.rule.room_one_to_one",
    )
}

async fn edits(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let other_device = lab.second_device(&user).await?;
    let one_to_one = ("underride", ".m.rule.room_one_to_one");
    let cake = path::push_rule("content", "cake");
    for round in 0..2 {
        let told = explained(&user, &question("cake")).await?;
        check_decided(&told, one_to_one.0, one_to_one.1)?;
        check_eq(&outcome(&told, "cake"), &None, "a rule that is not there")?;
        make_cake(&other_device).await?;
        let told = explained(&user, &question("cake")).await?;
        check_decided(&told, "content", "cake")?;
        let off = json!({"enabled": false});
        other_device.set(&format!("{cake}/enabled"), &off).await?;
        let told = explained(&user, &question("cake")).await?;
        check_decided(&told, one_to_one.0, one_to_one.1)?;
        let what = format!("switched off, round {round}");
        check_eq(&outcome(&told, "cake"), &Some("disabled"), &what)?;
        other_device.delete(&cake).await?.expect_status(200)?;
    }
    Ok(())
}

async fn own_rules(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    make_cake(&alice).await?;
    // The rules of the one were looked at just before.
    let told = explained(&alice, &question("cake")).await?;
    check_decided(&told, "content", "cake")?;
    let told = explained(&bob, &question("cake")).await?;
    check_decided(&told, "underride", ".m.rule.room_one_to_one")?;
    check_json(&told["user_id"], &json!(bob.user_id()), "the user")?;
    let is_quiet = !told.to_string().contains("ca?e") && outcome(&told, "cake").is_none();
    check(is_quiet, "nothing of another user", told.to_string())?;
    let mut named = question("cake");
    named["user_id"] = alice.user_id().into();
    let refused = bob.post(EXPLAIN, &named).await?;
    refused.expect_error(400, "M_BAD_JSON")?;
    Ok(())
}

async fn own_event(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    make_cake(&user).await?;
    let mut own = question("cake");
    own["event"]["sender"] = user.user_id().into();
    let told = explained(&user, &own).await?;
    check_json(&told["own_event"], &json!(true), "own event")?;
    check_json(&told["notifies"], &json!(false), "notifies")?;
    check_json(&told["actions"], &json!([]), "the actions")?;
    check_json(&told["decided_by"], &Value::Null, "decided by")?;
    check_eq(&outcome(&told, "cake"), &Some("overruled"), "its outcome")
}

async fn bad_questions(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let largest = format!("{{\"event\":{{}}{}", " ".repeat(BODY_BYTES_MAX));
    let too_large = format!("{}}}", &largest[..BODY_BYTES_MAX]);
    let largest = format!("{}}}", &largest[..BODY_BYTES_MAX - 1]);
    for (body, status, errcode) in [
        ("", 400, "M_NOT_JSON"),
        ("{\"event\":", 400, "M_NOT_JSON"),
        ("[]", 400, "M_BAD_JSON"),
        ("{}", 400, "M_MISSING_PARAM"),
        ("{\"event\":[]}", 400, "M_BAD_JSON"),
        ("{\"event\":\"x\"}", 400, "M_BAD_JSON"),
        ("{\"event\":{},\"events\":[]}", 400, "M_BAD_JSON"),
        (
            "{\"event\":{},\"room\":{\"joined_members\":\"2\"}}",
            400,
            "M_BAD_JSON",
        ),
        (&too_large, 413, "M_TOO_LARGE"),
    ] {
        let request = Request::new(Method::POST, EXPLAIN).body(body.to_owned());
        let reply = user.send(request).await?;
        reply.expect_error(status, errcode)?;
    }
    let request = Request::new(Method::POST, EXPLAIN).body(largest);
    user.send(request).await?.expect_status(200)?;
    let get = user.get(EXPLAIN).await?;
    get.expect_error(405, "M_UNRECOGNIZED")?;
    Ok(())
}

async fn no_token(lab: Lab) -> Outcome {
    let request = Request::new(Method::POST, EXPLAIN).json(&question("cake"));
    let reply = lab.send(request.clone()).await?;
    reply.expect_error(401, "M_MISSING_TOKEN")?;
    let unknown = request.header("authorization", "Bearer unknown");
    let reply = lab.send(unknown).await?;
    reply.expect_error(401, "M_UNKNOWN_TOKEN")?;
    Ok(())
}
