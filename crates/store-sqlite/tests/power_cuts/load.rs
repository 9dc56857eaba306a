//! Clients over a store on a disk that is watched.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kitbag_domain::{
    AccountStore as _, Allowance, ApplyError, DeviceDataStore as _, DeviceSelection,
    EntryStore as _, Expectation, Guard, Incarnation, Key, Limits, Login, NewAccount, Op, Position,
    Quota, Scope, Seen, ServerName, UserId, Write, Writer,
};
use kitbag_store_sqlite::{FileOpener, Options, SqliteStore};
use kitbag_testkit::dice::Dice;
use kitbag_testkit::disk::{Call, Disk, Error, Fault, Log, Part, Times};
use kitbag_testkit::{content, device_id, device_key, fresh_tokens, global, room_key, user_id};
use tempfile::tempdir;
use tokio::time::sleep;

use crate::facts::{Account, Chapter, Device, Facts, Head, Session, Written};

const USERS: usize = 4;
const CLIENTS: usize = 6;
/// From opening to closing.
const LIVES: usize = 3;
const STEPS: usize = 40;
const KEYS: usize = 6;
const CONTENT_BYTES_MAX: usize = 9_000;
/// So few that the log is copied, begun anew and emptied many times.
const CHECKPOINT_FRAMES: u64 = 60;
const IDLE_MS: u64 = 10;
const SYNC_TIME: Duration = Duration::from_micros(200);
const REST_TIME_MAX: Duration = Duration::from_secs(10);
const PASSWORD_HASH: &str = "hash";

/// What the disk is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Some calls fail.
    Failing,
    Whole,
}

/// A load that has run.
pub(crate) struct Load {
    pub(crate) log: Log,
    pub(crate) facts: Facts,
}

/// What clients share.
struct Shared {
    disk: Disk,
    store: SqliteStore,
    facts: Arc<Mutex<Facts>>,
    numbers: Arc<AtomicU64>,
}

pub(crate) async fn run(seed: u64, kind: Kind) -> Load {
    let dir = tempdir().unwrap();
    let mut disk = Disk::new();
    disk.let_syncs_take(SYNC_TIME);
    let (facts, numbers) = (Arc::<Mutex<Facts>>::default(), Arc::<AtomicU64>::default());
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|number| Client::new(seed, number))
        .collect();
    for life in 0..LIVES {
        let shared = Arc::new(Shared {
            store: open(dir.path(), &disk),
            disk,
            facts: Arc::clone(&facts),
            numbers: Arc::clone(&numbers),
        });
        if life == 0 {
            for user in 0..USERS {
                shared.register(&name(user)).await;
            }
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let trouble = (kind == Kind::Failing).then(|| {
            let (shared, is_over) = (Arc::clone(&shared), Arc::clone(&is_over));
            tokio::spawn(trouble(shared, is_over, Dice::new(seed + life as u64)))
        });
        let running = clients.drain(..).map(|client| {
            let shared = Arc::clone(&shared);
            tokio::spawn(client.run(shared))
        });
        for client in running.collect::<Vec<_>>() {
            clients.push(client.await.unwrap());
        }
        is_over.store(true, Ordering::Relaxed);
        if let Some(trouble) = trouble {
            trouble.await.unwrap();
        }
        shared.rest().await;
        let Ok(shared) = Arc::try_unwrap(shared).map_err(drop) else {
            unreachable!("all tasks have ended");
        };
        if kind == Kind::Failing && life + 1 < LIVES {
            let dice = &mut Dice::new(seed + life as u64);
            shared.fail_at_the_end(dice).await;
        }
        shared.store.close();
        disk = shared.disk;
        disk.clear();
    }
    let log = disk.log();
    let facts = std::mem::take(&mut *facts.lock().unwrap());
    Load { log, facts }
}

fn open(dir: &Path, disk: &Disk) -> SqliteStore {
    let mut options = Options::new(ServerName::parse("localhost").unwrap(), 1);
    options.limits = Limits {
        quota: Quota {
            entries_max: 9,
            bytes_max: 60_000,
            device_entries_max: 3,
            reserve_entries: 2,
            reserve_bytes: 1_000,
        },
        tombstones_max: 4,
        ..Limits::default()
    };
    options.checkpoint_frames = CHECKPOINT_FRAMES;
    options.wal_idle_ms = IDLE_MS;
    options.vfs = Some(disk.name().to_owned());
    options.opener = Some(FileOpener::new(disk.opener()));
    let store = SqliteStore::open(dir, options).unwrap();
    // The store syncs the directory beside SQLite.
    disk.sync_dir();
    store
}

fn name(user: usize) -> UserId {
    user_id(&format!("user{user}"))
}

/// Lets calls fail now and then, once or for a while.
async fn trouble(shared: Arc<Shared>, is_over: Arc<AtomicBool>, mut dice: Dice) {
    while !is_over.load(Ordering::Relaxed) {
        let call = [
            Call::Sync,
            Call::Sync,
            Call::Write,
            Call::Truncate,
            Call::Read,
        ];
        let part = [Part::Log, Part::Log, Part::Database];
        let error = [Error::Io, Error::NoSpace, Error::ShortWrite];
        let times = [Times::Once, Times::Once, Times::UntilCleared];
        shared.disk.fail(Fault {
            call: Some(call[dice.below(call.len())]),
            part: Some(part[dice.below(part.len())]),
            nth: 1 + dice.below(6) as u64,
            error: error[dice.below(error.len())],
            times: times[dice.below(times.len())],
        });
        sleep(Duration::from_millis(2 + dice.below(30) as u64)).await;
        shared.disk.clear();
        sleep(Duration::from_millis(dice.below(20) as u64)).await;
    }
}

impl Shared {
    fn facts<T>(&self, note: impl FnOnce(&mut Facts) -> T) -> T {
        note(&mut self.facts.lock().unwrap())
    }

    /// Waits until the log was emptied.
    async fn rest(&self) {
        let until = Instant::now() + REST_TIME_MAX;
        while self.store.stats().wal_frames > 0 {
            assert!(Instant::now() < until, "the log is not emptied");
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Lets the last writes meet a fault that stays: the log is left as by a process that was killed
    /// then.
    async fn fail_at_the_end(&self, dice: &mut Dice) {
        let error = [Error::Io, Error::Gone][dice.below(2)];
        let fault = Fault::next(Call::Sync, error).of(Part::Log);
        let nth = 1 + dice.below(2) as u64;
        self.disk.fail(fault.nth(nth).lasting());
        for number in 0..USERS {
            let (user, key) = (name(number), global("last"));
            let op = self.put(&user, key, CONTENT_BYTES_MAX, Expectation::default());
            self.apply(&user, Guard::Account, vec![op]).await;
        }
    }

    async fn register(&self, user: &UserId) {
        let account = NewAccount {
            user: user.clone(),
            password_hash: PASSWORD_HASH.to_owned(),
            at: 1,
        };
        let registered = self.store.register(account, None).await;
        let account = Account {
            user: user.clone(),
            registered: registered.is_ok().then(|| self.disk.now()),
            deactivation_begun: None,
            deactivated: None,
        };
        self.facts(|facts| facts.accounts.push(account));
    }

    async fn deactivate(&self, user: &UserId) {
        let begun = self.disk.now();
        let change = |change: &dyn Fn(&mut Account)| {
            self.facts(|facts| {
                let mut accounts = facts.accounts.iter_mut();
                change(accounts.find(|account| account.user == *user).unwrap());
            });
        };
        change(&|account| account.deactivation_begun = Some(begun));
        let done = self.store.deactivate(user, write(Guard::Account)).await;
        let now = self.disk.now();
        change(&|account| account.deactivated = done.is_ok().then_some(now));
    }

    /// Applies operations, of which the facts tell one each.
    async fn apply(&self, user: &UserId, guard: Guard, ops: Vec<Op>) {
        let begun = self.disk.now();
        let applied = self.store.apply(user, write(guard), ops.clone()).await;
        let now = self.disk.now();
        if let Err(ApplyError::Refused(_)) = applied {
            return;
        }
        self.facts(|facts| {
            for (number, op) in ops.into_iter().enumerate() {
                let told = match &applied {
                    Ok(applied) => match applied.positions[number] {
                        Some(position) => Some((now, position)),
                        // There was nothing to delete.
                        None => continue,
                    },
                    Err(_) => None,
                };
                let (key, text) = match op {
                    Op::Delete(key) => (key, None),
                    Op::Put(key, content, _) => (key, Some(content.as_str().into())),
                };
                facts.write(Written {
                    user: user.clone(),
                    key,
                    text,
                    begun,
                    told,
                });
            }
        });
    }

    async fn look(&self, user: &UserId, after: Option<Position>) {
        if let Ok(changes) = self.store.changes(user, after).await {
            let head = Head {
                user: user.clone(),
                told: self.disk.now(),
                position: changes.head,
            };
            self.facts(|facts| facts.heads.push(head));
        }
        if let Ok(changes) = self.store.device_changes(None, usize::MAX).await {
            let head = (self.disk.now(), changes.next.number);
            self.facts(|facts| facts.feed_heads.push(head));
        }
    }

    /// Returns a put of a content that names its place and bears a revision.
    fn put(&self, user: &UserId, key: Key, bytes: usize, expectation: Expectation) -> Op {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (place, pad) = (place(user, &key), "x".repeat(bytes));
        let text =
            format!(r#"{{"of":"{place}","com.beeper.revision_id":"{number}","pad":"{pad}"}}"#);
        Op::Put(key, content(&text), expectation)
    }
}

/// Returns what a content says of where it belongs: user, scope, room or device, and type.
pub(crate) fn place(user: &UserId, key: &Key) -> String {
    let (scope, place) = match &key.scope {
        Scope::Global => (0, ""),
        Scope::Room(room) => (1, room.as_str()),
        Scope::Device(device) => (2, device.as_str()),
    };
    format!("{user} {scope} {place} {}", key.event_type)
}

fn write(guard: Guard) -> Write {
    Write {
        guard,
        writer: Writer::Server,
        at: 1,
        allowance: Allowance::Ordinary,
    }
}

/// One client: entries of all users, and one device of its own.
struct Client {
    number: usize,
    dice: Dice,
    user: UserId,
    device: String,
    session: Option<(Incarnation, kitbag_domain::SessionTokens)>,
}

impl Client {
    fn new(seed: u64, number: usize) -> Self {
        Self {
            number,
            dice: Dice::new(seed.wrapping_mul(1_000).wrapping_add(number as u64)),
            user: name(number % USERS),
            device: format!("D{number}"),
            session: None,
        }
    }

    async fn run(mut self, shared: Arc<Shared>) -> Self {
        for _ in 0..STEPS {
            match self.dice.below(100) {
                0..45 => self.put(&shared).await,
                45..55 => self.put_several(&shared).await,
                55..65 => self.delete(&shared).await,
                65..72 => self.swap(&shared).await,
                72..82 => self.put_of_device(&shared).await,
                82..86 => self.log_out(&shared).await,
                86..90 => self.refresh(&shared).await,
                90..92 => self.come_and_go(&shared).await,
                92..98 => {
                    let after = [None, Some(Position::ZERO)][self.dice.below(2)];
                    shared.look(&self.any_user(), after).await;
                }
                // Time enough for the log to be emptied.
                _ => sleep(Duration::from_millis(2 * IDLE_MS)).await,
            }
        }
        self
    }

    fn any_user(&mut self) -> UserId {
        name(self.dice.below(USERS))
    }

    fn any_key(&mut self) -> Key {
        let event_type = format!("k{}", self.dice.below(KEYS));
        if self.dice.chance(20) {
            room_key("!room:localhost", &event_type)
        } else {
            global(&event_type)
        }
    }

    /// Small contents mostly, and now and then one with pages of its own.
    fn any_size(&mut self) -> usize {
        let most = if self.dice.chance(20) {
            CONTENT_BYTES_MAX
        } else {
            300
        };
        self.dice.below(most)
    }

    async fn put(&mut self, shared: &Shared) {
        let (user, key, size) = (self.any_user(), self.any_key(), self.any_size());
        let op = shared.put(&user, key, size, Expectation::default());
        shared.apply(&user, Guard::Account, vec![op]).await;
    }

    async fn put_several(&mut self, shared: &Shared) {
        let user = self.any_user();
        let ops = (0..3).map(|number| {
            let key = global(&format!("s{number}"));
            shared.put(&user, key, self.any_size(), Expectation::default())
        });
        shared.apply(&user, Guard::Account, ops.collect()).await;
    }

    async fn delete(&mut self, shared: &Shared) {
        let (user, key) = (self.any_user(), self.any_key());
        shared
            .apply(&user, Guard::Account, vec![Op::Delete(key)])
            .await;
    }

    async fn swap(&mut self, shared: &Shared) {
        let (user, key, size) = (self.any_user(), self.any_key(), self.any_size());
        let Ok(Some(entry)) = shared.store.get(&user, &key).await else {
            return;
        };
        let text = entry.content.unwrap();
        let revision = text.as_str().split('"').nth(7).unwrap().to_owned();
        let expectation = Expectation {
            stable: None,
            unstable: Some(revision),
        };
        let op = shared.put(&user, key, size, expectation);
        shared.apply(&user, Guard::Account, vec![op]).await;
    }

    async fn put_of_device(&mut self, shared: &Shared) {
        let Some((incarnation, _)) = self.session else {
            return self.log_in(shared).await;
        };
        let key = device_key(&self.device, &format!("k{}", self.dice.below(4)));
        let size = self.any_size();
        let op = shared.put(&self.user, key, size, Expectation::default());
        let guard = Guard::Device(device_id(&self.device), incarnation);
        let user = self.user.clone();
        shared.apply(&user, guard, vec![op]).await;
    }

    async fn log_in(&mut self, shared: &Shared) {
        let begun = shared.disk.now();
        let tokens = fresh_tokens();
        let login = Login {
            verified_hash: PASSWORD_HASH.to_owned(),
            device: device_id(&self.device),
            display_name: None,
            tokens: tokens.clone(),
            seen: Seen::default(),
        };
        let told = shared.store.login(&self.user, login).await;
        let told = told.ok().map(|()| shared.disk.now());
        let found = shared.store.session(&self.user, tokens.access).await;
        let found = found.ok().flatten().filter(|_| told.is_some());
        let incarnation = found.map(|session| session.incarnation);
        let access = tokens.access;
        self.session = incarnation.map(|incarnation| (incarnation, tokens));
        let session = Session {
            access,
            incarnation,
        };
        self.note(shared, begun, told, Some(session));
    }

    async fn log_out(&mut self, shared: &Shared) {
        if self.session.take().is_none() {
            return self.log_in(shared).await;
        }
        let begun = shared.disk.now();
        let own = DeviceSelection::These(vec![device_id(&self.device)]);
        let removed = shared
            .store
            .remove_devices(&self.user, write(Guard::Account), own);
        let told = removed.await.ok().map(|_| shared.disk.now());
        self.note(shared, begun, told, None);
    }

    async fn refresh(&mut self, shared: &Shared) {
        let Some((incarnation, old)) = self.session.clone() else {
            return self.log_in(shared).await;
        };
        let begun = shared.disk.now();
        let tokens = fresh_tokens();
        let refresh = old.refresh.unwrap();
        let seen = Seen::default();
        let refreshed = shared
            .store
            .refresh(&self.user, refresh, tokens.clone(), seen);
        let told = refreshed.await.ok().map(|()| shared.disk.now());
        let session = Session {
            access: tokens.access,
            incarnation: Some(incarnation),
        };
        // Where the outcome is not known, the client logs in anew.
        self.session = told.map(|_| (incarnation, tokens));
        self.note(shared, begun, told, Some(session));
    }

    fn note(&self, shared: &Shared, begun: usize, told: Option<usize>, session: Option<Session>) {
        let chapter = Chapter {
            begun,
            told,
            session,
        };
        let (number, user, id) = (self.number, self.user.clone(), self.device.clone());
        shared.facts(|facts| {
            let device = facts.devices.entry(number).or_insert_with(|| Device {
                user,
                id: device_id(&id),
                chapters: Vec::new(),
            });
            device.chapters.push(chapter);
        });
    }

    /// Makes an account, and ends it in half of the cases.
    async fn come_and_go(&mut self, shared: &Shared) {
        let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
        let user = user_id(&format!("guest{number}"));
        shared.register(&user).await;
        let op = shared.put(&user, global("k"), 10, Expectation::default());
        shared.apply(&user, Guard::Account, vec![op]).await;
        if self.dice.chance(50) {
            shared.deactivate(&user).await;
        }
    }
}
