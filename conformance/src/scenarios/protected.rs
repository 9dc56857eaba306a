//! Types that the server itself manages (MSC4010).

use kitbag_client::{Method, Request, Scope, path};
use serde_json::{Value, json};

use crate::actor::Actor;
use crate::expect::{Outcome, check, check_json};
use crate::lab::Lab;
use crate::scenario::{Feature, Scenario};

const MSC4010: &str = "CS API, Client Config, Server Behaviour (MSC4010); D1";
const ROOM: &str = "!unknown:example.org";
const TYPES: [&str; 2] = ["m.fully_read", "m.push_rules"];

/// Other spellings of the same types.
const SPELLINGS: [&str; 4] = [
    "m%2Epush_rules",
    "%6D.push_rules",
    "m.fully%5Fread",
    "m%2efully%5fread",
];

#[expect(clippy::too_many_lines, reason = "a list, not a procedure")]
pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "protected/put_global_is_405_bad_json",
            MSC4010,
            "PUT of m.fully_read or m.push_rules as global data is 405 M_BAD_JSON",
            put_global,
        ),
        Scenario::new(
            "protected/put_room_is_405_bad_json",
            MSC4010,
            "PUT of m.fully_read or m.push_rules as room data is 405 M_BAD_JSON",
            put_room,
        ),
        Scenario::new(
            "protected/put_device_is_405_bad_json",
            "MSC4331; D1",
            "PUT of m.fully_read or m.push_rules as device data is 405 M_BAD_JSON",
            put_device,
        )
        .needs(Feature::Msc4331),
        Scenario::new(
            "protected/put_with_bad_body_is_405_bad_json",
            "D1",
            "the type is checked before the body: 405 also for broken JSON and non-objects",
            put_bad_body,
        ),
        Scenario::new(
            "protected/put_encoded_spelling_is_405_bad_json",
            "RFC 3986, 2.3; DESIGN",
            "m%2Epush_rules is m.push_rules",
            put_spellings,
        ),
        Scenario::new(
            "protected/put_through_r0_is_405_bad_json",
            "DESIGN, HTTP",
            "the old prefix does not go round the rule",
            put_r0,
        ),
        Scenario::new(
            "protected/similar_types_are_ordinary",
            MSC4010,
            "types that only look like the protected ones can be stored",
            similar_types,
        ),
        Scenario::new(
            "protected/delete_under_msc3391_is_405_bad_json",
            "MSC3391; MSC4010; D3",
            "the deletion path refuses protected types in global and room scope",
            delete_unstable,
        )
        .needs(Feature::Msc3391),
        Scenario::new(
            "protected/delete_is_405_bad_json_on_every_path",
            "D3",
            "stable, unstable, r0 and device paths, any spelling, also with a broken body",
            delete_everywhere,
        )
        .needs(Feature::Kitbag)
        .needs(Feature::Msc3391),
        Scenario::new(
            "protected/delete_on_device_paths_is_405_bad_json",
            "D1; D3",
            "the device paths, under all their names, refuse to delete protected types",
            delete_device_paths,
        )
        .needs(Feature::Msc3391)
        .needs(Feature::Msc4331),
        Scenario::new(
            "protected/push_rules_are_readable_before_any_write",
            "CS API, Push rules; SPEC 1.4",
            "GET of m.push_rules is 200 with a ruleset of five kinds for a fresh user",
            push_rules_readable,
        ),
        Scenario::new(
            "protected/push_rules_are_the_same_everywhere",
            "CS API, Push rules; MSC4010",
            "GET account_data, GET /pushrules/ and an initial sync show the same rules",
            push_rules_agree,
        ),
        Scenario::new(
            "protected/refused_put_leaves_the_rules_alone",
            MSC4010,
            "after a refused PUT the push rules are what they were, and no sync has an update",
            refused_put_changes_nothing,
        ),
        Scenario::new(
            "protected/push_rules_of_a_room_are_404",
            "D9",
            "GET of m.push_rules in a room is 404 M_NOT_FOUND",
            room_push_rules,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "protected/fully_read_of_the_account_is_404",
            "SPEC 1.4; D9",
            "GET of global m.fully_read is 404 M_NOT_FOUND",
            global_fully_read,
        ),
        Scenario::new(
            "protected/other_users_push_rules_are_403",
            "CS API, Client Config; DESIGN, law 5",
            "nobody reads another user's push rules",
            others_push_rules,
        ),
    ]
}

async fn put_global(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in TYPES {
        refuses_put(&user, &user.global(kind)).await?;
    }
    Ok(())
}

async fn put_room(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in TYPES {
        refuses_put(&user, &user.room(ROOM, kind)).await?;
    }
    Ok(())
}

async fn put_device(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in TYPES {
        refuses_put(&user, &user.own(kind)).await?;
        let unstable = user.unstable_path_of(Scope::Device(user.device_id()), kind);
        refuses_put(&user, &unstable).await?;
        user.get(&user.own(kind))
            .await?
            .expect_error(404, "M_NOT_FOUND")?;
    }
    Ok(())
}

async fn refuses_put(user: &Actor, path: &str) -> Outcome {
    for content in [
        json!({"a": 1}),
        json!({}),
        json!({"global": {}, "event_id": "$e"}),
    ] {
        user.put(path, &content)
            .await?
            .expect_error(405, "M_BAD_JSON")?;
    }
    Ok(())
}

async fn put_bad_body(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in TYPES {
        for path in [user.global(kind), user.room(ROOM, kind)] {
            for body in [&b""[..], b"{", b"[]", b"null", b"{\"a\":\"\xff\"}"] {
                user.put_bytes(&path, body)
                    .await?
                    .expect_error(405, "M_BAD_JSON")?;
            }
        }
    }
    Ok(())
}

async fn put_spellings(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for spelling in SPELLINGS {
        for base in [user.global(""), user.room(ROOM, "")] {
            let reply = user.put(&format!("{base}{spelling}"), &json!({})).await?;
            reply.expect_error(405, "M_BAD_JSON")?;
        }
    }
    Ok(())
}

async fn put_r0(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in TYPES {
        for path in [user.global(kind), user.room(ROOM, kind)] {
            refuses_put(&user, &path.replacen("/v3/", "/r0/", 1)).await?;
        }
    }
    Ok(())
}

async fn similar_types(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in [
        "m.push_rules.mine",
        "M.push_rules",
        "m.push_rules ",
        "m.fully_read2",
        "m.push%5Frules",
    ] {
        user.set(&user.global(kind), &json!({"kind": kind})).await?;
        user.get(&user.global(kind))
            .await?
            .expect_json(&json!({"kind": kind}))?;
    }
    Ok(())
}

async fn delete_unstable(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in TYPES {
        for scope in [Scope::Global, Scope::Room(ROOM)] {
            let path = user.deletion_of(scope, kind);
            user.delete(&path).await?.expect_error(405, "M_BAD_JSON")?;
        }
    }
    push_rules_readable_by(&user).await
}

async fn delete_everywhere(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for spelling in TYPES.into_iter().chain(SPELLINGS) {
        for base in [
            user.global(""),
            user.room(ROOM, ""),
            user.deletion_of(Scope::Global, ""),
            user.deletion_of(Scope::Room(ROOM), ""),
            user.global("").replacen("/v3/", "/r0/", 1),
            user.room(ROOM, "").replacen("/v3/", "/r0/", 1),
        ] {
            refuses_delete(&user, &format!("{base}{spelling}")).await?;
        }
    }
    push_rules_readable_by(&user).await
}

async fn delete_device_paths(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let segment = path::segment(user.device_id());
    let owner = path::segment(user.user_id());
    for prefix in [path::V3, "/_matrix/client/r0", path::MSC3391] {
        for name in ["account_data", "net.zemos.account_data"] {
            for kind in TYPES {
                let path = format!("{prefix}/user/{owner}/devices/{segment}/{name}/{kind}");
                refuses_delete(&user, &path).await?;
            }
        }
    }
    Ok(())
}

async fn refuses_delete(user: &Actor, path: &str) -> Outcome {
    for body in ["", "{}", "{", "[]"] {
        let request = Request::new(Method::DELETE, path).body(body);
        user.send(request).await?.expect_error(405, "M_BAD_JSON")?;
    }
    Ok(())
}

async fn push_rules_readable(lab: Lab) -> Outcome {
    push_rules_readable_by(&lab.user().await?).await
}

async fn push_rules_readable_by(user: &Actor) -> Outcome {
    let rules = user.read(&user.global("m.push_rules")).await?;
    for kind in ["override", "content", "room", "sender", "underride"] {
        check(
            rules["global"][kind].is_array(),
            format!("m.push_rules with an array `global.{kind}`"),
            crate::expect::shorten(&rules.to_string()),
        )?;
    }
    let has_master = rules["global"]["override"]
        .as_array()
        .is_some_and(|rules| rules.iter().any(|rule| rule["rule_id"] == ".m.rule.master"));
    check(has_master, "the default rule .m.rule.master", "none")
}

async fn push_rules_agree(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let entry = user.read(&user.global("m.push_rules")).await?;
    let api = user.read(&format!("{}/pushrules/", path::V3)).await?;
    check_json(&api["global"], &entry["global"], "GET /pushrules/ with")?;
    let global = user
        .read(&format!("{}/pushrules/global/", path::V3))
        .await?;
    check_json(&global, &entry["global"], "GET /pushrules/global/ with")?;
    let sync = user.initial_sync().await?;
    match sync.global("m.push_rules").as_slice() {
        [only] => check_json(&only["global"], &entry["global"], "sync with push rules"),
        _ => Err(sync.failure("m.push_rules once")),
    }
}

async fn refused_put_changes_nothing(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let before: Value = user.read(&user.global("m.push_rules")).await?;
    let since = user.settled().await?;
    refuses_put(&user, &user.global("m.push_rules")).await?;
    let after = user.read(&user.global("m.push_rules")).await?;
    check_json(&after, &before, "m.push_rules")?;
    user.sync_since(&since)
        .await?
        .expect_no_global("m.push_rules")
}

async fn room_push_rules(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.room(ROOM, "org.example.a"), &json!({"a": 1}))
        .await?;
    user.get(&user.room(ROOM, "m.push_rules"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    user.get(&user.room(ROOM, "org.example.a"))
        .await?
        .expect_json(&json!({"a": 1}))
}

async fn global_fully_read(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.global("org.example.there"), &json!({"a": 1}))
        .await?;
    user.get(&user.global("m.fully_read"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    user.get(&user.global("org.example.there"))
        .await?
        .expect_json(&json!({"a": 1}))
}

async fn others_push_rules(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    bob.get(&alice.global("m.push_rules"))
        .await?
        .expect_error(403, "M_FORBIDDEN")?;
    push_rules_readable_by(&alice).await
}
