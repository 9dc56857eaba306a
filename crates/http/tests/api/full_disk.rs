//! A disk that is full, or fails, under the whole API: what clients, operators and the log are told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kitbag_domain::{ServerName, StoreError};
use kitbag_store_sqlite::{Options, SqliteStore};
use kitbag_testkit::disk::{Call as DiskCall, Disk, Error, Fault};
use kitbag_testkit::gate::in_time;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Call, LogCapture, Reply, Server, Session, capture_log};

const C3: &str = "/_matrix/client/v3";
const REQUESTS: usize = 1_000;
/// When the server must take writes again, at the latest, once the disk does.
const BACK_AFTER: Duration = Duration::from_secs(10);

struct Lab {
    server: Server,
    alice: Session,
    disk: Disk,
    _dir: TempDir,
}

impl Lab {
    async fn new() -> Self {
        let (disk, dir) = (Disk::new(), tempfile::tempdir().unwrap());
        let mut options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        options.vfs = Some(disk.name().to_owned());
        let store = Arc::new(SqliteStore::open(dir.path(), options).unwrap());
        let server = Server::with(|setup| setup.store = Some(store));
        let alice = server.user("alice").await;
        Self {
            server,
            alice,
            disk,
            _dir: dir,
        }
    }

    async fn send(&self, call: Call) -> Reply {
        in_time("an answer", self.server.send(call)).await
    }

    fn put(&self, name: &str, bytes: usize) -> Call {
        let body = format!("{{\"a\":\"{}\"}}", "x".repeat(bytes));
        Call::put(self.alice.global(name), body).by(&self.alice)
    }

    fn get(&self, name: &str) -> Call {
        Call::get(self.alice.global(name)).by(&self.alice)
    }

    fn sync(&self, query: &str) -> Call {
        Call::get(format!("{C3}/sync?{query}")).by(&self.alice)
    }

    /// Returns the status of `/health`, which the private listener shows too.
    async fn health(&self) -> u16 {
        self.send(Call::get("/health")).await.status
    }

    /// Waits until writes are taken again.
    async fn mend(&self) {
        self.disk.clear();
        let started = Instant::now();
        while self.send(self.put("mended", 1)).await.status != 200 {
            assert!(started.elapsed() < BACK_AFTER);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn types(told: &Value) -> Vec<&str> {
    let events = told["account_data"]["events"].as_array().unwrap().iter();
    events
        .map(|event| event["type"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn on_a_full_disk_writes_are_503_and_everything_else_goes_on() {
    let lab = Lab::new().await;
    assert_eq!(lab.send(lab.put("kept", 10)).await.status, 200);
    assert_eq!(lab.health().await, 200);
    let since = lab.send(lab.sync("")).await.assert_ok()["next_batch"].clone();
    let since = since.as_str().unwrap();
    let edge = lab.server.edge.clone();
    let waiting = lab.sync(&format!("since={since}&timeout=20000"));
    let waiting = async move { edge.answer(waiting.peer, waiting.request()).await };
    let waiting = tokio::spawn(waiting);

    lab.disk.fill(0);
    let delete = lab.alice.global("kept");
    let delete = delete.replace("/v3/", "/unstable/org.matrix.msc3391/");
    for call in [
        lab.put("lost", 10_000),
        lab.put("kept", 20),
        Call::delete(delete.clone()).by(&lab.alice),
    ] {
        lab.send(call).await.assert_is(503, "M_UNKNOWN");
    }
    assert_eq!(lab.health().await, 503);
    // While the connections are opened anew a read may be refused, for a moment.
    let started = Instant::now();
    let kept = loop {
        let reply = lab.send(lab.get("kept")).await;
        if reply.status == 200 {
            break reply;
        }
        reply.assert_is(503, "M_UNKNOWN");
        assert!(started.elapsed() < BACK_AFTER);
    };
    assert_eq!(kept.text(), "{\"a\":\"xxxxxxxxxx\"}");
    lab.send(lab.get("lost"))
        .await
        .assert_is(404, "M_NOT_FOUND");
    let told = lab.send(lab.sync(&format!("since={since}"))).await;
    assert_eq!(types(&told.assert_ok()), <[&str; 0]>::default());
    let told = lab.send(lab.sync("")).await.assert_ok();
    assert!(types(&told).contains(&"kept"), "{told}");
    assert!(!waiting.is_finished(), "it goes on waiting");
    assert_eq!(lab.health().await, 503, "as long as it is full");

    lab.mend().await;
    assert_eq!(lab.health().await, 200);
    let woken = in_time("the waiting sync", waiting).await.unwrap();
    let woken = Reply::read(woken).await.assert_ok();
    assert_eq!(types(&woken), ["mended"]);
    assert_eq!(
        lab.send(Call::delete(delete).by(&lab.alice)).await.status,
        200
    );
    lab.send(lab.get("kept"))
        .await
        .assert_is(404, "M_NOT_FOUND");
}

/// Returns the lines of a level that operators see.
fn loud(captured: &LogCapture) -> Vec<String> {
    let text = captured.text();
    let lines = text.lines().filter(|line| {
        ["ERROR", "WARN", "INFO"]
            .iter()
            .any(|level| line.contains(level))
    });
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_thousand_requests_on_a_failing_disk_give_a_few_lines() {
    let lab = Lab::new().await;
    // More than the page cache holds, so that reads ask the disk.
    for number in 0..5 {
        let put = lab.put(&format!("large{number}"), 900_000);
        assert_eq!(lab.send(put).await.status, 200);
    }
    let captured = capture_log();
    // Not by its size: the log that was copied has room of its own.
    let full = Fault::next(DiskCall::Write, Error::NoSpace);
    lab.disk.fail(full.lasting());
    for _ in 0..REQUESTS {
        lab.send(lab.put("a", 10_000))
            .await
            .assert_is(503, "M_UNKNOWN");
    }
    let full = loud(&captured);
    // One of the write whose outcome is in doubt, one of those that were not begun.
    assert!((1..=2).contains(&full.len()), "{full:#?}");
    assert!(full[0].contains("disk is full"), "the cause: {full:#?}");

    lab.mend().await;
    lab.disk
        .fail(Fault::next(DiskCall::Read, Error::Io).lasting());
    let mut failed = 0;
    for _ in 0..REQUESTS {
        failed += usize::from(lab.send(lab.sync("")).await.status == 503);
    }
    assert_eq!(failed, REQUESTS);
    let lines = loud(&captured);
    assert_eq!(
        lines.len(),
        full.len(),
        "nothing of another kind: {lines:#?}"
    );

    lab.server.clock.advance(60_000);
    lab.send(lab.sync("")).await.assert_is(503, "M_UNKNOWN");
    let lines = loud(&captured);
    assert_eq!(lines.len(), full.len() + 1, "{lines:#?}");
    let last = lines.last().unwrap();
    let (_, left_out) = last.split_once("left_out=").unwrap();
    let left_out: usize = left_out.split(' ').next().unwrap().parse().unwrap();
    assert!(left_out >= REQUESTS, "{last}");
    lab.disk.clear();
}

/// Troubles are told apart: one does not hide the other.
#[tokio::test]
async fn each_kind_of_trouble_is_logged() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let captured = capture_log();
    let why = "why".to_owned();
    let errors = [
        StoreError::Corrupt(why.clone()),
        StoreError::OutcomeUnknown(why.clone()),
        StoreError::Overloaded,
        StoreError::Unavailable(why),
    ];
    for (number, error) in errors.into_iter().enumerate() {
        for _ in 0..3 {
            server.store.fail_after(0, error.clone());
            let get = Call::get(alice.global("a")).by(&alice);
            assert!(server.send(get).await.status >= 500);
        }
        let lines = loud(&captured);
        assert_eq!(lines.len(), number + 1, "{lines:#?}");
    }
}
