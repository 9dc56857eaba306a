//! What the homeserver can do, with what the gateway adds.

use kitbag_client::{Client, Method, Request};
use kitbag_gateway::Probe;
use kitbag_testkit::scripted::{Asked, Scripted, ScriptedBody, chunked, cut, reset, whole};
use serde_json::{Value, json};

use crate::support::{Lab, gateway, set_up};

const VERSIONS: &str = "/_matrix/client/versions";

#[tokio::test]
async fn versions_are_those_of_the_homeserver_with_the_flags_of_what_is_switched_on() {
    let upstream = Scripted::start(|asked: Asked| async move {
        let token = asked.headers.get("authorization").is_some();
        let told = format!("{{\"versions\" : [], \"unstable_features\": {{\"in\":{token} }}}}");
        let mut response = whole(200, told);
        let headers = response.headers_mut();
        headers.insert("etag", "\"1\"".parse().unwrap());
        headers.insert("cache-control", "private".parse().unwrap());
        response
    })
    .await;
    let client = |url: &str| Client::new(url).unwrap();
    let plain = gateway(&upstream.url(), |_| {}).await;
    let request = Request::new(Method::GET, format!("{VERSIONS}?a=b")).token("kt_T");
    let request = request.header("accept-encoding", "gzip");
    let response = client(&plain.url)
        .send(request.header("if-none-match", "\"1\""))
        .await
        .unwrap();
    let expected =
        r#"{"versions" : [], "unstable_features": {"in":true ,"org.matrix.msc4331":true}}"#;
    assert_eq!(response.body, expected);
    assert_eq!(response.header("etag"), None, "that of another body");
    assert_eq!(response.header("cache-control"), Some("private"));
    let asked = upstream.asked().pop().unwrap();
    assert_eq!(asked.target, format!("{VERSIONS}?a=b"));
    assert_eq!(asked.headers["accept-encoding"], "identity");
    assert_eq!(asked.headers.get("if-none-match"), None);

    let comparing = gateway(&upstream.url(), |settings| settings.msc4547.enabled = true).await;
    let response = client(&comparing.url)
        .send(Request::new(Method::GET, VERSIONS))
        .await
        .unwrap();
    let told: Value = response.json().unwrap();
    let expected = json!({"in": false, "org.matrix.msc4331": true, "com.beeper.msc4547": true});
    assert_eq!(told["unstable_features"], expected);

    let request = Request::new(Method::HEAD, VERSIONS);
    let head = client(&comparing.url).send(request).await.unwrap();
    let length = response.body.len().to_string();
    assert_eq!(
        (head.header("content-length"), head.body.len()),
        (Some(&*length), 0)
    );
}

#[tokio::test]
async fn what_is_no_list_of_versions_goes_through_untouched() {
    async fn script(asked: Asked) -> hyper::Response<ScriptedBody> {
        let mut response = match asked.target.ends_with("?html") {
            true => whole(200, "<html>{}</html>"),
            false => whole(503, "{\"errcode\": \"M_UNKNOWN\"}"),
        };
        response
            .headers_mut()
            .insert("etag", "\"1\"".parse().unwrap());
        response
    }
    let upstream = Scripted::start(script).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    for (query, status, body) in [
        ("html", 200, "<html>{}</html>"),
        ("down", 503, "{\"errcode\": \"M_UNKNOWN\"}"),
    ] {
        let request = Request::new(Method::GET, format!("{VERSIONS}?{query}"));
        let response = client.send(request).await.unwrap();
        assert_eq!(
            (response.status, &response.body[..]),
            (status, body.as_bytes())
        );
        assert_eq!(response.header("etag"), Some("\"1\""));
    }
}

#[tokio::test]
async fn versions_that_do_not_come_whole_are_an_error_of_the_gateways_own() {
    let told = json!({"versions": ["v1.1"]}).to_string();
    let upstream = Scripted::start(move |asked| {
        let told = told.clone();
        async move {
            match &*asked.target {
                "/_matrix/client/versions?slow" => std::future::pending().await,
                "/_matrix/client/versions?reset" => reset(),
                "/_matrix/client/versions?cut" => cut(200, told),
                "/_matrix/client/versions?long" => whole(200, told + &" ".repeat(256 * 1024)),
                "/_matrix/client/versions?pieces" => chunked(200, told),
                other => panic!("{other}"),
            }
        }
    })
    .await;
    let gateway = gateway(&upstream.url(), |set| set.upstream.ask_timeout_ms = 1_000).await;
    let client = Client::new(&gateway.url).unwrap();
    for (query, status) in [
        ("slow", 504),
        ("reset", 502),
        ("cut", 502),
        ("long", 502),
        ("pieces", 200),
    ] {
        let request = Request::new(Method::GET, format!("{VERSIONS}?{query}"));
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status, status, "{query}");
        let told: Value = response.json().unwrap();
        match status {
            200 => assert_eq!(
                told["unstable_features"],
                json!({"org.matrix.msc4331": true})
            ),
            _ => assert_eq!(told["errcode"], "M_UNKNOWN", "{query}"),
        }
    }
}

#[tokio::test]
async fn a_homeserver_whose_versions_are_long_is_well() {
    let long = "v".repeat(200 * 1024);
    let upstream = Scripted::start(move |_| {
        let told = json!({"versions": [long]}).to_string();
        async move { whole(200, told) }
    })
    .await;
    let gateway = set_up(&upstream.url(), |_| {}).unwrap();
    let probe = gateway.probe().await;
    assert!(
        matches!(probe, Probe::Answered { status: 200, .. }),
        "{probe:?}"
    );
}

#[tokio::test]
async fn a_homeserver_with_the_same_flag_is_told_as_it_is() {
    let lab = Lab::start().await;
    let read = |client: Client| async move {
        client
            .send(Request::new(Method::GET, VERSIONS))
            .await
            .unwrap()
            .body
    };
    assert_eq!(read(lab.client()).await, read(lab.beside()).await);
}
