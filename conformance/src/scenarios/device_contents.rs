//! Device account data (MSC4331): what is stored, and what is refused.

use kitbag_client::path;
use serde_json::{Value, json};

use crate::actor::Actor;
use crate::expect::{Outcome, check, check_json};
use crate::lab::Lab;
use crate::scenario::{Feature, Scenario};

use super::device::paths;

const MSC4331: &str = "MSC4331; SPEC 3.4";
const TYPE: &str = "org.example.device";

pub(super) fn scenarios() -> Vec<Scenario> {
    list()
        .into_iter()
        .map(|scenario| scenario.needs(Feature::Msc4331))
        .collect()
}

#[expect(clippy::too_many_lines, reason = "a list, not a procedure")]
fn list() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "device_account_data/put_replaces_without_merging",
            MSC4331,
            "a second PUT leaves nothing of the first",
            replaces,
        ),
        Scenario::new(
            "device_account_data/scopes_and_devices_are_independent",
            MSC4331,
            "the same type in global scope and on another device is another entry",
            independent,
        ),
        Scenario::new(
            "device_account_data/content_comes_back_byte_for_byte",
            "DESIGN, law 8",
            "whitespace, duplicate keys and numbers come back as they were put",
            verbatim,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "device_account_data/strange_types_and_device_ids_work",
            "MSC4331; D6",
            "slashes, percent signs, spaces and Unicode, in the type and in the device ID",
            strange_names,
        ),
        Scenario::new(
            "device_account_data/bad_bodies_are_400",
            "MSC4331; D2",
            "unparsable: M_NOT_JSON; no object: M_BAD_JSON or M_NOT_JSON",
            bad_bodies,
        ),
        Scenario::new(
            "device_account_data/put_empty_object_is_a_value",
            "D3",
            "PUT {} stores {}, whatever deletes elsewhere",
            put_empty_object,
        ),
        Scenario::new(
            "device_account_data/type_of_255_bytes_is_the_longest",
            "D19",
            "a type of 255 bytes works, one of 256 bytes is 400 M_INVALID_PARAM",
            long_type,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "device_account_data/content_of_64_kib_is_the_largest",
            "DESIGN, Limits",
            "content of 64 KiB works, one byte more is 413 M_TOO_LARGE",
            large_content,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "device_account_data/a_device_has_64_entries",
            "DESIGN, Limits; D19",
            "the 65th is 403 M_USER_LIMIT_EXCEEDED with info_uri; replacing still works",
            many_entries,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "device_account_data/unknown_shapes_of_the_path_are_404_unrecognized",
            "D20",
            "an empty type and trailing segments make the path unknown",
            unknown_paths,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "device_account_data/wrong_method_is_405_unrecognized",
            "CS API, Common error codes; D3",
            "POST, and DELETE without the prefix of MSC3391, are 405 M_UNRECOGNIZED",
            wrong_method,
        ),
        Scenario::new(
            "device_account_data/device_object_has_the_entries",
            "MSC4331, Enhancements; D7",
            "GET /devices and /devices/{id} show account_data.events, absent while there is none",
            device_object,
        ),
    ]
}

async fn replaces(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.own(TYPE), &json!({"first": 1})).await?;
    user.set(&user.own(TYPE), &json!({"second": 2})).await?;
    user.get(&user.own(TYPE))
        .await?
        .expect_json(&json!({"second": 2}))
}

async fn independent(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let second = lab.second_device(&first).await?;
    first.set(&first.own(TYPE), &json!({"of": "first"})).await?;
    second
        .get(&second.own(TYPE))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    first
        .get(&first.global(TYPE))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    second
        .set(&second.own(TYPE), &json!({"of": "second"}))
        .await?;
    first
        .set(&first.global(TYPE), &json!({"of": "all"}))
        .await?;
    first
        .get(&first.own(TYPE))
        .await?
        .expect_json(&json!({"of": "first"}))?;
    first
        .get(&second.own(TYPE))
        .await?
        .expect_json(&json!({"of": "second"}))?;
    second
        .get(&first.global(TYPE))
        .await?
        .expect_json(&json!({"of": "all"}))
}

async fn verbatim(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let content = "{ \"order\" : 0.10 ,\n \"a\":1, \"a\": 2, \"big\": 1e999 }";
    user.put_bytes(&user.own(TYPE), format!("\n{content} "))
        .await?
        .expect_json(&json!({}))?;
    user.get(&user.own(TYPE))
        .await?
        .expect_bytes(content.as_bytes())
}

async fn strange_names(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for device_id in ["a/b", "100%2F", "with space", "gerät-日本"] {
        let device = lab.login_as(user.user_id(), device_id).await?;
        for kind in ["a/b", "%2F", "with space", "日本語.🦀", "q?x#y"] {
            for path in paths(&device, device_id, kind) {
                device.set(&path, &json!({"kind": kind})).await?;
                user.get(&path).await?.expect_json(&json!({"kind": kind}))?;
            }
        }
    }
    Ok(())
}

async fn bad_bodies(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for body in [&b""[..], b"{", b"{} x", b"{\"a\":\"\xff\"}"] {
        user.put_bytes(&user.own(TYPE), body)
            .await?
            .expect_error(400, "M_NOT_JSON")?;
    }
    for body in ["[]", "\"text\"", "1", "true", "null"] {
        let reply = user.put_bytes(&user.own(TYPE), body).await?;
        reply.expect_error_in(400, &["M_BAD_JSON", "M_NOT_JSON"])?;
    }
    user.get(&user.own(TYPE))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn put_empty_object(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.get(&user.own(TYPE))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    user.set(&user.own(TYPE), &json!({"a": 1})).await?;
    user.set(&user.own(TYPE), &json!({})).await?;
    user.get(&user.own(TYPE)).await?.expect_json(&json!({}))
}

async fn long_type(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.own(&"a".repeat(255)), &json!({})).await?;
    let path = user.own(&"a".repeat(256));
    user.put(&path, &json!({}))
        .await?
        .expect_error(400, "M_INVALID_PARAM")?;
    Ok(())
}

async fn large_content(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let object = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8));
    user.put_bytes(&user.own(TYPE), object(65_536))
        .await?
        .expect_json(&json!({}))?;
    let reply = user.put_bytes(&user.own(TYPE), object(65_537)).await?;
    reply.expect_error(413, "M_TOO_LARGE")?;
    user.get(&user.own(TYPE))
        .await?
        .expect_bytes(object(65_536).as_bytes())
}

async fn many_entries(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for number in 0..64 {
        user.set(
            &user.own(&format!("org.example.{number}")),
            &json!({"n": number}),
        )
        .await?;
    }
    let reply = user.put(&user.own("org.example.64"), &json!({})).await?;
    let body = reply.expect_error(403, "M_USER_LIMIT_EXCEEDED")?;
    check(
        body["info_uri"].is_string(),
        "an `info_uri`",
        body.to_string(),
    )?;
    user.set(&user.own("org.example.0"), &json!({"n": "replaced"}))
        .await?;
    user.set(&user.global("org.example.64"), &json!({})).await?;
    let sibling = lab.second_device(&user).await?;
    sibling.set(&sibling.own(TYPE), &json!({})).await
}

async fn unknown_paths(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for path in [user.own(""), user.own(TYPE) + "/b", user.own(TYPE) + "/"] {
        user.get(&path).await?.expect_error(404, "M_UNRECOGNIZED")?;
        user.put(&path, &json!({}))
            .await?
            .expect_error(404, "M_UNRECOGNIZED")?;
    }
    Ok(())
}

async fn wrong_method(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.own(TYPE), &json!({"a": 1})).await?;
    for path in paths(&user, user.device_id(), TYPE) {
        user.post(&path, &json!({}))
            .await?
            .expect_error(405, "M_UNRECOGNIZED")?;
        user.delete(&path)
            .await?
            .expect_error(405, "M_UNRECOGNIZED")?;
    }
    user.get(&user.own(TYPE))
        .await?
        .expect_json(&json!({"a": 1}))
}

async fn device_object(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let second = lab.second_device(&first).await?;
    check_json(
        &shown(&second, &first).await?,
        &Value::Null,
        "account_data of the device",
    )?;
    first.set(&first.own(TYPE), &json!({"a": 1})).await?;
    let expected = json!({"events": [{"type": TYPE, "content": {"a": 1}}]});
    check_json(
        &shown(&second, &first).await?,
        &expected,
        "account_data of the device",
    )?;
    check_json(
        &shown(&second, &second).await?,
        &Value::Null,
        "account_data of the sibling",
    )
}

/// What the Device object of `whose` has under `account_data`; both endpoints must agree.
async fn shown(by: &Actor, whose: &Actor) -> Outcome<Value> {
    let single = by.read(&path::device(whose.device_id())).await?;
    let list = by.read(&format!("{}/devices", path::V3)).await?;
    let devices = list["devices"].as_array().cloned().unwrap_or_default();
    let listed = devices
        .iter()
        .find(|device| device["device_id"] == whose.device_id());
    let listed = listed.map_or(Value::Null, |device| device["account_data"].clone());
    check_json(
        &listed,
        &single["account_data"],
        "GET /devices with account_data",
    )?;
    Ok(listed)
}
