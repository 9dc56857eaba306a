//! The cache between one writer and several readers, each order of their steps by a model checker.

use std::convert::Infallible;
use std::panic::catch_unwind;
use std::slice::from_ref;

use kitbag_domain::{
    Content, DeviceId, Entry, EventType, Incarnation, Limits, Position, Scope, Session, TokenHash,
    Writer,
};
use kitbag_testkit::settings;
use quick_cache::Weighter as _;
use shuttle::scheduler::RandomScheduler;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::sync::{Arc, Mutex as ModelMutex};
use shuttle::{Config, Runner, thread};

use super::*;

const SCHEDULES: usize = 2_000;
/// The rarest of the wrong orders shows in one of some thousands.
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
    /// A batch of devices silences what one of entries does.
    TellSessionsMeanwhile,
}

/// What each user has: an entry, and the session of a device.
#[derive(Clone, Copy, Debug)]
enum What {
    Entry,
    Session,
}

/// How often each user's entry and session changed, by [`What`].
type Changes<T> = [[T; USERS]; 2];

struct Model {
    steps: Steps,
    cache: Cache<ModelMutex<Shard>>,
    file: ModelMutex<Changes<u64>>,
    /// What each of them was seen or acknowledged at: nobody may read less from then on.
    seen: Changes<AtomicU64>,
}

fn user(number: usize) -> UserId {
    UserId::parse(format!("@{number}:x")).unwrap()
}

fn key() -> Key {
    Key::new(Scope::Global, EventType::parse("t").unwrap())
}

const TOKEN: TokenHash = TokenHash([7; 32]);

fn value(what: What, count: u64) -> Value {
    let entry = Entry {
        key: key(),
        content: None,
        position: Position(count),
        writer: Writer::Server,
        written_at: 0,
    };
    let session = Session {
        device: DeviceId::parse("PHONE").unwrap(),
        incarnation: Incarnation(count),
        expires_at: None,
        last_seen_at: 0,
        replaces_others: false,
    };
    match what {
        What::Entry => Value::Entry((count > 0).then_some(entry)),
        What::Session => Value::Session((count > 0).then_some(session)),
    }
}

fn count(value: &Value) -> u64 {
    match value {
        Value::Entry(entry) => entry.as_ref().map_or(0, |entry| entry.position.0),
        Value::Session(session) => session.as_ref().map_or(0, |session| session.incarnation.0),
        Value::Head(_) => panic!("no head is kept here"),
    }
}

/// Returns how many bytes a shard has that holds `items` values and no more.
fn bytes_of(items: u64) -> u64 {
    let owned = Wanted {
        user: &user(0),
        item: &Item::Entry(&key()),
    };
    let bytes = Weigher.weight(&owned.to_owned(), &value(What::Entry, 1));
    // Of what all but fills a shard nothing is kept.
    bytes * items + bytes / 2
}

impl Model {
    /// A cache that holds `items` values in one shard, and no more.
    fn new(steps: Steps, items: u64) -> Arc<Self> {
        Arc::new(Self {
            steps,
            cache: Cache::with_shards(1, bytes_of(items)),
            file: ModelMutex::default(),
            seen: Default::default(),
        })
    }

    /// Commits a batch that changes the entries of all users, and sessions of the first of them where
    /// it `has_devices`.
    fn write(&self, has_devices: bool) {
        let entries = |number| Touched::Entries(user(number), vec![key()]);
        let mut touched: Vec<_> = (0..USERS).map(entries).collect();
        if has_devices {
            touched[0] = Touched::User(user(0));
        }
        let publish = || match self.steps {
            Steps::PublishOnlyOneUser => self.cache.publish(&touched[..1]),
            _ => self.cache.publish(&touched),
        };
        match self.steps {
            Steps::NeverBegin => {}
            Steps::TellSessionsMeanwhile => self.cache.begin(&[entries(0), entries(1)]),
            _ => self.cache.begin(&touched),
        }
        if self.steps == Steps::PublishBeforeCommit {
            publish();
        }
        let counts = {
            let mut file = self.file.lock().unwrap();
            for count in &mut file[What::Entry as usize] {
                *count += 1;
            }
            file[What::Session as usize][0] += u64::from(has_devices);
            *file
        };
        if self.steps != Steps::PublishBeforeCommit {
            publish();
        }
        let seen = self.seen.iter().flatten();
        for (seen, count) in seen.zip(counts.iter().flatten()) {
            seen.fetch_max(*count, Ordering::SeqCst);
        }
    }

    /// Returns what a connection tells of the session that it kept, or else of the one in memory.
    fn kept(&self, kept: &mut Option<KeptSession>, number: usize) -> Option<u64> {
        if let Some(session) = kept.as_ref().and_then(KeptSession::get) {
            return Some(session.incarnation.0);
        }
        *kept = self.cache.session(&user(number), &TOKEN)?;
        let found = kept.as_ref().map(KeptSession::found);
        Some(found.map_or(0, |session| session.incarnation.0))
    }

    /// Reads as the store does, and of sessions as a connection does.
    fn read(&self, what: What, number: usize, kept: &mut Kept) {
        let (user, key) = (user(number), key());
        let item = match what {
            What::Entry => Item::Entry(&key),
            What::Session => Item::Session(&TOKEN),
        };
        let seen = &self.seen[what as usize][number];
        let before = seen.load(Ordering::SeqCst);
        let known = match what {
            What::Entry => self.cache.get(&user, &item).map(|value| count(&value)),
            What::Session => self.kept(&mut kept[number], number),
        };
        let found = known.unwrap_or_else(|| {
            let file = || self.file.lock().unwrap()[what as usize][number];
            let early = (self.steps == Steps::TicketAfterTheRead).then(file);
            let read = || Ok::<_, Infallible>(early.unwrap_or_else(file));
            let Ok(read) = self.cache.read_with(&user, read, |read, keep| {
                keep(&item, value(what, *read));
            });
            read
        });
        assert!(
            found >= before,
            "{found} was read of the {what:?}, and {before} was seen before"
        );
        seen.fetch_max(found, Ordering::SeqCst);
    }
}

/// What a reader reads, one after the other; the second reader begins in the middle.
type Reads = &'static [(What, usize)];
/// Of one reader, the sessions that its connections have kept: each has one user.
type Kept = [Option<KeptSession>; USERS];

const ENTRIES: Reads = &[
    (What::Entry, 0),
    (What::Entry, 0),
    (What::Entry, 1),
    (What::Entry, 1),
];
/// Of the user whose devices change. A session that was kept is read in no time: so as often as a
/// batch needs steps, or nobody would read one that was kept before it.
const SESSIONS: Reads = &[(What::Session, 0); 12];
/// Each of them throws out another where there is room for one.
const MIXED: Reads = &[
    (What::Session, 0),
    (What::Entry, 0),
    (What::Session, 0),
    (What::Session, 1),
    (What::Entry, 0),
    (What::Entry, 1),
];

/// Runs one writer, whose batches change devices and then none, and two readers in many orders.
///
/// Returns what the caches of all these runs did.
fn explore(steps: Steps, reads: Reads, items: u64, schedules: usize) -> Counts {
    let counts = Arc::new(Mutex::new(Counts::default()));
    let sum = Arc::clone(&counts);
    let run = move || {
        let model = Model::new(steps, items);
        let readers: Vec<_> = (0..2)
            .map(|reader| {
                let model = Arc::clone(&model);
                thread::spawn(move || {
                    let mut kept = Kept::default();
                    for number in 0..reads.len() {
                        let (what, user) = reads[(number + reader * 2) % reads.len()];
                        model.read(what, user, &mut kept);
                    }
                })
            })
            .collect();
        for batch in 0..BATCHES {
            model.write(batch != 1);
        }
        for reader in readers {
            reader.join().unwrap();
        }
        let of_run = model.cache.counts();
        sum.with(|sum| *sum = sum.plus(of_run));
    };
    let schedules = if settings::is_long() {
        50 * schedules
    } else {
        schedules
    };
    let seed = settings::seed().unwrap_or(1);
    let scheduler = RandomScheduler::new_from_seed(seed, schedules);
    Runner::new(scheduler, Config::default()).run(run);
    counts.with(|counts| *counts)
}

#[test]
fn nobody_reads_an_older_value_than_was_seen() {
    for reads in [ENTRIES, SESSIONS, MIXED] {
        let counts = explore(Steps::Right, reads, 8, SCHEDULES);
        assert!(counts.hits > 0 && counts.evictions == 0, "{counts:?}");
    }
}

#[test]
fn evictions_change_nothing() {
    for reads in [ENTRIES, MIXED] {
        let counts = explore(Steps::Right, reads, 1, SCHEDULES);
        assert!(counts.hits > 0 && counts.evictions > 0, "{counts:?}");
    }
}

#[test]
fn each_wrong_order_is_seen() {
    for (steps, reads) in [
        (Steps::NeverBegin, ENTRIES),
        (Steps::PublishBeforeCommit, ENTRIES),
        (Steps::PublishOnlyOneUser, ENTRIES),
        (Steps::TicketAfterTheRead, ENTRIES),
        (Steps::NeverBegin, SESSIONS),
        (Steps::PublishBeforeCommit, SESSIONS),
        (Steps::TicketAfterTheRead, SESSIONS),
        (Steps::TellSessionsMeanwhile, SESSIONS),
        (Steps::TellSessionsMeanwhile, MIXED),
    ] {
        for items in [8, 1] {
            let explored = catch_unwind(|| explore(steps, reads, items, SCHEDULES_UNTIL_SEEN));
            assert!(explored.is_err(), "{steps:?} was not noticed");
        }
    }
}

type Real = Cache<Mutex<Shard>>;

fn filled(bytes_max: u64) -> (Real, UserId, Key) {
    let (cache, user, key) = (Real::new(bytes_max), user(0), key());
    if let Some(ticket) = cache.ticket(&user) {
        cache.fill(ticket, &user, &Item::Entry(&key), value(What::Entry, 1));
        cache.fill(ticket, &user, &Item::Head, Value::Head(None));
    }
    (cache, user, key)
}

#[test]
fn a_change_of_an_entry_drops_it_and_the_head() {
    let (cache, user, key) = filled(limit::CACHE_BYTES_MAX);
    let other = Key::new(Scope::Global, EventType::parse("other").unwrap());
    let ticket = cache.ticket(&user).unwrap();
    cache.fill(ticket, &user, &Item::Entry(&other), value(What::Entry, 1));
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
fn a_kept_session_holds_until_a_batch_of_its_shard_may_change_sessions() {
    let (cache, user, key) = filled(limit::CACHE_BYTES_MAX);
    let keep = || {
        let ticket = cache.ticket(&user).unwrap();
        let item = Item::Session(&TOKEN);
        cache.fill(ticket, &user, &item, value(What::Session, 1));
        cache.session(&user, &TOKEN).unwrap().unwrap()
    };
    let kept = keep();
    let entries = [Touched::Entries(user.clone(), vec![key])];
    cache.begin(&entries);
    assert!(kept.get().is_some(), "entries say nothing of sessions");
    cache.publish(&entries);
    assert!(kept.get().is_some());
    for device in [Touched::User(user.clone()), Touched::Everything] {
        let kept = keep();
        cache.begin(from_ref(&device));
        assert!(kept.get().is_none(), "before anybody can see the change");
        assert!(
            cache.session(&user, &TOKEN).is_none(),
            "nor is it kept anew"
        );
        cache.publish(from_ref(&device));
        assert!(kept.get().is_none());
    }
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
fn what_makes_room_is_counted_and_not_what_is_replaced_or_too_large() {
    let cache = Real::with_shards(1, bytes_of(1));
    let ticket = cache.ticket(&user(0)).unwrap();
    let fill = |number, text: String| {
        let (item, content) = (key(), Content::parse(text.into(), &Limits::default()));
        let Value::Entry(Some(mut entry)) = value(What::Entry, 1) else {
            panic!("it is an entry");
        };
        entry.content = Some(content.unwrap());
        let value = Value::Entry(Some(entry));
        cache.fill(ticket, &user(number), &Item::Entry(&item), value);
        cache.counts().evictions
    };
    assert_eq!(fill(0, "{}".to_owned()), 0);
    assert_eq!(fill(0, "{}".to_owned()), 0, "replaced");
    assert_eq!(fill(1, "{}".to_owned()), 1);
    let long = format!(r#"{{"a":"{}"}}"#, "a".repeat(500));
    assert_eq!(fill(0, long), 1, "too large");
    assert!(cache.get(&user(1), &Item::Entry(&key())).is_some());
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
