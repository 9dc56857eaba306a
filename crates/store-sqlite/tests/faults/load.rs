//! The load: what a server does with its store in a day, on a disk that fails once or for a while.

use std::fmt;
use std::ops::Add;
use std::time::{Duration, Instant};

use kitbag_domain::{
    AccountStore as _, Allowance, ApplyError, DeviceId, DeviceSelection, EntryStore as _,
    Expectation, Guard, Key, Login, LoginError, NewAccount, Op, RegisterError, Seen, ServerName,
    SessionTokens, StoreError, TokenHash, UserId, Write, Writer,
};
use kitbag_store_sqlite::{OpenError, Options, SqliteStore, check};
use kitbag_testkit::disk::{Disk, Fault, Times};
use kitbag_testkit::gate::in_time;
use kitbag_testkit::{content, device_id, device_key, fresh_hash, global, room_key, user_id};
use tempfile::TempDir;

use crate::model::{Act, Possible, State, Told, User};

const PASSWORD_HASH: &str = "$test$hash";
/// How often a caller tries a write before it goes on with the next.
const TRIES: usize = 3;
/// Writes and looks that a lasting fault outlives, once it has struck.
const LASTS: usize = 4;
/// When the store must serve again, at the latest, once the disk does: its longest wait, and what a
/// busy machine adds.
const BACK_AFTER: Duration = Duration::from_secs(10);

/// A store on a disk with a fault to come, and what must be in it.
pub(crate) struct Load {
    disk: Disk,
    dir: TempDir,
    /// `None` while it is not open.
    store: Option<SqliteStore>,
    possible: Possible,
    fault: Option<Fault>,
    /// Writes and looks since the fault struck.
    struck_for: usize,
    pub(crate) seen: Figures,
}

/// What the callers met.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) calls: u64,
    pub(crate) faults: u64,
    pub(crate) openings_failed: u64,
    pub(crate) unavailable: u64,
    pub(crate) unknown: u64,
    pub(crate) reads_failed: u64,
}

impl Add for Figures {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            faults: self.faults + other.faults,
            openings_failed: self.openings_failed + other.openings_failed,
            unavailable: self.unavailable + other.unavailable,
            unknown: self.unknown + other.unknown,
            reads_failed: self.reads_failed + other.reads_failed,
        }
    }
}

impl Load {
    pub(crate) fn new(fault: Option<Fault>) -> Self {
        let disk = Disk::new();
        if let Some(fault) = fault {
            disk.fail(fault);
        }
        Self {
            disk,
            dir: tempfile::tempdir().unwrap(),
            store: None,
            possible: Possible::default(),
            fault,
            struck_for: 0,
            seen: Figures::default(),
        }
    }

    /// Runs all of it; returns what was met.
    pub(crate) async fn run(mut self) -> Figures {
        let (alice, bob) = (user_id("alice"), user_id("bob"));
        let (phone, tablet) = (device_id("PHONE"), device_id("TABLET"));
        let on_tablet = device_key("TABLET", "x");
        self.open();
        self.act(Act::Register(alice.clone(), phone.clone(), fresh_hash()))
            .await;
        self.put(&alice, &[(global("small"), 10)]).await;
        self.put(&alice, &[(room_key("!a", "medium"), 20_000)])
            .await;
        self.act(Act::Login(alice.clone(), tablet.clone(), fresh_hash()))
            .await;
        self.put(&alice, &[(on_tablet.clone(), 100), (global("b"), 10)])
            .await;
        self.look().await;
        self.put(&alice, &[(global("small"), 3_000)]).await;
        // More frames than make a checkpoint worth it.
        self.put(&alice, &[(global("large"), 300_000)]).await;
        self.act(Act::Delete(alice.clone(), global("b"))).await;
        self.act(Act::Register(bob.clone(), phone, fresh_hash()))
            .await;
        self.act(Act::RemoveDevice(alice.clone(), tablet.clone()))
            .await;
        self.look().await;
        self.rest().await;
        self.put(&bob, &[(global("small"), 10)]).await;
        self.act(Act::Login(alice.clone(), tablet, fresh_hash()))
            .await;
        self.put(&alice, &[(on_tablet, 50)]).await;
        self.close();
        self.open();
        self.look().await;
        self.put(&alice, &[(global("b"), 500)]).await;
        self.act(Act::Delete(alice.clone(), global("large"))).await;
        self.rest().await;
        self.end(&bob).await
    }

    fn options(&self) -> Options {
        let mut options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        options.vfs = Some(self.disk.name().to_owned());
        options.reader_threads = 2;
        // Every read is to meet the disk.
        options.cache_bytes_max = 0;
        options.checkpoint_frames = 40;
        options.wal_idle_ms = 2;
        options
    }

    fn store(&self) -> &SqliteStore {
        self.store.as_ref().expect("it is open")
    }

    fn is_lasting(&self) -> bool {
        self.fault
            .is_some_and(|fault| fault.times == Times::UntilCleared)
    }

    /// Ends a lasting fault when it has outlived some writes and looks.
    fn tick(&mut self) {
        if self.disk.faults() > 0 {
            self.struck_for += 1;
        }
        if self.struck_for == LASTS {
            self.disk.clear();
        }
    }

    fn is_over(&self) -> bool {
        !self.is_lasting() || self.struck_for >= LASTS
    }

    /// Opens the store. With a fault it says which file is at fault, and another try works.
    fn open(&mut self) {
        loop {
            let faults = self.disk.faults();
            let error = match SqliteStore::open(self.dir.path(), self.options()) {
                Ok(store) => break self.store = Some(store),
                Err(error) => error,
            };
            assert!(
                self.disk.faults() > faults,
                "{self} was not opened: {error}"
            );
            assert!(
                matches!(error, OpenError::Sqlite { .. } | OpenError::Io { .. }),
                "{self}: {error:?}"
            );
            let file = self.dir.path().join("kitbag.db");
            let text = error.to_string();
            assert!(text.contains(file.to_str().unwrap()), "{self}: {text}");
            self.seen.openings_failed += 1;
            self.tick();
        }
    }

    fn close(&mut self) {
        drop(self.store.take());
    }

    async fn put(&mut self, user: &UserId, entries: &[(Key, usize)]) {
        // The content tells which version it is.
        let number = self.seen.calls;
        self.seen.calls += 1;
        let text = |bytes| format!("{{\"{number}\":\"{}\"}}", "x".repeat(bytes));
        let entries = entries.iter();
        let entries = entries.map(|(key, bytes)| (key.clone(), text(*bytes)));
        self.act(Act::Put(user.clone(), entries.collect())).await;
    }

    /// Makes a write, some times where it fails.
    async fn act(&mut self, act: Act) {
        for _ in 0..TRIES {
            if matches!(self.try_act(&act).await, Told::Done | Told::Refused) {
                break;
            }
        }
        self.tick();
    }

    async fn try_act(&mut self, act: &Act) -> Told {
        let told = in_time("the answer to a write", send(self.store(), act)).await;
        let told = told.unwrap_or_else(|error| match error {
            StoreError::Unavailable(_) => Told::Unavailable,
            StoreError::OutcomeUnknown(_) => Told::Unknown,
            StoreError::Corrupt(_) | StoreError::Overloaded => panic!("{self} {act:?}: {error}"),
        });
        let is_failed = matches!(told, Told::Unavailable | Told::Unknown);
        assert!(
            !is_failed || self.disk.faults() > 0,
            "{self} {act:?}: {told:?}"
        );
        self.seen.unavailable += u64::from(told == Told::Unavailable);
        self.seen.unknown += u64::from(told == Told::Unknown);
        self.possible.note(act, told);
        self.glance(act.user()).await;
        told
    }

    /// Reads the entries of one user, where they can be read.
    async fn glance(&mut self, user: &UserId) {
        let changes = in_time("a read", self.store().changes(user, None)).await;
        let Some(changes) = self.readable(changes) else {
            return;
        };
        let entries = changes.entries.into_iter().map(|entry| {
            let text = entry.content.expect("it is live").as_str().to_owned();
            (entry.key, (entry.position, text))
        });
        self.possible.glance(user, changes.head, &entries.collect());
    }

    /// Checks that a read failed only as it may.
    fn readable<T>(&mut self, read: Result<T, StoreError>) -> Option<T> {
        match read {
            Ok(read) => Some(read),
            Err(StoreError::Unavailable(_)) if self.disk.faults() > 0 => {
                self.seen.reads_failed += 1;
                None
            }
            Err(error) => panic!("{self}: {error}"),
        }
    }

    /// Reads everything, which must come to work where reads do not fail themselves.
    async fn look(&mut self) {
        let must_work = self.is_over() || self.fault.is_some_and(|fault| fault.call.is_some());
        let started = Instant::now();
        let seen = loop {
            let seen = self.everything().await;
            if let Some(seen) = self.readable(seen) {
                break Some(seen);
            }
            if !must_work {
                break None;
            }
            let waited = started.elapsed();
            assert!(waited < BACK_AFTER, "{self}: no reads for {waited:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        if let Some(seen) = seen
            && self.possible.is_settled
        {
            self.possible.look(&seen);
        }
        self.tick();
    }

    async fn everything(&self) -> Result<State, StoreError> {
        let mut state = State::new();
        for account in self.store().accounts(None, 10).await? {
            let mut user = User::default();
            let changes = self.store().changes(&account.user, None).await?;
            user.head = changes.head;
            for entry in changes.entries {
                // A single read says the same.
                let one = self.store().get(&account.user, &entry.key).await?;
                assert_eq!(one.as_ref(), Some(&entry), "{self}");
                let text = entry.content.expect("it is live").as_str().to_owned();
                user.entries.insert(entry.key, (entry.position, text));
            }
            for device in self.store().devices(&account.user).await? {
                user.devices.insert(device.id, NO_TOKEN);
            }
            state.insert(account.user, user);
        }
        self.name_tokens(&mut state).await?;
        Ok(state)
    }

    /// Finds by which tokens the devices are logged in: none can be read back.
    async fn name_tokens(&self, state: &mut State) -> Result<(), StoreError> {
        for (name, device, token) in self.possible.tokens() {
            let session = self.store().session(&name, token).await?;
            if session.is_some_and(|session| session.device == device)
                && let Some(user) = state.get_mut(&name)
            {
                user.devices.insert(device, token);
            }
        }
        Ok(())
    }

    /// Waits until the log is emptied, or cannot be.
    async fn rest(&mut self) {
        let log = self.dir.path().join("kitbag.db-wal");
        let started = Instant::now();
        while log.metadata().is_ok_and(|log| log.len() > 0) {
            let waited = started.elapsed();
            if !self.is_over() && waited > Duration::from_millis(50) {
                break;
            }
            assert!(waited < BACK_AFTER, "{self}: the log is not emptied");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.tick();
    }

    /// Ends the fault: the store takes writes again, closes, and holds what it must.
    async fn end(mut self, user: &UserId) -> Figures {
        self.disk.clear();
        self.struck_for = LASTS;
        let started = Instant::now();
        let last = (global("last"), "{}".to_owned());
        let last = Act::Put(user.clone(), vec![last]);
        while matches!(self.try_act(&last).await, Told::Unavailable | Told::Unknown) {
            let waited = started.elapsed();
            assert!(waited < BACK_AFTER, "{self}: no writes for {waited:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(self.store().takes_writes(), "{self}");
        self.look().await;
        self.close();
        let report = check::check(self.dir.path()).unwrap();
        assert!(report.is_sound(), "{self}: {report:?}");
        self.open();
        self.look().await;
        self.close();
        self.seen.calls = self.disk.calls();
        self.seen.faults = self.disk.faults();
        self.seen
    }
}

/// For failures: which fault it was.
impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.fault)
    }
}

/// Stands for a token that is not known.
const NO_TOKEN: TokenHash = TokenHash([0; 32]);

/// Sends a write; what the store says to it, in the model's words.
async fn send(store: &SqliteStore, act: &Act) -> Result<Told, StoreError> {
    let write = Write {
        guard: Guard::Account,
        writer: Writer::Server,
        at: 1,
        allowance: Allowance::Ordinary,
    };
    let applied = match act {
        Act::Register(user, device, token) => {
            let account = NewAccount {
                user: user.clone(),
                password_hash: PASSWORD_HASH.to_owned(),
                at: 1,
            };
            let registered = store.register(account, Some(login(device, *token))).await;
            return registered.map_or_else(
                |error| match error {
                    RegisterError::UserInUse => Ok(Told::Refused),
                    RegisterError::Store(error) => Err(error),
                },
                |()| Ok(Told::Done),
            );
        }
        Act::Login(user, device, token) => {
            return match store.login(user, login(device, *token)).await {
                Ok(()) => Ok(Told::Done),
                Err(LoginError::Store(error)) => Err(error),
                Err(LoginError::PasswordChanged | LoginError::TooManyDevices { .. }) => {
                    Ok(Told::Refused)
                }
            };
        }
        Act::Put(user, entries) => {
            let op = |(key, text): &(Key, String)| {
                Op::Put(key.clone(), content(text), Expectation::default())
            };
            let ops = entries.iter().map(op).collect();
            store.apply(user, write, ops).await.map(drop)
        }
        Act::Delete(user, key) => {
            let ops = vec![Op::Delete(key.clone())];
            store.apply(user, write, ops).await.map(drop)
        }
        Act::RemoveDevice(user, device) => {
            let these = DeviceSelection::These(vec![device.clone()]);
            store.remove_devices(user, write, these).await.map(drop)
        }
    };
    match applied {
        Ok(()) => Ok(Told::Done),
        Err(ApplyError::Refused(_)) => Ok(Told::Refused),
        Err(ApplyError::Store(error)) => Err(error),
    }
}

fn login(device: &DeviceId, token: TokenHash) -> Login {
    Login {
        verified_hash: PASSWORD_HASH.to_owned(),
        device: device.clone(),
        display_name: None,
        tokens: SessionTokens {
            access: token,
            access_expires_at: None,
            refresh: None,
        },
        seen: Seen::default(),
    }
}
