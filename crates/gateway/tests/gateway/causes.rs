//! Why the homeserver cannot be reached: told to who runs the gateway, and to no client.

use std::error::Error as _;
use std::os::unix::net::UnixListener;

use kitbag_client::{Client, Method, Request};
use kitbag_gateway::{Homeserver, Probe, SweepError, UpstreamSettings, sweep};
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::scripted::Scripted;
use serde_json::Value;
use tokio::sync::watch;

use crate::support::{serve, set_up};
use crate::tls::certificate;
use crate::wire::Wire;

const VERSIONS: &str = "/_matrix/client/versions";

#[tokio::test]
async fn why_there_is_no_connection_is_told_to_the_operator_and_not_to_clients() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| format!("unix:{}/{name}", dir.path().display());
    // Its file stays without it.
    drop(UnixListener::bind(dir.path().join("left")).unwrap());
    let plain = Scripted::raw(|stream| async move {
        let mut wire = Wire(stream);
        wire.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            .await;
        wire.rest().await.ok();
    });
    let plain = plain.await;
    for (url, expected) in [
        // No resolver needs to be asked for a name with an empty part.
        ("http://no..name:8008", "its name is not found: "),
        ("http://127.0.0.1:1", "connection refused"),
        (&format!("https://{}", plain.address()), "TLS failed: "),
        (&path("none"), "no such socket"),
        (&path("left"), "nobody listens on the socket"),
    ] {
        let settings = UpstreamSettings {
            url: Some(url.parse().unwrap()),
            ca_file: Some(certificate("ca.pem")),
            ..UpstreamSettings::default()
        };
        let homeserver = Homeserver::new(settings.clone()).unwrap();
        let asked = homeserver.ask("GET", VERSIONS, None, "").await;
        let text = asked.map(drop).unwrap_err().to_string();
        assert!(text.starts_with(expected), "{url}: {text}");

        let clock = TestClock::default();
        let swept = sweep(settings, "kt_token", &clock, true, &mut |_| {}).await;
        let error = swept.unwrap_err();
        assert!(matches!(error, SweepError::Upstream(_)), "{error:?}");
        assert_eq!(
            error.to_string(),
            format!("the homeserver cannot be asked: {text}")
        );
        assert!(
            error.source().is_none(),
            "a chain of errors would tell it twice"
        );

        let gateway = set_up(url, |settings| {
            settings.upstream.ca_file = Some(certificate("ca.pem"));
        });
        let gateway = gateway.unwrap();
        let probe = Probe::Unreachable {
            reason: "upstream_down",
            text,
        };
        assert_eq!(gateway.probe().await, probe);
        let (stop, stopping) = watch::channel(false);
        let running = serve(gateway, stop, stopping).await;
        let client = Client::new(&running.url).unwrap();
        let response = client.send(Request::new(Method::GET, VERSIONS)).await;
        let response = response.unwrap();
        let body: Value = response.json().unwrap();
        let told = "the homeserver behind the gateway cannot be reached";
        assert_eq!((response.status, &body["error"]), (502, &told.into()));
    }
}
