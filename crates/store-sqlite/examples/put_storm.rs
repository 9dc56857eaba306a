//! Measures durable puts: how many a second, how many shared a commit, how large the log grew.
//!
//! `cargo run --release -p kitbag-store-sqlite --example put_storm -- DIR CALLERS SECONDS [none]`
//!
//! Each caller puts contents of 1 KiB under 1,000 keys of a user of its own and waits for each to
//! be acknowledged. With `none` nothing is synced.
#![expect(
    clippy::unwrap_used,
    reason = "a failure ends the program, as it should"
)]
#![expect(clippy::print_stdout, reason = "figures are what the program is for")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kitbag_domain::{
    AccountStore as _, Allowance, Content, EntryStore as _, EventType, Expectation, Guard, Key,
    Limits, NewAccount, Op, Scope, ServerName, UserId, Write, Writer,
};
use kitbag_store_sqlite::{Durability, Options, SqliteStore};

const CONTENT_BYTES: usize = 1_024;
const KEYS: usize = 1_000;
const GETS: u32 = 20_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut args = std::env::args_os().skip(1);
    let dir = PathBuf::from(args.next().expect("a directory"));
    let mut number = || {
        let text = args.next().expect("a number").into_string().unwrap();
        text.parse::<u64>().unwrap()
    };
    let (callers, seconds) = (number(), number());
    let mut options = Options::new(ServerName::parse("localhost").unwrap(), 1);
    if args.next().is_some() {
        options.durability = Durability::None;
    }
    let store = Arc::new(SqliteStore::open(&dir, options).unwrap());
    let until = Instant::now() + Duration::from_secs(seconds);
    let started = Instant::now();
    let log = tokio::spawn(largest_log(dir.join("kitbag.db-wal"), until));
    let tasks: Vec<_> = (0..callers)
        .map(|caller| tokio::spawn(put(Arc::clone(&store), caller, until)))
        .collect();
    let mut waits_us = Vec::new();
    for task in tasks {
        waits_us.extend(task.await.unwrap());
    }
    let elapsed = started.elapsed().as_secs_f64();
    waits_us.sort_unstable();
    let (puts, commits) = (waits_us.len(), store.stats().commits);
    let at = |part: usize| waits_us[(waits_us.len() - 1) * part / 1_000];
    println!("{callers} callers: {:.0} puts/s", puts as f64 / elapsed);
    println!("{:.0} commits/s", commits as f64 / elapsed);
    println!(
        "p50 {} us, p99 {} us, p99.9 {} us",
        at(500),
        at(990),
        at(999)
    );
    println!("largest log: {} KiB", log.await.unwrap() / 1_024);
    let each = time_gets(&store).await;
    println!("a get by one caller: {} us", each.as_micros());
}

async fn put(store: Arc<SqliteStore>, caller: u64, until: Instant) -> Vec<u128> {
    let user = user(caller);
    let account = NewAccount {
        user: user.clone(),
        password_hash: String::new(),
        at: 0,
    };
    // An account of an earlier run will do as well.
    drop(store.register(account, None).await);
    let text = format!("{{\"a\":\"{}\"}}", "x".repeat(CONTENT_BYTES - 8));
    let content = Content::parse(text.into(), &Limits::default()).unwrap();
    let mut waits_us = Vec::new();
    for number in 0.. {
        let start = Instant::now();
        if start >= until {
            break;
        }
        let write = Write {
            guard: Guard::Account,
            writer: Writer::Server,
            at: 0,
            allowance: Allowance::Ordinary,
        };
        let op = Op::Put(key(number % KEYS), content.clone(), Expectation::default());
        store.apply(&user, write, vec![op]).await.unwrap();
        waits_us.push(start.elapsed().as_micros());
    }
    waits_us
}

async fn time_gets(store: &SqliteStore) -> Duration {
    let (user, key) = (user(0), key(0));
    let started = Instant::now();
    for _ in 0..GETS {
        assert!(store.get(&user, &key).await.unwrap().is_some());
    }
    started.elapsed() / GETS
}

async fn largest_log(path: impl AsRef<Path>, until: Instant) -> u64 {
    let mut largest = 0;
    while Instant::now() < until {
        largest = largest.max(path.as_ref().metadata().map_or(0, |log| log.len()));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    largest
}

fn user(caller: u64) -> UserId {
    UserId::parse(format!("@caller{caller}:localhost")).unwrap()
}

fn key(number: usize) -> Key {
    let event_type = EventType::parse(format!("com.example.{number}")).unwrap();
    Key::new(Scope::Global, event_type)
}
