//! Room account data.

use kitbag_client::{Method, Request, path};
use serde_json::json;

use crate::actor::Actor;
use crate::expect::Outcome;
use crate::lab::Lab;
use crate::scenario::{Feature, Scenario};

const CONFIG: &str = "CS API, Client Config";
const ROOM: &str = "!unknown:example.org";

#[expect(clippy::too_many_lines, reason = "a list, not a procedure")]
pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "room_account_data/put_then_get_returns_content",
            "CS API, Client Config; D18",
            "a room's entry is stored, also for a room that the server does not know",
            put_then_get,
        ),
        Scenario::new(
            "room_account_data/get_absent_is_404_not_found",
            CONFIG,
            "GET of what was never stored is 404 M_NOT_FOUND",
            get_absent,
        ),
        Scenario::new(
            "room_account_data/room_and_global_are_independent",
            CONFIG,
            "neither scope falls back to the other, nor one room to another",
            independent,
        ),
        Scenario::new(
            "room_account_data/r0_path_is_the_same_entry",
            "CS API, API versions; DESIGN",
            "what is put through v3 is read through r0",
            r0_path,
        ),
        Scenario::new(
            "room_account_data/strange_types_round_trip",
            CONFIG,
            "types with slashes, percent signs and Unicode work",
            strange_types,
        ),
        Scenario::new(
            "room_account_data/spelling_of_the_room_does_not_matter",
            "RFC 3986, 6.2.2",
            "a room ID with ! and : raw or encoded is the same",
            spelling,
        ),
        Scenario::new(
            "room_account_data/content_comes_back_byte_for_byte",
            "DESIGN, law 8",
            "whitespace, duplicate keys and numbers come back as they were put",
            verbatim,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "room_account_data/no_or_unknown_token_is_401",
            CONFIG,
            "401 M_MISSING_TOKEN or M_UNKNOWN_TOKEN, before anything else",
            tokens,
        ),
        Scenario::new(
            "room_account_data/other_user_is_403_forbidden",
            "CS API, Client Config; D1",
            "another user's path is 403 M_FORBIDDEN, also with a bad room ID",
            other_user,
        ),
        Scenario::new(
            "room_account_data/bad_bodies_are_400",
            "CS API, Client Config; D2",
            "unparsable: M_NOT_JSON; no object: M_BAD_JSON or M_NOT_JSON",
            bad_bodies,
        ),
        Scenario::new(
            "room_account_data/room_id_without_sigil_is_400_invalid_param",
            "CS API, Client Config; D18",
            "what does not start with ! is no room ID, for GET and PUT",
            no_sigil,
        ),
        Scenario::new(
            "room_account_data/room_id_is_checked_before_type_and_body",
            "D1",
            "a bad room ID is 400 M_INVALID_PARAM also with a protected type or a broken body",
            room_before_rest,
        ),
        Scenario::new(
            "room_account_data/room_id_without_domain_is_accepted",
            "Appendices, Room IDs (room version 12); D18",
            "a room ID need not have a domain",
            no_domain,
        ),
        Scenario::new(
            "room_account_data/impossible_room_ids_are_400_invalid_param",
            "Appendices, Room IDs; D18",
            "an empty localpart, over 255 bytes and NUL are refused",
            impossible,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "room_account_data/type_of_255_bytes_is_the_longest",
            "D19",
            "a type of 255 bytes works, one of 256 bytes is 400 M_INVALID_PARAM",
            long_type,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "room_account_data/unknown_shapes_of_the_path_are_404_unrecognized",
            "D20",
            "an empty type and trailing segments make the path unknown",
            unknown_paths,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "room_account_data/put_empty_object_is_a_value",
            "CS API, Client Config; D3",
            "PUT {} stores {}",
            put_empty_object,
        ),
        Scenario::new(
            "room_account_data/joined_room_has_its_entries_in_sync",
            "CS API, Syncing",
            "initial sync has the entry once; incremental sync has just the change, once",
            in_sync,
        )
        .needs(Feature::Rooms),
        Scenario::new(
            "room_account_data/read_marker_is_readable",
            "CS API, Fully read markers",
            "after POST read_markers, GET of m.fully_read has the event ID",
            read_marker,
        )
        .needs(Feature::Rooms),
    ]
}

async fn put_then_get(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.room(ROOM, "org.example.a");
    user.put(&path, &json!({"a": [1]}))
        .await?
        .expect_json(&json!({}))?;
    user.get(&path).await?.expect_json(&json!({"a": [1]}))?;
    user.set(&path, &json!({"b": 2})).await?;
    user.get(&path).await?.expect_json(&json!({"b": 2}))
}

async fn get_absent(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.room(ROOM, "org.example.b"), &json!({"b": 1}))
        .await?;
    user.get(&user.room(ROOM, "org.example.a"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    user.get(&user.room(ROOM, "m.fully_read"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    user.get(&user.room(ROOM, "org.example.b"))
        .await?
        .expect_json(&json!({"b": 1}))
}

async fn independent(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.global("org.example.a"), &json!({"in": "global"}))
        .await?;
    let first = user.room(ROOM, "org.example.a");
    let second = user.room("!other:example.org", "org.example.a");
    user.get(&first).await?.expect_error(404, "M_NOT_FOUND")?;
    user.set(&first, &json!({"in": "first"})).await?;
    user.get(&second).await?.expect_error(404, "M_NOT_FOUND")?;
    user.get(&user.global("org.example.a"))
        .await?
        .expect_json(&json!({"in": "global"}))?;
    user.set(&user.room(ROOM, "org.example.b"), &json!({}))
        .await?;
    user.get(&user.global("org.example.b"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn r0_path(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let v3 = user.room(ROOM, "org.example.a");
    let r0 = v3.replacen("/v3/", "/r0/", 1);
    user.set(&v3, &json!({"a": 1})).await?;
    user.get(&r0).await?.expect_json(&json!({"a": 1}))?;
    user.set(&r0, &json!({"a": 2})).await?;
    user.get(&v3).await?.expect_json(&json!({"a": 2}))
}

async fn strange_types(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in ["a/b", "%2F", "with space", "日本語.🦀", "q?x#y"] {
        let path = user.room(ROOM, kind);
        user.set(&path, &json!({"kind": kind})).await?;
        user.get(&path).await?.expect_json(&json!({"kind": kind}))?;
    }
    Ok(())
}

async fn spelling(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.room(ROOM, "a"), &json!({"a": 1})).await?;
    for room in [
        "!unknown:example.org",
        "%21unknown%3Aexample.org",
        "!%75nknown%3aexample.org",
    ] {
        let path = format!(
            "{}/user/{}/rooms/{room}/account_data/a",
            path::V3,
            user.user_id()
        );
        user.get(&path).await?.expect_json(&json!({"a": 1}))?;
    }
    Ok(())
}

async fn verbatim(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.room(ROOM, "a");
    let content = "{ \"order\" : 0.10 ,\n \"a\":1, \"a\": 2, \"big\": 1e999 }";
    user.put_bytes(&path, content)
        .await?
        .expect_json(&json!({}))?;
    user.get(&path).await?.expect_bytes(content.as_bytes())
}

async fn tokens(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for path in [user.room(ROOM, "a"), user.room("bad", "m.push_rules")] {
        for method in [Method::GET, Method::PUT] {
            let request = Request::new(method, &path).body("{");
            lab.send(request.clone())
                .await?
                .expect_error(401, "M_MISSING_TOKEN")?;
            lab.send(request.token("nonsense"))
                .await?
                .expect_error(401, "M_UNKNOWN_TOKEN")?;
        }
    }
    Ok(())
}

async fn other_user(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    for room in [ROOM, "bad"] {
        let path = alice.room(room, "org.example.a");
        bob.get(&path).await?.expect_error(403, "M_FORBIDDEN")?;
        bob.put(&path, &json!({}))
            .await?
            .expect_error(403, "M_FORBIDDEN")?;
    }
    alice
        .set(&alice.room(ROOM, "org.example.a"), &json!({"of": "alice"}))
        .await
}

async fn bad_bodies(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.room(ROOM, "org.example.a");
    for body in [&b""[..], b"{", b"{} x", b"{\"a\":\"\xff\"}"] {
        user.put_bytes(&path, body)
            .await?
            .expect_error(400, "M_NOT_JSON")?;
    }
    for body in ["[]", "\"text\"", "1", "true", "null"] {
        let reply = user.put_bytes(&path, body).await?;
        reply.expect_error_in(400, &["M_BAD_JSON", "M_NOT_JSON"])?;
    }
    user.get(&path).await?.expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn no_sigil(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for room in [
        "bad",
        "#alias:example.org",
        "@user:example.org",
        "room:example.org",
        "$event",
    ] {
        refuses_room(&user, room).await?;
    }
    Ok(())
}

async fn refuses_room(user: &Actor, room: &str) -> Outcome {
    let path = user.room(room, "org.example.a");
    user.get(&path)
        .await?
        .expect_error(400, "M_INVALID_PARAM")?;
    user.put(&path, &json!({}))
        .await?
        .expect_error(400, "M_INVALID_PARAM")?;
    Ok(())
}

async fn room_before_rest(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in ["org.example.a", "m.fully_read", "m.push_rules"] {
        for body in ["{}", "{", "[]"] {
            let reply = user.put_bytes(&user.room("bad", kind), body).await?;
            reply.expect_error(400, "M_INVALID_PARAM")?;
        }
    }
    Ok(())
}

async fn no_domain(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.room(
        "!yyAzBk3mXgbNkRdCTWUlRt9wWFAJ5pVkGDbjbqnC0Vc",
        "org.example.a",
    );
    user.set(&path, &json!({"a": 1})).await?;
    user.get(&path).await?.expect_json(&json!({"a": 1}))
}

async fn impossible(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let longest = format!("!{}:example.org", "a".repeat(242));
    user.set(&user.room(&longest, "org.example.a"), &json!({}))
        .await?;
    let too_long = format!("!{}:example.org", "a".repeat(243));
    for room in ["!", "!:example.org", "!a\0b:example.org", &too_long] {
        refuses_room(&user, room).await?;
    }
    Ok(())
}

async fn long_type(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.room(ROOM, &"a".repeat(255)), &json!({}))
        .await?;
    let path = user.room(ROOM, &"a".repeat(256));
    user.put(&path, &json!({}))
        .await?
        .expect_error(400, "M_INVALID_PARAM")?;
    Ok(())
}

async fn unknown_paths(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for path in [
        user.room(ROOM, ""),
        user.room(ROOM, "a") + "/b",
        user.room(ROOM, "a") + "/",
    ] {
        user.get(&path).await?.expect_error(404, "M_UNRECOGNIZED")?;
        user.put(&path, &json!({}))
            .await?
            .expect_error(404, "M_UNRECOGNIZED")?;
    }
    Ok(())
}

async fn put_empty_object(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.room(ROOM, "org.example.a");
    user.get(&path).await?.expect_error(404, "M_NOT_FOUND")?;
    user.set(&path, &json!({})).await?;
    user.get(&path).await?.expect_json(&json!({}))
}

async fn in_sync(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let room = user.create_room().await?;
    user.set(&user.room(&room, "org.example.a"), &json!({"n": 1}))
        .await?;
    user.set(&user.room(&room, "org.example.b"), &json!({"n": 1}))
        .await?;
    let initial = user.initial_sync().await?;
    initial.expect_room(&room, "org.example.a", &json!({"n": 1}))?;
    initial.expect_room(&room, "org.example.b", &json!({"n": 1}))?;
    user.set(&user.room(&room, "org.example.a"), &json!({"n": 2}))
        .await?;
    user.set(&user.room(&room, "org.example.a"), &json!({"n": 3}))
        .await?;
    let next = user.sync_since(&initial.next_batch).await?;
    next.expect_room(&room, "org.example.a", &json!({"n": 3}))?;
    next.expect_no_room(&room, "org.example.b")?;
    let last = user.sync_since(&next.next_batch).await?;
    last.expect_no_room(&room, "org.example.a")
}

async fn read_marker(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let room = user.create_room().await?;
    let encoded = path::segment(&room);
    let message = format!("{}/rooms/{encoded}/send/m.room.message/1", path::V3);
    let sent = user
        .put(&message, &json!({"msgtype": "m.text", "body": "hello"}))
        .await?
        .ok()?;
    let body = json!({"m.fully_read": sent["event_id"]});
    let markers = format!("{}/rooms/{encoded}/read_markers", path::V3);
    user.post(&markers, &body).await?.expect_json(&json!({}))?;
    let expected = json!({"event_id": sent["event_id"]});
    user.get(&user.room(&room, "m.fully_read"))
        .await?
        .expect_json(&expected)
}
