//! Compare-and-swap: which revision a stored content has.

use bytes::Bytes;
use kitbag_domain::{Content, Expectation, Limits, conflicts};
use serde_json::Value;

/// Reads two lines with the revisions that a writer expects, a lone `-` being none, and then a
/// content; compares what conflicts with what is plain from the content as a `Value`.
pub fn revision(input: &[u8]) {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let (Some(stable), Some(unstable), Some(content)) = (lines.next(), lines.next(), lines.next())
    else {
        return;
    };
    let Ok(content) = Content::parse(Bytes::copy_from_slice(content), &Limits::default()) else {
        return;
    };
    let expected = |line: &[u8]| match std::str::from_utf8(line) {
        Ok("-") | Err(_) => None,
        Ok(line) => Some(line.to_owned()),
    };
    let expectation = Expectation {
        stable: expected(stable),
        unstable: expected(unstable),
    };
    let conflict = conflicts(Some(&content), &expectation);
    assert!(!conflicts(None, &expectation), "nothing stored");
    assert!(!conflicts(Some(&content), &Expectation::default()));
    let Ok(value) = serde_json::from_str::<Value>(content.as_str()) else {
        return;
    };
    let differs = |expected: &Option<String>, name| match (expected, value[name].as_str()) {
        (Some(expected), Some(stored)) => expected != stored,
        _ => false,
    };
    let plain = differs(&expectation.stable, "m.revision_id")
        || differs(&expectation.unstable, "com.beeper.revision_id");
    assert_eq!(conflict, plain, "{expectation:?} {value}");
}
