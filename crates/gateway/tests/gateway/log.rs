//! The log of all tests: watched for secrets, and captured where a test asks for it.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Once;

use crate::support::PASSWORD;

/// What no line may hold: the password of all tests, and the start of Kitbag's tokens.
const SECRETS: [&str; 3] = [PASSWORD, "kt_", "ktr_"];

thread_local! {
    static CAPTURED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Watches everything that is logged from now on, at the finest level.
pub(crate) fn watch() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_writer(|| Watch)
            .with_ansi(false)
            .init();
    });
}

/// Captures what this thread logs, until it is dropped.
pub(crate) struct LogCapture(());

impl LogCapture {
    pub(crate) fn start() -> Self {
        watch();
        CAPTURED.set(Some(Vec::new()));
        Self(())
    }

    /// Returns the lines that have these words.
    pub(crate) fn lines(&self, words: &str) -> Vec<String> {
        let captured = CAPTURED.with_borrow(|captured| captured.clone().unwrap());
        let captured = String::from_utf8(captured).unwrap();
        let lines = captured.lines().filter(|line| line.contains(words));
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
        for secret in SECRETS {
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
