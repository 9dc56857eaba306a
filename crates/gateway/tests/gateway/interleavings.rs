//! Devices of one user begin, write and end in random order and at once, through the gateway and past
//! it, before a homeserver that fails at times; reads and writes through the gateway are judged.
//!
//! - What a session wrote is not read once its device has ended, whoever uses the ID then.
//! - What was acknowledged is read as long as no end of its device, and no other write, can explain
//!   that it is not.
//! - Who lives can write and read: at once, unless something explains that it cannot, and in any case
//!   once the homeserver is well and five minutes have passed.
#![expect(clippy::print_stdout, reason = "a test that fails tells its seed")]

mod failing;
mod history;
mod session;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kitbag_client::{Account, Client, Error, Login, Scope};
use kitbag_domain::{Clock as _, Limits};
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::dice::Dice;
use kitbag_testkit::settings::{is_long, seed};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use self::failing::{Failing, Faults};
use self::history::{Begun, Ended, History, Read, Span, Told, Which, Written};
use self::session::{Session, with_password};
use crate::support::{Lab, PASSWORD, gateway_at, homeserver_edge, serve};

const KIND: &str = "org.example.a";
const ACTORS: u64 = 3;
const STEPS: usize = 30;

/// Seeds where there is time for rare cases.
const SEEDS_LONG: usize = 100;

/// IDs that end and come again, each way.
const REUSED: [&str; 2] = ["REUSED0", "REUSED1"];

/// How long after many failures the gateway does not try again to empty something.
const PAUSE_MS: u64 = 5 * 60 * 1_000;

/// How long others of the user wait for an end, where some take longer, and how long these take.
const ASK_TIMEOUT_MS: u64 = 500;
const SLOW: Duration = Duration::from_millis(700);

/// Within that it is seen that somebody lives.
const SOON: Duration = Duration::from_secs(30);

/// What a run is like.
#[derive(Clone, Copy)]
struct Run {
    remember_ms: u64,
    has_faults: bool,
    /// Whether some ends take longer than others of the user wait for them.
    is_slow: bool,
}

/// How often runs met what they are about.
#[derive(Clone, Copy, Debug, Default)]
struct Met {
    /// Requests that the homeserver failed at.
    struck: usize,
    /// Tombstones that were written late.
    landed: usize,
    /// Requests that were refused while an end was under way.
    fenced: u64,
    /// Reads that an end alone kept from what the device before had written.
    behind_ends: usize,
}

/// Everybody's stage.
struct Stage {
    lab: Lab,
    user: String,
    failing: Failing,
    time: AtomicU64,
    fresh: AtomicU64,
    sessions: Mutex<Vec<Session>>,
    history: Mutex<History>,
    is_slow: bool,
    /// Reads and writes that were refused while an end was under way.
    fenced: AtomicU64,
}

impl Stage {
    async fn start(seed: u64, run: Run) -> Self {
        let (edge, stop, stopping) = homeserver_edge();
        let clock = Arc::<TestClock>::default();
        let slow = run.is_slow.then_some(SLOW);
        let faults = Faults::new(run.has_faults, slow, Dice::new(!seed), Arc::clone(&clock));
        let failing = Failing {
            edge: edge.clone(),
            faults: Arc::new(faults),
        };
        let homeserver = serve(edge, stop, stopping).await;
        let (stop, stopping) = watch::channel(false);
        let before = serve(failing.clone(), stop, stopping).await;
        let limits = Limits::default();
        let gateway = gateway_at(&before.url, Arc::clone(&clock), limits, |settings| {
            settings.upstream.remember_ms = run.remember_ms;
            if run.is_slow {
                settings.upstream.ask_timeout_ms = ASK_TIMEOUT_MS;
            }
        });
        let gateway = gateway.await;
        let lab = Lab::of(homeserver, Some(before), gateway, clock);
        let user = lab.user("FIRST").await.session().user_id.clone();
        let behind = (lab.beside(), user.clone());
        failing.faults.behind.set(behind).unwrap();
        let history = History {
            remember_ms: run.remember_ms,
            has_faults: run.has_faults,
            ..History::default()
        };
        Self {
            lab,
            user,
            failing,
            time: AtomicU64::new(0),
            fresh: AtomicU64::new(0),
            sessions: Mutex::default(),
            history: Mutex::new(history),
            is_slow: run.is_slow,
            fenced: AtomicU64::new(0),
        }
    }

    fn now(&self) -> (u64, u64) {
        let step = self.time.fetch_add(1, Ordering::SeqCst);
        (step, self.lab.clock.now_ms())
    }

    async fn timed<T>(&self, work: impl Future<Output = T>) -> (T, Span) {
        let unlisted = || self.failing.faults.unlisted.load(Ordering::SeqCst);
        let unlisted_before = unlisted();
        let (start, start_ms) = self.now();
        let done = work.await;
        let (end, end_ms) = self.now();
        let span = Span {
            start,
            end,
            start_ms,
            end_ms,
            // Where others do not wait for long, the turn to empty may not have come either.
            may_have_missed: self.is_slow || unlisted() != unlisted_before,
        };
        (done, span)
    }

    async fn any_session(&self, dice: &mut Dice) -> Session {
        loop {
            let any = {
                let sessions = self.sessions.lock().unwrap();
                let count = sessions.len();
                (count > 0).then(|| sessions[dice.below(count)].clone())
            };
            match any {
                Some(session) => return session,
                None => self.log_in(dice).await,
            }
        }
    }

    /// Returns the account as it is used through the gateway, or past it.
    fn by_way(&self, session: &Session, is_beside: bool) -> Account {
        let client = match is_beside {
            true => self.lab.beside(),
            false => self.lab.client(),
        };
        client.with_session(session.account.session().clone())
    }

    /// Counts what is refused while an end is under way, or what it left is not emptied.
    fn count(&self, told: Told) {
        let is_fenced = told == Told::Fenced;
        self.fenced.fetch_add(is_fenced.into(), Ordering::SeqCst);
    }

    /// A session that the homeserver does not know is of no use any more.
    fn told<T>(&self, session: &Session, done: Result<T, Error>) -> (Told, Option<T>) {
        let told = match done {
            Ok(done) => return (Told::Done, Some(done)),
            Err(Error::Matrix {
                status, errcode, ..
            }) => match (status, errcode.as_str()) {
                (401, "M_UNKNOWN_TOKEN") => Told::NoSession,
                (_, "M_FORBIDDEN") => Told::Refused,
                (404, "M_NOT_FOUND") => Told::Nothing,
                (503, _) => Told::Fenced,
                (500.., _) => Told::Failed(status),
                _ => unreachable!("{status} {errcode}"),
            },
            Err(error) => unreachable!("{error}"),
        };
        if told == Told::NoSession {
            self.leave(session);
        }
        self.count(told);
        (told, None)
    }

    fn leave(&self, session: &Session) {
        let mut sessions = self.sessions.lock().unwrap();
        sessions.retain(|known| known.number != session.number);
    }

    async fn log_in(&self, dice: &mut Dice) {
        let device = match dice.chance(70) {
            true => REUSED[dice.below(REUSED.len())].to_owned(),
            false => self.fresh_id(),
        };
        self.begin_again(&device, dice).await;
    }

    fn fresh_id(&self) -> String {
        format!("FRESH{}", self.fresh.fetch_add(1, Ordering::SeqCst))
    }

    /// Who logs in looks at once at what its device has.
    async fn begin_again(&self, device: &str, dice: &mut Dice) {
        let session = self.begin(device, dice.chance(30)).await;
        self.read(&session, device).await;
    }

    async fn begin(&self, device: &str, is_beside: bool) -> Session {
        let client: Client = match is_beside {
            true => self.lab.beside(),
            false => self.lab.client(),
        };
        let login = Login {
            device_id: Some(device),
            ..Login::password(&self.user, PASSWORD)
        };
        let (account, span) = loop {
            let (account, span) = self.timed(client.login(&login)).await;
            match account {
                Ok(account) => break (account, span),
                // It was set anew, to the same, while it was looked at.
                Err(error) => assert_eq!(error.errcode(), Some("M_FORBIDDEN"), "{error}"),
            }
        };
        let account = self.lab.client().with_session(account.session().clone());
        let number = {
            let mut history = self.history.lock().unwrap();
            history.begun.push(Begun {
                device: device.to_owned(),
                span,
                is_beside,
            });
            history.begun.len() - 1
        };
        let session = Session { account, number };
        self.sessions.lock().unwrap().push(session.clone());
        session
    }

    async fn log_out(&self, dice: &mut Dice) {
        let session = self.any_session(dice).await;
        let is_beside = dice.chance(30);
        let account = self.by_way(&session, is_beside);
        let (which, (done, span)) = match dice.chance(12) {
            true => (Which::All, self.timed(account.logout_all()).await),
            false => {
                let which = Which::These(vec![session.device()]);
                (which, self.timed(account.logout()).await)
            }
        };
        let (told, _) = self.told(&session, done);
        self.keep_end(&session, which, span, told, is_beside, true);
        // Some are used once more, and some begin again at once.
        if told == Told::Done && dice.chance(70) {
            self.leave(&session);
        }
        self.go_on(&session.device(), is_beside, dice).await;
    }

    async fn delete(&self, dice: &mut Dice) {
        let session = self.any_session(dice).await;
        let is_beside = dice.chance(30);
        let account = self.by_way(&session, is_beside);
        let device = match dice.chance(40) {
            true => session.device(),
            false => REUSED[dice.below(REUSED.len())].to_owned(),
        };
        let (which, (done, span)) = match dice.below(10) {
            0..6 => {
                let deleted = account.delete_device(&device, PASSWORD);
                (
                    Which::These(vec![device.clone()]),
                    self.timed(deleted).await,
                )
            }
            6..8 => {
                let devices = [device.as_str(), REUSED[0]];
                let body = json!({"devices": devices});
                let deleted = with_password(&account, "delete_devices", body);
                let which = Which::These(devices.map(str::to_owned).to_vec());
                (which, self.timed(deleted).await)
            }
            _ => {
                let body = json!({"new_password": PASSWORD});
                let changed = with_password(&account, "account/password", body);
                let which = Which::AllBut(session.device());
                (which, self.timed(changed).await)
            }
        };
        let (told, _) = self.told(&session, done);
        self.keep_end(&session, which, span, told, is_beside, false);
        self.go_on(&device, is_beside, dice).await;
    }

    /// A device writes, ends and begins again. Few others use its ID meanwhile, so that often the end
    /// alone keeps what it wrote from being read, or, where that was past the gateway, who looks then.
    async fn live_twice(&self, dice: &mut Dice) {
        let device = self.fresh_id();
        let session = self.begin(&device, false).await;
        self.write(&session).await;
        let (is_logout, is_beside) = (dice.chance(50), dice.chance(40));
        let account = self.by_way(&session, is_beside);
        let (done, span) = match is_logout {
            true => self.timed(account.logout()).await,
            false => self.timed(account.delete_device(&device, PASSWORD)).await,
        };
        let (told, _) = self.told(&session, done);
        let which = Which::These(vec![device.clone()]);
        self.keep_end(&session, which, span, told, is_beside, is_logout);
        if told == Told::Done {
            self.leave(&session);
        }
        if is_beside {
            let other = self.any_session(dice).await;
            self.read(&other, &device).await;
        }
        self.begin_again(&device, dice).await;
    }

    /// Somebody may look at a device that ended past the gateway, and it may begin again.
    async fn go_on(&self, device: &str, is_beside: bool, dice: &mut Dice) {
        if is_beside && dice.chance(70) {
            let session = self.any_session(dice).await;
            self.read(&session, device).await;
        }
        if dice.chance(40) {
            self.begin_again(device, dice).await;
        }
    }

    fn keep_end(
        &self,
        by: &Session,
        which: Which,
        span: Span,
        told: Told,
        is_beside: bool,
        is_logout: bool,
    ) {
        let ended = Ended {
            which,
            by: by.device(),
            span,
            told,
            is_logout,
            is_beside,
        };
        self.history.lock().unwrap().ended.push(ended);
    }

    async fn write(&self, session: &Session) -> (usize, Told) {
        let device = session.device();
        let number = {
            let mut history = self.history.lock().unwrap();
            history.written.push(None);
            history.written.len() - 1
        };
        let content = json!({"write": number});
        let write = session.account.put(Scope::Device(&device), KIND, &content);
        let (done, span) = self.timed(write).await;
        let (told, _) = self.told(session, done);
        self.history.lock().unwrap().written[number] = Some(Written {
            device,
            session: session.number,
            span,
            told,
        });
        (number, told)
    }

    /// Returns the number of the write that was found.
    async fn read(&self, session: &Session, device: &str) -> Option<usize> {
        let read = session.account.get(Scope::Device(device), KIND);
        let (done, span) = self.timed(read).await;
        let (told, found) = self.told(session, done);
        // Nothing that is to be emptied keeps anybody from reading, unless it may be emptied late.
        let has_faults = self.history.lock().unwrap().has_faults;
        let is_late = told == Told::Fenced && has_faults;
        let is_timeout = told == Told::Failed(504) && self.is_slow;
        let is_done = matches!(told, Told::Done | Told::NoSession);
        assert!(is_done || is_late || is_timeout, "{told:?}");
        let number = |content: Value| usize::try_from(content["write"].as_u64().unwrap()).unwrap();
        let found = found.flatten().map(number);
        self.history.lock().unwrap().read.push(Read {
            device: device.to_owned(),
            session: session.number,
            told,
            found,
            span,
        });
        found
    }

    async fn read_any(&self, dice: &mut Dice) {
        let session = self.any_session(dice).await;
        let device = {
            let history = self.history.lock().unwrap();
            let begun = &history.begun[dice.below(history.begun.len())];
            match dice.chance(50) {
                true => REUSED[dice.below(REUSED.len())].to_owned(),
                false => begun.device.clone(),
            }
        };
        self.read(&session, &device).await;
    }

    async fn act(&self, mut dice: Dice) {
        self.live_twice(&mut dice).await;
        for _ in 0..STEPS {
            match dice.below(100) {
                0..14 => self.log_in(&mut dice).await,
                14..22 => self.log_out(&mut dice).await,
                22..30 => self.delete(&mut dice).await,
                30..35 => self.failing.advance(dice.draw() % 10_000).await,
                35..38 => self.failing.land().await,
                38..62 => {
                    let session = self.any_session(&mut dice).await;
                    self.write(&session).await;
                }
                62..66 => self.live_twice(&mut dice).await,
                _ => self.read_any(&mut dice).await,
            }
        }
    }

    /// Sees each session that lives write its device and read it, and so all that begin anew.
    async fn see_alive(&self) {
        self.failing.faults.is_on.store(false, Ordering::SeqCst);
        let sessions = self.sessions.lock().unwrap().clone();
        for session in sessions {
            if self.by_way(&session, true).whoami().await.is_ok() {
                self.see_written(&session).await;
            }
        }
        for (at, device) in REUSED.into_iter().enumerate() {
            for is_beside in [at == 0, at != 0] {
                let session = self.begin(device, is_beside).await;
                self.read(&session, device).await;
                self.see_written(&session).await;
            }
        }
    }

    async fn see_written(&self, session: &Session) {
        let (mut number, mut told) = self.write_in_turn(session).await;
        if told == Told::Fenced {
            self.failing.advance(PAUSE_MS).await;
            (number, told) = self.write_in_turn(session).await;
        }
        let device = session.device();
        assert_eq!(told, Told::Done, "{device} is shut out");
        assert_eq!(self.read(session, &device).await, Some(number), "{device}");
    }

    /// Where others do not wait for long, who looks what became of an end may have the turn.
    async fn write_in_turn(&self, session: &Session) -> (usize, Told) {
        let written = async {
            loop {
                match self.write(session).await {
                    (_, Told::Failed(504)) if self.is_slow => {}
                    written => return written,
                }
            }
        };
        timeout(SOON, written).await.unwrap()
    }
}

async fn run(seed: u64, run: Run) -> Met {
    let stage = Arc::new(Stage::start(seed, run).await);
    for device in REUSED {
        stage.begin(device, false).await;
    }
    let actors = (0..ACTORS).map(|actor| {
        let (stage, dice) = (Arc::clone(&stage), Dice::new(seed * ACTORS + actor));
        tokio::spawn(async move { stage.act(dice).await })
    });
    let actors: Vec<_> = actors.collect();
    for actor in actors {
        actor.await.unwrap();
    }
    stage.see_alive().await;
    let history = stage.history.lock().unwrap();
    history.judge();
    let faults = &stage.failing.faults;
    Met {
        struck: faults.struck.load(Ordering::SeqCst),
        landed: faults.landed.load(Ordering::SeqCst),
        fenced: stage.fenced.load(Ordering::SeqCst),
        behind_ends: history.behind_ends(),
    }
}

fn seeds() -> Vec<u64> {
    match (seed(), is_long()) {
        (Some(seed), _) => vec![seed],
        (None, true) => (0..SEEDS_LONG as u64).collect(),
        (None, false) => vec![1, 2, 3],
    }
}

async fn run_all(of: Run) {
    let mut all = Met::default();
    for seed in seeds() {
        println!("KITBAG_TEST_SEED={seed}");
        let met = run(seed, of).await;
        println!("{met:?}");
        all = Met {
            struck: all.struck + met.struck,
            landed: all.landed + met.landed,
            fenced: all.fenced + met.fenced,
            behind_ends: all.behind_ends + met.behind_ends,
        };
    }
    assert!(of.has_faults || (all.struck, all.landed) == (0, 0));
    // One alone may be lucky.
    if seeds().len() > 1 {
        assert!(all.behind_ends > 0, "no end mattered");
        assert!(!of.is_slow || all.fenced > 0, "no turn was given up");
        assert!(!of.has_faults || all.struck > 0, "nothing failed");
    }
    // Of few seeds most have none.
    let is_met = all.landed > 0 || seeds().len() < SEEDS_LONG;
    assert!(!of.has_faults || is_met, "nothing came late");
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_come_and_go_and_no_entry_outlives_its_own() {
    run_all(Run {
        remember_ms: 0,
        has_faults: false,
        is_slow: false,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_come_and_go_and_what_is_remembered_of_them_ends_with_them() {
    run_all(Run {
        remember_ms: 5_000,
        has_faults: false,
        is_slow: false,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_come_and_go_also_where_the_homeserver_fails_at_times() {
    run_all(Run {
        remember_ms: 0,
        has_faults: true,
        is_slow: false,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_come_and_go_and_are_remembered_where_the_homeserver_fails_at_times() {
    run_all(Run {
        remember_ms: 5_000,
        has_faults: true,
        is_slow: false,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_come_and_go_also_where_ends_take_longer_than_others_wait() {
    run_all(Run {
        remember_ms: 0,
        has_faults: true,
        is_slow: true,
    })
    .await;
}
