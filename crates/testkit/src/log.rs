//! The log of all tests of a binary: watched for secrets, and captured where a test asks for it.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::OnceLock;

use tracing_subscriber::filter::LevelFilter;

/// What no line may hold; set by the first who watches.
static SECRETS: OnceLock<&'static [&'static str]> = OnceLock::new();

thread_local! {
    static CAPTURED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Watches everything that is logged from now on, at the finest level: whoever logs one of the secrets
/// panics.
///
/// # Panics
/// Where others are watched for already.
pub fn watch(secrets: &'static [&'static str]) {
    let known = SECRETS.get_or_init(|| {
        tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_writer(|| Watch)
            .with_ansi(false)
            .init();
        secrets
    });
    assert_eq!(*known, secrets, "one list for all tests of a binary");
}

/// Checks that a token of a test is one of the secrets, or holds one, where any are watched for.
///
/// # Panics
/// Where it is not: then nobody would see it in the log.
pub(crate) fn assert_watched(token: &str) {
    let secrets = SECRETS.get().copied().unwrap_or_default();
    let is_watched = secrets.iter().any(|secret| token.contains(secret));
    assert!(
        is_watched || secrets.is_empty(),
        "the log is not watched for the token {token}"
    );
}

/// Captures what this thread logs, until it is dropped.
#[derive(Debug)]
pub struct LogCapture(());

impl LogCapture {
    /// Begins; the log is watched too, as by [`watch`].
    #[must_use]
    pub fn start(secrets: &'static [&'static str]) -> Self {
        watch(secrets);
        CAPTURED.set(Some(Vec::new()));
        Self(())
    }

    /// Returns all that was logged so far.
    #[must_use]
    pub fn text(&self) -> String {
        let captured = CAPTURED.with_borrow(|captured| captured.clone().unwrap());
        String::from_utf8(captured).unwrap()
    }

    /// Returns the lines that have these words.
    #[must_use]
    pub fn lines(&self, words: &str) -> Vec<String> {
        let text = self.text();
        let lines = text.lines().filter(|line| line.contains(words));
        lines.map(str::to_owned).collect()
    }
}

impl Drop for LogCapture {
    fn drop(&mut self) {
        CAPTURED.set(None);
    }
}

struct Watch;

impl Write for Watch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        for secret in SECRETS.get().copied().unwrap_or_default() {
            assert!(!line.contains(secret), "a secret in the log: {line}");
        }
        CAPTURED.with_borrow_mut(|captured| {
            if let Some(captured) = captured {
                captured.extend_from_slice(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
