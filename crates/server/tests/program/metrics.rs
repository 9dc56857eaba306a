//! `GET /metrics`, and what is made of it: the table of docs/monitoring.md, dashboard and alerts.

mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use page::Page;

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
        let private = server.line("private:");
        let address = private
            .trim_start_matches("http://")
            .trim_end_matches("/health");
        let private = Client::new(address.parse().unwrap());
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
    let told: BTreeMap<_, _> = page
        .0
        .iter()
        .map(|(name, metric)| {
            assert!(!metric.samples.is_empty(), "{name} has no samples");
            (name.clone(), (metric.kind.clone(), metric.labels.clone()))
        })
        .collect();
    let documentation = include_str!("../../../../docs/monitoring.md");
    let rows = documentation
        .lines()
        .filter(|line| line.starts_with("| `") && line.matches(" |").count() == 4);
    let table: BTreeMap<_, _> = rows
        .map(|row| {
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
        })
        .collect();
    assert_eq!(told, table);
    watched.server.stop();
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
