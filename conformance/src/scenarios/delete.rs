//! Deletion of account data (MSC3391, under its unstable prefix).

use kitbag_client::{Method, Request, Scope};
use serde_json::json;

use crate::expect::{Outcome, check_json};
use crate::lab::Lab;
use crate::scenario::{Feature, Scenario};

const MSC3391: &str = "MSC3391; D3";
const ROOM: &str = "!unknown:example.org";

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut scenarios: Vec<_> = deletions()
        .into_iter()
        .map(|scenario| scenario.needs(Feature::Msc3391))
        .collect();
    scenarios.extend(stable_paths());
    scenarios
}

#[expect(clippy::too_many_lines, reason = "a list, not a procedure")]
fn deletions() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "delete/deleted_global_entry_is_404",
            MSC3391,
            "DELETE is 200 {}, then GET is 404 M_NOT_FOUND",
            global_entry,
        ),
        Scenario::new(
            "delete/deleted_room_entry_is_404",
            MSC3391,
            "DELETE is 200 {}, then GET is 404 M_NOT_FOUND",
            room_entry,
        ),
        Scenario::new(
            "delete/deleting_what_is_absent_is_200",
            MSC3391,
            "DELETE of what never was, or is already gone, is 200 {}",
            absent,
        ),
        Scenario::new(
            "delete/deleting_what_is_absent_is_not_in_sync",
            "SPEC 2; D3; DESIGN, law 11",
            "a DELETE that deletes nothing makes no entry in the stream",
            absent_not_in_sync,
        ),
        Scenario::new(
            "delete/incremental_sync_has_a_tombstone_once",
            MSC3391,
            "the next sync has the type with content {}, the one after has not",
            tombstone_once,
        ),
        Scenario::new(
            "delete/initial_sync_hides_the_deleted",
            MSC3391,
            "an initial sync right after the DELETE has nothing of the type",
            initial_hides,
        ),
        Scenario::new(
            "delete/deleted_entry_can_be_written_again",
            MSC3391,
            "PUT after DELETE is an entry as if it were the first",
            written_again,
        ),
        Scenario::new(
            "delete/write_and_delete_between_syncs_shows_the_deletion",
            "MSC3391; DESIGN, law 2",
            "an entry written and deleted since the token comes as {} or not at all",
            write_and_delete,
        ),
        Scenario::new(
            "delete/only_the_named_entry_goes",
            MSC3391,
            "other types, other rooms and the other scope keep theirs",
            only_named,
        ),
        Scenario::new(
            "delete/other_user_is_403_forbidden",
            "MSC3391; D1",
            "another user's entry is not deleted, nor is its existence told",
            other_user,
        ),
        Scenario::new(
            "delete/no_or_unknown_token_is_401",
            "MSC3391; D1",
            "401 M_MISSING_TOKEN or M_UNKNOWN_TOKEN",
            tokens,
        ),
        Scenario::new(
            "delete/bad_room_id_is_400_invalid_param",
            "MSC3391; D18",
            "the room ID is checked as for PUT, before the type",
            bad_room,
        ),
        Scenario::new(
            "delete/body_of_a_delete_is_ignored",
            "MSC3391",
            "a DELETE has no body; one that is sent does not matter",
            with_body,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "delete/strange_types_are_deleted",
            MSC3391,
            "types are decoded as for PUT",
            strange_types,
        ),
        Scenario::new(
            "delete/room_tombstone_is_in_sync_of_the_room",
            MSC3391,
            "the deletion comes in the joined room's section, and an initial sync hides it",
            room_tombstone,
        )
        .needs(Feature::Rooms),
        Scenario::new(
            "delete/put_empty_object_is_no_deletion",
            "D3; DESIGN",
            "PUT {} stores a value: GET 200 {}, in initial sync, echoed; also if nothing was there",
            put_empty,
        )
        .needs(Feature::Kitbag),
    ]
}

fn stable_paths() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "delete/stable_path_is_405_unrecognized",
            "CS API, Client Config; D3",
            "the specification has no DELETE: 405 M_UNRECOGNIZED, and nothing is deleted",
            stable_path,
        ),
        Scenario::new(
            "delete/msc3391_is_advertised_only_if_put_empty_deletes",
            "MSC3391; D3",
            "org.matrix.msc3391 in /versions and PUT {} as deletion come together or not at all",
            advertised,
        ),
    ]
}

async fn global_entry(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    user.set(&path, &json!({"a": 1})).await?;
    user.remove(Scope::Global, "org.example.a").await?;
    user.get(&path).await?.expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn room_entry(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.room(ROOM, "org.example.a");
    user.set(&path, &json!({"a": 1})).await?;
    user.remove(Scope::Room(ROOM), "org.example.a").await?;
    user.get(&path).await?.expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn absent(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for scope in [Scope::Global, Scope::Room(ROOM)] {
        user.remove(scope, "org.example.never").await?;
        user.set(&user.path_of(scope, "org.example.a"), &json!({"a": 1}))
            .await?;
        user.remove(scope, "org.example.a").await?;
        user.remove(scope, "org.example.a").await?;
        let path = user.path_of(scope, "org.example.a");
        user.get(&path).await?.expect_error(404, "M_NOT_FOUND")?;
    }
    Ok(())
}

async fn absent_not_in_sync(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.global("org.example.a"), &json!({"a": 1}))
        .await?;
    user.remove(Scope::Global, "org.example.a").await?;
    let since = user.settled().await?;
    user.remove(Scope::Global, "org.example.never").await?;
    user.remove(Scope::Global, "org.example.a").await?;
    user.set(&user.global("org.example.b"), &json!({"b": 1}))
        .await?;
    let sync = user.sync_since(&since).await?;
    sync.expect_global("org.example.b", &json!({"b": 1}))?;
    sync.expect_no_global("org.example.never")?;
    sync.expect_no_global("org.example.a")
}

async fn tombstone_once(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.global("org.example.a"), &json!({"a": 1}))
        .await?;
    let since = user.settled().await?;
    user.remove(Scope::Global, "org.example.a").await?;
    let sync = user.sync_since(&since).await?;
    sync.expect_global("org.example.a", &json!({}))?;
    user.sync_since(&sync.next_batch)
        .await?
        .expect_no_global("org.example.a")?;
    user.sync_since(&since)
        .await?
        .expect_global("org.example.a", &json!({}))
}

async fn initial_hides(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.global("org.example.a"), &json!({"a": 1}))
        .await?;
    user.set(&user.global("org.example.b"), &json!({"b": 1}))
        .await?;
    user.remove(Scope::Global, "org.example.a").await?;
    let sync = user.initial_sync().await?;
    sync.expect_no_global("org.example.a")?;
    sync.expect_global("org.example.b", &json!({"b": 1}))
}

async fn written_again(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    user.set(&path, &json!({"a": 1})).await?;
    user.remove(Scope::Global, "org.example.a").await?;
    let since = user.settled().await?;
    user.set(&path, &json!({"a": 2})).await?;
    user.get(&path).await?.expect_json(&json!({"a": 2}))?;
    user.sync_since(&since)
        .await?
        .expect_global("org.example.a", &json!({"a": 2}))?;
    user.initial_sync()
        .await?
        .expect_global("org.example.a", &json!({"a": 2}))
}

async fn write_and_delete(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let since = user.settled().await?;
    user.set(&user.global("org.example.a"), &json!({"a": 1}))
        .await?;
    user.remove(Scope::Global, "org.example.a").await?;
    user.set(&user.global("org.example.b"), &json!({"b": 1}))
        .await?;
    let sync = user.sync_since(&since).await?;
    sync.expect_global("org.example.b", &json!({"b": 1}))?;
    if sync.global("org.example.a").is_empty() {
        return Ok(());
    }
    sync.expect_global("org.example.a", &json!({}))
}

async fn only_named(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let kept = [
        user.global("org.example.b"),
        user.room(ROOM, "org.example.a"),
        user.room("!other:example.org", "org.example.a"),
    ];
    for path in kept.iter().chain([&user.global("org.example.a")]) {
        user.set(path, &json!({"a": 1})).await?;
    }
    user.remove(Scope::Global, "org.example.a").await?;
    user.remove(Scope::Room("!third:example.org"), "org.example.a")
        .await?;
    for path in &kept {
        user.get(path).await?.expect_json(&json!({"a": 1}))?;
    }
    Ok(())
}

async fn other_user(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    for scope in [Scope::Global, Scope::Room(ROOM)] {
        let path = alice.path_of(scope, "org.example.a");
        alice.set(&path, &json!({"a": 1})).await?;
        for kind in ["org.example.a", "org.example.never", "m.push_rules"] {
            let path = alice.deletion_of(scope, kind);
            bob.delete(&path).await?.expect_error(403, "M_FORBIDDEN")?;
        }
        alice.get(&path).await?.expect_json(&json!({"a": 1}))?;
    }
    Ok(())
}

async fn tokens(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for scope in [Scope::Global, Scope::Room(ROOM)] {
        let request = Request::new(Method::DELETE, user.deletion_of(scope, "org.example.a"));
        lab.send(request.clone())
            .await?
            .expect_error(401, "M_MISSING_TOKEN")?;
        lab.send(request.token("nonsense"))
            .await?
            .expect_error(401, "M_UNKNOWN_TOKEN")?;
    }
    Ok(())
}

async fn bad_room(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in ["org.example.a", "m.push_rules"] {
        let path = user.deletion_of(Scope::Room("bad"), kind);
        user.delete(&path)
            .await?
            .expect_error(400, "M_INVALID_PARAM")?;
    }
    Ok(())
}

async fn with_body(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for body in ["{}", "{", "[]"] {
        user.set(&user.global("org.example.a"), &json!({"a": 1}))
            .await?;
        let path = user.deletion_of(Scope::Global, "org.example.a");
        let request = Request::new(Method::DELETE, path).body(body);
        user.send(request).await?.expect_json(&json!({}))?;
        user.get(&user.global("org.example.a"))
            .await?
            .expect_error(404, "M_NOT_FOUND")?;
    }
    Ok(())
}

async fn strange_types(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in ["a/b", "%2F", "with space", "日本語"] {
        user.set(&user.global(kind), &json!({"a": 1})).await?;
        user.remove(Scope::Global, kind).await?;
        user.get(&user.global(kind))
            .await?
            .expect_error(404, "M_NOT_FOUND")?;
    }
    Ok(())
}

async fn room_tombstone(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let room = user.create_room().await?;
    user.set(&user.room(&room, "org.example.a"), &json!({"a": 1}))
        .await?;
    let since = user.initial_sync().await?.next_batch;
    user.remove(Scope::Room(&room), "org.example.a").await?;
    let sync = user.sync_since(&since).await?;
    sync.expect_room(&room, "org.example.a", &json!({}))?;
    user.initial_sync()
        .await?
        .expect_no_room(&room, "org.example.a")
}

async fn put_empty(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let since = user.settled().await?;
    for scope in [Scope::Global, Scope::Room(ROOM)] {
        let path = user.path_of(scope, "org.example.a");
        user.set(&path, &json!({})).await?;
        user.get(&path).await?.expect_json(&json!({}))?;
        user.set(&path, &json!({"a": 1})).await?;
        user.set(&path, &json!({})).await?;
        user.get(&path).await?.expect_json(&json!({}))?;
    }
    user.sync_since(&since)
        .await?
        .expect_global("org.example.a", &json!({}))?;
    user.initial_sync()
        .await?
        .expect_global("org.example.a", &json!({}))
}

async fn stable_path(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for path in [
        user.global("org.example.a"),
        user.room(ROOM, "org.example.a"),
    ] {
        user.set(&path, &json!({"a": 1})).await?;
        user.delete(&path)
            .await?
            .expect_error(405, "M_UNRECOGNIZED")?;
        user.get(&path).await?.expect_json(&json!({"a": 1}))?;
    }
    Ok(())
}

async fn advertised(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let versions = lab
        .send(Request::new(Method::GET, "/_matrix/client/versions"))
        .await?
        .ok()?;
    let is_advertised = versions["unstable_features"]["org.matrix.msc3391"] == true;
    user.set(&user.global("org.example.a"), &json!({})).await?;
    let deletes = user.get(&user.global("org.example.a")).await?.status() == 404;
    check_json(
        &json!({"advertised": is_advertised}),
        &json!({"advertised": deletes}),
        "flag",
    )
}
