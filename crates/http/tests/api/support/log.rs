//! The log of all tests.

use kitbag_testkit::log;
pub(crate) use kitbag_testkit::log::LogCapture;

use super::{ADMIN_TOKEN, PASSWORD};

/// What no line may hold: the password and the admin token that all tests use, and the start of any
/// other token.
const SECRETS: &[&str] = &[PASSWORD, ADMIN_TOKEN, "kt_", "ktr_"];

/// Watches everything that is logged from now on.
pub(crate) fn watch() {
    log::watch(SECRETS);
}

/// Captures what this thread logs, until it is dropped.
pub(crate) fn capture() -> LogCapture {
    LogCapture::start(SECRETS)
}
