//! The two wishes of whoever runs the tests.

/// Tells whether `KITBAG_TEST_LONG=1` asks for the long form: many seeds instead of a few seconds.
#[must_use]
pub fn is_long() -> bool {
    variable("KITBAG_TEST_LONG").is_some_and(|value| value == "1")
}

/// Returns the one seed that `KITBAG_TEST_SEED` asks to run again.
///
/// # Panics
/// Where it is no number.
#[must_use]
pub fn seed() -> Option<u64> {
    let text = variable("KITBAG_TEST_SEED")?;
    Some(text.parse().expect("KITBAG_TEST_SEED is a number"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where tests read their environment"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
