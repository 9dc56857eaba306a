//! Push rules: which there are, how they are made, and where they are shown.

use kitbag_client::path;
use serde_json::{Value, json};

use crate::actor::Actor;
use crate::expect::{Outcome, check, check_eq, check_json};
use crate::lab::Lab;
use crate::rules::{KINDS, all, expect_ids, find, make, own, rule_of};
use crate::scenario::{Feature, Scenario};

const API: &str = "CS API, Push rules API";
const SYTEST: &str = "Sytest 61push/02add_rules.pl";

/// IDs that are no room or user IDs, and such as a path could be misread by.
const STRANGE_IDS: [&str; 9] = [
    "#spam:example.com",
    "тест",
    "!room:example.org",
    "a%2Fb",
    "100%",
    " a b ",
    "a?b#c&d=e+f",
    "enabled",
    "🦀",
];

#[expect(clippy::too_many_lines, reason = "a list, not a procedure")]
pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "push_rules/defaults_are_those_of_the_specification",
            "CS API, Push Notifications, Default rules (v1.17 and later); D13",
            "a fresh user has just the default rules, in their order, with their own user ID",
            defaults,
        ),
        Scenario::new(
            "push_rules/rule_of_each_kind_is_at_every_door",
            SYTEST,
            "a PUT is seen by GET of the rule, its enabled, its actions, the scope and everything",
            every_door,
        ),
        Scenario::new(
            "push_rules/rules_of_a_kind_are_an_array",
            SYTEST,
            "GET /pushrules/global/{kind}/, which Sytest asks for and the specification lacks",
            kind_array,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "push_rules/all_doors_show_the_same_bytes",
            "MSC4010; DESIGN, One idea",
            "GET /pushrules/, GET account_data/m.push_rules and /sync agree byte for byte",
            same_bytes,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "push_rules/rule_ids_are_free_strings",
            "CS API, Push rules API; Sytest 61push/02add_rules.pl",
            "also in kind room: other alphabets, percent signs and what looks like an endpoint",
            strange_ids,
        ),
        Scenario::new(
            "push_rules/rule_id_is_decoded_exactly_once",
            "RFC 3986, 2.3 and 2.4",
            "every spelling of an ID is the same rule, and %2541 is the ID %41",
            decoded_once,
        ),
        Scenario::new(
            "push_rules/ids_are_unique_within_a_kind",
            "CS API, Push rules API (v1.17)",
            "the same ID in two kinds is two rules",
            unique_in_kind,
        ),
        Scenario::new(
            "push_rules/nothing_that_was_sent_is_lost",
            "CS API, Push Notifications, Actions (v1.12: ignored, not rejected); D11",
            "unknown members, conditions and tweaks, dont_notify and coalesce come back verbatim",
            verbatim,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "push_rules/dont_notify_is_echoed",
            "Complement TestPushRuleCacheHealth; Sytest SYN-390",
            "twice in a row GET shows the action that was put",
            cache_health,
        ),
        Scenario::new(
            "push_rules/each_user_has_their_own",
            "DESIGN, law 5",
            "nobody sees or changes another user's rules",
            own_rules,
        ),
        Scenario::new(
            "push_rules/r0_path_is_the_same_rule",
            "DESIGN, HTTP",
            "what was put by /r0 is read by /v3 and the other way round",
            r0,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "push_rules/rules_outlive_the_device_that_made_them",
            API,
            "they belong to the account: a logout leaves them",
            outlive_device,
        ),
        Scenario::new(
            "push_rules/edits_of_two_devices_are_all_kept",
            "DESIGN, Storage: update",
            "thirty rules that two devices make at the same time are all there",
            concurrent,
        ),
    ]
}

async fn defaults(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let event =
        |key: &str, pattern: &str| json!({"kind": "event_match", "key": key, "pattern": pattern});
    let event_type = |pattern: &str| event("type", pattern);
    let two = json!({"kind": "room_member_count", "is": "2"});
    let highlight = json!({"set_tweak": "highlight"});
    let sound = |value: &str| json!({"set_tweak": "sound", "value": value});
    let mentioned = json!({
        "kind": "event_property_contains",
        "key": "content.m\\.mentions.user_ids",
        "value": user.user_id(),
    });
    let room_mentioned =
        json!({"kind": "event_property_is", "key": "content.m\\.mentions.room", "value": true});
    let may_notify = json!({"kind": "sender_notification_permission", "key": "room"});
    let edit = json!({
        "kind": "event_property_is",
        "key": "content.m\\.relates_to.rel_type",
        "value": "m.replace",
    });
    let to_me = event("state_key", user.user_id());
    let rule = |name: &str, conditions: Value, actions: Value| {
        json!({
            "rule_id": format!(".m.rule.{name}"),
            "default": true,
            "enabled": name != "master",
            "conditions": conditions,
            "actions": actions,
        })
    };
    let member = event_type("m.room.member");
    let invite = event("content.membership", "invite");
    let tombstone = event_type("m.room.tombstone");
    let no_key = event("state_key", "");
    let default = sound("default");
    #[rustfmt::skip] // a table is read by its columns
    let overrides = json!([
        rule("master", json!([]), json!([])),
        rule("suppress_notices", json!([event("content.msgtype", "m.notice")]), json!([])),
        rule("invite_for_me", json!([member, invite, to_me]), json!(["notify", default])),
        rule("member_event", json!([member]), json!([])),
        rule("is_user_mention", json!([mentioned]), json!(["notify", default, highlight])),
        rule("is_room_mention", json!([room_mentioned, may_notify]), json!(["notify", highlight])),
        rule("tombstone", json!([tombstone, no_key]), json!(["notify", highlight])),
        rule("reaction", json!([event_type("m.reaction")]), json!([])),
        rule("room.server_acl", json!([event_type("m.room.server_acl"), no_key]), json!([])),
        rule("suppress_edits", json!([edit]), json!([])),
    ]);
    let (message, encrypted) = (event_type("m.room.message"), event_type("m.room.encrypted"));
    #[rustfmt::skip]
    let underrides = json!([
        rule("call", json!([event_type("m.call.invite")]), json!(["notify", sound("ring")])),
        rule("encrypted_room_one_to_one", json!([two, encrypted]), json!(["notify", default])),
        rule("room_one_to_one", json!([two, message]), json!(["notify", default])),
        rule("message", json!([message]), json!(["notify"])),
        rule("encrypted", json!([encrypted]), json!(["notify"])),
    ]);
    let rules = all(&user).await?;
    check_json(&rules["override"], &overrides, "override rules")?;
    check_json(&rules["underride"], &underrides, "underride rules")?;
    for kind in ["content", "room", "sender"] {
        check_json(&rules[kind], &json!([]), kind)?;
    }
    Ok(())
}

async fn every_door(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in KINDS {
        let rule_id = format!("rule of kind {kind}");
        let place = path::push_rule(kind, &rule_id);
        let actions = json!(["notify", {"set_tweak": "sound", "value": "beep"}]);
        let mut rule = rule_of(kind, &actions);
        user.set(&place, &rule).await?;
        rule["rule_id"] = rule_id.as_str().into();
        rule["default"] = false.into();
        rule["enabled"] = true.into();
        user.get(&place).await?.expect_json(&rule)?;
        let enabled = user.get(&format!("{place}/enabled")).await?;
        enabled.expect_json(&json!({"enabled": true}))?;
        let shown = user.get(&format!("{place}/actions")).await?;
        shown.expect_json(&json!({"actions": actions}))?;
        let scope = all(&user).await?;
        check_json(find(&scope[kind], &rule_id)?, &rule, "the scope with")?;
        let everything = user.read(&format!("{}/pushrules/", path::V3)).await?;
        check_json(&everything["global"], &scope, "everything with")?;
    }
    Ok(())
}

async fn kind_array(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in KINDS {
        make(&user, kind, "a").await?;
        make(&user, kind, "b").await?;
        let rules = all(&user).await?;
        user.get(&path::push_rule(kind, ""))
            .await?
            .expect_json(&rules[kind])?;
        check_eq(&own(&user, kind).await?.len(), &2, "own rules")?;
    }
    Ok(())
}

async fn same_bytes(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    agree(&user).await?;
    let odd = "{ \"actions\" : [\"notify\", {\"set_tweak\":\"x\",\"value\":1.50}] }";
    let room = path::push_rule("room", "!a:example.org");
    user.put_bytes(&room, odd).await?.expect_json(&json!({}))?;
    agree(&user).await?;
    user.set(&format!("{room}/enabled"), &json!({"enabled": false}))
        .await?;
    agree(&user).await?;
    let call = path::push_rule("underride", ".m.rule.call");
    user.set(&format!("{call}/actions"), &json!({"actions": []}))
        .await?;
    agree(&user).await?;
    user.delete(&room).await?.expect_json(&json!({}))?;
    agree(&user).await
}

/// The rules are the same text at every door, and in a sync.
async fn agree(user: &Actor) -> Outcome {
    let read = |path: String| async move { user.get(&path).await?.expect_status(200) };
    let everything = read(format!("{}/pushrules/", path::V3)).await?;
    let entry = read(user.global("m.push_rules")).await?;
    let text = String::from_utf8_lossy(&everything.response.body).into_owned();
    entry.expect_bytes(text.as_bytes())?;
    let scope = read(format!("{}/pushrules/global/", path::V3)).await?;
    let scope = String::from_utf8_lossy(&scope.response.body).into_owned();
    check_eq(&text, &format!("{{\"global\":{scope}}}"), "everything")?;
    let sync = read(format!("{}/sync", path::V3)).await?;
    let sync = String::from_utf8_lossy(&sync.response.body).into_owned();
    check(
        sync.contains(&format!("\"content\":{text}")),
        format!("a sync with the content {text}"),
        sync,
    )
}

async fn strange_ids(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in KINDS {
        for rule_id in STRANGE_IDS {
            make(&user, kind, rule_id).await?;
            let rule = user.read(&path::push_rule(kind, rule_id)).await?;
            check_json(&rule["rule_id"], &json!(rule_id), "a rule with the ID")?;
        }
        let mut newest_first = STRANGE_IDS;
        newest_first.reverse();
        expect_ids(&user, kind, &newest_first).await?;
        for rule_id in STRANGE_IDS {
            let gone = user.delete(&path::push_rule(kind, rule_id)).await?;
            gone.expect_json(&json!({}))?;
        }
        expect_ids(&user, kind, &[]).await?;
    }
    Ok(())
}

async fn decoded_once(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let base = path::push_rule("room", "");
    user.set(&format!("{base}%61%42"), &json!({"actions": []}))
        .await?;
    user.set(&format!("{base}%2541"), &json!({"actions": []}))
        .await?;
    expect_ids(&user, "room", &["%41", "aB"]).await?;
    for spelling in ["aB", "%61B", "a%42"] {
        let rule = user.read(&format!("{base}{spelling}")).await?;
        check_json(&rule["rule_id"], &json!("aB"), "the rule")?;
    }
    user.get(&format!("{base}A"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn unique_in_kind(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in KINDS {
        make(&user, kind, "same").await?;
    }
    let disabled = format!("{}/enabled", path::push_rule("room", "same"));
    user.set(&disabled, &json!({"enabled": false})).await?;
    user.delete(&path::push_rule("sender", "same"))
        .await?
        .expect_json(&json!({}))?;
    for kind in KINDS {
        let rules = own(&user, kind).await?;
        let enabled: Vec<&Value> = rules.iter().map(|rule| &rule["enabled"]).collect();
        let expected = match kind {
            "sender" => vec![],
            _ => vec![json!(kind != "room")],
        };
        check_eq(&enabled, &expected.iter().collect(), kind)?;
    }
    Ok(())
}

async fn verbatim(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let conditions = r#"[{"kind":"org.example.unknown","x":1.50},
        { "kind":"event_match","key":"type","pattern":"a","more":[] }]"#;
    let actions = r#"["dont_notify","coalesce",{"set_tweak":"org.example.flash","value":{"n":1e3}},
        {"set_tweak":"sound","value":"x","org.example.volume":11}]"#;
    let body = format!(
        r#"{{"org.example.note":"\u00e9 é","actions":{actions},"conditions":{conditions},"x":3}}"#
    );
    let place = path::push_rule("override", "odd");
    let put = user.put_bytes(&place, body.clone()).await?;
    put.expect_json(&json!({}))?;
    let inside = &body[1..body.len() - 1];
    let everything = format!("{}/pushrules/", path::V3);
    for door in [place.clone(), everything, user.global("m.push_rules")] {
        let reply = user.get(&door).await?.expect_status(200)?;
        let text = String::from_utf8_lossy(&reply.response.body).into_owned();
        check(text.contains(inside), inside, text)?;
    }
    let shown = user.get(&format!("{place}/actions")).await?;
    shown.expect_bytes(format!("{{\"actions\":{actions}}}").as_bytes())?;
    let changed = r#"[ "coalesce" , "dont_notify",{"set_tweak":"a","value":-0.0} ]"#;
    for place in [place, path::push_rule("override", ".m.rule.reaction")] {
        let door = format!("{place}/actions");
        let body = format!("{{\"actions\":{changed}}}");
        user.put_bytes(&door, body.clone())
            .await?
            .expect_json(&json!({}))?;
        user.get(&door).await?.expect_bytes(body.as_bytes())?;
    }
    Ok(())
}

async fn cache_health(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let place = path::push_rule("sender", user.user_id());
    user.set(&place, &json!({"actions": ["dont_notify"]}))
        .await?;
    for _ in 0..2 {
        let rules = user.read(&format!("{}/pushrules/", path::V3)).await?;
        let action = &rules["global"]["sender"][0]["actions"][0];
        check_json(action, &json!("dont_notify"), "the action")?;
    }
    Ok(())
}

async fn own_rules(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    make(&alice, "room", "hers").await?;
    make(&bob, "room", "his").await?;
    let hers = path::push_rule("room", "hers");
    bob.get(&hers).await?.expect_error(404, "M_NOT_FOUND")?;
    bob.delete(&hers).await?.expect_error(404, "M_NOT_FOUND")?;
    expect_ids(&alice, "room", &["hers"]).await?;
    expect_ids(&bob, "room", &["his"]).await?;
    // Who has the very same rules has them with their own name still.
    let (carol, dave) = (lab.user().await?, lab.user().await?);
    for user in [&carol, &dave] {
        make(user, "room", &format!("of {}", alice.user_id())).await?;
        let place = path::push_rule("override", ".m.rule.invite_for_me");
        let rule = user.read(&place).await?;
        let invited = &rule["conditions"][2]["pattern"];
        check_json(invited, &json!(user.user_id()), "who is invited")?;
    }
    Ok(())
}

async fn r0(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let old = |path: &str| path.replacen("/v3/", "/r0/", 1);
    let place = path::push_rule("room", "old");
    user.set(&old(&place), &json!({"actions": ["notify"]}))
        .await?;
    expect_ids(&user, "room", &["old"]).await?;
    let enabled = format!("{place}/enabled");
    user.set(&enabled, &json!({"enabled": false})).await?;
    user.get(&old(&enabled))
        .await?
        .expect_json(&json!({"enabled": false}))?;
    let gone = user.delete(&old(&place)).await?;
    gone.expect_json(&json!({}))?;
    expect_ids(&user, "room", &[]).await
}

async fn outlive_device(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let second = lab.second_device(&user).await?;
    make(&second, "room", "kept").await?;
    second
        .post(&format!("{}/logout", path::V3), &json!({}))
        .await?
        .expect_json(&json!({}))?;
    second
        .get(&path::push_rule("room", "kept"))
        .await?
        .expect_error(401, "M_UNKNOWN_TOKEN")?;
    expect_ids(&user, "room", &["kept"]).await
}

async fn concurrent(lab: Lab) -> Outcome {
    const RULES: usize = 15;
    let first = lab.user().await?;
    let second = lab.second_device(&first).await?;
    let half = |user: Actor, name: &'static str| async move {
        for number in 0..RULES {
            make(&user, "room", &format!("{name} {number}")).await?;
        }
        Outcome::Ok(())
    };
    tokio::try_join!(half(first.clone(), "first"), half(second, "second"))?;
    let rules = own(&first, "room").await?;
    let of = |name: &str| {
        let ids = rules.iter().filter_map(|rule| rule["rule_id"].as_str());
        ids.filter_map(|id| id.strip_prefix(name)?.trim().parse().ok())
            .collect::<Vec<usize>>()
    };
    let newest_first: Vec<usize> = (0..RULES).rev().collect();
    for name in ["first", "second"] {
        check_eq(&of(name), &newest_first, &format!("rules of {name}"))?;
    }
    Ok(())
}
