//! `PUT {}` as deletion (MSC3391), for servers on which that is switched on.

use kitbag_client::{Method, Request, Scope};
use serde_json::json;

use crate::expect::{Outcome, check};
use crate::lab::Lab;
use crate::poll::woken_by;
use crate::scenario::{Feature, Scenario};

const MSC3391: &str = "MSC3391; D3";
const ROOM: &str = "!unknown:example.org";
const TYPE: &str = "org.example.a";

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenarios = vec![
        Scenario::new(
            "put_empty/deleted_entry_is_404",
            MSC3391,
            "after PUT {}, with or without blanks, GET is 404 M_NOT_FOUND in global and room scope",
            deleted,
        ),
        Scenario::new(
            "put_empty/incremental_sync_has_a_tombstone",
            MSC3391,
            "the next sync has the type with content {}, the one after has not",
            tombstone,
        ),
        Scenario::new(
            "put_empty/initial_sync_hides_the_deleted",
            MSC3391,
            "an initial sync has nothing of the type",
            initial_hides,
        ),
        Scenario::new(
            "put_empty/deletion_of_what_is_absent_is_echoed",
            "D3; DESIGN, law 11",
            "SDKs wait for the echo of their PUT {}, also of a type that never was",
            absent_is_echoed,
        ),
        Scenario::new(
            "put_empty/deleted_entry_can_be_written_again",
            MSC3391,
            "PUT after PUT {} is an entry as if it were the first",
            written_again,
        ),
        Scenario::new(
            "put_empty/device_entry_is_never_deleted",
            "MSC4331; D3",
            "in device scope {} is a value: GET 200 {}, in initial sync",
            device_keeps,
        )
        .needs(Feature::Msc4331),
        Scenario::new(
            "put_empty/protected_type_is_405",
            "CS API, Client Config; D3",
            "PUT {} of m.push_rules and m.fully_read is 405 M_BAD_JSON",
            protected,
        ),
        Scenario::new(
            "put_empty/feature_is_advertised",
            MSC3391,
            "org.matrix.msc3391 in unstable_features of /versions",
            advertised,
        ),
    ];
    let needing = |scenario: Scenario| scenario.needs(Feature::PutEmptyDeletes);
    scenarios.into_iter().map(needing).collect()
}

async fn deleted(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for path in [user.global(TYPE), user.room(ROOM, TYPE)] {
        for empty in ["{}", " { \n\t} "] {
            user.set(&path, &json!({"a": 1})).await?;
            user.read(&path).await?;
            user.put_bytes(&path, empty)
                .await?
                .expect_json(&json!({}))?;
            user.get(&path).await?.expect_error(404, "M_NOT_FOUND")?;
        }
    }
    Ok(())
}

async fn tombstone(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.global(TYPE), &json!({"a": 1})).await?;
    let since = user.settled().await?;
    user.set(&user.global(TYPE), &json!({})).await?;
    let sync = user.sync_since(&since).await?;
    sync.expect_global(TYPE, &json!({}))?;
    user.sync_since(&sync.next_batch)
        .await?
        .expect_no_global(TYPE)
}

async fn initial_hides(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.global(TYPE), &json!({"a": 1})).await?;
    user.set(&user.global("org.example.b"), &json!({"b": 1}))
        .await?;
    user.set(&user.global(TYPE), &json!({})).await?;
    let sync = user.initial_sync().await?;
    sync.expect_no_global(TYPE)?;
    sync.expect_global("org.example.b", &json!({"b": 1}))
}

async fn absent_is_echoed(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for _ in ["that never was", "that is deleted already"] {
        let echo = woken_by(&user, None, user.set(&user.global(TYPE), &json!({}))).await?;
        echo.expect_global(TYPE, &json!({}))?;
        user.get(&user.global(TYPE))
            .await?
            .expect_error(404, "M_NOT_FOUND")?;
    }
    user.initial_sync().await?.expect_no_global(TYPE)
}

async fn written_again(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global(TYPE);
    user.set(&path, &json!({"a": 1})).await?;
    user.set(&path, &json!({})).await?;
    user.get(&path).await?.expect_error(404, "M_NOT_FOUND")?;
    user.set(&path, &json!({"a": 2})).await?;
    user.get(&path).await?.expect_json(&json!({"a": 2}))?;
    user.initial_sync()
        .await?
        .expect_global(TYPE, &json!({"a": 2}))
}

async fn device_keeps(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.own(TYPE);
    for before in [json!({}), json!({"a": 1})] {
        user.set(&path, &before).await?;
        user.set(&path, &json!({})).await?;
        user.get(&path).await?.expect_json(&json!({}))?;
    }
    user.initial_sync()
        .await?
        .expect_device(user.device_id(), TYPE, &json!({}))
}

async fn protected(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for scope in [Scope::Global, Scope::Room(ROOM)] {
        for kind in ["m.push_rules", "m.fully_read"] {
            user.put(&user.path_of(scope, kind), &json!({}))
                .await?
                .expect_error(405, "M_BAD_JSON")?;
        }
    }
    Ok(())
}

async fn advertised(lab: Lab) -> Outcome {
    let request = Request::new(Method::GET, "/_matrix/client/versions");
    let features = lab.send(request).await?.ok()?["unstable_features"].take();
    check(
        features["org.matrix.msc3391"] == true,
        "org.matrix.msc3391: true in unstable_features",
        features.to_string(),
    )
}
