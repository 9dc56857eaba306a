//! What holds for every endpoint: errors, CORS, encodings; and the answers for a client's start.

use kitbag_client::{Method, Request, path};
use serde_json::{Value, json};

use crate::expect::{Outcome, Reply, check, check_eq};
use crate::lab::Lab;
use crate::scenario::Scenario;

const STANDARDS: &str = "CS API, API standards; SPEC 9.5";

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = standards();
    scenarios.extend(start());
    scenarios
}

fn standards() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "http/unknown_endpoint_is_404_unrecognized",
            "CS API, API standards; Complement TestUnknownEndpoints",
            "404 M_UNRECOGNIZED, with and without a token",
            unknown_endpoint,
        ),
        Scenario::new(
            "http/wrong_method_is_405_unrecognized",
            "CS API, API standards; Complement TestUnknownEndpoints",
            "405 M_UNRECOGNIZED on known paths",
            wrong_method,
        ),
        Scenario::new(
            "http/cors_headers_are_on_every_answer",
            "CS API, Web browser clients; SPEC 9.5",
            "200, 401, 403, 404, 405 and 400 have the three headers",
            cors,
        ),
        Scenario::new(
            "http/options_needs_no_token",
            "CS API, Web browser clients; SPEC 9.5",
            "OPTIONS is 2xx with the headers, on any path, and does nothing",
            options,
        ),
        Scenario::new(
            "http/answers_are_json",
            STANDARDS,
            "Content-Type is application/json on 200 and on errors",
            json_answers,
        ),
        Scenario::new(
            "http/errors_have_code_and_text",
            "CS API, Standard error response",
            "errcode and error are strings in every error",
            error_form,
        ),
        Scenario::new(
            "http/invalid_utf8_is_400_not_json",
            "Complement TestRequestEncodingFails",
            "a body of register that is not UTF-8 is 400 M_NOT_JSON",
            invalid_utf8,
        ),
        Scenario::new(
            "http/other_authorization_schemes_are_401",
            STANDARDS,
            "Basic, or a Bearer without a token, is 401",
            other_schemes,
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a list, not a procedure")]
fn start() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "http/versions_have_their_structure",
            "CS API, API versions; Complement TestVersionStructure",
            "version strings r0.x.y or v1.x, flags booleans, without a token",
            versions,
        ),
        Scenario::new(
            "http/versions_reach_v1_10",
            "D30",
            "the release that protects m.push_rules, at least",
            versions_reach,
        ),
        Scenario::new(
            "http/capabilities_have_the_two_keys",
            "CS API, Capabilities; Complement TestServerCapabilities",
            "m.change_password and m.room_versions; 401 without a token",
            capabilities,
        ),
        Scenario::new(
            "http/well_known_names_the_homeserver",
            "CS API, Server discovery",
            "200 with m.homeserver.base_url, or 404 where it is not configured",
            well_known,
        ),
        Scenario::new(
            "http/profile_fields_are_set_and_read",
            "CS API, Profiles",
            "displayname and avatar_url, alone and together, readable by others",
            profile,
        ),
        Scenario::new(
            "http/profile_of_another_user_is_403",
            "CS API, Profiles",
            "PUT to another user's profile is 403 M_FORBIDDEN",
            others_profile,
        ),
        Scenario::new(
            "http/profile_of_nobody_is_404",
            "CS API, Profiles",
            "404 M_NOT_FOUND",
            nobodys_profile,
        ),
        Scenario::new(
            "http/turn_server_is_an_object",
            "CS API, Voice over IP; issue 2",
            "200 with an object; 401 without a token",
            turn_server,
        ),
        Scenario::new(
            "http/thirdparty_protocols_is_an_object",
            "CS API, Third-party networks; issue 2",
            "200 with an object",
            thirdparty,
        ),
        Scenario::new(
            "http/room_keys_version_is_404_not_found",
            "CS API, Server-side key backups; issue 2",
            "404 M_NOT_FOUND where no backup is",
            room_keys,
        ),
        Scenario::new(
            "http/presence_is_accepted",
            "CS API, Presence; issue 2",
            "PUT of one's own presence is 200, of another's 403",
            presence,
        ),
        Scenario::new(
            "http/push_rules_are_served",
            "CS API, Push rules",
            "GET /pushrules/ is 200 with global; 401 without a token",
            push_rules,
        ),
    ]
}

async fn unknown_endpoint(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for path in [
        "/_matrix/client/unknown",
        "/_matrix/client/v3/unknown",
        "/_matrix/client/v3/unknown/path",
        "/_matrix/client/v9/sync",
        "/_matrix/unknown",
    ] {
        for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE] {
            let request = Request::new(method, path);
            lab.send(request.clone())
                .await?
                .expect_error(404, "M_UNRECOGNIZED")?;
            user.send(request)
                .await?
                .expect_error(404, "M_UNRECOGNIZED")?;
        }
    }
    Ok(())
}

async fn wrong_method(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for (method, endpoint) in [
        (Method::PUT, "login"),
        (Method::DELETE, "login"),
        (Method::POST, "sync"),
        (Method::GET, "logout"),
        (Method::PATCH, "devices"),
        (Method::GET, "register"),
    ] {
        let request = Request::new(method, format!("{}/{endpoint}", path::V3)).body("{}");
        user.send(request)
            .await?
            .expect_error(405, "M_UNRECOGNIZED")?;
    }
    Ok(())
}

fn expect_cors(reply: &Reply) -> Outcome {
    let header = |name| {
        reply
            .response
            .header(name)
            .unwrap_or("")
            .to_ascii_lowercase()
    };
    let methods = header("access-control-allow-methods");
    let headers = header("access-control-allow-headers");
    let holds = header("access-control-allow-origin") == "*"
        && ["get", "post", "put", "delete", "options"]
            .iter()
            .all(|name| methods.contains(name))
        && ["x-requested-with", "content-type", "authorization"]
            .iter()
            .all(|name| headers.contains(name));
    check(
        holds,
        "the three access-control-allow headers",
        format!("{:?} for {}", reply.response.headers, reply.failure("").got),
    )
}

async fn cors(lab: Lab) -> Outcome {
    let (user, other) = (lab.user().await?, lab.user().await?);
    let path = user.global("org.example.a");
    for (reply, status) in [
        (user.put(&path, &json!({})).await?, 200),
        (lab.send(Request::new(Method::GET, &path)).await?, 401),
        (other.get(&path).await?, 403),
        (user.get(&user.global("org.example.never")).await?, 404),
        (user.get("/_matrix/client/v3/unknown").await?, 404),
        (user.post(&path, &json!({})).await?, 405),
        (
            user.put(&user.global("m.push_rules"), &json!({})).await?,
            405,
        ),
        (user.put_bytes(&path, "{").await?, 400),
        (user.get("/_matrix/client/versions").await?, 200),
    ] {
        expect_cors(&reply.expect_status(status)?)?;
    }
    Ok(())
}

async fn options(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for path in [
        user.global("org.example.a"),
        user.global("m.push_rules"),
        user.own("org.example.a"),
        format!("{}/sync", path::V3),
        format!("{}/login", path::V3),
        format!("{}/logout", path::V3),
    ] {
        let reply = lab.send(Request::new(Method::OPTIONS, path)).await?;
        check(
            (200..300).contains(&reply.status()),
            "a 2xx",
            reply.failure("").got,
        )?;
        expect_cors(&reply)?;
    }
    user.get(&user.global("org.example.a"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn json_answers(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.global("a"), &json!({"a": 1})).await?;
    for (path, status) in [
        (user.global("a"), 200),
        (user.global("never"), 404),
        ("/_matrix/client/v3/unknown".to_owned(), 404),
    ] {
        let reply = user.get(&path).await?.expect_status(status)?;
        let content_type = reply
            .response
            .header("content-type")
            .unwrap_or("none")
            .to_owned();
        check(
            content_type.starts_with("application/json"),
            "application/json",
            content_type,
        )?;
    }
    Ok(())
}

async fn error_form(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for (reply, status) in [
        (user.get(&user.global("org.example.never")).await?, 404),
        (user.get("/_matrix/client/v3/unknown").await?, 404),
        (
            user.put(&user.global("m.push_rules"), &json!({})).await?,
            405,
        ),
        (user.post(&user.global("a"), &json!({})).await?, 405),
        (
            lab.send(Request::new(Method::GET, user.global("a")))
                .await?,
            401,
        ),
    ] {
        let body: Value = reply.clone().expect_status(status)?.json()?;
        let holds = body["errcode"].is_string() && body["error"].is_string();
        check(holds, "errcode and error", reply.failure("").got)?;
    }
    Ok(())
}

async fn invalid_utf8(lab: Lab) -> Outcome {
    let request = Request::new(Method::POST, format!("{}/register", path::V3))
        .header("content-type", "application/json")
        .body(&b"{ \"test\":\"a\x81\" }"[..]);
    lab.send(request).await?.expect_error(400, "M_NOT_JSON")?;
    Ok(())
}

async fn other_schemes(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let request = Request::new(Method::GET, format!("{}/account/whoami", path::V3));
    user.send(request.clone()).await?.expect_status(200)?;
    for value in ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "nonsense"] {
        let reply = lab
            .send(request.clone().header("authorization", value))
            .await?;
        reply.expect_error_in(401, &["M_MISSING_TOKEN", "M_UNKNOWN_TOKEN"])?;
    }
    Ok(())
}

async fn versions(lab: Lab) -> Outcome {
    let reply = lab
        .send(Request::new(Method::GET, "/_matrix/client/versions"))
        .await?;
    let body = reply.clone().ok()?;
    let versions = body["versions"].as_array().cloned().unwrap_or_default();
    let is_version = |version: &Value| {
        let version = version.as_str().unwrap_or("");
        let numbers = |text: &str| text.split('.').all(|n| n.parse::<u32>().is_ok());
        version
            .strip_prefix("r0.")
            .is_some_and(|rest| rest.contains('.') && numbers(rest))
            || version
                .strip_prefix("v1.")
                .is_some_and(|rest| !rest.contains('.') && numbers(rest))
    };
    check(
        !versions.is_empty() && versions.iter().all(is_version),
        "versions r0.x.y or v1.x",
        reply.failure("").got,
    )?;
    let flags = body["unstable_features"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    check(
        flags.values().all(Value::is_boolean),
        "boolean flags",
        reply.failure("").got,
    )
}

async fn versions_reach(lab: Lab) -> Outcome {
    let versions = lab.client().versions().await?.versions;
    let newest = versions
        .iter()
        .filter_map(|v| v.strip_prefix("v1.")?.parse::<u32>().ok())
        .max();
    check(
        newest >= Some(10),
        "v1.10 or later",
        format!("{versions:?}"),
    )
}

async fn capabilities(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = format!("{}/capabilities", path::V3);
    let body = user.read(&path).await?;
    let capabilities = &body["capabilities"];
    let holds = capabilities["m.change_password"]["enabled"].is_boolean()
        && capabilities["m.room_versions"]["default"].is_string()
        && capabilities["m.room_versions"]["available"].is_object();
    check(
        holds,
        "m.change_password and m.room_versions",
        body.to_string(),
    )?;
    lab.send(Request::new(Method::GET, path))
        .await?
        .expect_error(401, "M_MISSING_TOKEN")?;
    Ok(())
}

async fn well_known(lab: Lab) -> Outcome {
    let reply = lab
        .send(Request::new(Method::GET, "/.well-known/matrix/client"))
        .await?;
    if reply.status() == 404 {
        return Ok(());
    }
    let body = reply.clone().ok()?;
    let base_url = body["m.homeserver"]["base_url"].as_str().unwrap_or("");
    check(
        base_url.starts_with("http"),
        "m.homeserver.base_url",
        reply.failure("").got,
    )?;
    expect_cors(&reply)
}

fn profile_path(user_id: &str, field: &str) -> String {
    format!("{}/profile/{}{field}", path::V3, path::segment(user_id))
}

async fn profile(lab: Lab) -> Outcome {
    let (user, other) = (lab.user().await?, lab.user().await?);
    let fields = [
        ("displayname", "Alice Ünïcödé"),
        ("avatar_url", "mxc://example.org/abc"),
    ];
    for (field, value) in fields {
        let path = profile_path(user.user_id(), &format!("/{field}"));
        user.put(&path, &json!({field: value}))
            .await?
            .expect_status(200)?;
        other
            .get(&path)
            .await?
            .expect_json(&json!({field: value}))?;
    }
    let whole = other.read(&profile_path(user.user_id(), "")).await?;
    for (field, value) in fields {
        check_eq(&whole[field].as_str(), &Some(value), field)?;
    }
    Ok(())
}

async fn others_profile(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    for field in ["displayname", "avatar_url"] {
        let path = profile_path(alice.user_id(), &format!("/{field}"));
        let reply = bob
            .put(&path, &json!({field: "mxc://example.org/bob"}))
            .await?;
        // Older servers answer this one with a 400.
        let status = reply.status();
        check(status == 403 || status == 400, "403", reply.failure("").got)?;
    }
    let path = profile_path(alice.user_id(), "/displayname");
    alice
        .put(&path, &json!({"displayname": "Alice"}))
        .await?
        .expect_status(200)?;
    Ok(())
}

async fn nobodys_profile(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let server = user
        .user_id()
        .split_once(':')
        .map_or("", |(_, server)| server);
    let path = profile_path(&format!("@nobody-here:{server}"), "");
    user.get(&profile_path(user.user_id(), ""))
        .await?
        .expect_status(200)?;
    user.get(&path).await?.expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn turn_server(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = format!("{}/voip/turnServer", path::V3);
    let body = user.read(&path).await?;
    check(body.is_object(), "an object", body.to_string())?;
    lab.send(Request::new(Method::GET, path))
        .await?
        .expect_error(401, "M_MISSING_TOKEN")?;
    Ok(())
}

async fn thirdparty(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = format!("{}/thirdparty/protocols", path::V3);
    let body = user.read(&path).await?;
    check(body.is_object(), "an object", body.to_string())?;
    lab.send(Request::new(Method::GET, path))
        .await?
        .expect_error(401, "M_MISSING_TOKEN")?;
    Ok(())
}

async fn room_keys(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = format!("{}/room_keys/version", path::V3);
    user.get(&path).await?.expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn presence(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    let path = format!(
        "{}/presence/{}/status",
        path::V3,
        path::segment(alice.user_id())
    );
    let body = json!({"presence": "online", "status_msg": "here"});
    alice.put(&path, &body).await?.expect_status(200)?;
    bob.put(&path, &body)
        .await?
        .expect_error(403, "M_FORBIDDEN")?;
    Ok(())
}

async fn push_rules(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = format!("{}/pushrules/", path::V3);
    let body = user.read(&path).await?;
    check(body["global"].is_object(), "global", body.to_string())?;
    lab.send(Request::new(Method::GET, path))
        .await?
        .expect_error(401, "M_MISSING_TOKEN")?;
    Ok(())
}
