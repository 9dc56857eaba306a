//! The cache between one writer and several readers, each order of their steps by a model checker.

use std::panic::catch_unwind;
use std::slice::from_ref;

use kitbag_domain::{Entry, EventType, Position, Scope, TokenHash, Writer};
use kitbag_testkit::settings;
use shuttle::scheduler::RandomScheduler;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::sync::{Arc, Mutex as ModelMutex};
use shuttle::{Config, Runner, thread};

use super::*;

const SCHEDULES: usize = 2_000;
/// The rarest of the wrong orders shows in one of some 700.
const SCHEDULES_UNTIL_SEEN: usize = 50_000;
const USERS: usize = 2;
const BATCHES: u64 = 3;

impl<T> Lock<T> for ModelMutex<T> {
    fn new(value: T) -> Self {
        Self::new(value)
    }

    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        work(&mut self.lock().unwrap())
    }
}

/// In which order writer and readers take their steps: the right one, and others that must be seen.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Steps {
    Right,
    NeverBegin,
    PublishBeforeCommit,
    PublishOnlyOneUser,
    TicketAfterTheRead,
}

/// The file: the latest position of each user's entry.
type File = ModelMutex<[u64; USERS]>;

struct Model {
    steps: Steps,
    cache: Cache<ModelMutex<Shard>>,
    file: File,
    /// What each user's entry was seen or acknowledged at: nobody may read less from then on.
    seen: [AtomicU64; USERS],
}

fn user(number: usize) -> UserId {
    UserId::parse(format!("@{number}:x")).unwrap()
}

fn key() -> Key {
    Key::new(Scope::Global, EventType::parse("t").unwrap())
}

fn value(position: u64) -> Value {
    let entry = Entry {
        key: key(),
        content: None,
        position: Position(position),
        writer: Writer::Server,
        written_at: 0,
    };
    Value::Entry((position > 0).then_some(entry))
}

fn position(value: &Value) -> u64 {
    let Value::Entry(entry) = value else {
        panic!("only entries are kept here");
    };
    entry.as_ref().map_or(0, |entry| entry.position.0)
}

impl Model {
    /// A cache that holds `items` values in one shard.
    fn new(steps: Steps, items: u64) -> Arc<Self> {
        let weight = Weigher;
        let owned = Wanted {
            user: &user(0),
            item: &Item::Entry(&key()),
        };
        let bytes = quick_cache::Weighter::weight(&weight, &owned.to_owned(), &value(1));
        Arc::new(Self {
            steps,
            cache: Cache::with_shards(1, bytes * items),
            file: ModelMutex::new([0; USERS]),
            seen: Default::default(),
        })
    }

    /// Commits a batch that changes all users.
    fn write(&self, whole_users: bool) {
        let touched: Vec<_> = (0..USERS)
            .map(|number| match whole_users {
                true => Touched::User(user(number)),
                false => Touched::Entries(user(number), vec![key()]),
            })
            .collect();
        let publish = || match self.steps {
            Steps::PublishOnlyOneUser => self.cache.publish(&touched[..1]),
            _ => self.cache.publish(&touched),
        };
        if self.steps != Steps::NeverBegin {
            self.cache.begin(&touched);
        }
        if self.steps == Steps::PublishBeforeCommit {
            publish();
        }
        let positions = {
            let mut file = self.file.lock().unwrap();
            for position in &mut *file {
                *position += 1;
            }
            *file
        };
        let acknowledge = || {
            for (seen, position) in self.seen.iter().zip(positions) {
                seen.fetch_max(position, Ordering::SeqCst);
            }
        };
        if self.steps != Steps::PublishBeforeCommit {
            publish();
        }
        acknowledge();
    }

    /// Reads as the store does.
    fn read(&self, number: usize) {
        let (user, key) = (user(number), key());
        let item = Item::Entry(&key);
        let seen = self.seen[number].load(Ordering::SeqCst);
        let found = self.cache.get(&user, &item).map_or_else(
            || {
                let before = self.cache.ticket(&user);
                let read = self.file.lock().unwrap()[number];
                let ticket = match self.steps {
                    Steps::TicketAfterTheRead => self.cache.ticket(&user),
                    _ => before,
                };
                if let Some(ticket) = ticket {
                    self.cache.fill(ticket, &user, &item, value(read));
                }
                read
            },
            |value| position(&value),
        );
        assert!(
            found >= seen,
            "{found} was read, and {seen} was seen before"
        );
        self.seen[number].fetch_max(found, Ordering::SeqCst);
    }
}

/// Runs one writer and two readers in many orders.
fn explore(steps: Steps, items: u64, schedules: usize) {
    let run = move || {
        let model = Model::new(steps, items);
        let readers: Vec<_> = (0..2)
            .map(|reader| {
                let model = Arc::clone(&model);
                thread::spawn(move || {
                    for number in 0..4 {
                        model.read((reader + number / 2) % USERS);
                    }
                })
            })
            .collect();
        for batch in 0..BATCHES {
            model.write(batch == 1);
        }
        for reader in readers {
            reader.join().unwrap();
        }
    };
    let schedules = if settings::is_long() {
        50 * schedules
    } else {
        schedules
    };
    let seed = settings::seed().unwrap_or(1);
    let scheduler = RandomScheduler::new_from_seed(seed, schedules);
    Runner::new(scheduler, Config::default()).run(run);
}

#[test]
fn nobody_reads_an_older_value_than_was_seen() {
    explore(Steps::Right, 8, SCHEDULES);
}

#[test]
fn evictions_change_nothing() {
    explore(Steps::Right, 1, SCHEDULES);
}

#[test]
fn each_wrong_order_is_seen() {
    for steps in [
        Steps::NeverBegin,
        Steps::PublishBeforeCommit,
        Steps::PublishOnlyOneUser,
        Steps::TicketAfterTheRead,
    ] {
        let explored = catch_unwind(|| explore(steps, 8, SCHEDULES_UNTIL_SEEN));
        assert!(explored.is_err(), "{steps:?} was not noticed");
    }
}

type Real = Cache<Mutex<Shard>>;

fn filled(bytes_max: u64) -> (Real, UserId, Key) {
    let (cache, user, key) = (Real::new(bytes_max), user(0), key());
    if let Some(ticket) = cache.ticket(&user) {
        cache.fill(ticket, &user, &Item::Entry(&key), value(1));
        cache.fill(ticket, &user, &Item::Head, Value::Head(None));
    }
    (cache, user, key)
}

#[test]
fn a_change_of_an_entry_drops_it_and_the_head() {
    let (cache, user, key) = filled(limit::CACHE_BYTES_MAX);
    let other = Key::new(Scope::Global, EventType::parse("other").unwrap());
    let ticket = cache.ticket(&user).unwrap();
    cache.fill(ticket, &user, &Item::Entry(&other), value(1));
    let touched = [Touched::Entries(user.clone(), vec![key.clone()])];
    cache.begin(&touched);
    assert!(cache.get(&user, &Item::Entry(&other)).is_none());
    cache.publish(&touched);
    assert!(cache.get(&user, &Item::Entry(&key)).is_none());
    assert!(cache.get(&user, &Item::Head).is_none());
    assert!(cache.get(&user, &Item::Entry(&other)).is_some());
}

#[test]
fn sessions_are_told_while_entries_are_committed_and_not_while_devices_are() {
    let (cache, user, key) = filled(limit::CACHE_BYTES_MAX);
    let (token, session) = (TokenHash([7; 32]), Value::Session(None));
    let of_token = Item::Session(&token);
    let is_told = || cache.get(&user, &of_token).is_some();
    let entries = Touched::Entries(user.clone(), vec![key]);
    let before = cache.ticket(&user).unwrap();
    cache.begin(from_ref(&entries));
    cache.fill(before, &user, &of_token, session.clone());
    assert!(is_told(), "entries say nothing of sessions");
    cache.publish(from_ref(&entries));
    assert!(is_told());
    let before = cache.ticket(&user).unwrap();
    let device = [Touched::User(user.clone()), entries];
    cache.begin(&device);
    assert!(!is_told(), "whatever else is in the batch");
    cache.fill(before, &user, &of_token, session);
    cache.publish(&device);
    assert!(!is_told());
}

#[test]
fn after_an_unknown_outcome_everything_is_forgotten() {
    let (cache, user, key) = filled(limit::CACHE_BYTES_MAX);
    let before = cache.ticket(&user).unwrap();
    cache.begin(&[Touched::User(user.clone())]);
    cache.clear();
    assert!(cache.get(&user, &Item::Entry(&key)).is_none());
    cache.fill(before, &user, &Item::Head, Value::Head(None));
    assert!(cache.get(&user, &Item::Head).is_none());
    assert_eq!(cache.bytes(), 0);
}

#[test]
fn it_stays_within_its_bytes() {
    let bytes_max = 1024 * 1024;
    let cache = Real::new(bytes_max);
    for number in 0..10_000 {
        let user = user(number);
        let ticket = cache.ticket(&user).unwrap();
        cache.fill(ticket, &user, &Item::Head, Value::Head(None));
    }
    let bytes = cache.bytes();
    assert!((bytes_max / 2..=bytes_max).contains(&bytes), "{bytes}");
}

#[test]
fn without_bytes_there_is_no_cache() {
    let (cache, user, key) = filled(0);
    assert!(cache.ticket(&user).is_none());
    assert!(cache.get(&user, &Item::Entry(&key)).is_none());
    cache.begin(&[Touched::User(user.clone())]);
    cache.publish(&[Touched::User(user)]);
    assert_eq!(cache.bytes(), 0);
}
