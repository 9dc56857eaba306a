//! `GET /metrics`, and what is made of it: the table of docs/monitoring.md, dashboard and alerts.

mod gateway;
mod page;
mod query;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use page::Page;
use query::Checker;
use saphyr::{LoadableYamlNode as _, Yaml};
use serde_json::Value;

use crate::support::{Answer, Client, PATIENCE, Server, directory, kitbag};

/// A server with a private listener.
struct Watched {
    server: Server,
    private: Client,
}

impl Watched {
    fn start(dir: &Path, arguments: &[&str]) -> Self {
        let mut command = kitbag(dir);
        command
            .args(["serve", "--private", "127.0.0.1:0"])
            .args(arguments);
        let server = Server::start_as(&mut command);
        let private = server.private();
        Self { server, private }
    }

    fn scrape(&self) -> Answer {
        let answer = self.private.send("GET", "/metrics", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }

    /// Scrapes until the page is as it should be.
    fn page_where(&self, is_right: impl Fn(&Page) -> bool) -> Page {
        let started = Instant::now();
        loop {
            let page = Page::parse(&self.scrape().body);
            if is_right(&page) {
                return page;
            }
            assert!(started.elapsed() < PATIENCE, "{page:#?}");
        }
    }

    /// Has each metric and label on the page.
    fn with_traffic(dir: &Path) -> (Self, Page) {
        let watched = Self::start(dir, &["--ephemeral"]);
        let alice = watched.server.client().register("alice", "wordpass");
        alice.put("alice", "app.test", "{}");
        alice.get("alice", "app.none");
        let page = watched.page_where(|page| page.0.contains_key("kitbag_accounts"));
        (watched, page)
    }
}

#[test]
fn the_table_names_the_metrics_and_labels_that_a_server_tells() {
    let dir = directory();
    let (watched, page) = Watched::with_traffic(dir.path());
    assert_eq!(told(&page), documented("## Metrics"));
    watched.server.stop();
}

/// The type and the labels of each metric, by its name.
type Table = BTreeMap<String, (String, BTreeSet<String>)>;

/// Returns what a page tells.
fn told(page: &Page) -> Table {
    let metrics = page.0.iter().map(|(name, metric)| {
        assert!(!metric.samples.is_empty(), "{name} has no samples");
        (name.clone(), (metric.kind.clone(), metric.labels.clone()))
    });
    metrics.collect()
}

/// Returns the table of a section of docs/monitoring.md.
fn documented(heading: &str) -> Table {
    let documentation = include_str!("../../../../docs/monitoring.md");
    let section = documentation
        .lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with("## "));
    let rows = section.filter(|line| line.starts_with("| `") && line.matches(" |").count() == 4);
    let table = rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let quoted = |cell: &str| -> BTreeSet<String> {
            cell.split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect()
        };
        let name = quoted(cells[1]).pop_first().unwrap();
        (name, (cells[2].to_owned(), quoted(cells[3])))
    });
    table.collect()
}

#[test]
fn no_name_and_no_secret_is_told() {
    let dir = directory();
    let watched = Watched::start(dir.path(), &["--ephemeral"]);
    let alice = watched.server.client().register("veryalice", "wordpass");
    let token = alice.token.clone().unwrap();
    alice.put("veryalice", "app.verysecret", r#"{"value":"verycontent"}"#);
    alice.get("veryalice", "app.verynone");
    alice.get("verybob", "app.verysecret");
    alice.send("GET", "/verypath?access_token=veryquery", "");
    alice.send("VERYMETHOD", "/_matrix/client/v3/sync", "");
    let whoami = alice.whoami().json();
    let device = whoami["device_id"].as_str().unwrap();
    watched.page_where(|page| page.0.contains_key("kitbag_accounts"));
    let text = watched.scrape().body;
    for word in ["very", "wordpass", &token, device, "localhost", "app."] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    watched.server.stop();
}

#[test]
fn figures_of_the_store_and_of_accounts_are_told() {
    let dir = directory();
    let data = ["--data", "data", "--set", "limits.entries_max=4"];
    let watched = Watched::start(dir.path(), &data);
    let alice = watched.server.client().register("alice", "wordpass");
    for event_type in ["a", "b", "c"] {
        assert_eq!(alice.put("alice", event_type, "{}").status, 200);
    }
    watched.server.stop();
    // Counted at the start, and then once a minute.
    let watched = Watched::start(dir.path(), &data);
    let page = watched.page_where(|page| page.0.contains_key("kitbag_accounts"));
    for (sample, value) in [
        (r#"kitbag_accounts{state="active"}"#, 1.0),
        (r#"kitbag_accounts{state="deactivated"}"#, 0.0),
        ("kitbag_entries", 3.0),
        (r#"kitbag_accounts_near_quota{share="0.75"}"#, 1.0),
        (r#"kitbag_accounts_near_quota{share="0.9"}"#, 0.0),
        ("kitbag_store_takes_writes", 1.0),
        ("kitbag_store_outages_total", 0.0),
    ] {
        assert_eq!(page.value(sample), Some(value), "{sample}");
    }
    let alice = alice.at(watched.server.address);
    assert_eq!(alice.put("alice", "a", "{}").status, 200);
    // The log is looked at behind the answer.
    let has_log = |page: &Page| page.value("kitbag_store_wal_bytes") >= Some(4_096.0);
    let page = watched.page_where(has_log);
    assert_eq!(page.value("kitbag_store_commit_seconds_count"), Some(1.0));
    assert_eq!(page.value("kitbag_store_batch_writes_sum"), Some(1.0));
    let connections = |listener| format!("kitbag_http_connections{{listener=\"{listener}\"}}");
    let idle = watched.server.client().connect().unwrap();
    let page = watched.page_where(|page| page.value(&connections("public")) == Some(1.0));
    assert_eq!(
        page.value(&connections("private")),
        Some(1.0),
        "that of the scrape"
    );
    drop(idle);
    watched.page_where(|page| page.value(&connections("public")) == Some(0.0));
    watched.server.stop();
}

#[test]
fn a_user_whose_account_is_full_is_told_of() {
    let dir = directory();
    let arguments = ["--ephemeral", "--set", "limits.bytes_max=100"];
    let watched = Watched::start(dir.path(), &arguments);
    let alice = watched.server.client().register("alice", "wordpass");
    let refused = |reason: &str| {
        let labels = format!("errcode=\"M_USER_LIMIT_EXCEEDED\",reason=\"{reason}\"");
        let page = Page::parse(&watched.scrape().body);
        page.value(&format!("kitbag_http_refusals_total{{{labels}}}"))
    };
    for reason in ["bytes", "count", "device_entries", "entries"] {
        assert_eq!(refused(&format!("quota_{reason}")), Some(0.0), "{reason}");
    }
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(100));
    assert_eq!(alice.put("alice", "app.test", &large).status, 403);
    // No account has reached its bound.
    assert_eq!(refused("quota_bytes"), Some(1.0));
    watched.server.stop();
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Checks queries against a server under a little traffic.
fn check_queries(queries: &[String]) {
    let dir = directory();
    let (watched, page) = Watched::with_traffic(dir.path());
    check_against(&page, queries);
    let checker = Checker(&page);
    for (query, because) in WRONG_QUERIES {
        let finding = checker.check(query).expect_err(query);
        assert!(finding.contains(because), "{query}: {finding}");
    }
    for (query, because) in WRONG_VARIABLES {
        let finding = checker.check_variable(query).expect_err(query);
        assert!(finding.contains(because), "{query}: {finding}");
    }
    watched.server.stop();
}

fn check_against(page: &Page, queries: &[String]) {
    for query in queries {
        if let Err(finding) = Checker(page).check(query) {
            panic!("{query}: {finding}");
        }
    }
}

/// Each wrong in one way, with a part of what must be found.
const WRONG_QUERIES: [(&str, &str); 18] = [
    ("rate(kitbag_http_requests_total[5m]", ""),
    ("kitbag_nothing", "there is no kitbag_nothing"),
    ("kitbag_sync_waited_seconds", "there is no"),
    ("rate(kitbag_http_requests[5m])", "there is no"),
    ("rate(kitbag_sync_waiting[5m])", "no counter"),
    ("kitbag_sync_wakeups_total", "without its rate"),
    (r#"kitbag_accounts{kind="active"}"#, "no label kind"),
    (r#"kitbag_accounts{state="idle"}"#, "never told"),
    (
        r#"rate(kitbag_http_refusals_total{reason="mood"}[5m])"#,
        "never told",
    ),
    (
        r#"rate(kitbag_http_requests_total{status=~"6.."}[5m])"#,
        "never told",
    ),
    (
        r#"rate(kitbag_http_refusals_total{reason=~"qouta_.*"}[5m])"#,
        "never told",
    ),
    (
        r#"rate(kitbag_http_refusals_total{reason=~"quota_.*|mood"}[5m])"#,
        "never told",
    ),
    (
        r#"rate(kitbag_http_refusals_total{reason=~"quota_(bytes|mood)"}[5m])"#,
        "never told",
    ),
    (r#"kitbag_accounts{state!="idle"}"#, "never told"),
    ("sum by (user) (kitbag_accounts)", "no label user"),
    (
        "histogram_quantile(0.9, sum(rate(kitbag_store_commit_seconds_bucket[5m])))",
        "no label le",
    ),
    (
        "histogram_quantile(0.9, rate(kitbag_store_commit_seconds_sum[5m]))",
        "no label le",
    ),
    (
        "kitbag_http_connections / kitbag_http_connections_max",
        "never match",
    ),
];

/// The same of the variables of a dashboard.
const WRONG_VARIABLES: [(&str, &str); 4] = [
    ("label_values(kitbag_nothing, job)", "there is no"),
    ("label_values(kitbag_build_info, jobs)", "no label jobs"),
    (
        r#"label_values(kitbag_accounts{state="idle"}, job)"#,
        "never told",
    ),
    ("kitbag_build_info", "is not label_values"),
];

#[test]
fn the_alerts_ask_for_what_a_server_tells_and_say_what_to_do() {
    check_queries(&queries_of_alerts("kitbag.yml", 10));
}

/// Returns the queries of a file of alerts, of which there are some at least.
fn queries_of_alerts(file: &str, queries_min: usize) -> Vec<String> {
    let path = repository().join("docs/alerts").join(file);
    let text = fs::read_to_string(path).unwrap();
    let documents = Yaml::load_from_str(&text).unwrap();
    let rules = documents[0]["groups"][0]["rules"].as_vec().unwrap();
    let mut names = BTreeSet::new();
    let queries = rules.iter().map(|rule| {
        let text = |value: &Yaml<'_>| value.as_str().unwrap().trim().to_owned();
        let name = text(&rule["alert"]);
        assert!(names.insert(name.clone()), "twice: {name}");
        let severity = text(&rule["labels"]["severity"]);
        assert!(
            ["critical", "warning", "info"].contains(&severity.as_str()),
            "{name}"
        );
        let annotations = &rule["annotations"];
        assert!(
            text(&annotations["summary"]).contains("$labels.instance"),
            "{name}"
        );
        assert!(
            text(&annotations["description"]).len() > 80,
            "{name} says what to do"
        );
        text(&rule["expr"])
    });
    let queries: Vec<_> = queries.collect();
    assert!(queries.len() >= queries_min, "{names:?}");
    queries
}

#[test]
fn the_dashboard_can_be_imported_and_asks_for_what_a_server_tells() {
    let topics = [
        "Traffic", "Latency", "Store", "Cache", "Sync", "Quota", "Refusals", "Process",
    ];
    let dashboard = dashboard("kitbag.json");
    check_queries(&queries_of_dashboard(&dashboard, &topics));
}

#[test]
fn the_variables_of_the_dashboard_are_of_what_a_server_tells() {
    let dir = directory();
    let (watched, page) = Watched::with_traffic(dir.path());
    check_variables(&page, &dashboard("kitbag.json"));
    watched.server.stop();
}

/// Reads a dashboard.
fn dashboard(file: &str) -> Value {
    let path = repository().join("docs/grafana").join(file);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Checks what the variables of a dashboard are chosen from.
fn check_variables(page: &Page, dashboard: &Value) {
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    for variable in &variables[1..] {
        let query = variable["query"]["query"].as_str().unwrap();
        assert_eq!(variable["definition"], query, "what Grafana shows of it");
        assert_eq!(variable["datasource"]["uid"], "${datasource}", "{query}");
        if let Err(finding) = Checker(page).check_variable(query) {
            panic!("{query}: {finding}");
        }
        let label = variable["name"].as_str().unwrap();
        assert!(query.ends_with(&format!(", {label})")), "{query}: {label}");
    }
}

/// Returns the queries of a dashboard that has these rows.
fn queries_of_dashboard(dashboard: &Value, topics: &[&str]) -> Vec<String> {
    assert!(dashboard["schemaVersion"].as_u64() >= Some(36));
    assert_eq!(
        dashboard["id"],
        Value::Null,
        "the one who imports it gives it one"
    );
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|variable| &variable["name"]).collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
    assert_eq!(variables[0]["type"], "datasource");
    let (mut ids, mut places, mut rows) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let number = |value: &Value| value.as_u64().unwrap();
        let title = panel["title"].as_str().unwrap();
        assert!(
            ids.insert(number(&panel["id"])),
            "{title}: its ID is another's"
        );
        let grid = &panel["gridPos"];
        let (x, y) = (number(&grid["x"]), number(&grid["y"]));
        for x in x..x + number(&grid["w"]) {
            assert!(x < 24, "{title}: out of the grid");
            for y in y..y + number(&grid["h"]) {
                assert!(places.insert((x, y)), "{title}: on top of another");
            }
        }
        if panel["type"] == "row" {
            rows.push(title);
            continue;
        }
        let targets = panel["targets"].as_array().unwrap();
        for asked in targets.iter().chain([panel]) {
            assert_eq!(asked["datasource"]["uid"], "${datasource}", "{title}");
        }
        for target in targets {
            let query = target["expr"].as_str().unwrap();
            assert!(
                query.contains(r#"job=~"$job",instance=~"$instance""#),
                "{title}"
            );
            queries.push(query.replace("$__rate_interval", "5m"));
        }
    }
    assert_eq!(rows, topics);
    queries
}
