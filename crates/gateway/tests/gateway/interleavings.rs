//! Devices of one user begin, write and end in random order and at once, through the gateway and past
//! it; reads through the gateway are judged.
//!
//! - What a session wrote is not read once its device has ended, whoever uses the ID then.
//! - What was acknowledged is read as long as no end of its device, and no other write, can explain
//!   that it is not.
#![expect(clippy::print_stdout, reason = "a test that fails tells its seed")]

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use kitbag_client::{Account, Client, Error, Login, Scope};
use kitbag_testkit::dice::Dice;
use kitbag_testkit::settings::{is_long, seed};
use serde_json::{Value, json};

use crate::support::{Lab, PASSWORD};

const KIND: &str = "org.example.a";
const ACTORS: u64 = 3;
const STEPS: usize = 30;

/// IDs that end, and come again, through the gateway.
const REUSED: [&str; 2] = ["REUSED0", "REUSED1"];

/// A device that never ends, so that there is always somebody to read.
const READER: &str = "READER";

/// From when to when something was done, in steps of all actors.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u64,
    end: u64,
}

#[derive(Clone, Debug)]
struct Session {
    account: Account,
    number: usize,
}

#[derive(Debug)]
struct Ended {
    device: String,
    span: Span,
    /// Else it may have ended.
    is_sure: bool,
    is_beside: bool,
}

#[derive(Debug)]
struct Written {
    device: String,
    session: usize,
    span: Span,
    is_acknowledged: bool,
}

#[derive(Debug)]
struct Read {
    device: String,
    /// The number of the write.
    found: Option<usize>,
    span: Span,
}

/// What happened.
#[derive(Debug, Default)]
struct History {
    /// When each session had begun.
    begun: Vec<u64>,
    ended: Vec<Ended>,
    written: Vec<Option<Written>>,
    read: Vec<Read>,
}

/// Everybody's stage.
struct Stage {
    lab: Lab,
    user: String,
    time: AtomicU64,
    fresh: AtomicU64,
    sessions: Mutex<Vec<Session>>,
    history: Mutex<History>,
}

impl Stage {
    fn tick(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    async fn timed<T>(&self, work: impl Future<Output = T>) -> (T, Span) {
        let start = self.tick();
        let done = work.await;
        let end = self.tick();
        (done, Span { start, end })
    }

    fn any_session(&self, dice: &mut Dice) -> Session {
        let sessions = self.sessions.lock().unwrap();
        sessions[dice.below(sessions.len())].clone()
    }

    /// A session that the homeserver does not know is of no use any more.
    fn check<T>(&self, session: &Session, done: Result<T, Error>) -> Option<T> {
        match done {
            Ok(done) => Some(done),
            Err(error) if error.errcode() == Some("M_UNKNOWN_TOKEN") => {
                let mut sessions = self.sessions.lock().unwrap();
                sessions.retain(|known| known.number != session.number);
                None
            }
            // What is owed of the device before could not be emptied yet.
            Err(Error::Matrix { status: 503, .. }) => None,
            Err(error) => {
                // The device of what is to be written is gone.
                assert_eq!(error.errcode(), Some("M_NOT_FOUND"), "{error}");
                None
            }
        }
    }

    async fn log_in(&self, dice: &mut Dice) {
        let device = match dice.chance(70) {
            true => REUSED[dice.below(REUSED.len())].to_owned(),
            false => format!("FRESH{}", self.fresh.fetch_add(1, Ordering::SeqCst)),
        };
        // Of one that begins anew past the gateway nothing says that it is not the one before.
        let client = match dice.chance(60) || REUSED.contains(&device.as_str()) {
            true => self.lab.client(),
            false => self.lab.beside(),
        };
        self.begin(&client, &device).await;
    }

    async fn begin(&self, client: &Client, device: &str) {
        let login = Login {
            device_id: Some(device),
            ..Login::password(&self.user, PASSWORD)
        };
        let account = client.login(&login).await.unwrap();
        let account = self.lab.client().with_session(account.session().clone());
        let mut history = self.history.lock().unwrap();
        let number = history.begun.len();
        history.begun.push(self.tick());
        let session = Session { account, number };
        self.sessions.lock().unwrap().push(session);
    }

    async fn log_out(&self, dice: &mut Dice, is_beside: bool) {
        let session = self.any_session(dice);
        let device = session.account.session().device_id.clone();
        // Those that end past the gateway never come again: the documented exception.
        if device == READER || (is_beside && !device.starts_with("FRESH")) {
            return;
        }
        let account = match is_beside {
            true => self
                .lab
                .beside()
                .with_session(session.account.session().clone()),
            false => session.account.clone(),
        };
        let (done, span) = self.timed(account.logout()).await;
        let is_sure = self.check(&session, done).is_some();
        self.keep_end(device, span, is_sure, is_beside);
    }

    async fn delete(&self, dice: &mut Dice) {
        let session = self.any_session(dice);
        let others = REUSED[dice.below(REUSED.len())];
        let own = session.account.session().device_id.clone();
        let device = match dice.chance(40) && own != READER {
            true => own,
            false => others.to_owned(),
        };
        let deleted = session.account.delete_device(&device, PASSWORD);
        let (done, span) = self.timed(deleted).await;
        let is_sure = self.check(&session, done).is_some();
        self.keep_end(device, span, is_sure, false);
    }

    fn keep_end(&self, device: String, span: Span, is_sure: bool, is_beside: bool) {
        let ended = Ended {
            device,
            span,
            is_sure,
            is_beside,
        };
        self.history.lock().unwrap().ended.push(ended);
    }

    async fn write(&self, dice: &mut Dice) {
        let session = self.any_session(dice);
        let device = session.account.session().device_id.clone();
        let number = {
            let mut history = self.history.lock().unwrap();
            history.written.push(None);
            history.written.len() - 1
        };
        let content = json!({"write": number});
        let write = session.account.put(Scope::Device(&device), KIND, &content);
        let (done, span) = self.timed(write).await;
        let is_acknowledged = self.check(&session, done).is_some();
        self.history.lock().unwrap().written[number] = Some(Written {
            device,
            session: session.number,
            span,
            is_acknowledged,
        });
    }

    async fn read(&self, dice: &mut Dice) {
        let session = self.any_session(dice);
        let device = self.any_session(dice).account.session().device_id.clone();
        let device = match dice.chance(60) {
            true => REUSED[dice.below(REUSED.len())].to_owned(),
            false => device,
        };
        let read = session.account.get(Scope::Device(&device), KIND);
        let (done, span) = self.timed(read).await;
        let Some(found) = self.check(&session, done) else {
            return;
        };
        let number = |content: Value| usize::try_from(content["write"].as_u64().unwrap()).unwrap();
        let read = Read {
            device,
            found: found.map(number),
            span,
        };
        self.history.lock().unwrap().read.push(read);
    }

    async fn act(&self, mut dice: Dice) {
        for _ in 0..STEPS {
            match dice.below(100) {
                0..12 => self.log_in(&mut dice).await,
                12..20 => self.log_out(&mut dice, false).await,
                20..24 => self.log_out(&mut dice, true).await,
                24..30 => self.delete(&mut dice).await,
                30..62 => self.write(&mut dice).await,
                _ => self.read(&mut dice).await,
            }
        }
    }
}

impl History {
    fn judge(&self, remembers: bool) {
        for read in &self.read {
            if let Some(number) = read.found {
                self.judge_life(read, number, remembers);
            }
            self.judge_loss(read);
        }
    }

    /// What was read is not of a device that had ended.
    fn judge_life(&self, read: &Read, number: usize, remembers: bool) {
        let written = self.written[number].as_ref().unwrap();
        assert_eq!(
            written.device, read.device,
            "an entry of another device: {read:?}"
        );
        let begun = self.begun[written.session];
        let before = self.ended.iter().find(|ended| {
            let counts = ended.is_sure && !(remembers && ended.is_beside);
            let is_of_it = ended.device == read.device && begun < ended.span.start;
            counts && is_of_it && ended.span.end < read.span.start
        });
        assert!(
            before.is_none(),
            "{read:?} found {written:?} after {before:?}"
        );
    }

    /// What was acknowledged before is read, or something newer.
    fn judge_loss(&self, read: &Read) {
        let of_device = |written: &&Written| written.device == read.device;
        let written = self.written.iter().flatten().filter(of_device);
        let acknowledged =
            written.filter(|written| written.is_acknowledged && written.span.end < read.span.start);
        for written in acknowledged {
            let is_excused = self.ended.iter().any(|ended| {
                let is_between =
                    ended.span.end > written.span.start && ended.span.start < read.span.end;
                ended.device == read.device && is_between
            });
            let found = read
                .found
                .map(|number| self.written[number].as_ref().unwrap());
            let is_there = found.is_some_and(|found| found.span.end >= written.span.end);
            // One of an older span may be newer, where both were under way at once.
            let is_at_once = found.is_some_and(|found| found.span.end > written.span.start);
            assert!(
                is_excused || is_there || is_at_once,
                "{read:?} does not find {written:?}"
            );
        }
    }
}

async fn run(seed: u64, remember_ms: u64) {
    let lab = Lab::with(|settings| settings.upstream.remember_ms = remember_ms).await;
    let reader = lab.user(READER).await;
    let user = reader.session().user_id.clone();
    let stage = Arc::new(Stage {
        lab,
        user,
        time: AtomicU64::new(0),
        fresh: AtomicU64::new(0),
        sessions: Mutex::default(),
        history: Mutex::default(),
    });
    for device in [READER, REUSED[0], REUSED[1]] {
        stage.begin(&stage.lab.client(), device).await;
    }
    let actors = (0..ACTORS).map(|actor| {
        let (stage, dice) = (Arc::clone(&stage), Dice::new(seed * ACTORS + actor));
        tokio::spawn(async move { stage.act(dice).await })
    });
    let actors: Vec<_> = actors.collect();
    for actor in actors {
        actor.await.unwrap();
    }
    let history = stage.history.lock().unwrap();
    let found = history.read.iter().filter(|read| read.found.is_some());
    // Else nothing would be judged.
    assert!(found.count() > 0);
    history.judge(remember_ms > 0);
}

fn seeds() -> Vec<u64> {
    match (seed(), is_long()) {
        (Some(seed), _) => vec![seed],
        (None, true) => (0..100).collect(),
        (None, false) => vec![1, 2],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_come_and_go_and_no_entry_outlives_its_own() {
    for seed in seeds() {
        println!("KITBAG_TEST_SEED={seed}");
        run(seed, 0).await;
    }
}

/// The clock stands still: what is remembered is so for ever, unless it is forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn devices_come_and_go_and_what_is_remembered_of_them_ends_with_them() {
    for seed in seeds() {
        println!("KITBAG_TEST_SEED={seed}");
        run(seed, 5_000).await;
    }
}
