//! A JSON pointer: what is one, and what it finds in a content.

use bytes::Bytes;
use kitbag_domain::{Content, Limits, Pointer, limit};
use serde_json::Value;

/// Reads a line with a pointer and then a content; compares what the pointer finds with what
/// `serde_json` finds in the content as a `Value`.
pub fn pointer(input: &[u8]) {
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let (Some(text), Some(content)) = (lines.next(), lines.next()) else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let parsed = Pointer::parse(text);
    assert_eq!(parsed.is_ok(), is_pointer(text), "{text:?}");
    let Ok(pointer) = parsed else {
        return;
    };
    assert_eq!(pointer.as_str(), text);
    let Ok(content) = Content::parse(Bytes::copy_from_slice(content), &Limits::default()) else {
        return;
    };
    let found = pointer.find(&content);
    if let Some(found) = found {
        assert!(content.as_str().contains(found));
        assert_eq!(found.trim(), found, "nothing around the value");
    }
    let Ok(value) = serde_json::from_str::<Value>(content.as_str()) else {
        return;
    };
    let found = found.map(|text| serde_json::from_str::<Value>(text).unwrap());
    assert_eq!(found.as_ref(), value.pointer(text), "{text:?} in {value}");
}

fn is_pointer(text: &str) -> bool {
    let rest = text.replace("~0", "x").replace("~1", "x");
    let is_written = text.is_empty() || text.starts_with('/');
    is_written
        && !rest.contains('~')
        && text.len() <= limit::POINTER_BYTES_MAX
        && text.matches('/').count() <= limit::POINTER_NAMES_MAX
}
