use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const PASSWORD: &str = "wordpass";

/// The clock of the history, and numbers that make contents and sessions unlike each other.
#[derive(Default)]
pub(super) struct Record {
    tickets: AtomicU64,
    numbers: AtomicU64,
}

impl Record {
    pub(super) fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// A device, and what its workers know together of its session.
pub(super) struct Device {
    pub(super) user: &'static str,
    pub(super) name: String,
    pub(super) session: Mutex<Session>,
}

/// What is known of a session.
#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    pub(super) token: Option<String>,
    pub(super) refresh: Option<String>,
    /// Which login the token is of; a refresh changes nothing of that.
    pub(super) login: u64,
    /// Which device of this name it is: a logout ends it, the next login makes another one.
    pub(super) device: u64,
    /// What got no answer, so that the token may be dead.
    pub(super) doubt: Option<Doubt>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    Login,
    Logout,
}

impl Device {
    pub(super) fn new(user: &'static str, number: usize) -> Self {
        Self {
            user,
            name: format!("D{number}"),
            session: Mutex::default(),
        }
    }

    pub(super) fn session(&self) -> Session {
        self.session.lock().unwrap().clone()
    }

    /// The cell that holds which device of this name there is.
    pub(super) fn device_cell(&self) -> String {
        format!("device {}", self.name)
    }

    /// The cell that holds whose login's tokens are good.
    pub(super) fn login_cell(&self) -> String {
        format!("login of {}", self.name)
    }
}
