//! Measures how long it takes to read the device data of all users: in pages, and by the feed.
//!
//! `cargo run --release -p kitbag-store-sqlite --example device_pages -- DEVICES [ROUNDS]`
//!
//! Two devices a user, each with an entry of some 300 bytes, and with each user an entry of 1 KiB at
//! global scope between them; written in no order. Pages of 1,000.
#![expect(
    clippy::unwrap_used,
    reason = "a failure ends the program, as it should"
)]
#![expect(clippy::print_stdout, reason = "figures are what the program is for")]

use std::sync::Arc;
use std::time::Instant;

use kitbag_domain::{
    AccountStore as _, Allowance, Content, DeviceDataStore as _, DeviceId, DevicePlace,
    EntryStore as _, EventType, Expectation, Guard, Key, Limits, Login, NewAccount, Op, Scope,
    Seen, ServerName, SessionTokens, TokenHash, UserId, Write, Writer,
};
use kitbag_store_sqlite::{Options, SqliteStore};

const PAGE: usize = 1_000;
const CALLERS: usize = 64;
const DEVICES: [&str; 2] = ["HWLAAYFGRK", "QPTZBWEMXN"];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse().unwrap());
    let users = numbers.next().expect("how many devices") / DEVICES.len();
    let rounds = numbers.next().unwrap_or(5);
    let options = Options::new(ServerName::parse("localhost").unwrap(), 1);
    let store = Arc::new(SqliteStore::ephemeral(options).unwrap());
    let started = Instant::now();
    let tasks: Vec<_> = (0..CALLERS)
        .map(|caller| tokio::spawn(fill(Arc::clone(&store), caller, users)))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    println!("filled in {:.1} s", started.elapsed().as_secs_f64());
    for _ in 0..rounds {
        read_pages(&store).await;
        follow(&store).await;
    }
}

async fn read_pages(store: &SqliteStore) {
    let (started, mut slowest, mut found) = (Instant::now(), 0, 0);
    let mut after = None;
    loop {
        let began = Instant::now();
        let page = store.device_entries(&event_type(), after, PAGE).await;
        let page = page.unwrap();
        slowest = slowest.max(began.elapsed().as_micros());
        found += page.len();
        let Some(last) = page.last().filter(|_| page.len() == PAGE) else {
            break;
        };
        after = Some(DevicePlace {
            user: last.user.clone(),
            device: last.entry.key.scope.device().unwrap().clone(),
        });
    }
    tell("pages", found, started, slowest);
}

async fn follow(store: &SqliteStore) {
    let (started, mut slowest, mut found) = (Instant::now(), 0, 0);
    let mut after = None;
    loop {
        let began = Instant::now();
        let changes = store.device_changes(after, PAGE).await.unwrap();
        slowest = slowest.max(began.elapsed().as_micros());
        found += changes.changes.len();
        after = Some(changes.next);
        if !changes.has_more {
            break;
        }
    }
    tell("feed", found, started, slowest);
}

fn tell(what: &str, found: usize, started: Instant, slowest: u128) {
    let elapsed = started.elapsed();
    println!(
        "{what}: {found} entries in {} ms, {:.2} us each, slowest page {slowest} us",
        elapsed.as_millis(),
        elapsed.as_secs_f64() * 1e6 / found as f64
    );
}

/// Makes every account first, then writes by turns that have nothing to do with their order.
async fn fill(store: Arc<SqliteStore>, caller: usize, users: usize) {
    let own = || (caller..users).step_by(CALLERS);
    for number in own() {
        let account = NewAccount {
            user: user(number),
            password_hash: "$".to_owned(),
            at: 0,
        };
        store.register(account, None).await.unwrap();
        for (seed, device) in (0..).zip(DEVICES) {
            store
                .login(&user(number), login(device, seed))
                .await
                .unwrap();
        }
    }
    for device in DEVICES {
        // A prime that does not divide how many there are, so each comes once.
        let count = own().count();
        for number in (0..count).map(|turn| caller + turn * 7_919 % count * CALLERS) {
            let text = format!(
                r#"{{"room_versions":["1","2","3","4","5","6","7","8","9","10","11"],"n":{number},"client":"{}"}}"#,
                "x".repeat(220)
            );
            let scope = Scope::Device(DeviceId::parse(device).unwrap());
            put(&store, number, Key::new(scope, event_type()), text).await;
            if device == DEVICES[0] {
                let text = format!(r#"{{"rooms":"{}"}}"#, "x".repeat(1_024));
                let direct = EventType::parse("m.direct").unwrap();
                put(&store, number, Key::new(Scope::Global, direct), text).await;
            }
        }
    }
}

async fn put(store: &SqliteStore, number: usize, key: Key, text: String) {
    let content = Content::parse(text.into(), &Limits::default()).unwrap();
    let user_agent = "Example/1.11.86 (Linux; like the header of a browser)";
    let write = Write {
        guard: Guard::Account,
        writer: Writer::Device {
            id: DeviceId::parse(DEVICES[0]).unwrap(),
            user_agent: Some(user_agent.into()),
        },
        at: 1,
        allowance: Allowance::Ordinary,
    };
    let ops = vec![Op::Put(key, content, Expectation::default())];
    store.apply(&user(number), write, ops).await.unwrap();
}

fn login(device: &str, seed: u8) -> Login {
    Login {
        verified_hash: "$".to_owned(),
        device: DeviceId::parse(device).unwrap(),
        display_name: Some("Example on Linux".to_owned()),
        tokens: SessionTokens {
            access: TokenHash([seed; 32]),
            access_expires_at: None,
            refresh: None,
        },
        seen: Seen::default(),
    }
}

fn user(number: usize) -> UserId {
    UserId::parse(format!("@user{number}:localhost")).unwrap()
}

fn event_type() -> EventType {
    EventType::parse("org.example.capabilities").unwrap()
}
