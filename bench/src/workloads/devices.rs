//! What an operator asks of all devices: a value counted over each device's entry of one type.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use kitbag_client::path::segment;
use rusqlite::Transaction;

use crate::load::{Connection, prepare};
use crate::plan::Plan;
use crate::report::{Row, Table};
use crate::server;
use crate::stats::Spread;

const COLUMNS: [&str; 1] = ["ms"];
const DEVICES_OF_A_USER: usize = 4;
const TYPE: &str = "org.example.bench.device";
const TOKEN: &str = "an-admin-token-of-the-bench";
const POINTER: &str = "/client/version";
/// Versions of clients that differ: what is counted.
const VERSIONS: usize = 40;
/// Which of them do not support it is asked by name.
const ROOM_VERSIONS_POINTER: &str = "/room_versions";
const ROOM_VERSION: &str = "\"12\"";
/// Of so many devices one lacks it: all who do fit a page, so that one answer is of all devices.
const DEVICES_OF_A_LACKING: usize = 200;
const PAGE_DEVICES_MAX: usize = 1_000;

/// Reports over all devices, by a command beside a running server and by one without.
pub(super) async fn report(name: &str, plan: &Plan) -> Result<Table> {
    let accounts = server::make_users(plan, name, 1).await?;
    fill(&accounts.data.join("kitbag.db"), plan.report_devices)?;
    // The format is the store's, and changes there.
    run(plan, &["check"], &accounts.data)?;
    let (mut beside, mut over_http) = (Vec::new(), Vec::new());
    let (mut lacks_beside, mut lacks_over_http) = (Vec::new(), Vec::new());
    let private = server::free_address()?;
    let settings = [
        format!("private={private}"),
        format!("admin.tokens.bench={TOKEN}"),
    ];
    let process = accounts.serve_with(plan, &settings.each_ref().map(String::as_str))?;
    for _ in 0..plan.pairs {
        beside.push(ask(plan, &accounts.data)?);
        over_http.push(request(plan, private).await?);
        lacks_beside.push(ask_who_lacks(plan, &accounts.data)?);
        lacks_over_http.push(request_who_lacks(plan, private).await?);
    }
    process.stop()?;
    let mut alone = Vec::with_capacity(plan.pairs);
    for _ in 0..plan.pairs {
        alone.push(ask(plan, &accounts.data)?);
    }
    let what = format!(
        "a report over {} devices in the page cache, by the admin API, and by `kitbag devices \
         report` from its start to its end; who lacks: which devices do not name a room version, \
         by name, which is one of {DEVICES_OF_A_LACKING}",
        plan.report_devices
    );
    let rows = vec![
        Row::new("over HTTP", vec![Spread::of(over_http)]),
        Row::new("beside a server", vec![Spread::of(beside)]),
        Row::new("without one", vec![Spread::of(alone)]),
        Row::new("who lacks, over HTTP", vec![Spread::of(lacks_over_http)]),
        Row::new("who lacks, beside a server", vec![Spread::of(lacks_beside)]),
    ];
    Ok(Table::new(name, what, &COLUMNS, rows))
}

/// Returns how long a report took, in milliseconds.
fn ask(plan: &Plan, data: &Path) -> Result<f64> {
    time_report(plan, data, &["--pointer", POINTER], |text| {
        look(plan, text.as_bytes())
    })
}

/// Returns how long the command took that tells who lacks a value, in milliseconds.
fn ask_who_lacks(plan: &Plan, data: &Path) -> Result<f64> {
    let question = ["--pointer", ROOM_VERSIONS_POINTER, "--lacks", ROOM_VERSION];
    time_report(plan, data, &question, |text| {
        ensure_lacking(plan, text.lines().count())
    })
}

/// Returns how long `kitbag devices report` took, in milliseconds, and looks at what it told.
fn time_report(
    plan: &Plan,
    data: &Path,
    question: &[&str],
    look: impl FnOnce(&str) -> Result<()>,
) -> Result<f64> {
    let mut arguments = vec!["devices", "report", "--json", "--type", TYPE];
    arguments.extend(question);
    let began = Instant::now();
    let text = run(plan, &arguments, data)?;
    let took = began.elapsed();
    look(&text)?;
    Ok(took.as_secs_f64() * 1e3)
}

/// The same by the admin API.
async fn request(plan: &Plan, address: SocketAddr) -> Result<f64> {
    let question = format!("summary?type={TYPE}&pointer={}", segment(POINTER));
    get(address, &question, |body| look(plan, body)).await
}

/// The same by the admin API.
async fn request_who_lacks(plan: &Plan, address: SocketAddr) -> Result<f64> {
    let question = format!(
        "lacking?type={TYPE}&pointer={}&lacks={}&limit={PAGE_DEVICES_MAX}",
        segment(ROOM_VERSIONS_POINTER),
        segment(ROOM_VERSION),
    );
    let look = |body: &[u8]| {
        #[derive(serde::Deserialize)]
        struct Page {
            devices: Vec<serde::de::IgnoredAny>,
        }
        let page: Page = serde_json::from_slice(body).context("cannot read who lacks a value")?;
        ensure_lacking(plan, page.devices.len())
    };
    get(address, &question, look).await
}

/// Asks the admin API, and returns how long its answer took, in milliseconds.
async fn get(
    address: SocketAddr,
    question: &str,
    look: impl FnOnce(&[u8]) -> Result<()>,
) -> Result<f64> {
    let path = format!("/_kitbag/admin/v1/device_account_data/{question}");
    let request = prepare("GET", &path, TOKEN, "");
    let mut connection = Connection::open(address).await?;
    let began = Instant::now();
    let body = connection.exchange(&request).await?;
    let took = began.elapsed();
    look(body)?;
    Ok(took.as_secs_f64() * 1e3)
}

/// Checks that all were told who lack the value, and nobody else.
fn ensure_lacking(plan: &Plan, told: usize) -> Result<()> {
    let lacking = plan.report_devices.div_ceil(DEVICES_OF_A_LACKING);
    ensure!(
        told == lacking,
        "{told} devices are told to lack a value, not {lacking}"
    );
    Ok(())
}

/// Checks that a report is about all devices.
fn look(plan: &Plan, report: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(report);
    let Summary { devices, values } = serde_json::from_slice(report)
        .with_context(|| format!("cannot read the report `{text}`"))?;
    let is_whole = devices == plan.report_devices && values.len() == VERSIONS.min(devices);
    ensure!(is_whole, "a report counts {devices} devices:\n{text}");
    Ok(())
}

/// What is looked at of a report.
#[derive(serde::Deserialize)]
struct Summary {
    devices: usize,
    values: Vec<serde::de::IgnoredAny>,
}

/// Runs a command of Kitbag to its end, and returns what it prints.
fn run(plan: &Plan, arguments: &[&str], data: &Path) -> Result<String> {
    let mut command = Command::new(&plan.kitbag);
    command
        .args(arguments)
        .arg("--data")
        .arg(data)
        .env_clear()
        .stdin(Stdio::null());
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {error}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Puts `count` devices with an entry each into a store that nobody has open: logins would take
/// hours, since each is a password's hash.
fn fill(file: &Path, count: usize) -> Result<()> {
    let mut connection = rusqlite::Connection::open(file)?;
    let transaction = connection.transaction()?;
    for user in 0..count.div_ceil(DEVICES_OF_A_USER) {
        let first = user * DEVICES_OF_A_USER;
        insert(
            &transaction,
            user,
            first..count.min(first + DEVICES_OF_A_USER),
        )?;
    }
    transaction.execute(
        "UPDATE store SET feed_head = (SELECT max(feed) FROM entries)",
        [],
    )?;
    transaction.commit()?;
    Ok(())
}

fn insert(
    transaction: &Transaction<'_>,
    user: usize,
    devices: std::ops::Range<usize>,
) -> Result<()> {
    let insert = |sql| transaction.prepare_cached(sql);
    let name = format!("@owner{user}:localhost");
    let changes = i64::try_from(2 * devices.len())?;
    insert("INSERT INTO users (name, position, created_at) VALUES (?1, ?2, 0)")?
        .execute((&name, changes))?;
    let user = transaction.last_insert_rowid();
    let mut bytes = 0;
    for (number, device) in devices.clone().enumerate() {
        let position = i64::try_from(2 * number + 1)?;
        let name = format!("DEVICE{device}");
        insert("INSERT INTO devices (user, name, incarnation, seen_at) VALUES (?1, ?2, ?3, 0)")?
            .execute((user, &name, position))?;
        let content = content(device);
        bytes += content.len() + TYPE.len() + name.len();
        insert(
            "INSERT INTO entries (user, scope, place, type, position, written_at, writer,
                                  writer_device, content, feed)
             VALUES (?1, 2, ?2, ?3, ?4, 0, 2, ?2, ?5, ?6)",
        )?
        .execute((
            user,
            &name,
            TYPE,
            position + 1,
            content,
            i64::try_from(device)? + 1,
        ))?;
    }
    insert("UPDATE users SET entries = ?2, bytes = ?3 WHERE id = ?1")?.execute((
        user,
        i64::try_from(devices.len())?,
        i64::try_from(bytes)?,
    ))?;
    Ok(())
}

/// What a client could tell of itself, in some 300 bytes.
fn content(device: usize) -> String {
    let version = device % VERSIONS;
    let filling = "x".repeat(150);
    let newest = match device % DEVICES_OF_A_LACKING {
        0 => "",
        _ => r#","12""#,
    };
    format!(
        r#"{{"client":{{"name":"Example","version":"1.{version}.0","platform":"{filling}"}},"room_versions":["9","10","11"{newest}]}}"#
    )
}
