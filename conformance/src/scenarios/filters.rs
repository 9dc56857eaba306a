//! Filters on account data, inline and stored.

use kitbag_client::{Method, Request, SyncParams, path};
use serde_json::{Value, json};

use crate::actor::Actor;
use crate::expect::{Outcome, check, check_eq, check_json};
use crate::lab::Lab;
use crate::poll::{not_woken_by, woken_by};
use crate::scenario::{Feature, Scenario};
use crate::sync::Sync;

const FILTER: &str = "CS API, Filtering; SPEC 8.2";

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = in_sync();
    scenarios.extend(stored());
    scenarios
}

#[expect(clippy::too_many_lines, reason = "a list, not a procedure")]
fn in_sync() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "filters/types_select",
            FILTER,
            "`types` keeps exact names only; an absent list keeps all",
            types,
        ),
        Scenario::new(
            "filters/star_matches_anywhere",
            FILTER,
            "`*` stands for any text at the start, the end, in the middle, and alone",
            star,
        ),
        Scenario::new(
            "filters/not_types_wins",
            FILTER,
            "what both lists name is left out",
            not_types,
        ),
        Scenario::new(
            "filters/empty_types_silence",
            FILTER,
            "`types: []` leaves nothing, m.push_rules neither",
            empty_types,
        ),
        Scenario::new(
            "filters/filter_applies_to_incremental_syncs",
            FILTER,
            "a change is left out or kept as in an initial sync",
            incremental,
        ),
        Scenario::new(
            "filters/stored_filter_works_as_inline",
            FILTER,
            "the ID of an uploaded filter has the same effect",
            by_id,
        ),
        Scenario::new(
            "filters/filtered_change_does_not_end_the_wait",
            "DESIGN, law 3",
            "a long poll stays while only what the filter drops is written",
            not_woken,
        ),
        Scenario::new(
            "filters/wanted_change_ends_the_wait",
            "DESIGN, law 3",
            "a long poll with a filter returns with what the filter keeps",
            woken,
        ),
        Scenario::new(
            "filters/limit_drops_nothing",
            "D26",
            "`limit` on account data would lose entries for ever, so it is ignored",
            limit,
        ),
        Scenario::new(
            "filters/senders_exclude_all_and_not_senders_none",
            "D26",
            "account data has no sender: any `senders` excludes it, `not_senders` only with *",
            senders,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "filters/room_section_does_not_concern_global_data",
            FILTER,
            "room.account_data.types [] leaves global data alone",
            room_section,
        ),
        Scenario::new(
            "filters/room_data_has_its_own_filter",
            FILTER,
            "account_data does not concern room data; room.account_data.types does",
            room_data,
        )
        .needs(Feature::Rooms),
        Scenario::new(
            "filters/unknown_or_broken_filter_in_sync_is_4xx",
            FILTER,
            "a filter ID that never was, broken inline JSON and a wrong shape are refused",
            broken_in_sync,
        ),
    ]
}

fn stored() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "filters/uploaded_filter_is_downloadable",
            "CS API, Filtering",
            "POST gives a filter_id that does not start with {, GET the filter",
            upload,
        ),
        Scenario::new(
            "filters/invalid_filters_are_4xx",
            "CS API, Filtering; Complement TestFilter",
            "sections that are no objects, lists that are none, IDs that are none",
            invalid,
        ),
        Scenario::new(
            "filters/unparsable_upload_is_400",
            "CS API, API standards",
            "broken JSON M_NOT_JSON; no object M_BAD_JSON or M_NOT_JSON",
            unparsable,
        ),
        Scenario::new(
            "filters/other_user_is_403_forbidden",
            "CS API, Filtering",
            "neither upload to nor download from another user",
            other_user,
        ),
        Scenario::new(
            "filters/unknown_filter_is_404_not_found",
            "CS API, Filtering",
            "GET of an ID that never was is 404 M_NOT_FOUND",
            unknown,
        ),
        Scenario::new(
            "filters/no_or_unknown_token_is_401",
            "CS API, Filtering",
            "401 M_MISSING_TOKEN or M_UNKNOWN_TOKEN",
            tokens,
        ),
    ]
}

/// A user with entries under these types.
async fn user_with(lab: &Lab, types: &[&str]) -> Outcome<Actor> {
    let user = lab.user().await?;
    for kind in types {
        user.set(&user.global(kind), &json!({"of": kind})).await?;
    }
    Ok(user)
}

async fn sync(user: &Actor, since: Option<&str>, filter: &Value) -> Outcome<Sync> {
    let filter = filter.to_string();
    user.sync(SyncParams {
        since,
        filter: Some(&filter),
        ..SyncParams::default()
    })
    .await
}

/// Fails unless an initial sync with this section has just these types, besides push rules.
async fn keeps(user: &Actor, section: Value, expected: &[&str]) -> Outcome {
    let sync = sync(user, None, &json!({"account_data": section})).await?;
    let mut types = sync.global_types();
    types.retain(|kind| kind != "m.push_rules");
    types.sort_unstable();
    check_eq(
        &types,
        &owned(expected),
        &format!("with {section} the types"),
    )
}

fn owned(types: &[&str]) -> Vec<String> {
    types.iter().map(|&kind| kind.to_owned()).collect()
}

fn filter_path(user: &Actor, id: &str) -> String {
    format!(
        "{}/user/{}/filter/{}",
        path::V3,
        path::segment(user.user_id()),
        path::segment(id)
    )
}

async fn upload_of(user: &Actor, filter: &Value) -> Outcome<String> {
    let path = filter_path(user, "");
    let answer = user.post(path.trim_end_matches('/'), filter).await?.ok()?;
    Ok(answer["filter_id"].as_str().unwrap_or_default().to_owned())
}

async fn types(lab: Lab) -> Outcome {
    let user = user_with(&lab, &["a.one", "a.two", "b.one"]).await?;
    keeps(
        &user,
        json!({"types": ["a.one", "b.one"]}),
        &["a.one", "b.one"],
    )
    .await?;
    keeps(&user, json!({"types": ["a"]}), &[]).await?;
    keeps(&user, json!({"types": ["A.ONE"]}), &[]).await?;
    keeps(&user, json!({}), &["a.one", "a.two", "b.one"]).await
}

async fn star(lab: Lab) -> Outcome {
    let user = user_with(&lab, &["a.b.c", "a.c", "axc", "b.c", "x.a"]).await?;
    keeps(&user, json!({"types": ["a*"]}), &["a.b.c", "a.c", "axc"]).await?;
    keeps(&user, json!({"types": ["a.*"]}), &["a.b.c", "a.c"]).await?;
    keeps(
        &user,
        json!({"types": ["*c"]}),
        &["a.b.c", "a.c", "axc", "b.c"],
    )
    .await?;
    keeps(&user, json!({"types": ["a*c"]}), &["a.b.c", "a.c", "axc"]).await?;
    keeps(&user, json!({"types": ["*.b.*"]}), &["a.b.c"]).await?;
    keeps(
        &user,
        json!({"types": ["*"]}),
        &["a.b.c", "a.c", "axc", "b.c", "x.a"],
    )
    .await?;
    keeps(&user, json!({"not_types": ["*a*"]}), &["b.c"]).await
}

async fn not_types(lab: Lab) -> Outcome {
    let user = user_with(&lab, &["a.one", "a.two", "b.one"]).await?;
    keeps(&user, json!({"not_types": ["a.one"]}), &["a.two", "b.one"]).await?;
    keeps(
        &user,
        json!({"types": ["a.*"], "not_types": ["a.one"]}),
        &["a.two"],
    )
    .await?;
    keeps(
        &user,
        json!({"types": ["a.one"], "not_types": ["a.*"]}),
        &[],
    )
    .await?;
    keeps(&user, json!({"not_types": ["*"]}), &[]).await?;
    keeps(
        &user,
        json!({"not_types": []}),
        &["a.one", "a.two", "b.one"],
    )
    .await
}

async fn empty_types(lab: Lab) -> Outcome {
    let user = user_with(&lab, &["a.one"]).await?;
    let silent = sync(&user, None, &json!({"account_data": {"types": []}})).await?;
    let all = sync(&user, None, &json!({})).await?;
    all.expect_global("a.one", &json!({"of": "a.one"}))?;
    check_eq(&silent.global_types(), &Vec::new(), "types")
}

async fn incremental(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let since = user.settled().await?;
    user.set(&user.global("a.one"), &json!({"a": 1})).await?;
    user.set(&user.global("b.one"), &json!({"a": 1})).await?;
    let filter = json!({"account_data": {"types": ["a.*"]}});
    let changed = sync(&user, Some(&since), &filter).await?;
    check_eq(&changed.global_types(), &owned(&["a.one"]), "types")
}

async fn by_id(lab: Lab) -> Outcome {
    let user = user_with(&lab, &["a.one", "b.one"]).await?;
    let id = upload_of(&user, &json!({"account_data": {"types": ["a.*"]}})).await?;
    let params = SyncParams {
        filter: Some(&id),
        ..SyncParams::default()
    };
    check_eq(
        &user.sync(params).await?.global_types(),
        &owned(&["a.one"]),
        "types",
    )
}

async fn not_woken(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("a.one");
    for section in [
        json!({"not_types": ["a.*"]}),
        json!({"types": []}),
        json!({"types": ["b"]}),
    ] {
        let filter = json!({"account_data": section}).to_string();
        not_woken_by(&user, Some(&filter), user.set(&path, &json!({"a": 1}))).await?;
    }
    Ok(())
}

async fn woken(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let filter = json!({"account_data": {"types": ["a.*"]}}).to_string();
    let writes = async {
        user.set(&user.global("b.one"), &json!({"a": 1})).await?;
        user.set(&user.global("a.one"), &json!({"a": 1})).await
    };
    let sync = woken_by(&user, Some(&filter), writes).await?;
    check_eq(&sync.global_types(), &owned(&["a.one"]), "types")
}

async fn limit(lab: Lab) -> Outcome {
    let user = user_with(&lab, &["a.one", "a.two", "b.one"]).await?;
    keeps(&user, json!({"limit": 1}), &["a.one", "a.two", "b.one"]).await
}

async fn senders(lab: Lab) -> Outcome {
    let user = user_with(&lab, &["a.one"]).await?;
    keeps(&user, json!({"senders": [user.user_id()]}), &[]).await?;
    keeps(&user, json!({"senders": ["@other:example.org"]}), &[]).await?;
    keeps(&user, json!({"not_senders": [user.user_id()]}), &["a.one"]).await?;
    keeps(&user, json!({"not_senders": ["*"]}), &[]).await
}

async fn room_section(lab: Lab) -> Outcome {
    let user = user_with(&lab, &["a.one"]).await?;
    let filter = json!({"room": {"account_data": {"types": []}, "rooms": []}});
    sync(&user, None, &filter)
        .await?
        .expect_global("a.one", &json!({"of": "a.one"}))
}

async fn room_data(lab: Lab) -> Outcome {
    let user = user_with(&lab, &["a.one"]).await?;
    let room = user.create_room().await?;
    user.set(&user.room(&room, "a.one"), &json!({"a": 1}))
        .await?;
    user.set(&user.room(&room, "b.one"), &json!({"a": 1}))
        .await?;
    let only_room = sync(&user, None, &json!({"account_data": {"types": []}})).await?;
    only_room.expect_room(&room, "a.one", &json!({"a": 1}))?;
    only_room.expect_no_global("a.one")?;
    let filter = json!({"room": {"account_data": {"types": ["b.*"]}}});
    let selected = sync(&user, None, &filter).await?;
    selected.expect_room(&room, "b.one", &json!({"a": 1}))?;
    selected.expect_no_room(&room, "a.one")?;
    selected.expect_global("a.one", &json!({"of": "a.one"}))
}

async fn broken_in_sync(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for filter in [
        "never-was",
        "999999",
        "{",
        "{\"account_data\":",
        "{\"account_data\": \"no object\"}",
    ] {
        let params = SyncParams {
            filter: Some(filter),
            ..SyncParams::default()
        };
        user.get(&params.path()).await?.expect_refusal()?;
    }
    Ok(())
}

async fn upload(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let filter = json!({
        "account_data": {"types": ["a.*"], "not_types": ["a.b"]},
        "room": {"timeline": {"limit": 10}, "account_data": {"types": ["m.tag"]}},
    });
    let id = upload_of(&user, &filter).await?;
    check(
        !id.is_empty() && !id.starts_with('{'),
        "a filter_id without {",
        id.clone(),
    )?;
    let stored = user.read(&filter_path(&user, &id)).await?;
    for pointer in [
        "/account_data/types",
        "/account_data/not_types",
        "/room/timeline/limit",
    ] {
        let value = |filter: &Value| filter.pointer(pointer).cloned().unwrap_or_default();
        check_json(&value(&stored), &value(&filter), pointer)?;
    }
    Ok(())
}

async fn invalid(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = filter_path(&user, "");
    for filter in [
        json!({"presence": "not_an_object"}),
        json!({"account_data": "not_an_object"}),
        json!({"room": "not_an_object"}),
        json!({"room": {"timeline": "not_an_object"}}),
        json!({"room": {"state": "not_an_object"}}),
        json!({"room": {"ephemeral": "not_an_object"}}),
        json!({"room": {"account_data": "not_an_object"}}),
        json!({"room": {"timeline": {"rooms": "not_a_list"}}}),
        json!({"room": {"timeline": {"not_rooms": "not_a_list"}}}),
        json!({"room": {"timeline": {"senders": "not_a_list"}}}),
        json!({"room": {"timeline": {"not_senders": "not_a_list"}}}),
        json!({"room": {"timeline": {"types": "not_a_list"}}}),
        json!({"room": {"timeline": {"types": [1]}}}),
        json!({"room": {"timeline": {"rooms": ["not_a_room_id"]}}}),
        json!({"room": {"timeline": {"senders": ["not_a_user_id"]}}}),
    ] {
        user.post(path.trim_end_matches('/'), &filter)
            .await?
            .expect_refusal()?;
    }
    upload_of(&user, &json!({"room": {"timeline": {"types": ["a"]}}}))
        .await
        .map(drop)
}

async fn unparsable(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = filter_path(&user, "");
    let post = |body| Request::new(Method::POST, path.trim_end_matches('/')).body(body);
    user.send(post("{"))
        .await?
        .expect_error(400, "M_NOT_JSON")?;
    user.send(post("")).await?.expect_error(400, "M_NOT_JSON")?;
    user.send(post("[]"))
        .await?
        .expect_error_in(400, &["M_BAD_JSON", "M_NOT_JSON"])?;
    Ok(())
}

async fn other_user(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    let id = upload_of(&alice, &json!({})).await?;
    bob.get(&filter_path(&alice, &id))
        .await?
        .expect_error(403, "M_FORBIDDEN")?;
    let path = filter_path(&alice, "");
    let reply = bob.post(path.trim_end_matches('/'), &json!({})).await?;
    reply.expect_error(403, "M_FORBIDDEN")?;
    Ok(())
}

async fn unknown(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let id = upload_of(&user, &json!({})).await?;
    user.get(&filter_path(&user, &id))
        .await?
        .expect_status(200)?;
    user.get(&filter_path(&user, "999999"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn tokens(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let request = Request::new(Method::GET, filter_path(&user, "0"));
    lab.send(request.clone())
        .await?
        .expect_error(401, "M_MISSING_TOKEN")?;
    lab.send(request.token("nonsense"))
        .await?
        .expect_error(401, "M_UNKNOWN_TOKEN")?;
    Ok(())
}
