//! What the private listener of the gateway tells, and what is made of it.

use std::path::Path;

use super::{
    Page, check_against, check_variables, dashboard, documented, queries_of_alerts,
    queries_of_dashboard, repository, told,
};
use crate::gateway::Lab;
use crate::support::{Client, directory, entry};

/// Metrics that every command that listens tells.
fn is_common(name: &str) -> bool {
    let common = ["kitbag_http_", "kitbag_build_info", "process_"];
    common.iter().any(|start| name.starts_with(start))
}

/// Returns a page of a gateway that has answered a little.
fn page(dir: &Path) -> (Lab, Client, Page) {
    let lab = Lab::start(dir, &["--private", "127.0.0.1:0"]);
    let private = lab.gateway.private();
    let alice = lab.register("alice");
    alice.put("alice", "app.test", "{}");
    alice.send("GET", "/_matrix/client/v3/sync?timeout=0", "");
    alice.send("PUT", &entry("alice", "m.push_rules"), "{}");
    let scraped = private.send("GET", "/metrics", "");
    assert_eq!(scraped.status, 200, "{scraped:?}");
    (lab, private, Page::parse(&scraped.body))
}

#[test]
fn the_table_names_the_metrics_and_labels_that_a_gateway_tells() {
    let dir = directory();
    let (lab, _, page) = page(dir.path());
    let mut table = documented("## Metrics of the gateway");
    let common = documented("## Metrics").into_iter();
    table.extend(common.filter(|(name, _)| is_common(name)));
    assert_eq!(told(&page), table);
    lab.stop();
}

#[test]
fn what_goes_through_and_what_is_refused_is_counted() {
    let dir = directory();
    let (lab, private, page) = page(dir.path());
    let protected = |outcome: &str| {
        let labels = format!("type=\"m.push_rules\",outcome=\"{outcome}\",agent=\"other\"");
        page.value(&format!(
            "kitbag_gateway_protected_writes_total{{{labels}}}"
        ))
    };
    assert_eq!(
        (protected("refused"), protected("observed")),
        (Some(1.0), Some(0.0))
    );
    let asked = |asked: &str| {
        let labels = format!("asked=\"{asked}\"");
        page.value(&format!(
            "kitbag_gateway_upstream_seconds_count{{{labels}}}"
        ))
    };
    assert_eq!(asked("pass"), Some(1.0), "what was put");
    assert_eq!(asked("sync"), Some(1.0));
    let synced = r#"kitbag_http_requests_total{route="sync",method="GET",status="200"}"#;
    assert_eq!(page.value(synced), Some(1.0));
    // Whose the refused write is, and perhaps the look for the homeserver at the start.
    assert!(asked("ask") >= Some(1.0), "{page:#?}");
    assert_eq!(page.value("kitbag_gateway_added_seconds_count"), Some(3.0));
    assert_eq!(page.value("kitbag_gateway_breaker_open"), Some(0.0));
    let connections = r#"kitbag_http_connections{listener="private"}"#;
    assert_eq!(page.value(connections), Some(1.0), "that of the scrape");
    let text = private.send("GET", "/metrics", "").body;
    for word in ["alice", "app.test", "wordpass", "localhost"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    lab.stop();
}

#[test]
fn alerts_and_dashboard_of_the_gateway_ask_for_what_it_tells() {
    let dir = directory();
    let (lab, private, _) = page(dir.path());
    // Routes are told once somebody took them.
    let bob = lab.register("bob");
    let device = bob.whoami().json()["device_id"].clone();
    let of_device = format!("devices/{}/account_data", device.as_str().unwrap());
    let path = entry("bob", "app.test").replace("account_data", &of_device);
    let put = bob.send("PUT", &path, "{}");
    assert_eq!(put.status, 200, "{put:?}");
    let page = Page::parse(&private.send("GET", "/metrics", "").body);
    check_against(&page, &queries_of_alerts("kitbag-gateway.yml", 8));
    let topics = ["Traffic", "Homeserver", "Account data", "Process"];
    let dashboard = dashboard("kitbag-gateway.json");
    check_against(&page, &queries_of_dashboard(&dashboard, &topics));
    check_variables(&page, &dashboard);
    lab.stop();
}

/// Whoever reads of a reason on the page must find it in the table.
#[test]
fn the_reasons_that_a_gateway_tells_are_explained() {
    let text = std::fs::read_to_string(repository().join("docs/monitoring.md")).unwrap();
    let dir = directory();
    let (lab, _, page) = page(dir.path());
    let refusals = page.0["kitbag_http_refusals_total"].samples.keys();
    for sample in refusals {
        let reason = sample.split("reason=\"").nth(1).unwrap();
        let reason = format!("`{}`", reason.split('"').next().unwrap());
        assert!(text.contains(&reason), "{reason}");
    }
    lab.stop();
}
