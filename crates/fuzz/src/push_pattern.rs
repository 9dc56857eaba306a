//! Glob patterns of push rules.

use std::time::{Duration, Instant};

use kitbag_push::Pattern;

use crate::naive_push;

/// What a pattern and a value of this many bytes take is microseconds, and with a pattern that is
/// tried in every way it is years.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Reads a line with a pattern and then a value; compares with a table filled row by row, for whole
/// values and between boundaries of words.
pub fn push_pattern(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Some((pattern, value)) = text.split_once('\n') else {
        return;
    };
    let started = Instant::now();
    let whole = Pattern::whole(pattern).matches(value);
    let words = Pattern::words(pattern).matches(value);
    assert!(started.elapsed() < TIME_MAX, "{:?}", started.elapsed());
    assert_eq!(
        whole,
        naive_push::matches(pattern, value),
        "{pattern:?} is {value:?}"
    );
    let is_within = naive_push::matches_words(pattern, value);
    assert_eq!(words, is_within, "{pattern:?} in {value:?}");
    assert!(words || !whole, "the whole stands between two boundaries");
}
