//! Law 6: the end of a device against its writes, and its removal against its return.

use kitbag_domain::{
    AccountStore as _, ApplyError, DeviceId, DeviceSelection, EntryStore as _, Key, Login,
    LoginError, Position, Requester, Scope, Selector, WriteError,
};
use kitbag_store_sqlite::Step;
use kitbag_testkit::gate::in_time;
use kitbag_testkit::{Actor, global};

use crate::ground::{Client, Ground, Meeting, Racer, meetings, was_woken};

/// What ends the device `PHONE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Deactivation,
    Deletion,
    Logout,
    LogoutOfAll,
    PasswordChange,
}

const ENDINGS: [Ending; 5] = [
    Ending::Deactivation,
    Ending::Deletion,
    Ending::Logout,
    Ending::LogoutOfAll,
    Ending::PasswordChange,
];

impl Ending {
    async fn run(self, phone: Actor, laptop: Actor) -> Result<(), ApplyError> {
        let (store, user) = (&phone.store, &phone.user);
        let these = DeviceSelection::These(vec![phone.device.clone()]);
        let removed = match self {
            Self::Deactivation => return store.deactivate(user, laptop.write()).await,
            Self::PasswordChange => {
                let others = Some(DeviceSelection::AllExcept(laptop.device.clone()));
                let (write, hash) = (laptop.write(), "new".to_owned());
                return store.set_password(user, write, hash, others).await;
            }
            Self::Deletion => store.remove_devices(user, laptop.write(), these),
            Self::Logout => store.remove_devices(user, phone.write(), these),
            Self::LogoutOfAll => store.remove_devices(user, phone.write(), DeviceSelection::All),
        };
        removed.await.map(drop)
    }
}

/// One meeting of a write and an ending.
#[derive(Clone, Copy, Debug)]
struct Round {
    ending: Ending,
    meeting: Meeting,
    is_write_first: bool,
    /// Whether the device writes to itself, or to the account.
    is_own: bool,
}

fn rounds() -> Vec<Round> {
    let mut rounds = Vec::new();
    for ending in ENDINGS {
        for meeting in meetings() {
            for number in 0..4 {
                rounds.push(Round {
                    ending,
                    meeting,
                    is_write_first: number % 2 == 0,
                    is_own: number < 2,
                });
            }
        }
    }
    rounds
}

/// What one who raced was told.
#[derive(Debug)]
enum Told {
    Ended(Result<(), ApplyError>),
    Returned(Result<(), LoginError>),
    Removed(Result<Vec<DeviceId>, ApplyError>),
    Wrote(Result<Position, WriteError>),
}

fn put<'a>(ground: &'a Ground, by: Requester, key: Key, text: &'static str) -> Racer<'a, Told> {
    Box::pin(async move { Told::Wrote(ground.put(&by, &key, text).await) })
}

#[track_caller]
fn wrote(told: &Told) -> Result<Position, WriteError> {
    match told {
        Told::Wrote(result) => result.clone(),
        other => panic!("not a write: {other:?}"),
    }
}

/// The write has its permit. Whichever of the two comes first, nothing of the device stays, the
/// write is told what became of it, and siblings are led to what is stored.
#[tokio::test]
async fn a_write_and_the_end_of_its_device_meet() {
    let ground = Ground::new().await;
    for (number, round) in rounds().into_iter().enumerate() {
        let (phone, laptop) = ground.user(&format!("user{number}")).await;
        let kept = phone.own_key("kept");
        let key = match round.is_own {
            true => phone.own_key("raced"),
            false => global("raced"),
        };
        // Without an entry the end of a device is told of all the same.
        if round.is_own {
            phone.put(&kept, "{\"n\":0}").await;
        }
        let mut client = Client::default();
        client.sync(&ground, &laptop).await;
        let start = laptop.head().await;
        let mut subscription = laptop.subscribe();

        let (ending, racing) = (round.ending, (phone.clone(), laptop.clone()));
        let end: Racer<'_, Told> =
            Box::pin(async move { Told::Ended(ending.run(racing.0, racing.1).await) });
        let write = put(&ground, phone.requester(), key.clone(), "{\"n\":1}");
        let racers = match round.is_write_first {
            true => vec![write, end],
            false => vec![end, write],
        };
        let look = async |number: usize, step: Step| {
            let is_durable = step != Step::BeforeCommit;
            let head = laptop.head().await;
            if number == 0 {
                assert_eq!(head > start, is_durable, "{round:?}");
                let is_woken = step == Step::BeforeAcknowledgement;
                assert_eq!(was_woken(&mut subscription), is_woken, "{round:?}");
                let is_there = is_durable && round.is_write_first;
                assert_eq!(phone.entry(&key).await.is_some(), is_there, "{round:?}");
                let is_kept = round.is_own && (round.is_write_first || !is_durable);
                assert_eq!(phone.entry(&kept).await.is_some(), is_kept, "{round:?}");
            }
            client.sync(&ground, &laptop).await;
        };
        let mut told = ground.race(round.meeting, racers, look).await;
        if !round.is_write_first {
            told.reverse();
        }
        let [write, Told::Ended(end)] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!(*end, Ok(()), "{round:?}");
        let written = wrote(write);
        match round.is_write_first {
            true => assert!(written.is_ok(), "{round:?}: {written:?}"),
            false => assert_eq!(written, Err(WriteError::SessionGone), "{round:?}"),
        }

        // What is stored, whom it was told, and that the session is over.
        let stays = round.is_write_first && !round.is_own && ending != Ending::Deactivation;
        assert_eq!(phone.entry(&key).await.is_some(), stays, "{round:?}");
        assert_eq!(phone.entry(&kept).await, None, "{round:?}");
        assert_eq!(phone.session().await, None, "{round:?}");
        client.sync(&ground, &laptop).await;
        client.assert_knows(ground.since(&laptop, None).await);
        if round.is_own && ending != Ending::Deactivation {
            assert!(client.deleted_at(&kept) > Some(start), "{round:?}");
        }
        let late = ground.put(&phone.requester(), &key, "{\"n\":2}").await;
        assert_eq!(late, Err(WriteError::SessionGone), "{round:?}");
    }
}

/// A move around the device ID `PHONE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// A write under the permit of the first incarnation.
    LateWrite,
    Removal,
    /// A login with the same device ID.
    Return,
}

const ORDERS: [&[Move]; 8] = [
    &[Move::LateWrite, Move::Removal, Move::Return],
    &[Move::LateWrite, Move::Return],
    &[Move::LateWrite, Move::Return, Move::Removal],
    &[Move::Removal, Move::LateWrite, Move::Return],
    &[Move::Removal, Move::Return, Move::LateWrite],
    &[Move::Return, Move::LateWrite],
    &[Move::Return, Move::LateWrite, Move::Removal],
    &[Move::Return, Move::Removal, Move::LateWrite],
];

/// What must have come of an order: a model of a few lines.
struct Outcome {
    /// Whether the first incarnation lives.
    is_first: bool,
    /// Whether one that came after it lives.
    is_second: bool,
    wrote: bool,
    /// Whether what was there before, and the late write, still are.
    keeps: bool,
    keeps_write: bool,
}

fn outcome(order: &[Move]) -> Outcome {
    let mut outcome = Outcome {
        is_first: true,
        is_second: false,
        wrote: false,
        keeps: true,
        keeps_write: false,
    };
    for step in order {
        match *step {
            Move::LateWrite => {
                outcome.wrote = outcome.is_first;
                outcome.keeps_write = outcome.wrote;
            }
            Move::Removal => {
                (outcome.is_first, outcome.is_second) = (false, false);
                (outcome.keeps, outcome.keeps_write) = (false, false);
            }
            Move::Return => outcome.is_second = !outcome.is_first,
        }
    }
    outcome
}

fn begin_move<'a>(
    ground: &'a Ground,
    step: Move,
    phone: &Actor,
    laptop: &Actor,
    login: &Login,
) -> Racer<'a, Told> {
    let (phone, laptop, login) = (phone.clone(), laptop.clone(), login.clone());
    let (store, user) = (&ground.sqlite, phone.user.clone());
    match step {
        Move::LateWrite => put(
            ground,
            phone.requester(),
            phone.own_key("late"),
            "{\"n\":1}",
        ),
        Move::Removal => Box::pin(async move {
            let these = DeviceSelection::These(vec![phone.device.clone()]);
            let removed = store.remove_devices(&user, laptop.write(), these);
            Told::Removed(removed.await)
        }),
        Move::Return => Box::pin(async move { Told::Returned(store.login(&user, login).await) }),
    }
}

/// A device that comes back under its ID starts empty, and no late write of the one before lands
/// in it; a login to the device that still lives keeps its entries and ends its old tokens.
#[tokio::test]
async fn a_removal_a_return_and_a_late_write_meet_in_every_order() {
    let ground = Ground::new().await;
    let cases = meetings().flat_map(|meeting| ORDERS.map(|order| (meeting, order)));
    for (number, (meeting, order)) in cases.enumerate() {
        let context = format!("{meeting:?} {order:?}");
        let (phone, laptop) = ground.user(&format!("user{number}")).await;
        let (kept, late) = (phone.own_key("kept"), phone.own_key("late"));
        phone.put(&kept, "{\"n\":0}").await;
        let mut client = Client::default();
        client.sync(&ground, &laptop).await;
        let login = Actor::login_of("PHONE");
        let tokens = login.tokens.clone();

        let begun = order.iter();
        let begun = begun.map(|step| begin_move(&ground, *step, &phone, &laptop, &login));
        let look = async |_, _| client.sync(&ground, &laptop).await;
        let told = ground.race(meeting, begun.collect(), look).await;

        let expected = outcome(order);
        for told in &told {
            match told {
                Told::Wrote(Ok(_)) => assert!(expected.wrote, "{context}"),
                Told::Wrote(Err(error)) => {
                    assert!(!expected.wrote, "{context}: {error}");
                    assert_eq!(*error, WriteError::SessionGone, "{context}");
                }
                Told::Removed(removed) => {
                    assert_eq!(*removed, Ok(vec![phone.device.clone()]), "{context}");
                }
                Told::Returned(returned) => assert_eq!(*returned, Ok(()), "{context}"),
                Told::Ended(_) => panic!("nobody ends it otherwise"),
            }
        }
        assert_eq!(
            phone.entry(&kept).await.is_some(),
            expected.keeps,
            "{context}"
        );
        assert_eq!(
            phone.entry(&late).await.is_some(),
            expected.keeps_write,
            "{context}"
        );
        client.sync(&ground, &laptop).await;
        client.assert_knows(ground.since(&laptop, None).await);
        if !expected.keeps {
            assert!(client.deleted_at(&kept).is_some(), "{context}");
        }
        check_devices(&ground, &phone, &tokens.access, &expected, &context).await;
    }
}

/// Checks which incarnation lives, and that only its own session writes to it.
async fn check_devices(
    ground: &Ground,
    phone: &Actor,
    access: &kitbag_domain::TokenHash,
    expected: &Outcome,
    context: &str,
) {
    let (user, key) = (&phone.user, phone.own_key("late"));
    assert_eq!(phone.session().await, None, "{context}: the old token");
    let device = ground.sqlite.device(user, &phone.device).await.unwrap();
    let is_first = device.map(|device| device.incarnation == phone.incarnation);
    let lives = expected.is_first || expected.is_second;
    assert_eq!(is_first, lives.then_some(expected.is_first), "{context}");
    let session = ground.sqlite.session(user, *access).await.unwrap();
    assert_eq!(session.is_some(), lives, "{context}: the new token");
    if let Some(session) = session {
        let newcomer = Requester {
            device: Some((session.device, session.incarnation)),
            ..phone.requester()
        };
        let put = ground.put(&newcomer, &key, "{\"n\":2}");
        in_time("a write of the newcomer", put).await.unwrap();
    }
    let late = ground.put(&phone.requester(), &key, "{\"n\":3}").await;
    assert_eq!(late.is_ok(), expected.is_first, "{context}");
    let scope = Selector::Scope(Scope::Device(phone.device.clone()));
    let entries = ground.sqlite.list(user, scope).await.unwrap();
    let texts: Vec<_> = entries
        .iter()
        .map(|entry| entry.content.as_ref().unwrap().as_str())
        .collect();
    let expected: &[&str] = match (expected.is_first, lives) {
        (true, _) if expected.keeps => &["{\"n\":0}", "{\"n\":3}"],
        (false, true) => &["{\"n\":2}"],
        _ => &[],
    };
    assert_eq!(texts, expected, "{context}");
}
