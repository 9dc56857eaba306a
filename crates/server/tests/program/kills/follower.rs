//! Who follows the device data of all users through the admin API, across all kills.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use kitbag_testkit::dice::Dice;
use kitbag_testkit::linear::Operation;
use serde_json::Value;

use super::session::Record;
use super::worker::device_cells;
use super::{ADMIN_TOKEN, USERS};
use crate::support::{Client, Server};

const V1: &str = "/_kitbag/admin/v1";
/// How long it waits for a change: longer than most rounds last.
const TIMEOUT_MS: u64 = 2_000;

/// Keeps what the feed tells, and notes it as what it saw of each user.
pub(super) struct Follower<'a> {
    /// By user, in the order of [`USERS`].
    pub(super) logs: [Vec<Operation>; USERS.len()],
    pub(super) changes: usize,
    record: &'a Record,
    dice: Dice,
    since: Option<String>,
    /// Contents by user ID and cell.
    told: BTreeMap<(String, String), String>,
}

impl<'a> Follower<'a> {
    pub(super) fn new(record: &'a Record, dice: Dice) -> Self {
        Self {
            logs: Default::default(),
            changes: 0,
            record,
            dice,
            since: None,
            told: BTreeMap::new(),
        }
    }

    /// Returns where the admin API of a server is.
    pub(super) fn address(server: &Server) -> SocketAddr {
        let base = server.line("admin API:");
        let address = base.trim_start_matches("http://").trim_end_matches(V1);
        address.parse().unwrap()
    }

    /// Follows until the server is gone.
    pub(super) fn follow(&mut self, address: SocketAddr) {
        loop {
            let timeout_ms = [0, TIMEOUT_MS][self.dice.below(2)];
            if self.page(address, timeout_ms).is_none() {
                break;
            }
        }
    }

    /// Hears what is left to be told, and then all of it again from the beginning.
    pub(super) fn last_word(&mut self, address: SocketAddr) {
        let hear = |follower: &mut Self| while follower.page(address, 0).unwrap() {};
        hear(self);
        let told = std::mem::take(&mut self.told);
        self.since = None;
        hear(self);
        assert_eq!(self.told, told, "what was followed is what there is");
    }

    /// Asks for a page; tells whether there are more, `None` where no answer came.
    fn page(&mut self, address: SocketAddr, timeout_ms: u64) -> Option<bool> {
        let mut client = Client::new(address);
        client.token = Some(ADMIN_TOKEN.to_owned());
        let limit = 1 + self.dice.below(20);
        let mut path = format!("{V1}/changes?limit={limit}&timeout={timeout_ms}");
        if let Some(since) = &self.since {
            path += &format!("&since={since}");
        }
        let began = self.record.ticket();
        let answer = client.try_send("GET", &path, "").ok()?;
        let ended = self.record.ticket();
        let page: Value = serde_json::from_str(&answer.body).ok()?;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        // No deletion is collected here: so a number that was told would have been lost.
        let starts_anew = page["starts_anew"] == true;
        assert_eq!(starts_anew, self.since.is_none(), "{path}: {answer:?}");
        for change in page["changes"].as_array().unwrap() {
            self.hear(change);
        }
        self.since = Some(page["next_batch"].as_str().unwrap().to_owned());
        let has_more = page["has_more"] == true;
        if !has_more {
            self.note(&format!("GET {path} -> {}", answer.body), began, ended);
        }
        Some(has_more)
    }

    fn hear(&mut self, change: &Value) {
        let text = |name: &str| change[name].as_str().unwrap();
        let cell = format!("device {} {}", text("device_id"), text("type"));
        let place = (text("user_id").to_owned(), cell);
        match change.get("content") {
            Some(content) => self.told.insert(place, content.to_string()),
            None => self.told.remove(&place),
        };
        self.changes += 1;
    }

    /// At the end of the stream, what was told is what there is: at one moment for all users.
    fn note(&mut self, label: &str, began: u64, ended: u64) {
        for (user, log) in USERS.iter().zip(&mut self.logs) {
            let id = format!("@{user}:localhost");
            let seen = Operation::new(format!("follower, {user}: {label}"), began, ended);
            log.push(device_cells().fold(seen, |seen, cell| {
                let told = self.told.get(&(id.clone(), cell.clone()));
                seen.sees(&cell, told.map(String::as_str))
            }));
        }
    }
}
