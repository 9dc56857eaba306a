//! Global account data: what is stored comes back.

use kitbag_client::{Method, Request, path};
use serde_json::json;

use crate::expect::{Outcome, check_json};
use crate::lab::Lab;
use crate::scenario::{Feature, Scenario};

const CONFIG: &str = "CS API, Client Config";

#[expect(clippy::too_many_lines, reason = "a list, not a procedure")]
pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "account_data/put_then_get_returns_content",
            CONFIG,
            "PUT answers 200 {} and GET answers the content itself, not wrapped",
            put_then_get,
        ),
        Scenario::new(
            "account_data/put_replaces_without_merging",
            CONFIG,
            "a second PUT leaves nothing of the first",
            put_replaces,
        ),
        Scenario::new(
            "account_data/get_absent_is_404_not_found",
            CONFIG,
            "GET of what was never stored is 404 M_NOT_FOUND",
            get_absent,
        ),
        Scenario::new(
            "account_data/put_empty_object_is_a_value",
            "CS API, Client Config; D3",
            "PUT {} stores {}: GET is 200 {} and an initial sync has it",
            put_empty_object,
        ),
        Scenario::new(
            "account_data/wrapped_looking_content_is_kept_wrapped",
            CONFIG,
            "content with the keys `type` and `content` is content like any other",
            wrapped_content,
        ),
        Scenario::new(
            "account_data/second_device_reads_what_the_first_wrote",
            CONFIG,
            "global account data belongs to the account, and each device may write it",
            shared_by_devices,
        ),
        Scenario::new(
            "account_data/users_do_not_share_entries",
            CONFIG,
            "what one user stored is not there for another",
            isolated_users,
        ),
        Scenario::new(
            "account_data/missing_content_type_is_accepted",
            "CS API, API standards",
            "a PUT without a Content-Type header is taken as JSON",
            no_content_type,
        ),
        Scenario::new(
            "account_data/strange_types_round_trip",
            "CS API, Client Config; D20",
            "types with slashes, percent signs, spaces, delimiters and any Unicode work",
            strange_types,
        ),
        Scenario::new(
            "account_data/type_is_decoded_exactly_once",
            "RFC 3986, 2.4",
            "`a/b` (sent a%2Fb) and `a%2Fb` (sent a%252Fb) are different types",
            decoded_once,
        ),
        Scenario::new(
            "account_data/spelling_of_the_path_does_not_matter",
            "RFC 3986, 6.2.2",
            "%2e and %2E, @ and %40 name the same entry",
            spelling_of_path,
        ),
        Scenario::new(
            "account_data/types_are_case_sensitive",
            CONFIG,
            "types that differ in case are different entries",
            case_sensitive_types,
        ),
        Scenario::new(
            "account_data/r0_path_is_the_same_entry",
            "CS API, API versions; DESIGN",
            "what is put through v3 is read through r0, and the other way round",
            r0_path,
        ),
        Scenario::new(
            "account_data/numbers_are_not_limited_to_canonical_json",
            "CS API, Client Config",
            "floats and integers beyond 2^53 are stored and come back as the same numbers",
            numbers,
        ),
        Scenario::new(
            "account_data/content_comes_back_byte_for_byte",
            "DESIGN, law 8",
            "whitespace, key order, duplicate keys, escapes and numbers come back as they were put",
            verbatim,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "account_data/verbatim_is_from_brace_to_brace",
            "DESIGN, law 8",
            "whitespace around the object is not part of the content",
            verbatim_is_trimmed,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "account_data/content_of_64_kib_is_accepted",
            "D19",
            "real m.direct and m.push_rules exceed the limit of events",
            big_content,
        ),
    ]
}

async fn put_then_get(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let content = json!({"theme": "dark", "nested": {"list": [1, "two", null, true]}});
    user.put(&user.global("org.example.a"), &content)
        .await?
        .expect_json(&json!({}))?;
    user.get(&user.global("org.example.a"))
        .await?
        .expect_json(&content)
}

async fn put_replaces(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    user.set(&path, &json!({"first": 1, "both": {"a": 1}}))
        .await?;
    user.set(&path, &json!({"both": {"b": 2}})).await?;
    user.get(&path)
        .await?
        .expect_json(&json!({"both": {"b": 2}}))
}

async fn get_absent(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.global("org.example.there"), &json!({"a": 1}))
        .await?;
    user.get(&user.global("org.example.never"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    user.get(&user.global("m.direct"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    user.get(&user.global("org.example.there"))
        .await?
        .expect_json(&json!({"a": 1}))
}

async fn put_empty_object(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.empty");
    user.set(&path, &json!({})).await?;
    user.get(&path).await?.expect_json(&json!({}))?;
    user.initial_sync()
        .await?
        .expect_global("org.example.empty", &json!({}))?;
    user.set(&path, &json!({"a": 1})).await?;
    user.set(&path, &json!({})).await?;
    user.get(&path).await?.expect_json(&json!({}))
}

async fn wrapped_content(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let content = json!({"type": "org.example.other", "content": {"a": 1}});
    user.set(&user.global("org.example.a"), &content).await?;
    user.get(&user.global("org.example.a"))
        .await?
        .expect_json(&content)?;
    user.get(&user.global("org.example.other"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn shared_by_devices(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let second = lab.second_device(&first).await?;
    let path = first.global("org.example.a");
    first.set(&path, &json!({"by": 1})).await?;
    second.get(&path).await?.expect_json(&json!({"by": 1}))?;
    second.set(&path, &json!({"by": 2})).await?;
    first.get(&path).await?.expect_json(&json!({"by": 2}))
}

async fn isolated_users(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    alice
        .set(&alice.global("org.example.a"), &json!({"of": "alice"}))
        .await?;
    bob.get(&bob.global("org.example.a"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    bob.set(&bob.global("org.example.a"), &json!({"of": "bob"}))
        .await?;
    alice
        .get(&alice.global("org.example.a"))
        .await?
        .expect_json(&json!({"of": "alice"}))
}

async fn no_content_type(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    let request = Request::new(Method::PUT, &path).body(r#"{"a":1}"#);
    user.send(request).await?.expect_json(&json!({}))?;
    user.get(&path).await?.expect_json(&json!({"a": 1}))
}

async fn strange_types(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let types = [
        "m.secret_storage.key.abc/def+gh=",
        "/",
        "a/../b",
        "100%",
        "%2F",
        "with space",
        "q?x=1&y#z",
        "ünïcödé.日本語.🦀",
        "a+b;c,d:e@f",
        "\"quoted\"\\",
        "line\nbreak",
    ];
    for (number, kind) in types.iter().enumerate() {
        user.set(&user.global(kind), &json!({"number": number}))
            .await?;
    }
    for (number, kind) in types.iter().enumerate() {
        user.get(&user.global(kind))
            .await?
            .expect_json(&json!({"number": number}))?;
    }
    let sync = user.initial_sync().await?;
    for (number, kind) in types.iter().enumerate() {
        sync.expect_global(kind, &json!({"number": number}))?;
    }
    Ok(())
}

async fn decoded_once(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let base = user.global("");
    user.set(&format!("{base}a%2Fb"), &json!({"slash": true}))
        .await?;
    user.get(&format!("{base}a%252Fb"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    user.set(&format!("{base}a%252Fb"), &json!({"slash": false}))
        .await?;
    user.get(&format!("{base}a%2Fb"))
        .await?
        .expect_json(&json!({"slash": true}))
}

async fn spelling_of_path(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let content = json!({"a": 1});
    user.set(&user.global("org.example.a~b"), &content).await?;
    let encoded = path::segment(user.user_id());
    for (user_id, kind) in [
        (user.user_id(), "org.example.a~b"),
        (encoded.as_str(), "org%2Eexample%2ea~b"),
        (user.user_id(), "%6F%72g.example.a%7Eb"),
    ] {
        let path = format!("{}/user/{user_id}/account_data/{kind}", path::V3);
        user.get(&path).await?.expect_json(&content)?;
    }
    Ok(())
}

async fn case_sensitive_types(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.global("org.example.Case"), &json!({"a": 1}))
        .await?;
    user.get(&user.global("org.example.case"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn r0_path(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let v3 = user.global("org.example.a");
    let r0 = v3.replacen("/v3/", "/r0/", 1);
    user.set(&v3, &json!({"a": 1})).await?;
    user.get(&r0).await?.expect_json(&json!({"a": 1}))?;
    user.set(&r0, &json!({"a": 2})).await?;
    user.get(&v3).await?.expect_json(&json!({"a": 2}))
}

async fn numbers(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.numbers");
    let content = json!({
        "float": 0.25,
        "negative": -1.5e-7,
        "large": 9_007_199_254_740_993_u64,
        "largest": u64::MAX,
        "smallest": i64::MIN,
    });
    user.set(&path, &content).await?;
    user.get(&path).await?.expect_json(&content)?;
    let sync = user.initial_sync().await?;
    check_json(
        &json!(sync.global("org.example.numbers")),
        &json!([content]),
        "sync",
    )
}

async fn verbatim(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.verbatim");
    let contents = [
        "{ \"z\" : 1 ,\n\t\"a\":[ 1,2 , 3 ] }",
        r#"{"a":1,"a":2,"b":{"c":1,"c":1}}"#,
        r#"{"float":1.0,"exp":1E+2,"neg":-0,"long":0.1000000000000000055511151231257827}"#,
        r#"{"big":123456789012345678901234567890,"tiny":1e-400}"#,
        r#"{"escape":"\u0041\/\u00e9é\ud83e\udd80","nul":"\u0000"}"#,
        r#"{"":{"":""}}"#,
    ];
    for content in contents {
        user.put_bytes(&path, content)
            .await?
            .expect_json(&json!({}))?;
        user.get(&path).await?.expect_bytes(content.as_bytes())?;
    }
    Ok(())
}

async fn verbatim_is_trimmed(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.verbatim");
    user.put_bytes(&path, " \r\n\t{ \"a\": 1 }\n \t")
        .await?
        .expect_json(&json!({}))?;
    user.get(&path).await?.expect_bytes(b"{ \"a\": 1 }")
}

async fn big_content(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("m.direct");
    let content = json!({"@a:example.org": ["!room:example.org".repeat(8192)]});
    user.set(&path, &content).await?;
    user.get(&path).await?.expect_json(&content)
}
