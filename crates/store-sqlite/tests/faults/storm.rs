//! Many callers on a disk that fails again and again: what each was told stays true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kitbag_domain::{
    ApplyError, EntryStore as _, Expectation, Key, Op, Position, ServerName, Store, StoreError,
};
use kitbag_store_sqlite::{Options, SqliteStore, check};
use kitbag_testkit::dice::Dice;
use kitbag_testkit::disk::{Call, Disk, Error, Fault};
use kitbag_testkit::gate::in_time;
use kitbag_testkit::{Actor, content, global, settings};
use tokio::time::sleep;

const CALLERS: u64 = 8;
/// Faults in a run.
const FAULTS: usize = 40;
const PAUSE: Duration = Duration::from_millis(1);

/// What everybody saw: no position may ever stand for two contents.
#[derive(Default)]
struct Seen(Mutex<BTreeMap<Position, (Key, String)>>);

impl Seen {
    #[track_caller]
    fn note(&self, position: Position, key: &Key, text: &str) {
        let now = (key.clone(), text.to_owned());
        let mut seen = self.0.lock().unwrap();
        let before = seen.entry(position).or_insert_with(|| now.clone());
        assert_eq!(*before, now, "{position} stands for two contents");
    }
}

struct Storm {
    disk: Disk,
    store: Arc<SqliteStore>,
    alice: Actor,
    seen: Seen,
    is_over: AtomicBool,
}

impl Storm {
    /// Lets the disk fail and work, again and again.
    async fn weather(&self, mut dice: Dice) {
        for _ in 0..FAULTS {
            let call = match dice.below(4) {
                0 => None,
                1 => Some(Call::Sync),
                2 => Some(Call::Read),
                _ => Some(Call::Write),
            };
            let error = match dice.below(3) {
                0 => Error::ShortWrite,
                1 => Error::NoSpace,
                _ => Error::Io,
            };
            let nth = 1 + dice.draw() % 30;
            let fault = Fault {
                call,
                nth,
                ..Fault::next(Call::Write, error)
            };
            let fault = if dice.chance(50) {
                fault.lasting()
            } else {
                fault
            };
            if dice.chance(20) {
                self.disk.fill(dice.draw() % 50_000);
            } else {
                self.disk.fail(fault);
            }
            sleep(PAUSE * u32::try_from(5 + dice.below(25)).unwrap()).await;
            self.disk.clear();
            sleep(PAUSE * u32::try_from(dice.below(25)).unwrap()).await;
        }
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Puts ever higher numbers under a key of its own; returns the last one.
    async fn call(&self, caller: u64) -> (Key, u64) {
        let key = global(&format!("caller{caller}"));
        let mut known = 0;
        let (mut in_doubt, mut undone) = (BTreeSet::new(), BTreeSet::new());
        for number in 1.. {
            let is_last = self.is_over.load(Ordering::SeqCst);
            let text = format!("{{\"n\":{number},\"x\":\"{}\"}}", "x".repeat(500));
            let put = Op::Put(key.clone(), content(&text), Expectation::default());
            let told = in_time("the answer to a write", self.alice.apply(vec![put])).await;
            let is_done = told.is_ok();
            match told {
                Ok(applied) => {
                    let position = applied.positions[0].expect("a put takes a position");
                    self.seen.note(position, &key, &text);
                    known = number;
                    in_doubt.clear();
                }
                Err(ApplyError::Store(StoreError::Unavailable(_))) => {
                    undone.insert(number);
                }
                Err(ApplyError::Store(StoreError::OutcomeUnknown(_))) => {
                    in_doubt.insert(number);
                }
                Err(error) => panic!("{error}"),
            }
            if let Some(number) = self.read(&key).await {
                let is_right = number == known || in_doubt.contains(&number);
                assert!(is_right, "{number} after {known}, in doubt {in_doubt:?}");
                assert!(!undone.contains(&number), "{number} was not done");
                known = number;
                in_doubt.retain(|doubt| *doubt > number);
            }
            match (is_done, is_last) {
                (true, true) => break,
                (true, false) => {}
                (false, _) => sleep(PAUSE).await,
            }
        }
        (key, known)
    }

    /// Returns the number under a key, 0 where there is none; `None` where it cannot be read.
    async fn read(&self, key: &Key) -> Option<u64> {
        let read = in_time("a read", self.store.get(&self.alice.user, key)).await;
        match read {
            Ok(None) => Some(0),
            Ok(Some(entry)) => {
                let text = entry.content.expect("it is live").as_str().to_owned();
                self.seen.note(entry.position, key, &text);
                let digits = text.split(|c: char| !c.is_ascii_digit());
                let mut numbers = digits.filter_map(|digits| digits.parse().ok());
                numbers.next()
            }
            Err(StoreError::Unavailable(_)) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Follows the stream by its wake-ups up to `end`, which is told when all is over.
    async fn follow(&self, start: Position, end: tokio::sync::oneshot::Receiver<Position>) {
        let mut after = start;
        let mut end = Box::pin(end);
        let mut last = None;
        while last != Some(after) {
            let mut subscription = self.alice.subscribe();
            let changes = match self.store.changes(&self.alice.user, Some(after)).await {
                Ok(changes) => changes,
                Err(StoreError::Unavailable(_)) => {
                    sleep(PAUSE).await;
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            assert!(!changes.is_full && changes.head >= after, "it went back");
            for entry in &changes.entries {
                assert!(entry.position > after && entry.position <= changes.head);
                let text = entry.content.as_ref().expect("nothing is deleted").as_str();
                self.seen.note(entry.position, &entry.key, text);
            }
            after = changes.head;
            if last.is_none_or(|last| after < last) {
                let woken = async {
                    tokio::select! {
                        () = subscription.changed() => None,
                        end = &mut end, if last.is_none() => Some(end.unwrap()),
                    }
                };
                last = in_time("a wake-up", woken).await.or(last);
            }
        }
    }
}

async fn run(seed: u64) {
    let (disk, dir) = (Disk::new(), tempfile::tempdir().unwrap());
    disk.let_syncs_take(Duration::from_micros(500));
    let options = || {
        let mut options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        options.vfs = Some(disk.name().to_owned());
        options.checkpoint_frames = 60;
        if seed.is_multiple_of(2) {
            options.cache_bytes_max = 0;
        }
        options.wal_idle_ms = 3;
        options
    };
    let store = Arc::new(SqliteStore::open(dir.path(), options()).unwrap());
    let shared: Arc<dyn Store> = store.clone();
    let alice = Actor::register(&shared, "alice").await;
    let start = alice.head().await;
    let reopen = options();
    let storm = Arc::new(Storm {
        disk,
        store,
        alice,
        seen: Seen::default(),
        is_over: AtomicBool::new(false),
    });
    let (tell, end) = tokio::sync::oneshot::channel();
    let spawn = |caller| {
        let storm = Arc::clone(&storm);
        tokio::spawn(async move { storm.call(caller).await })
    };
    let callers: Vec<_> = (0..CALLERS).map(spawn).collect();
    let followed = Arc::clone(&storm);
    let follower = tokio::spawn(async move { followed.follow(start, end).await });
    storm.weather(Dice::new(seed)).await;
    let mut last = Vec::new();
    for caller in callers {
        last.push(caller.await.unwrap());
    }
    tell.send(storm.alice.head().await).unwrap();
    in_time("the follower", follower).await.unwrap();

    let stats = storm.store.stats();
    assert!(stats.outages > 0 && stats.writes_failed > 0, "{stats:?}");
    assert!(
        stats.commits < stats.writes,
        "callers shared commits: {stats:?}"
    );
    storm.store.close();
    let report = check::check(dir.path()).unwrap();
    assert!(report.is_sound(), "{report:?}");
    let store = SqliteStore::open(dir.path(), reopen).unwrap();
    for (key, number) in last {
        let entry = store.get(&storm.alice.user, &key).await.unwrap().unwrap();
        let text = entry.content.unwrap().as_str().to_owned();
        assert!(text.starts_with(&format!("{{\"n\":{number},")), "{text}");
        storm.seen.note(entry.position, &key, &text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_faults_without_end_nothing_that_was_told_becomes_untrue() {
    let seeds = match settings::seed() {
        Some(seed) => seed..seed + 1,
        None if settings::is_long() => 1..60,
        None => 1..2,
    };
    for seed in seeds {
        let ran = tokio::spawn(run(seed)).await;
        assert!(ran.is_ok(), "run it again with KITBAG_TEST_SEED={seed}");
    }
}
