//! Conditional writes (MSC4547).

use kitbag_client::{Naming, Revision, Scope};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::actor::Actor;
use crate::expect::{Failure, Outcome, Reply, check_eq, check_json};
use crate::lab::Lab;
use crate::scenario::{Feature, Scenario};

const MSC4547: &str = "MSC4547";
const ROOM: &str = "!unknown:example.org";
const BOTH: [Naming; 2] = [Naming::Stable, Naming::Unstable];
const WRITERS: u32 = 16;

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = table();
    scenarios.extend(around());
    scenarios
        .into_iter()
        .map(|scenario| scenario.needs(Feature::Msc4547))
        .collect()
}

fn table() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "compare_and_swap/table_holds_in_global_scope",
            MSC4547,
            "each row of the table of stored revision and expectation, both name forms",
            |lab| table_holds(lab, Place::Global),
        ),
        Scenario::new(
            "compare_and_swap/table_holds_in_room_scope",
            MSC4547,
            "each row of the table of stored revision and expectation, both name forms",
            |lab| table_holds(lab, Place::Room),
        ),
        Scenario::new(
            "compare_and_swap/table_holds_in_device_scope",
            "MSC4547; MSC4331",
            "each row of the table of stored revision and expectation, both name forms",
            |lab| table_holds(lab, Place::Device),
        )
        .needs(Feature::Msc4331),
        Scenario::new(
            "compare_and_swap/conflict_shows_the_current_content",
            MSC4547,
            "409 M_REVISION_ID_MISMATCH with current_content, under the names that were asked with",
            conflict_body,
        ),
        Scenario::new(
            "compare_and_swap/one_of_many_concurrent_writers_wins",
            "MSC4547; DESIGN, law 9",
            "of 16 writers with one expectation one gets 200, 15 get 409, and its content stays",
            |lab| one_wins(lab, Place::Global),
        ),
        Scenario::new(
            "compare_and_swap/one_of_many_concurrent_room_writers_wins",
            "MSC4547; DESIGN, law 9",
            "the same in room scope",
            |lab| one_wins(lab, Place::Room),
        ),
        Scenario::new(
            "compare_and_swap/one_of_many_concurrent_device_writers_wins",
            "MSC4547; MSC4331; DESIGN, law 9",
            "the same in device scope",
            |lab| one_wins(lab, Place::Device),
        )
        .needs(Feature::Msc4331),
    ]
}

#[expect(clippy::too_many_lines, reason = "a list, not a procedure")]
fn around() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "compare_and_swap/names_pair",
            MSC4547,
            "a stable expectation does not look at the unstable revision, nor the other way round",
            names_pair,
        ),
        Scenario::new(
            "compare_and_swap/put_without_expectation_is_as_ever",
            MSC4547,
            "a PUT without the parameter replaces whatever revision is there",
            no_expectation,
        ),
        Scenario::new(
            "compare_and_swap/new_content_needs_no_revision",
            MSC4547,
            "a matching PUT may drop the revision; then every expectation is met",
            revision_dropped,
        ),
        Scenario::new(
            "compare_and_swap/only_a_top_level_revision_counts",
            MSC4547,
            "a revision inside another object is none",
            nested_revision,
        ),
        Scenario::new(
            "compare_and_swap/revisions_are_opaque",
            MSC4547,
            "revisions with spaces, delimiters and percent signs compare exactly, case included",
            opaque,
        ),
        Scenario::new(
            "compare_and_swap/conflict_is_not_in_sync",
            "MSC4547; DESIGN, law 2",
            "a conflict writes nothing, so no sync has it",
            not_in_sync,
        ),
        Scenario::new(
            "compare_and_swap/chain_of_writes_goes_on",
            MSC4547,
            "each write with the revision of the one before works; the first expectation is stale",
            chain,
        ),
        Scenario::new(
            "compare_and_swap/deleted_entry_has_no_revision",
            "MSC4547; MSC3391",
            "after a deletion every expectation is met",
            after_deletion,
        )
        .needs(Feature::Msc3391),
        Scenario::new(
            "compare_and_swap/protected_type_is_405_with_any_expectation",
            "MSC4547; D1",
            "405 M_BAD_JSON, not 409, nor a write",
            protected,
        ),
        Scenario::new(
            "compare_and_swap/body_is_checked_before_the_expectation",
            "SPEC 3a; D1",
            "a broken body with a stale expectation is 400",
            body_first,
        ),
        Scenario::new(
            "compare_and_swap/other_user_and_other_device_are_403",
            "MSC4547; MSC4331; D1",
            "who may not write learns nothing of the revision",
            others,
        )
        .needs(Feature::Msc4331),
        Scenario::new(
            "compare_and_swap/both_name_forms_are_both_compared",
            "DESIGN",
            "with both parameters any mismatch is a conflict, answered with the stable names",
            both_forms,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "compare_and_swap/last_of_duplicate_revisions_counts",
            "DESIGN",
            "duplicate keys are kept, and the last top-level one is the revision",
            duplicates,
        )
        .needs(Feature::Kitbag),
    ]
}

/// A scope without its borrowed parts.
#[derive(Clone, Copy)]
enum Place {
    Global,
    Room,
    Device,
}

fn path(user: &Actor, place: Place, kind: &str) -> String {
    match place {
        Place::Global => user.global(kind),
        Place::Room => user.room(ROOM, kind),
        Place::Device => user.own(kind),
    }
}

fn field(naming: Naming) -> &'static str {
    match naming {
        Naming::Stable => "m.revision_id",
        Naming::Unstable => "com.beeper.revision_id",
    }
}

async fn put_expecting(
    user: &Actor,
    path: &str,
    id: &str,
    naming: Naming,
    content: &Value,
) -> Outcome<Reply> {
    user.put(
        &format!("{path}{}", Revision { id, naming }.query()),
        content,
    )
    .await
}

fn expect_conflict(reply: Reply, naming: Naming, current: &Value) -> Outcome {
    let (errcode, key) = match naming {
        Naming::Stable => ("M_REVISION_ID_MISMATCH", "current_content"),
        Naming::Unstable => (
            "COM.BEEPER.REVISION_ID_MISMATCH",
            "com.beeper.current_content",
        ),
    };
    let body = reply.expect_error(409, errcode)?;
    check_json(&body[key], current, &format!("409 with `{key}`"))
}

/// Stored content, the expectation, and whether the write goes through.
fn rows(naming: Naming) -> Vec<(Option<Value>, &'static str, bool)> {
    let revision = |id: Value| Some(json!({field(naming): id, "old": true}));
    vec![
        (None, "x", true),
        (None, "", true),
        (Some(json!({"old": true})), "x", true),
        (Some(json!({"old": true})), "", true),
        (revision(json!(7)), "7", true),
        (revision(json!(null)), "x", true),
        (revision(json!(["r1"])), "x", true),
        (revision(json!({"id": "r1"})), "", true),
        (revision(json!("r1")), "r1", true),
        (revision(json!("")), "", true),
        (revision(json!("r1")), "", false),
        (revision(json!("r1")), "r2", false),
        (revision(json!("r1")), "r1 ", false),
        (revision(json!("r1")), "R1", false),
        (revision(json!("r1")), "r", false),
    ]
}

async fn table_holds(lab: Lab, place: Place) -> Outcome {
    let user = lab.user().await?;
    for naming in BOTH {
        for (number, (stored, expected, writes)) in rows(naming).into_iter().enumerate() {
            let path = path(
                &user,
                place,
                &format!("org.example.{}.{number}", field(naming)),
            );
            if let Some(stored) = &stored {
                user.set(&path, stored).await?;
            }
            let new = json!({field(naming): "new", "number": number});
            let reply = put_expecting(&user, &path, expected, naming, &new).await?;
            if writes {
                reply.expect_json(&json!({}))?;
                user.get(&path).await?.expect_json(&new)?;
            } else {
                let stored = stored.unwrap_or_default();
                expect_conflict(reply, naming, &stored)?;
                user.get(&path).await?.expect_json(&stored)?;
            }
        }
    }
    Ok(())
}

async fn conflict_body(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    let stored = json!({"m.revision_id": "s", "com.beeper.revision_id": "u", "deep": [{"a": 1.5}]});
    user.set(&path, &stored).await?;
    for naming in BOTH {
        let reply = put_expecting(&user, &path, "other", naming, &json!({"a": 1})).await?;
        expect_conflict(reply, naming, &stored)?;
    }
    Ok(())
}

async fn one_wins(lab: Lab, place: Place) -> Outcome {
    let user = lab.user().await?;
    let path = path(&user, place, "org.example.a");
    user.set(&path, &json!({"m.revision_id": "start"})).await?;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (user, path) = (user.clone(), path.clone());
        writers.spawn(async move {
            let content = json!({"m.revision_id": format!("by-{writer}"), "writer": writer});
            (
                writer,
                put_expecting(&user, &path, "start", Naming::Stable, &content).await,
            )
        });
    }
    let mut winners = Vec::new();
    while let Some(joined) = writers.join_next().await {
        let (writer, reply) =
            joined.map_err(|error| Failure::new("all writers to end", error.to_string()))?;
        let reply = reply?;
        if reply.status() == 200 {
            winners.push(writer);
        } else {
            reply.expect_error(409, "M_REVISION_ID_MISMATCH")?;
        }
    }
    check_eq(&winners.len(), &1, "number of winners")?;
    let content = user.read(&path).await?;
    check_json(&content["writer"], &json!(winners[0]), "content of writer")
}

async fn names_pair(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for (stored, asked) in [(BOTH[0], BOTH[1]), (BOTH[1], BOTH[0])] {
        let path = user.global(&format!("org.example.{}", field(stored)));
        user.set(&path, &json!({field(stored): "r1"})).await?;
        let new = json!({"a": 1});
        put_expecting(&user, &path, "other", asked, &new)
            .await?
            .expect_json(&json!({}))?;
        user.get(&path).await?.expect_json(&new)?;
    }
    Ok(())
}

async fn no_expectation(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    user.set(&path, &json!({"m.revision_id": "r1"})).await?;
    user.set(&path, &json!({"m.revision_id": "r2"})).await?;
    user.set(&path, &json!({"a": 1})).await?;
    user.get(&path).await?.expect_json(&json!({"a": 1}))
}

async fn revision_dropped(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    user.set(&path, &json!({"m.revision_id": "r1"})).await?;
    for (expected, content) in [("r1", json!({"a": 1})), ("r1", json!({"a": 2}))] {
        let reply = put_expecting(&user, &path, expected, Naming::Stable, &content).await?;
        reply.expect_json(&json!({}))?;
        user.get(&path).await?.expect_json(&content)?;
    }
    Ok(())
}

async fn nested_revision(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    user.set(&path, &json!({"in": {"m.revision_id": "r1"}}))
        .await?;
    let new = json!({"a": 1});
    put_expecting(&user, &path, "x", Naming::Stable, &new)
        .await?
        .expect_json(&json!({}))?;
    user.get(&path).await?.expect_json(&new)
}

async fn opaque(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for (number, id) in ["a b", "a+b", "100%", "a&b=c", "\"q\"\\", "Ab#?/"]
        .iter()
        .enumerate()
    {
        let path = user.global(&format!("org.example.{number}"));
        let stored = json!({"m.revision_id": id});
        user.set(&path, &stored).await?;
        let swapped = id.chars().rev().collect::<String>();
        let reply = put_expecting(&user, &path, &swapped, Naming::Stable, &json!({})).await?;
        expect_conflict(reply, Naming::Stable, &stored)?;
        let reply = put_expecting(&user, &path, id, Naming::Stable, &json!({"a": 1})).await?;
        reply.expect_json(&json!({}))?;
    }
    Ok(())
}

async fn not_in_sync(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    user.set(&path, &json!({"m.revision_id": "r1"})).await?;
    let since = user.settled().await?;
    let reply = put_expecting(&user, &path, "r0", Naming::Stable, &json!({})).await?;
    reply.expect_error(409, "M_REVISION_ID_MISMATCH")?;
    user.sync_since(&since)
        .await?
        .expect_no_global("org.example.a")
}

async fn chain(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    user.set(&path, &json!({"m.revision_id": "r0"})).await?;
    for round in 0..5 {
        let new = json!({"m.revision_id": format!("r{}", round + 1)});
        let expected = format!("r{round}");
        let reply = put_expecting(&user, &path, &expected, Naming::Stable, &new).await?;
        reply.expect_json(&json!({}))?;
        let stale = put_expecting(&user, &path, &expected, Naming::Stable, &json!({})).await?;
        expect_conflict(stale, Naming::Stable, &new)?;
    }
    Ok(())
}

async fn after_deletion(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for (kind, expected) in [("org.example.a", "other"), ("org.example.b", "")] {
        let path = user.global(kind);
        user.set(&path, &json!({"m.revision_id": "r1"})).await?;
        user.remove(Scope::Global, kind).await?;
        let new = json!({"a": 1});
        let reply = put_expecting(&user, &path, expected, Naming::Stable, &new).await?;
        reply.expect_json(&json!({}))?;
        user.get(&path).await?.expect_json(&new)?;
    }
    Ok(())
}

async fn protected(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in ["m.push_rules", "m.fully_read"] {
        for path in [user.global(kind), user.room(ROOM, kind)] {
            for (id, naming) in [
                ("", BOTH[0]),
                ("r1", BOTH[0]),
                ("", BOTH[1]),
                ("r1", BOTH[1]),
            ] {
                let reply = put_expecting(&user, &path, id, naming, &json!({})).await?;
                reply.expect_error(405, "M_BAD_JSON")?;
            }
        }
    }
    Ok(())
}

async fn body_first(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    user.set(&path, &json!({"m.revision_id": "r1"})).await?;
    let stale = format!("{path}?expect_revision_id=r0");
    user.put_bytes(&stale, "{")
        .await?
        .expect_error(400, "M_NOT_JSON")?;
    user.put_bytes(&stale, "[]")
        .await?
        .expect_error_in(400, &["M_BAD_JSON", "M_NOT_JSON"])?;
    Ok(())
}

async fn others(lab: Lab) -> Outcome {
    let alice = lab.user().await?;
    let (second, bob) = (lab.second_device(&alice).await?, lab.user().await?);
    alice
        .set(&alice.own("a"), &json!({"m.revision_id": "r1"}))
        .await?;
    alice
        .set(&alice.global("a"), &json!({"m.revision_id": "r1"}))
        .await?;
    for id in ["r1", "other", ""] {
        for (who, path) in [
            (&second, alice.own("a")),
            (&bob, alice.own("a")),
            (&bob, alice.global("a")),
        ] {
            let reply = put_expecting(who, &path, id, Naming::Stable, &json!({})).await?;
            reply.expect_error(403, "M_FORBIDDEN")?;
        }
    }
    Ok(())
}

async fn both_forms(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    let stored = json!({"m.revision_id": "s", "com.beeper.revision_id": "u"});
    user.set(&path, &stored).await?;
    for (stable, unstable) in [("s", "x"), ("x", "u"), ("u", "s")] {
        let both =
            format!("{path}?expect_revision_id={stable}&com.beeper.expect_revision_id={unstable}");
        expect_conflict(user.put(&both, &json!({})).await?, Naming::Stable, &stored)?;
    }
    let both = format!("{path}?com.beeper.expect_revision_id=u&expect_revision_id=s");
    user.put(&both, &json!({})).await?.expect_json(&json!({}))
}

async fn duplicates(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    let stored = r#"{"m.revision_id":"first","m.revision_id":"last"}"#;
    user.put_bytes(&path, stored)
        .await?
        .expect_json(&json!({}))?;
    let reply = put_expecting(&user, &path, "first", Naming::Stable, &json!({})).await?;
    reply.expect_error(409, "M_REVISION_ID_MISMATCH")?;
    let reply = put_expecting(&user, &path, "last", Naming::Stable, &json!({})).await?;
    reply.expect_json(&json!({}))
}
