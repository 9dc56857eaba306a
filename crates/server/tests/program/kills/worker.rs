//! What one client does, and what it notes of it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::mpsc::Sender;

use kitbag_testkit::dice::Dice;
use kitbag_testkit::linear::{Marks, Operation};
use serde_json::{Value, json};

use super::DEVICES;
use super::session::{Device, Doubt, PASSWORD, Record, Session};
use crate::support::{Answer, Client};

const C3: &str = "/_matrix/client/v3";
const MSC3391: &str = "/_matrix/client/unstable/org.matrix.msc3391";
const DEVICE_DATA: &str = "org.matrix.msc4331.device_account_data";
/// Types of entries in each scope.
const TYPES: usize = 2;
/// How long some syncs wait: longer than most rounds last.
const SYNC_TIMEOUT_MS: u64 = 2_000;
/// Tokens of syncs that are kept to be used once more; the first one of all is among them.
const LINKS_MAX: usize = 6;
/// What is shown of an answer: the push rules that an initial sync tells are of no interest.
const TOLD_CHARS_MAX: usize = 300;
const REVISION: &str = "m.revision_id";

/// A client of one device.
pub(super) struct Worker<'a> {
    pub(super) device: &'a Device,
    pub(super) log: Vec<Operation>,
    pub(super) counts: BTreeMap<&'static str, usize>,
    record: &'a Record,
    /// Whether it is the one of its device that logs in and out.
    leads: bool,
    dice: Dice,
    client: Option<Client>,
    chain: Vec<Link>,
    /// The revisions that it saw last.
    revisions: HashMap<String, String>,
    /// Tokens of which it knows that they are dead.
    dead: Vec<String>,
    is_server_gone: bool,
}

/// A token of a sync, and all that the chain up to it told.
#[derive(Clone)]
struct Link {
    token: String,
    told: BTreeMap<String, String>,
    /// Whether the token stands at what was told, and not before it.
    is_exact: bool,
}

/// An entry: the cell that it is in the history, and where it is on the wire.
struct Entry {
    cell: String,
    path: String,
}

/// What came of a request.
enum Said {
    Done(Answer),
    Conflict(Answer),
    NotFound,
    NotIn,
    /// It may have been done.
    Nothing,
}

impl<'a> Worker<'a> {
    pub(super) fn new(record: &'a Record, device: &'a Device, leads: bool, dice: Dice) -> Self {
        Self {
            device,
            log: Vec::new(),
            counts: BTreeMap::new(),
            record,
            leads,
            dice,
            client: None,
            chain: Vec::new(),
            revisions: HashMap::new(),
            dead: Vec::new(),
            is_server_gone: false,
        }
    }

    /// Works until the server is gone; tells of each answer.
    pub(super) fn work(&mut self, address: SocketAddr, done: &Sender<()>) {
        self.meet(address);
        while !self.is_server_gone {
            let has_session = self.step();
            if has_session && !self.is_server_gone && done.send(()).is_err() {
                break;
            }
        }
    }

    /// Notes that what has got no answer by now will not happen any more.
    pub(super) fn server_died(&mut self, now: u64) {
        let open = self.log.iter_mut().rev();
        for one in open.filter(|one| one.ended == u64::MAX) {
            one.ended = now;
        }
    }

    /// Looks at everything once more, by every token that it has.
    pub(super) fn last_word(&mut self, address: SocketAddr) {
        self.meet(address);
        while self.leads && !self.has_session() {
            self.step();
            assert!(!self.is_server_gone);
        }
        self.sync(None, 0, false);
        for link in self.chain.clone() {
            self.sync(Some(link), 0, false);
        }
        for entry in self.entries() {
            self.get(&entry);
        }
        for token in std::mem::take(&mut self.dead) {
            let answer = self.ask(Some(&token), "GET", &format!("{C3}/account/whoami"), "");
            assert_eq!(answer.unwrap().status, 401, "a dead token lives again");
        }
    }

    fn meet(&mut self, address: SocketAddr) {
        self.client = Some(Client::new(address));
        self.is_server_gone = false;
    }

    fn has_session(&self) -> bool {
        let session = self.device.session();
        session.token.is_some() && session.doubt.is_none()
    }

    /// Does one thing; returns false where it can but wait for a session.
    fn step(&mut self) -> bool {
        let session = self.device.session();
        match (self.leads, session.doubt, &session.token) {
            (true, Some(doubt), Some(_)) => self.look_whether(doubt),
            (true, _, None) => self.login(),
            (false, _, None) => {
                self.is_server_gone = self.ask(None, "GET", "/health", "").is_none();
                return false;
            }
            _ => self.act(),
        }
        true
    }

    fn act(&mut self) {
        let entries = self.entries();
        let mut entry = &entries[self.dice.below(entries.len())];
        let own = format!("device {} ", self.device.name);
        let is_writable =
            |entry: &Entry| !entry.cell.starts_with("device ") || entry.cell.starts_with(&own);
        match self.dice.below(100) {
            drawn @ 0..45 => {
                while !is_writable(entry) {
                    entry = &entries[self.dice.below(entries.len())];
                }
                match drawn {
                    0..20 => self.put(entry, false),
                    20..37 => self.put(entry, true),
                    _ => self.delete(entry),
                }
            }
            45..65 => self.get(entry),
            65..92 => {
                let link = match self.dice.below(10) {
                    0 => None,
                    1 | 2 if !self.chain.is_empty() => {
                        Some(self.chain[self.dice.below(self.chain.len())].clone())
                    }
                    _ => self.chain.last().cloned(),
                };
                let timeout_ms = if self.dice.chance(20) {
                    SYNC_TIMEOUT_MS
                } else {
                    0
                };
                let is_full_state = self.dice.chance(5);
                self.sync(link, timeout_ms, is_full_state);
            }
            92..95 if self.leads => self.logout(),
            95..97 if self.leads => self.login(),
            97.. if self.leads => self.refresh(),
            _ => self.get(entry),
        }
    }

    fn put(&mut self, entry: &Entry, is_swap: bool) {
        let number = self.record.number();
        let (mut content, mut marks) = (json!({"n": number}), Marks::new());
        if self.dice.chance(75) {
            let revision = format!("r{number}");
            content[REVISION] = revision.as_str().into();
            marks.push((REVISION, revision.into()));
        }
        let (mut path, mut expected) = (format!("{C3}{}", entry.path), Marks::new());
        if is_swap {
            let last = self.revisions.get(&entry.cell);
            let last = last.cloned().unwrap_or_else(|| "none".to_owned());
            path += &format!("?expect_revision_id={last}");
            expected.push((REVISION, last.into()));
        }
        let text = content.to_string();
        let session = self.device.session();
        let (said, plain) = self.request(&session, "PUT", &path, &text);
        let plain = self.guarded(plain, &session);
        let label = plain.label.clone();
        match said {
            Said::Done(_) | Said::Nothing => {
                let plain = plain.finds_allowed(&entry.cell, expected);
                self.log.push(plain.puts(&entry.cell, &text, marks));
                if matches!(said, Said::Done(_)) {
                    self.count(if is_swap { "swap" } else { "put" });
                    self.learn(entry, Some(&text));
                }
            }
            Said::Conflict(answer) => {
                let current = answer.json()["current_content"].to_string();
                let plain = plain.sees(&entry.cell, Some(&current));
                self.log.push(plain.finds_refused(&entry.cell, expected));
                self.count("conflict");
                self.learn(entry, Some(&current));
            }
            Said::NotIn => {}
            Said::NotFound => panic!("{label}"),
        }
    }

    fn delete(&mut self, entry: &Entry) {
        let session = self.device.session();
        let path = format!("{MSC3391}{}", entry.path);
        let (said, plain) = self.request(&session, "DELETE", &path, "");
        match said {
            Said::Done(_) | Said::Nothing => {
                let plain = self.guarded(plain, &session);
                self.log.push(plain.clears(&entry.cell));
                self.count("delete");
            }
            Said::NotIn => {}
            Said::Conflict(_) | Said::NotFound => panic!("{plain}"),
        }
    }

    fn get(&mut self, entry: &Entry) {
        let session = self.device.session();
        let path = format!("{C3}{}", entry.path);
        let (said, plain) = self.request(&session, "GET", &path, "");
        match said {
            Said::Done(answer) => {
                self.log.push(plain.sees(&entry.cell, Some(&answer.body)));
                self.learn(entry, Some(&answer.body));
                self.count("get");
            }
            Said::NotFound => {
                self.log.push(plain.sees(&entry.cell, None));
                self.learn(entry, None);
            }
            Said::NotIn | Said::Nothing => {}
            Said::Conflict(_) => panic!("{plain}"),
        }
    }

    fn sync(&mut self, since: Option<Link>, timeout_ms: u64, is_full_state: bool) {
        let session = self.device.session();
        let mut path = format!("{C3}/sync?timeout={timeout_ms}&full_state={is_full_state}");
        if let Some(link) = &since {
            path += &format!("&since={}", link.token);
        }
        let (said, plain) = self.request(&session, "GET", &path, "");
        let answer = match said {
            Said::Done(answer) => answer.json(),
            Said::NotIn | Said::Nothing => return,
            Said::Conflict(_) | Said::NotFound => panic!("{plain}"),
        };
        self.count("sync");
        let since = since.filter(|_| !is_full_state);
        let mut told = since
            .as_ref()
            .map_or(BTreeMap::new(), |link| link.told.clone());
        for (cell, content) in events(&answer) {
            let text = content.to_string();
            if text == "{}" {
                told.remove(&cell);
                continue;
            }
            let old = told.insert(cell, text.clone());
            let may_repeat = since.as_ref().is_none_or(|link| !link.is_exact);
            assert!(
                may_repeat || old.as_ref() != Some(&text),
                "told though it did not change: {plain}"
            );
        }
        let in_view = self
            .entries()
            .into_iter()
            .filter(|entry| !entry.cell.starts_with("room "));
        let snapshot = in_view.fold(plain, |plain, entry| {
            plain.sees(&entry.cell, told.get(&entry.cell).map(String::as_str))
        });
        self.log.push(snapshot);
        if self.chain.len() == LINKS_MAX {
            self.chain.remove(1 + self.dice.below(LINKS_MAX - 1));
        }
        let token = answer["next_batch"].as_str().unwrap().to_owned();
        self.chain.push(Link {
            token,
            told,
            is_exact: !is_full_state,
        });
    }

    fn login(&mut self) {
        let device = self.device;
        let before = device.session();
        let body = json!({
            "type": "m.login.password", "user": device.user, "password": PASSWORD,
            "device_id": device.name, "refresh_token": true,
        });
        let number = self.record.number();
        let stranger = Session::default();
        let path = format!("{C3}/login");
        let (said, plain) = self.request(&stranger, "POST", &path, &body.to_string());
        let label = plain.label.clone();
        let login = plain.puts(&device.login_cell(), &number.to_string(), Marks::new());
        let incarnation = before.device.to_string();
        self.log
            .push(login.puts(&device.device_cell(), &incarnation, Marks::new()));
        let mut session = device.session.lock().unwrap();
        match said {
            Said::Done(answer) => {
                let answer = answer.json();
                let token = |name: &str| answer[name].as_str().map(str::to_owned);
                self.dead.extend(session.token.take());
                session.token = token("access_token");
                session.refresh = token("refresh_token");
                session.login = number;
                drop(session);
                self.count("login");
            }
            Said::Nothing => session.doubt = session.token.is_some().then_some(Doubt::Login),
            _ => panic!("{label}"),
        }
    }

    fn logout(&mut self) {
        let device = self.device;
        let session = device.session();
        let (said, plain) = self.request(&session, "POST", &format!("{C3}/logout"), "{}");
        let own = format!("device {} ", device.name);
        let entries = self.entries().into_iter();
        let mut plain = self.guarded(plain, &session);
        for entry in entries.filter(|entry| entry.cell.starts_with(&own)) {
            plain = plain.clears(&entry.cell);
        }
        let plain = plain
            .clears(&device.device_cell())
            .clears(&device.login_cell());
        match said {
            Said::Done(_) => {
                self.log.push(plain);
                self.count("logout");
                self.forget_device();
            }
            Said::Nothing => {
                self.log.push(plain);
                device.session.lock().unwrap().doubt = Some(Doubt::Logout);
            }
            _ => panic!("{plain}"),
        }
    }

    /// Looks whether the token still lives after a request that got no answer.
    fn look_whether(&mut self, doubt: Doubt) {
        let session = self.device.session();
        let (said, plain) = self.request(&session, "GET", &format!("{C3}/account/whoami"), "");
        match (said, doubt) {
            (Said::Done(_), _) => self.device.session.lock().unwrap().doubt = None,
            (Said::NotIn, Doubt::Logout) => self.forget_device(),
            (Said::NotIn, Doubt::Login) => {
                let mut session = self.device.session.lock().unwrap();
                session.doubt = None;
                self.dead.extend(session.token.take());
            }
            (Said::Nothing, _) => {}
            _ => panic!("{plain}"),
        }
    }

    fn forget_device(&mut self) {
        let mut session = self.device.session.lock().unwrap();
        self.dead.extend(session.token.take());
        *session = Session {
            device: session.device + 1,
            ..Session::default()
        };
    }

    /// Replaces the tokens; without an answer the old ones stay good.
    fn refresh(&mut self) {
        let session = self.device.session();
        let body = json!({"refresh_token": session.refresh}).to_string();
        let path = format!("{C3}/refresh");
        let (said, plain) = self.request(&Session::default(), "POST", &path, &body);
        match said {
            Said::Done(answer) => {
                let answer = answer.json();
                let token = |name: &str| answer[name].as_str().map(str::to_owned);
                let mut session = self.device.session.lock().unwrap();
                session.token = token("access_token");
                session.refresh = token("refresh_token");
                drop(session);
                self.count("refresh");
            }
            Said::Nothing => {}
            _ => panic!("{plain}"),
        }
    }

    /// Sends a request; notes what the answer says of the session, and returns what else it says
    /// with an operation of its time.
    fn request(
        &mut self,
        session: &Session,
        method: &str,
        path: &str,
        body: &str,
    ) -> (Said, Operation) {
        let began = self.record.ticket();
        let token = session.token.as_deref();
        let answer = self.ask(token, method, path, body);
        let ended = self.record.ticket();
        let Device { user, name, .. } = self.device;
        let told = answer.as_ref().map_or("nothing".to_owned(), |answer| {
            let start: String = answer.body.chars().take(TOLD_CHARS_MAX).collect();
            format!("{} {start}", answer.status)
        });
        let label = format!("{user} {name} {method} {path} {body} -> {told}");
        let plain = Operation::new(label, began, ended);
        self.count("request");
        let Some(answer) = answer.filter(|answer| answer.status != 503) else {
            self.count("maybe");
            let mut open = plain.maybe();
            open.ended = u64::MAX;
            return (Said::Nothing, open);
        };
        let login = session.login.to_string();
        let said = match answer.status {
            200 => Said::Done(answer),
            404 => Said::NotFound,
            409 => Said::Conflict(answer),
            401 => {
                // After a refresh the tokens before it are dead though the login lives.
                let now = self.device.session();
                let is_refreshed = now.login == session.login && now.token != session.token;
                if token.is_some() && (!is_refreshed || now.token.is_none()) {
                    let cell = self.device.login_cell();
                    self.log.push(plain.clone().sees_other(&cell, &login));
                    self.count("token refused");
                }
                return (Said::NotIn, plain);
            }
            _ => panic!("{plain}"),
        };
        if token.is_some() {
            let cell = self.device.login_cell();
            self.log.push(plain.clone().sees(&cell, Some(&login)));
        }
        (said, plain)
    }

    /// Returns the answer; none where it did not come, or not to its end.
    fn ask(&mut self, token: Option<&str>, method: &str, path: &str, body: &str) -> Option<Answer> {
        let mut client = self.client.clone().expect("it has met the server");
        client.token = token.map(str::to_owned);
        let answer = client.try_send(method, path, body).ok();
        let is_whole = |answer: &Answer| serde_json::from_str::<Value>(&answer.body).is_ok();
        let answer = answer.filter(is_whole);
        self.is_server_gone = answer.is_none();
        answer
    }

    /// The device was there when it wrote.
    fn guarded(&self, plain: Operation, session: &Session) -> Operation {
        plain.sees(
            &self.device.device_cell(),
            Some(&session.device.to_string()),
        )
    }

    fn learn(&mut self, entry: &Entry, text: Option<&str>) {
        let content: Option<Value> = text.map(|text| serde_json::from_str(text).unwrap());
        let revision = content.and_then(|content| Some(content[REVISION].as_str()?.to_owned()));
        let cell = entry.cell.clone();
        match revision {
            Some(revision) => drop(self.revisions.insert(cell, revision)),
            None => drop(self.revisions.remove(&cell)),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Returns all entries that the user may have.
    fn entries(&self) -> Vec<Entry> {
        let mut scopes = vec![
            ("global".to_owned(), String::new()),
            ("room".to_owned(), "/rooms/!r".to_owned()),
        ];
        let devices = (0..DEVICES).map(|number| format!("D{number}"));
        scopes.extend(devices.map(|name| (format!("device {name}"), format!("/devices/{name}"))));
        let user = format!("/user/@{}:localhost", self.device.user);
        let mut entries = Vec::new();
        for (scope, place) in scopes {
            entries.extend((0..TYPES).map(|number| Entry {
                cell: format!("{scope} t{number}"),
                path: format!("{user}{place}/account_data/t{number}"),
            }));
        }
        entries
    }
}

/// Returns the cells of all entries that devices of a user may have.
pub(super) fn device_cells() -> impl Iterator<Item = String> {
    let devices = (0..DEVICES).flat_map(|device| (0..TYPES).map(move |number| (device, number)));
    devices.map(|(device, number)| format!("device D{device} t{number}"))
}

/// Returns the entries that a sync told, without those of the server's own making.
fn events(answer: &Value) -> Vec<(String, &Value)> {
    let mut scopes = vec![("global".to_owned(), &answer["account_data"])];
    if let Some(devices) = answer[DEVICE_DATA].as_object() {
        let devices = devices.iter();
        scopes.extend(devices.map(|(name, told)| (format!("device {name}"), told)));
    }
    let mut all = Vec::new();
    for (scope, told) in scopes {
        for event in told["events"].as_array().into_iter().flatten() {
            let kind = event["type"].as_str().unwrap();
            if kind != "m.push_rules" {
                all.push((format!("{scope} {kind}"), &event["content"]));
            }
        }
    }
    all
}
