//! The log of all tests.

use kitbag_testkit::log;
use kitbag_testkit::log::LogCapture;

use crate::support::PASSWORD;

/// What no line may hold: the password of all tests, and what their tokens begin with, Kitbag's and
/// those that scripted homeservers take.
const SECRETS: &[&str] = &[PASSWORD, "kt_", "ktr_", "alice.", "bob."];

/// Watches everything that is logged from now on.
pub(crate) fn watch() {
    log::watch(SECRETS);
}

/// Captures what this thread logs, until it is dropped.
pub(crate) fn capture() -> LogCapture {
    LogCapture::start(SECRETS)
}
