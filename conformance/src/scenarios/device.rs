//! Device account data (MSC4331): who may read and write.

use kitbag_client::{Method, Naming, Request, Scope, path};
use serde_json::json;

use crate::actor::Actor;
use crate::expect::{Outcome, check};
use crate::lab::Lab;
use crate::scenario::{Feature, Scenario};

const MSC4331: &str = "MSC4331; SPEC 3.4";
const TYPE: &str = "org.example.device";

pub(super) fn scenarios() -> Vec<Scenario> {
    authorization()
        .into_iter()
        .map(|scenario| scenario.needs(Feature::Msc4331))
        .collect()
}

#[expect(clippy::too_many_lines, reason = "a list, not a procedure")]
fn authorization() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "device_account_data/own_device_writes_and_reads",
            MSC4331,
            "PUT 200 {}, GET 200 with the content, GET of what never was 404 M_NOT_FOUND",
            own_device,
        ),
        Scenario::new(
            "device_account_data/sibling_reads",
            MSC4331,
            "another device of the same user reads 200 or 404 M_NOT_FOUND",
            sibling_reads,
        ),
        Scenario::new(
            "device_account_data/sibling_write_is_403_forbidden",
            MSC4331,
            "another device of the same user does not write; the content stays",
            sibling_writes,
        ),
        Scenario::new(
            "device_account_data/unknown_device_is_404_not_found",
            "SPEC 3.4; D6",
            "GET and PUT for a device that the user does not have are 404 M_NOT_FOUND",
            unknown_device,
        ),
        Scenario::new(
            "device_account_data/device_ids_are_case_sensitive",
            "D6",
            "another case is an unknown device",
            case_sensitive,
        ),
        Scenario::new(
            "device_account_data/other_user_is_403_forbidden",
            MSC4331,
            "GET and PUT, whether user, device and entry exist or not: no oracle",
            other_user,
        ),
        Scenario::new(
            "device_account_data/same_device_id_of_another_user_is_403",
            MSC4331,
            "equal device IDs of two users open nothing",
            same_id_of_another,
        ),
        Scenario::new(
            "device_account_data/no_or_unknown_token_is_401",
            MSC4331,
            "401 M_MISSING_TOKEN or M_UNKNOWN_TOKEN, on all paths, before all else",
            tokens,
        ),
        Scenario::new(
            "device_account_data/order_of_checks",
            "D1; DESIGN, HTTP",
            "device 404, then protected 405, then owner 403, then body 400",
            order_of_checks,
        ),
        Scenario::new(
            "device_account_data/all_names_of_the_path_are_one_entry",
            "MSC4331; D5",
            "account_data and net.zemos.account_data, under v3 and r0",
            names_of_path,
        ),
        Scenario::new(
            "device_account_data/rules_hold_under_every_name",
            "MSC4331; D5",
            "sibling 403, unknown device 404, other user 403 on each spelling of the path",
            rules_under_every_name,
        ),
        Scenario::new(
            "device_account_data/flag_is_advertised",
            "D5",
            "org.matrix.msc4331 is true in unstable_features",
            flag,
        )
        .needs(Feature::Kitbag),
    ]
}

/// All spellings of the path of one entry.
pub(super) fn paths(user: &Actor, device_id: &str, kind: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for naming in [Naming::Stable, Naming::Unstable] {
        let v3 = path::account_data(user.user_id(), Scope::Device(device_id), naming, kind);
        paths.push(v3.replacen("/v3/", "/r0/", 1));
        paths.push(v3);
    }
    paths
}

async fn own_device(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.get(&user.own(TYPE))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    user.put(&user.own(TYPE), &json!({"a": [1]}))
        .await?
        .expect_json(&json!({}))?;
    user.get(&user.own(TYPE))
        .await?
        .expect_json(&json!({"a": [1]}))?;
    user.get(&user.own("org.example.never"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn sibling_reads(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let second = lab.second_device(&first).await?;
    first.set(&first.own(TYPE), &json!({"a": 1})).await?;
    second
        .get(&first.own(TYPE))
        .await?
        .expect_json(&json!({"a": 1}))?;
    second
        .get(&first.own("org.example.never"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn sibling_writes(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let second = lab.second_device(&first).await?;
    second
        .put(&first.own(TYPE), &json!({"a": 2}))
        .await?
        .expect_error(403, "M_FORBIDDEN")?;
    first
        .get(&first.own(TYPE))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    first.set(&first.own(TYPE), &json!({"a": 1})).await?;
    second
        .put(&first.own(TYPE), &json!({"a": 2}))
        .await?
        .expect_error(403, "M_FORBIDDEN")?;
    second
        .put(&first.own(TYPE), &json!({}))
        .await?
        .expect_error(403, "M_FORBIDDEN")?;
    first
        .get(&first.own(TYPE))
        .await?
        .expect_json(&json!({"a": 1}))
}

async fn unknown_device(lab: Lab) -> Outcome {
    let (user, other) = (lab.user().await?, lab.user().await?);
    for device_id in ["NEVERWAS", "%", other.device_id()] {
        for path in paths(&user, device_id, TYPE) {
            user.get(&path).await?.expect_error(404, "M_NOT_FOUND")?;
            user.put(&path, &json!({}))
                .await?
                .expect_error(404, "M_NOT_FOUND")?;
        }
    }
    user.set(&user.own(TYPE), &json!({"a": 1})).await
}

async fn case_sensitive(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let cased = lab.login_as(user.user_id(), "MixedCase").await?;
    let path = cased.path_of(Scope::Device("mixedcase"), TYPE);
    cased.set(&cased.own(TYPE), &json!({"a": 1})).await?;
    cased.get(&path).await?.expect_error(404, "M_NOT_FOUND")?;
    cased
        .put(&path, &json!({}))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn other_user(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    alice.set(&alice.own(TYPE), &json!({"a": 1})).await?;
    let of = |user_id: &str, device_id: &str, kind: &str| {
        path::account_data(user_id, Scope::Device(device_id), Naming::Stable, kind)
    };
    for path in [
        of(alice.user_id(), alice.device_id(), TYPE),
        of(alice.user_id(), alice.device_id(), "org.example.never"),
        of(alice.user_id(), "NEVERWAS", TYPE),
        of(alice.user_id(), bob.device_id(), TYPE),
        of("@nobody:example.org", bob.device_id(), TYPE),
        of(alice.user_id(), alice.device_id(), "m.push_rules"),
    ] {
        bob.get(&path).await?.expect_error(403, "M_FORBIDDEN")?;
        bob.put(&path, &json!({"a": 2}))
            .await?
            .expect_error(403, "M_FORBIDDEN")?;
    }
    alice
        .get(&alice.own(TYPE))
        .await?
        .expect_json(&json!({"a": 1}))
}

async fn same_id_of_another(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    let alice = lab.login_as(alice.user_id(), "SHARED").await?;
    let bob = lab.login_as(bob.user_id(), "SHARED").await?;
    alice.set(&alice.own(TYPE), &json!({"of": "alice"})).await?;
    bob.get(&bob.own(TYPE))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    bob.get(&alice.own(TYPE))
        .await?
        .expect_error(403, "M_FORBIDDEN")?;
    bob.put(&alice.own(TYPE), &json!({}))
        .await?
        .expect_error(403, "M_FORBIDDEN")?;
    Ok(())
}

async fn tokens(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for device_id in [user.device_id(), "NEVERWAS"] {
        for path in paths(&user, device_id, "m.push_rules") {
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
    }
    Ok(())
}

async fn order_of_checks(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let second = lab.second_device(&first).await?;
    let unknown = first.path_of(Scope::Device("NEVERWAS"), "m.push_rules");
    first
        .put_bytes(&unknown, "{")
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    let protected = first.own("m.push_rules");
    second
        .put_bytes(&protected, "{")
        .await?
        .expect_error(405, "M_BAD_JSON")?;
    second
        .put_bytes(&first.own(TYPE), "{")
        .await?
        .expect_error(403, "M_FORBIDDEN")?;
    first
        .put_bytes(&first.own(TYPE), "{")
        .await?
        .expect_error(400, "M_NOT_JSON")?;
    Ok(())
}

async fn names_of_path(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let sibling = lab.second_device(&user).await?;
    let paths = paths(&user, user.device_id(), TYPE);
    for (number, written) in paths.iter().enumerate() {
        user.set(written, &json!({"number": number})).await?;
        for read in &paths {
            user.get(read)
                .await?
                .expect_json(&json!({"number": number}))?;
            sibling
                .get(read)
                .await?
                .expect_json(&json!({"number": number}))?;
        }
    }
    Ok(())
}

async fn rules_under_every_name(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let (second, bob) = (lab.second_device(&first).await?, lab.user().await?);
    for path in paths(&first, first.device_id(), TYPE) {
        second
            .put(&path, &json!({}))
            .await?
            .expect_error(403, "M_FORBIDDEN")?;
        bob.put(&path, &json!({}))
            .await?
            .expect_error(403, "M_FORBIDDEN")?;
        bob.get(&path).await?.expect_error(403, "M_FORBIDDEN")?;
    }
    for path in paths(&first, "NEVERWAS", TYPE) {
        bob.get(&path).await?.expect_error(403, "M_FORBIDDEN")?;
    }
    first
        .get(&first.own(TYPE))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn flag(lab: Lab) -> Outcome {
    let versions = lab.client().versions().await?;
    let flag = versions.unstable_features.get("org.matrix.msc4331");
    check(
        flag == Some(&true),
        "org.matrix.msc4331: true",
        format!("{flag:?}"),
    )
}
