//! Runs steps on a store as the HTTP doors would, and records what happens.

mod answers;
mod mind;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kitbag_domain::{
    AccountData, Allowance, Clock as _, DeviceSelection, Expectation, GetError, Incarnation, Key,
    Limits, LiveEntry, Login, LoginError, NewAccount, Position, PushRulesWriteError, RefreshError,
    Requester, Seen, SessionTokens, Snapshot, Store, UserId, Write,
};
use tokio::sync::RwLock;

use answers::{forbidden, gone, refused, told};
pub use mind::Mind;

use crate::abandon::abandon_after;
use crate::clock::TestClock;
use crate::history::{Answer, Call, Event, Why};
use crate::ops::{Expect, Make, Since, Slot, Step, USERS, What, device_name};
use crate::rules::{PlainRules, noting};
use crate::{content, fresh_tokens, user_id};

const PASSWORD_HASH: &str = "$test$hash";

/// A store, the service over it, and what the clients know together.
pub struct World {
    store: Arc<dyn Store>,
    service: AccountData,
    clock: Arc<TestClock>,
    users: Vec<UserId>,
    /// Orders beginnings and ends of all operations.
    tickets: AtomicU64,
    /// Numbers contents.
    numbers: AtomicU64,
    sessions: Mutex<BTreeMap<Slot, Incarnation>>,
    tokens: Mutex<BTreeMap<Slot, SessionTokens>>,
    /// A login learns its incarnation by a second call: meanwhile nobody may remove the device.
    logins: RwLock<()>,
}

impl World {
    /// Registers the users of a history on a fresh store.
    pub async fn new(store: Arc<dyn Store>, limits: Limits) -> Self {
        let clock = Arc::new(TestClock::default());
        let users: Vec<_> = (0..USERS).map(|n| user_id(&format!("user{n}"))).collect();
        for user in &users {
            let account = NewAccount {
                user: user.clone(),
                password_hash: PASSWORD_HASH.to_owned(),
                at: clock.now_ms(),
            };
            store.register(account, None).await.unwrap();
        }
        let service = AccountData::new(
            Arc::clone(&store),
            Arc::new(PlainRules::default()),
            Arc::clone(&clock) as _,
            Arc::new(limits),
        );
        Self {
            store,
            service,
            clock,
            users,
            tickets: AtomicU64::new(1),
            numbers: AtomicU64::new(1),
            sessions: Mutex::default(),
            tokens: Mutex::default(),
            logins: RwLock::default(),
        }
    }

    /// Returns the users.
    #[must_use]
    pub fn users(&self) -> &[UserId] {
        &self.users
    }

    /// Returns the service.
    #[must_use]
    pub fn service(&self) -> &AccountData {
        &self.service
    }

    /// Runs a step; nothing is recorded where only time passed.
    ///
    /// A device that has no session logs in instead. With `patience` a put is
    /// abandoned after so many polls.
    pub async fn run(
        &self,
        step: &Step,
        mind: &mut Mind,
        patience: Option<usize>,
    ) -> Option<Event> {
        let who = step.who;
        match &step.what {
            What::Tick { by_ms } => {
                self.clock.advance(*by_ms);
                return None;
            }
            What::Sync(since) => return Some(self.sync(who.user, *since, mind).await),
            What::Everything(since) => {
                return Some(self.everything(who.user, *since, mind).await);
            }
            What::Login => return self.login(who).await,
            _ => {}
        }
        let Some(requester) = self.requester(who) else {
            return self.login(who).await;
        };
        let event = match &step.what {
            What::Deactivate => self.deactivate(&requester).await,
            What::Delete(key) => self.delete(&requester, key).await,
            What::Edit => self.edit(&requester).await,
            What::Erase(key, expect) => {
                let expectation = mind.expectation(&requester.user, key, *expect);
                let call = Call::Erase(key.clone(), expectation);
                self.erase(&requester, call, mind).await
            }
            What::Get(key) => self.get(who, &requester, key, mind).await,
            What::Logout => {
                let own = who.device_id().into_iter().collect();
                let own = DeviceSelection::These(own);
                self.remove(&requester, own, false).await
            }
            What::Password { logout: true } => {
                let own = who.device_id();
                let others = own.map_or(DeviceSelection::All, DeviceSelection::AllExcept);
                self.remove(&requester, others, true).await
            }
            What::Password { logout: false } => self.password(&requester).await,
            What::Put(key, make, expect) => {
                let (text, expectation) = self.draft(&requester, key, *make, *expect, mind);
                let call = Call::Put(key.clone(), text, expectation);
                self.put(&requester, call, patience, mind).await
            }
            What::Remove(numbers) => {
                let devices = numbers.iter().map(|number| device_name(*number));
                let these = DeviceSelection::These(devices.collect());
                self.remove(&requester, these, false).await
            }
            What::Refresh => return self.refresh(who, &requester).await,
            What::Everything(_) | What::Login | What::Sync(_) | What::Tick { .. } => {
                unreachable!("done above")
            }
        };
        if event.answer == Answer::Refused(Why::SessionGone) {
            self.sessions.lock().unwrap().remove(&who);
        }
        Some(event)
    }

    /// Asks for everything and for all changes, as the last word on a user.
    pub async fn final_word(&self, user: usize) -> [Event; 2] {
        let nobody = &mut Mind::default();
        let everything = self.sync(user, Since::Beginning, nobody).await;
        let start = nobody.tokens[user][0].at(Position::ZERO);
        nobody.tokens[user] = vec![start];
        [everything, self.sync(user, Since::Latest, nobody).await]
    }

    /// Removes all devices of a user, as an operator does; wakes everyone who waits.
    pub async fn remove_all(&self, user: usize) -> Event {
        let operator = self.operator(user);
        self.remove(&operator, DeviceSelection::All, false).await
    }

    /// Syncs along a chain of tokens.
    pub async fn sync(&self, user: usize, since: Since, mind: &mut Mind) -> Event {
        let (token, known) = mind.token(user, since);
        let call = Call::Sync(known.map(|token| token.position.0));
        let requester = self.operator(user);
        let began = self.begin().await;
        let mut snapshot = self.service.since(&requester, token).await.unwrap();
        if token.is_none() {
            let initial = self.service.initial(&requester).await.unwrap();
            let entries = snapshot.entries.iter().map(LiveEntry::of);
            // Others may have written in between.
            let is_same = initial.next != snapshot.next || initial.entries().eq(entries);
            assert!(is_same, "{initial:?}: {snapshot:?}");
            if initial.next == snapshot.next {
                // Judged as what was told, which it must be too.
                snapshot.push_rules = Some(initial.push_rules);
            }
        }
        self.told(&requester, began, call, &snapshot, mind).await
    }

    /// Asks for everything that there is (`full_state`).
    async fn everything(&self, user: usize, since: Since, mind: &mut Mind) -> Event {
        let (token, known) = mind.token(user, since);
        let call = Call::Everything(known.map(|token| token.position.0));
        let requester = self.operator(user);
        let began = self.begin().await;
        let snapshot = self.service.everything(&requester, token).await.unwrap();
        self.told(&requester, began, call, &snapshot, mind).await
    }

    async fn told(
        &self,
        requester: &Requester,
        began: u64,
        call: Call,
        snapshot: &Snapshot,
        mind: &mut Mind,
    ) -> Event {
        let told = told(snapshot);
        for entry in &told.entries {
            mind.learn(&requester.user, &entry.key, entry.text.clone());
        }
        let user = self.users.iter().position(|user| *user == requester.user);
        mind.tokens[user.unwrap()].push(snapshot.next);
        self.event(requester, began, call, Answer::Told(told)).await
    }

    /// Returns somebody who acts for a user without a device.
    fn operator(&self, user: usize) -> Requester {
        Requester {
            user: self.users[user].clone(),
            device: None,
            user_agent: None,
        }
    }

    async fn login(&self, who: Slot) -> Option<Event> {
        let device = who.device_id()?;
        let _alone = self.logins.write().await;
        let user = self.users[who.user].clone();
        let tokens = fresh_tokens();
        let kept = tokens.clone();
        let login = Login {
            verified_hash: PASSWORD_HASH.to_owned(),
            device: device.clone(),
            display_name: None,
            tokens,
            seen: Seen::default(),
        };
        let began = self.begin().await;
        let started = self.store.login(&user, login).await;
        let answer = match started {
            Ok(()) => {
                let session = self.store.session(&user, kept.access).await.unwrap();
                let session = session.expect("the session was just started");
                self.sessions
                    .lock()
                    .unwrap()
                    .insert(who, session.incarnation);
                self.tokens.lock().unwrap().insert(who, kept);
                Answer::LoggedIn(session.incarnation)
            }
            Err(LoginError::PasswordChanged) => Answer::Refused(Why::LoginRefused),
            Err(error) => unreachable!("a login failed: {error}"),
        };
        let requester = Requester {
            user,
            device: None,
            user_agent: None,
        };
        Some(
            self.event(&requester, began, Call::Login(device), answer)
                .await,
        )
    }

    fn draft(
        &self,
        requester: &Requester,
        key: &Key,
        make: Make,
        expect: Expect,
        mind: &Mind,
    ) -> (Arc<str>, Expectation) {
        let text = make.text(self.numbers.fetch_add(1, Ordering::SeqCst));
        let expectation = mind.expectation(&requester.user, key, expect);
        (text.into(), expectation)
    }

    async fn put(
        &self,
        requester: &Requester,
        call: Call,
        patience: Option<usize>,
        mind: &mut Mind,
    ) -> Event {
        let Call::Put(key, text, expectation) = call.clone() else {
            unreachable!("only puts are put");
        };
        let began = self.begin().await;
        let put = async {
            let permit = match self.service.permit(requester, key.clone()).await {
                Ok(permit) => permit,
                Err(error) => return forbidden(&error),
            };
            // A door reads the body meanwhile.
            self.dawdle(began).await;
            match permit.put(content(&text), expectation).await {
                Ok(position) => Answer::Written(Some(position.0)),
                Err(error) => refused(error),
            }
        };
        // What is told apart by its content only may stay without an answer.
        let answer = match patience.filter(|_| text.contains("\"n\":")) {
            Some(polls) => abandon_after(polls, put).await,
            None => Some(put.await),
        };
        let answer = answer.unwrap_or(Answer::Unknown);
        match &answer {
            Answer::Written(_) => mind.learn(&requester.user, &key, Some(text)),
            Answer::Refused(Why::Conflict(current)) => {
                mind.learn(&requester.user, &key, Some(Arc::clone(current)));
            }
            _ => {}
        }
        self.event(requester, began, call, answer).await
    }

    async fn erase(&self, requester: &Requester, call: Call, mind: &mut Mind) -> Event {
        let Call::Erase(key, expectation) = call.clone() else {
            unreachable!("only erasures erase");
        };
        let began = self.begin().await;
        let answer = match self.service.permit(requester, key.clone()).await {
            Ok(permit) => match permit.delete_expecting(expectation).await {
                Ok(position) => Answer::Written(Some(position.0)),
                Err(error) => refused(error),
            },
            Err(error) => forbidden(&error),
        };
        match &answer {
            Answer::Written(_) => mind.learn(&requester.user, &key, None),
            Answer::Refused(Why::Conflict(current)) => {
                mind.learn(&requester.user, &key, Some(Arc::clone(current)));
            }
            _ => {}
        }
        self.event(requester, began, call, answer).await
    }

    async fn edit(&self, requester: &Requester) -> Event {
        let number = self.numbers.fetch_add(1, Ordering::SeqCst);
        let began = self.begin().await;
        let edited = self.service.edit_push_rules(requester, noting(number));
        let answer = match edited.await {
            Ok(position) => Answer::Written(Some(position.0)),
            Err(PushRulesWriteError::Write(error)) => refused(error),
            Err(PushRulesWriteError::Refused(never)) => match never {},
        };
        self.event(requester, began, Call::Edit(number), answer)
            .await
    }

    /// Replaces the tokens of a session. What is refused says nothing: another caller of the device
    /// may have replaced them first.
    async fn refresh(&self, who: Slot, requester: &Requester) -> Option<Event> {
        let old = self.tokens.lock().unwrap().get(&who)?.refresh?;
        let tokens = fresh_tokens();
        let began = self.begin().await;
        let (new, seen) = (tokens.clone(), Seen::default());
        let replaced = self.store.refresh(&requester.user, old, tokens, seen).await;
        match replaced {
            Ok(()) => drop(self.tokens.lock().unwrap().insert(who, new)),
            Err(RefreshError::UnknownToken) => return None,
            Err(RefreshError::Store(error)) => unreachable!("a refresh failed: {error}"),
        }
        let event = self.event(requester, began, Call::Refresh, Answer::Done);
        Some(event.await)
    }

    async fn delete(&self, requester: &Requester, key: &Key) -> Event {
        let began = self.begin().await;
        let answer = match self.service.permit(requester, key.clone()).await {
            Ok(permit) => match permit.delete().await {
                Ok(position) => Answer::Written(position.map(|position| position.0)),
                Err(error) => refused(error),
            },
            Err(error) => forbidden(&error),
        };
        self.event(requester, began, Call::Delete(key.clone()), answer)
            .await
    }

    /// Reads an entry: every other time with its session in one look, if the token still has one.
    async fn get(&self, who: Slot, requester: &Requester, key: &Key, mind: &mut Mind) -> Event {
        let began = self.begin().await;
        let tokens = self.tokens.lock().unwrap().get(&who).cloned();
        let both = match tokens.filter(|_| began % 2 == 0) {
            Some(tokens) => {
                let (user, access) = (&requester.user, tokens.access);
                self.service
                    .get_in_session(user, access, key)
                    .await
                    .unwrap()
            }
            None => None,
        };
        let read = match both {
            Some((_, content)) => content.ok_or(GetError::NotFound),
            None => self.service.get(requester, key).await,
        };
        let value = match read {
            Ok(content) => Some(Arc::from(content.as_str())),
            Err(GetError::NotFound) => None,
            Err(GetError::Store(error)) => unreachable!("a read failed: {error}"),
        };
        mind.learn(&requester.user, key, value.clone());
        self.event(
            requester,
            began,
            Call::Get(key.clone()),
            Answer::Value(value),
        )
        .await
    }

    /// Removes devices by either door that names them, or with a change of the password.
    async fn remove(
        &self,
        requester: &Requester,
        selection: DeviceSelection,
        with_password: bool,
    ) -> Event {
        let _others = self.logins.read().await;
        let began = self.begin().await;
        let write = self.write(requester, began);
        let (user, at) = (&requester.user, write.at);
        let call = Call::Remove(selection.clone());
        let removed = if with_password {
            let (hash, logout) = (PASSWORD_HASH.to_owned(), Some(selection));
            let changed = self.store.set_password(user, write, hash, logout).await;
            changed.map(|()| None)
        } else {
            let removed = self.store.remove_devices(user, write, selection).await;
            removed.map(|mut devices| {
                devices.sort();
                Some(devices)
            })
        };
        let answer = removed.map_or_else(gone, Answer::Removed);
        Event {
            at,
            ..self.event(requester, began, call, answer).await
        }
    }

    async fn password(&self, requester: &Requester) -> Event {
        let began = self.begin().await;
        let (write, hash) = (self.write(requester, began), PASSWORD_HASH.to_owned());
        let changed = self
            .store
            .set_password(&requester.user, write, hash, None)
            .await;
        let answer = changed.map_or_else(gone, |()| Answer::Done);
        self.event(requester, began, Call::Password, answer).await
    }

    async fn deactivate(&self, requester: &Requester) -> Event {
        let began = self.begin().await;
        let write = self.write(requester, began);
        let ended = self.store.deactivate(&requester.user, write).await;
        let answer = ended.map_or_else(gone, |()| Answer::Done);
        self.event(requester, began, Call::Deactivate, answer).await
    }

    /// Returns the conditions of a removal. Its time is unlike all others, so that its tombstones
    /// can be told from others.
    fn write(&self, requester: &Requester, ticket: u64) -> Write {
        Write {
            guard: requester.guard(),
            writer: requester.writer(),
            at: self.clock.now_ms() + ticket,
            allowance: Allowance::Ordinary,
        }
    }

    fn requester(&self, who: Slot) -> Option<Requester> {
        let device = match who.device_id() {
            Some(device) => Some((device, *self.sessions.lock().unwrap().get(&who)?)),
            None => None,
        };
        Some(Requester {
            user: self.users[who.user].clone(),
            device,
            user_agent: None,
        })
    }

    fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::SeqCst)
    }

    /// Notes that an operation begins. Others may come before it does, as on a network.
    async fn begin(&self) -> u64 {
        let began = self.ticket();
        self.dawdle(began).await;
        began
    }

    async fn dawdle(&self, ticket: u64) {
        for _ in 0..ticket % 3 {
            tokio::task::yield_now().await;
        }
    }

    async fn event(&self, requester: &Requester, began: u64, call: Call, answer: Answer) -> Event {
        self.dawdle(began / 3).await;
        let ended = match answer {
            Answer::Unknown => u64::MAX,
            _ => self.ticket(),
        };
        Event {
            user: requester.user.clone(),
            who: requester.device.clone(),
            at: self.clock.now_ms(),
            began,
            ended,
            call,
            answer,
        }
    }
}
