//! What the races run on: a store that stops at its steps, its users, and a client that folds.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};

use kitbag_domain::{
    AccountData, Key, Limits, Position, Requester, ServerName, Snapshot, Store, SyncToken,
    WriteError,
};
use kitbag_store_sqlite::{Durability, Observer, Options, SqliteStore, Step, check};
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::gate::{Gate, Stop, in_time};
use kitbag_testkit::pausing::PausingStore;
use kitbag_testkit::rules::PlainRules;
use kitbag_testkit::{Actor, content, global};
use tempfile::TempDir;

pub(crate) const STEPS: [Step; 3] = [
    Step::BeforeCommit,
    Step::BeforeWakeUp,
    Step::BeforeAcknowledgement,
];

/// How operations that race come to their transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meeting {
    /// All in one, in the order in which they were queued.
    OneBatch,
    /// Each in its own, and the next is queued while the one before is stopped at the step.
    At(Step),
}

pub(crate) fn meetings() -> impl Iterator<Item = Meeting> {
    let stopped = STEPS.into_iter().map(Meeting::At);
    stopped.chain([Meeting::OneBatch])
}

/// A gate for each step of a commit, and the count of batches.
#[derive(Clone)]
struct Steps {
    gates: [Gate; 3],
    batches: Arc<AtomicU64>,
}

impl Steps {
    fn new() -> Self {
        Self {
            gates: STEPS.map(|step| Gate::new(format!("{step:?}"))),
            batches: Arc::default(),
        }
    }

    fn gate(&self, step: Step) -> &Gate {
        let place = STEPS.iter().position(|known| *known == step);
        &self.gates[place.expect("every step is listed")]
    }

    /// Returns how many batches came to their first step.
    fn batches(&self) -> u64 {
        self.batches.load(Ordering::SeqCst)
    }

    fn observer(&self) -> Observer {
        let steps = self.clone();
        Observer::new(move |step| {
            if step == Step::BeforeCommit {
                steps.batches.fetch_add(1, Ordering::SeqCst);
            }
            steps.gate(step).pass_blocking();
        })
    }
}

/// A real store and the service over it.
pub(crate) struct Ground {
    pub(crate) service: AccountData,
    /// Lies between the service and the store.
    pub(crate) pausing: Arc<PausingStore>,
    pub(crate) sqlite: Arc<SqliteStore>,
    steps: Steps,
    bystander: Actor,
    dir: TempDir,
}

impl Ground {
    pub(crate) async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let steps = Steps::new();
        let mut options = Options::new(ServerName::parse("localhost").unwrap(), 7);
        options.limits = limits.clone();
        // The steps are the same, and the disk has no part in these races.
        options.durability = Durability::None;
        options.observer = Some(steps.observer());
        let sqlite = Arc::new(SqliteStore::open(dir.path(), options).unwrap());
        let store: Arc<dyn Store> = sqlite.clone();
        let bystander = Actor::register(&store, "bystander").await;
        let pausing = Arc::new(PausingStore::over(store));
        let clock = Arc::new(TestClock::default());
        let (rules, limits) = (Arc::new(PlainRules::default()), Arc::new(limits));
        let service = AccountData::new(pausing.clone(), rules, clock, limits);
        Self {
            service,
            pausing,
            sqlite,
            steps,
            bystander,
            dir,
        }
    }

    /// Registers a user with `PHONE` and `LAPTOP`.
    pub(crate) async fn user(&self, localpart: &str) -> (Actor, Actor) {
        let store: Arc<dyn Store> = self.sqlite.clone();
        let phone = Actor::register(&store, localpart).await;
        let laptop = phone.login("LAPTOP").await;
        (phone, laptop)
    }

    /// Stops the next batch at a step.
    pub(crate) fn stop_at(&self, step: Step) -> Stop {
        self.steps.gate(step).stop_next()
    }

    /// Runs operations that race, in this order; returns what each was told.
    ///
    /// `look` is called with the number of each one that stands at the step.
    pub(crate) async fn race<'a, T>(
        &'a self,
        meeting: Meeting,
        racers: Vec<Racer<'a, T>>,
        mut look: impl AsyncFnMut(usize, Step),
    ) -> Vec<T> {
        let mut begun = Vec::new();
        match meeting {
            Meeting::OneBatch => {
                let held = self.hold().await;
                begun.extend(racers.into_iter().map(begin));
                held.go_on(begun).await
            }
            Meeting::At(step) => {
                let mut before: Option<Stop> = None;
                for (number, racer) in racers.into_iter().enumerate() {
                    let mut stop = self.stop_at(step);
                    begun.push(begin(racer));
                    if let Some(before) = before {
                        before.go_on();
                    }
                    stop.reached().await;
                    look(number, step).await;
                    before = Some(stop);
                }
                drop(before);
                all(begun).await
            }
        }
    }

    /// Stops the writer with a write of somebody else, so that what is queued now shares a batch.
    pub(crate) async fn hold(&self) -> Held<'_> {
        let mut stop = self.stop_at(Step::BeforeCommit);
        let (key, bystander) = (global("held"), self.bystander.clone());
        let write: Racer<'_, ()> =
            Box::pin(async move { assert!(bystander.try_put(&key, "{}").await.is_ok()) });
        let write = begin(write);
        stop.reached().await;
        Held {
            ground: self,
            stop,
            write,
        }
    }

    /// Puts through the service, with the permit that was given before.
    pub(crate) async fn put(
        &self,
        requester: &Requester,
        key: &Key,
        text: &str,
    ) -> Result<Position, WriteError> {
        let permit = self.service.permit(requester, key.clone()).await;
        let permit = permit.expect("the write is permitted");
        permit.put(content(text), Default::default()).await
    }

    /// Closes the store and checks the file.
    #[track_caller]
    pub(crate) fn assert_sound(self) {
        self.sqlite.close();
        assert_sound(&self.dir);
    }

    pub(crate) async fn since(&self, actor: &Actor, token: Option<SyncToken>) -> Snapshot {
        self.service.since(&actor.requester(), token).await.unwrap()
    }
}

/// An operation of a race.
pub(crate) type Racer<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A writer that stands before the COMMIT of somebody else's batch.
pub(crate) struct Held<'a> {
    ground: &'a Ground,
    stop: Stop,
    write: Racer<'a, ()>,
}

impl Held<'_> {
    /// Lets go, and waits for what was queued meanwhile, which shares one batch.
    pub(crate) async fn go_on<T>(self, queued: Vec<Racer<'_, T>>) -> Vec<T> {
        let batches = self.ground.steps.batches();
        self.stop.go_on();
        in_time("the batch that was held", self.write).await;
        let told = all(queued).await;
        assert_eq!(self.ground.steps.batches(), batches + 1, "one batch");
        told
    }
}

/// Waits for each of those that race.
async fn all<T>(racers: Vec<Racer<'_, T>>) -> Vec<T> {
    let mut told = Vec::new();
    for racer in racers {
        told.push(in_time("one of those that race", racer).await);
    }
    told
}

/// Polls an operation once, which queues it; what comes of it is awaited later.
pub(crate) fn begin<T>(mut operation: Racer<'_, T>) -> Racer<'_, T> {
    let polled = operation
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "it is queued and not answered yet");
    operation
}

/// Tells whether a change was published since the subscription or the last time.
pub(crate) fn was_woken(subscription: &mut kitbag_domain::Subscription) -> bool {
    let mut changed = Box::pin(subscription.changed());
    let polled = changed
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    polled.is_ready()
}

/// A client: what it knows from the answers that it got, in their order.
#[derive(Default)]
pub(crate) struct Client {
    known: BTreeMap<Key, (Position, String)>,
    deleted: BTreeMap<Key, Position>,
    pub(crate) token: Option<SyncToken>,
}

impl Client {
    /// Takes an answer in; nothing in it may be older than what is known.
    pub(crate) fn learn(&mut self, told: Snapshot) {
        if told.is_full {
            self.deleted.clear();
            let live: Vec<_> = told.entries.iter().map(|entry| &entry.key).collect();
            self.known.retain(|key, _| live.contains(&key));
        }
        for entry in told.entries {
            let known = self.known.get(&entry.key).map(|(position, _)| *position);
            let known = known.max(self.deleted.get(&entry.key).copied());
            assert!(known <= Some(entry.position), "{:?} went back", entry.key);
            match entry.content {
                Some(content) => {
                    let text = content.as_str().to_owned();
                    self.known.insert(entry.key, (entry.position, text));
                }
                None => {
                    self.known.remove(&entry.key);
                    self.deleted.insert(entry.key, entry.position);
                }
            }
        }
        self.token = Some(told.next);
    }

    pub(crate) async fn sync(&mut self, ground: &Ground, actor: &Actor) {
        let told = ground.since(actor, self.token).await;
        self.learn(told);
    }

    pub(crate) fn text(&self, key: &Key) -> Option<&str> {
        self.known.get(key).map(|(_, text)| text.as_str())
    }

    /// Returns where the deletion of an entry was told.
    pub(crate) fn deleted_at(&self, key: &Key) -> Option<Position> {
        self.deleted.get(key).copied()
    }

    /// Checks that it knows what an initial sync tells (laws 2 and 4).
    #[track_caller]
    pub(crate) fn assert_knows(&self, everything: Snapshot) {
        assert!(everything.is_full);
        let mut fresh = Self::default();
        fresh.learn(everything);
        assert_eq!(self.known, fresh.known);
        let position = |client: &Self| client.token.map(|token| token.position);
        assert_eq!(position(self), position(&fresh));
    }
}

/// Checks a closed store: positions, counts and sizes too.
#[track_caller]
pub(crate) fn assert_sound(dir: &TempDir) {
    let report = check::check(dir.path()).unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}
