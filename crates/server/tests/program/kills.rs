//! Kills under load: what was acknowledged is there, whatever moment the process died at (law 7).
//!
//! Clients of several devices put, swap, delete, read, sync, log out and log in again, until the
//! server is killed in the midst of it. It is started again on the same data, and they go on with
//! the tokens that they have, of sessions as of syncs. What got no answer may or may not have
//! happened up to the kill. In the end one order of everything must explain all that they saw,
//! across all kills: so no acknowledged write is lost, none that was seen is unseen, no chain of
//! sync tokens leaves anything out, and what a device had is gone with it. Somebody follows the device
//! data of all users meanwhile, and what the feed told them is a part of what must be explained.

mod follower;
mod session;
mod worker;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use kitbag_testkit::dice::Dice;
use kitbag_testkit::linear::{self, Operation};
use kitbag_testkit::settings;

use crate::support::{PATIENCE, Server, directory, run};
use follower::Follower;
use session::{Device, PASSWORD, Record};
use worker::Worker;

const USERS: [&str; 3] = ["alice", "bob", "carol"];
const DEVICES: usize = 3;
/// Two at once for each device: so a write can be under way while its device goes.
const WORKERS_OF_A_DEVICE: usize = 2;
/// Answers from a start to the kill: at least so many, and less than so many more.
const ANSWERS_MIN: usize = 20;
const ANSWERS_MORE: usize = 300;
/// The token of who follows the device data of all users.
const ADMIN_TOKEN: &str = "adm-0123456789abcdef-adm";
/// Nothing is refused for its number, and no token ends by itself while the test runs.
const SETTINGS: [&str; 8] = [
    "--private",
    "127.0.0.1:0",
    "--set",
    "admin.tokens.follower=adm-0123456789abcdef-adm",
    "--set",
    "rate_limits.enabled=false",
    "--set",
    "sessions.access_token_lifetime_ms=86400000",
];

#[test]
#[expect(
    clippy::print_stdout,
    reason = "a worker that fails does not know the seed"
)]
fn what_was_acknowledged_outlives_kills_at_random_moments() {
    let seed = settings::seed().unwrap_or(1);
    println!("KITBAG_TEST_SEED={seed}");
    let kills = if settings::is_long() { 200 } else { 5 };
    let mut dice = Dice::new(seed);
    let dir = directory();
    let record = Record::default();
    let devices = USERS.map(|user| [0, 1, 2].map(|number| Device::new(user, number)));
    let mut workers = workers(&record, &devices, &mut dice);
    let mut follower = Follower::new(&record, Dice::new(dice.draw()));
    let began = Instant::now();
    let mut starts = Vec::new();
    for kill in 0..kills {
        let server = start(dir.path(), &mut starts);
        if kill == 0 {
            let register = |user: &&str| drop(server.client().register(user, PASSWORD));
            USERS.iter().for_each(register);
        }
        run_until_killed(server, &mut workers, &mut follower, &mut dice);
        let now = record.ticket();
        workers
            .iter_mut()
            .for_each(|worker| worker.server_died(now));
    }
    let server = start(dir.path(), &mut starts);
    for worker in &mut workers {
        worker.last_word(server.address);
    }
    follower.last_word(Follower::address(&server));
    server.stop();
    let checked = run(dir.path(), &["check", "--data", "data"]);
    assert_eq!(
        checked.code,
        Some(0),
        "KITBAG_TEST_SEED={seed}: {checked:?}"
    );

    let ran = began.elapsed();
    let mut counts = counts(&workers);
    counts.insert("followed", follower.changes);
    for (user, followed) in USERS.into_iter().zip(follower.logs) {
        let of_user = workers.iter().filter(|worker| worker.device.user == user);
        let seen = of_user.flat_map(|worker| &worker.log).cloned();
        let seen = seen.chain(followed);
        let operations: Vec<Operation> = seen.collect();
        if let Err(verdict) = linear::check(&operations) {
            panic!("KITBAG_TEST_SEED={seed}, {user}: {verdict}");
        }
    }
    if settings::is_long() {
        tell(&counts, ran, began.elapsed() - ran, &mut starts[1..]);
    }
    expect_eventful(&counts);
}

fn workers<'a>(
    record: &'a Record,
    devices: &'a [[Device; DEVICES]],
    dice: &mut Dice,
) -> Vec<Worker<'a>> {
    let devices = devices.iter().flatten();
    let numbered = devices.flat_map(|device| (0..WORKERS_OF_A_DEVICE).map(move |n| (device, n)));
    let workers = numbered.map(|(device, number)| {
        let leads = number == 0;
        Worker::new(record, device, leads, Dice::new(dice.draw()))
    });
    workers.collect()
}

/// Starts the server and notes how long its first answer took.
fn start(dir: &Path, starts: &mut Vec<Duration>) -> Server {
    let began = Instant::now();
    let server = Server::start(dir, &SETTINGS);
    assert_eq!(server.client().versions().status, 200);
    starts.push(began.elapsed());
    server
}

/// Lets the workers work until a random number of answers has come, and kills the server.
fn run_until_killed(
    server: Server,
    workers: &mut [Worker<'_>],
    follower: &mut Follower<'_>,
    dice: &mut Dice,
) {
    let answers = ANSWERS_MIN + dice.below(ANSWERS_MORE);
    let address = server.address;
    let private = Follower::address(&server);
    let (done, answered) = channel();
    thread::scope(|scope| {
        scope.spawn(|| follower.follow(private));
        for worker in workers {
            let done = done.clone();
            scope.spawn(move || worker.work(address, &done));
        }
        for _ in 0..answers {
            let came = answered.recv_timeout(PATIENCE);
            came.expect("the workers are answered");
        }
        server.kill();
        drop(answered);
    });
}

fn counts(workers: &[Worker<'_>]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for (what, count) in workers.iter().flat_map(|worker| &worker.counts) {
        *counts.entry(*what).or_default() += count;
    }
    counts
}

/// A run in which nothing of this occurred would show nothing.
fn expect_eventful(counts: &BTreeMap<&'static str, usize>) {
    let events = [
        "put",
        "swap",
        "conflict",
        "delete",
        "get",
        "sync",
        "login",
        "logout",
        "refresh",
        "maybe",
        "token refused",
        "followed",
    ];
    let missing = events
        .iter()
        .find(|what| counts.get(*what).is_none_or(|count| *count == 0));
    assert_eq!(missing, None, "{counts:?}");
}

#[expect(
    clippy::print_stdout,
    reason = "figures for whoever asked for the long form"
)]
fn tell(
    counts: &BTreeMap<&'static str, usize>,
    ran: Duration,
    judged: Duration,
    restarts: &mut [Duration],
) {
    restarts.sort_unstable();
    let (first, last) = (restarts[0], restarts[restarts.len() - 1]);
    let median = restarts[restarts.len() / 2];
    println!("{counts:?}");
    println!("ran {ran:.1?}, judged in {judged:.1?}");
    println!(
        "{} restarts to the first answer: {median:.1?} ({first:.1?}..{last:.1?})",
        restarts.len()
    );
}
