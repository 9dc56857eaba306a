//! What global account data refuses, and in which order it checks.

use kitbag_client::{Method, Request, path};
use serde_json::json;

use crate::actor::Actor;
use crate::expect::Outcome;
use crate::lab::Lab;
use crate::scenario::{Feature, Scenario};

const CONFIG: &str = "CS API, Client Config";
const BYTES_MAX: usize = 1024 * 1024;

#[expect(clippy::too_many_lines, reason = "a list, not a procedure")]
pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "refusals/no_token_is_401_missing_token",
            CONFIG,
            "GET and PUT without a token are 401 M_MISSING_TOKEN",
            no_token,
        ),
        Scenario::new(
            "refusals/unknown_token_is_401_unknown_token",
            CONFIG,
            "GET and PUT with a token that never was are 401 M_UNKNOWN_TOKEN",
            unknown_token,
        ),
        Scenario::new(
            "refusals/other_user_is_403_forbidden",
            CONFIG,
            "another user's path is 403 M_FORBIDDEN, whether entry or user exist or not",
            other_user,
        ),
        Scenario::new(
            "refusals/user_id_must_match_exactly",
            "SPEC 1.3",
            "a localpart alone or another case is another user: 403 M_FORBIDDEN",
            inexact_user,
        ),
        Scenario::new(
            "refusals/unparsable_body_is_400_not_json",
            "CS API, Client Config; D2",
            "broken JSON, no body at all and trailing garbage are 400 M_NOT_JSON",
            unparsable_body,
        ),
        Scenario::new(
            "refusals/invalid_utf8_is_400_not_json",
            "CS API, API standards; D2",
            "a body that is not UTF-8 is 400 M_NOT_JSON",
            invalid_utf8,
        ),
        Scenario::new(
            "refusals/non_object_body_is_400",
            "CS API, Client Config; D2",
            "arrays, strings, numbers, booleans and null are 400 M_BAD_JSON or M_NOT_JSON",
            non_object,
        ),
        Scenario::new(
            "refusals/refused_body_changes_nothing",
            CONFIG,
            "after a refused PUT the old content is still there",
            refused_body_changes_nothing,
        ),
        Scenario::new(
            "refusals/wrong_method_is_405_unrecognized",
            "CS API, Common error codes",
            "POST to an entry is 405 M_UNRECOGNIZED",
            wrong_method,
        ),
        Scenario::new(
            "refusals/empty_type_is_404_unrecognized",
            "D20",
            "a path that ends after `account_data/` is unknown",
            empty_type,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "refusals/trailing_segments_are_404_unrecognized",
            "D20",
            "a raw slash in the type makes the path unknown",
            trailing_segments,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "refusals/type_of_255_bytes_is_the_longest",
            "D19",
            "a type of 255 bytes works, one of 256 bytes is 400 M_INVALID_PARAM, GET and PUT",
            long_type,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "refusals/content_of_1_mib_is_the_largest",
            "D19; DESIGN, Limits",
            "content of 1 MiB works, one byte more is 413 M_TOO_LARGE",
            large_content,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "refusals/user_goes_on_after_413",
            "D19; DESIGN, Limits",
            "16 MiB are 413 M_TOO_LARGE, or the connection closes; both leave the rest working",
            huge_content,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "refusals/deep_nesting_is_no_server_error",
            "DESIGN, Limits",
            "depth 100 is stored; depth 10,000 is refused with a 4xx",
            deep_nesting,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "refusals/token_is_checked_before_user",
            "D1",
            "another user's path without a token is 401, not 403",
            token_before_user,
        ),
        Scenario::new(
            "refusals/user_is_checked_before_type_and_body",
            "D1",
            "another user's path is 403 also with a protected type or a broken body",
            user_before_rest,
        ),
        Scenario::new(
            "refusals/ignoring_oneself_is_400_invalid_param",
            "D27",
            "m.ignored_user_list that names its owner is 400 M_INVALID_PARAM",
            self_ignore,
        ),
        Scenario::new(
            "refusals/malformed_ignore_list_is_stored",
            "CS API, Ignoring users; D27",
            "m.ignored_user_list of another shape is stored and means nothing",
            malformed_ignore_list,
        ),
        Scenario::new(
            "refusals/query_string_names_no_type",
            "RFC 3986, 3.4",
            "an unknown query parameter is ignored",
            unknown_query,
        ),
    ]
}

async fn no_token(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    let get = Request::new(Method::GET, &path);
    lab.send(get).await?.expect_error(401, "M_MISSING_TOKEN")?;
    let put = Request::new(Method::PUT, &path).json(&json!({}));
    lab.send(put).await?.expect_error(401, "M_MISSING_TOKEN")?;
    user.get(&path).await?.expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn unknown_token(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.global("org.example.there"), &json!({"a": 1}))
        .await?;
    let path = user.global("org.example.a");
    for token in [
        "nonsense",
        "kt_YWxpY2U_0000_0000",
        "syt_YQ_aaaaaaaaaaaaaaaaaaaa_000000",
    ] {
        let get = Request::new(Method::GET, &path).token(token);
        lab.send(get).await?.expect_error(401, "M_UNKNOWN_TOKEN")?;
        let put = Request::new(Method::PUT, &path)
            .token(token)
            .json(&json!({}));
        lab.send(put).await?.expect_error(401, "M_UNKNOWN_TOKEN")?;
    }
    user.get(&user.global("org.example.there"))
        .await?
        .expect_json(&json!({"a": 1}))
}

async fn other_user(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    alice
        .set(&alice.global("org.example.a"), &json!({"a": 1}))
        .await?;
    let server = alice
        .user_id()
        .split_once(':')
        .map_or("", |(_, server)| server);
    for user_id in [
        alice.user_id(),
        &format!("@nobody-here:{server}"),
        "@someone:elsewhere.example",
    ] {
        for kind in ["org.example.a", "org.example.never"] {
            let path = format!(
                "{}/user/{}/account_data/{kind}",
                path::V3,
                path::segment(user_id)
            );
            bob.get(&path).await?.expect_error(403, "M_FORBIDDEN")?;
            bob.put(&path, &json!({"a": 2}))
                .await?
                .expect_error(403, "M_FORBIDDEN")?;
        }
    }
    alice
        .get(&alice.global("org.example.a"))
        .await?
        .expect_json(&json!({"a": 1}))
}

async fn inexact_user(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.global("org.example.there"), &json!({"a": 1}))
        .await?;
    for user_id in [user.localpart().to_owned(), user.user_id().to_uppercase()] {
        let path = format!(
            "{}/user/{}/account_data/a",
            path::V3,
            path::segment(&user_id)
        );
        user.put(&path, &json!({}))
            .await?
            .expect_error(403, "M_FORBIDDEN")?;
    }
    user.get(&user.global("org.example.there"))
        .await?
        .expect_json(&json!({"a": 1}))
}

async fn unparsable_body(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    for body in [
        "", "{", "{\"a\":1", "{} x", "{'a':1}", "{\"a\":}", "nonsense",
    ] {
        user.put_bytes(&path, body)
            .await?
            .expect_error(400, "M_NOT_JSON")?;
    }
    Ok(())
}

async fn invalid_utf8(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    for body in [&b"{\"a\":\"\xff\xfe\"}"[..], &b"{\"\xe3\x28\":1}"[..]] {
        user.put_bytes(&path, body)
            .await?
            .expect_error(400, "M_NOT_JSON")?;
    }
    Ok(())
}

async fn non_object(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    for body in ["[]", "[{}]", "\"text\"", "1", "1.5", "true", "null"] {
        let reply = user.put_bytes(&path, body).await?;
        reply.expect_error_in(400, &["M_BAD_JSON", "M_NOT_JSON"])?;
    }
    Ok(())
}

async fn refused_body_changes_nothing(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    user.set(&path, &json!({"a": 1})).await?;
    for body in ["{\"a\":2", "[]"] {
        user.put_bytes(&path, body).await?.expect_status(400)?;
    }
    user.get(&path).await?.expect_json(&json!({"a": 1}))
}

async fn wrong_method(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    user.post(&path, &json!({}))
        .await?
        .expect_error(405, "M_UNRECOGNIZED")?;
    Ok(())
}

async fn empty_type(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("");
    user.get(&path).await?.expect_error(404, "M_UNRECOGNIZED")?;
    user.put(&path, &json!({}))
        .await?
        .expect_error(404, "M_UNRECOGNIZED")?;
    user.put(path.trim_end_matches('/'), &json!({}))
        .await?
        .expect_error(404, "M_UNRECOGNIZED")?;
    Ok(())
}

async fn trailing_segments(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for path in [
        user.global("org.example.a") + "/b",
        user.global("org.example.a") + "/",
    ] {
        user.get(&path).await?.expect_error(404, "M_UNRECOGNIZED")?;
        user.put(&path, &json!({}))
            .await?
            .expect_error(404, "M_UNRECOGNIZED")?;
    }
    Ok(())
}

async fn long_type(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    // 127 two-byte letters and one more byte: the limit counts bytes, not letters.
    for longest in ["a".repeat(255), "é".repeat(127) + "a"] {
        let path = user.global(&longest);
        user.set(&path, &json!({"a": 1})).await?;
        user.get(&path).await?.expect_json(&json!({"a": 1}))?;
        let path = user.global(&(longest + "a"));
        user.put(&path, &json!({}))
            .await?
            .expect_error(400, "M_INVALID_PARAM")?;
        user.get(&path)
            .await?
            .expect_error(400, "M_INVALID_PARAM")?;
    }
    Ok(())
}

async fn large_content(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.large");
    user.put_bytes(&path, object_of(BYTES_MAX))
        .await?
        .expect_json(&json!({}))?;
    user.get(&path)
        .await?
        .expect_bytes(object_of(BYTES_MAX).as_bytes())?;
    for bytes in [BYTES_MAX + 1, BYTES_MAX + BYTES_MAX / 2] {
        user.put_bytes(&path, object_of(bytes))
            .await?
            .expect_error(413, "M_TOO_LARGE")?;
    }
    user.get(&path)
        .await?
        .expect_bytes(object_of(BYTES_MAX).as_bytes())
}

async fn huge_content(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.huge");
    // A server may stop reading and close: then the client sees no answer at all.
    if let Ok(reply) = user.put_bytes(&path, object_of(16 * BYTES_MAX)).await {
        reply.expect_error(413, "M_TOO_LARGE")?;
    }
    user.get(&path).await?.expect_error(404, "M_NOT_FOUND")?;
    user.set(&path, &json!({"a": 1})).await
}

fn object_of(bytes: usize) -> String {
    const WRAPPING: usize = r#"{"a":""}"#.len();
    format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - WRAPPING))
}

async fn deep_nesting(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.deep");
    user.put_bytes(&path, nested(100))
        .await?
        .expect_json(&json!({}))?;
    user.get(&path)
        .await?
        .expect_bytes(nested(100).as_bytes())?;
    user.put_bytes(&path, nested(10_000))
        .await?
        .expect_refusal()
}

fn nested(depth: usize) -> String {
    format!(
        r#"{{"a":{}{}}}"#,
        "[".repeat(depth - 1),
        "]".repeat(depth - 1)
    )
}

async fn token_before_user(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = format!(
        "{}/user/%40other%3Aexample.org/account_data/m.push_rules",
        path::V3
    );
    let request = Request::new(Method::PUT, &path).body("{");
    lab.send(request.clone())
        .await?
        .expect_error(401, "M_MISSING_TOKEN")?;
    lab.send(request.token("nonsense"))
        .await?
        .expect_error(401, "M_UNKNOWN_TOKEN")?;
    user.put_bytes(&path, "{")
        .await?
        .expect_error(403, "M_FORBIDDEN")?;
    Ok(())
}

async fn user_before_rest(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    for kind in ["m.push_rules", "m.fully_read", "org.example.a"] {
        for path in [alice.global(kind), alice.room("not-a-room", kind)] {
            for body in ["{}", "{", "[]"] {
                bob.put_bytes(&path, body)
                    .await?
                    .expect_error(403, "M_FORBIDDEN")?;
            }
        }
    }
    bob.set(&bob.global("org.example.a"), &json!({"of": "bob"}))
        .await
}

async fn self_ignore(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("m.ignored_user_list");
    let content = json!({"ignored_users": {user.user_id(): {}}});
    user.put(&path, &content)
        .await?
        .expect_error(400, "M_INVALID_PARAM")?;
    ignore_list_is(&user, None).await?;
    let content = json!({"ignored_users": {"@other:example.org": {}}});
    user.set(&path, &content).await?;
    user.get(&path).await?.expect_json(&content)
}

async fn malformed_ignore_list(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for content in [
        json!({"ignored_users": [user.user_id()]}),
        json!({"ignored_users": "nobody"}),
        json!({"other": {}}),
    ] {
        user.set(&user.global("m.ignored_user_list"), &content)
            .await?;
        ignore_list_is(&user, Some(&content)).await?;
    }
    Ok(())
}

async fn ignore_list_is(user: &Actor, content: Option<&serde_json::Value>) -> Outcome {
    let reply = user.get(&user.global("m.ignored_user_list")).await?;
    match content {
        Some(content) => reply.expect_json(content),
        None => reply.expect_error(404, "M_NOT_FOUND").map(drop),
    }
}

async fn unknown_query(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global("org.example.a");
    user.set(&format!("{path}?unknown=1&type=b"), &json!({"a": 1}))
        .await?;
    user.get(&path).await?.expect_json(&json!({"a": 1}))
}
