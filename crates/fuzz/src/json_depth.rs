//! The check that a body is one JSON object, and how deep it nests.

use bytes::Bytes;
use kitbag_domain::{Content, ContentError, Limits};
use serde_json::Value;

use crate::naive_json::{self, Kind};

/// Reads a content and compares with `serde_json` and with a reader that simply recurses: what is
/// accepted, how deep it is, which bytes are kept.
pub fn json_depth(input: &[u8]) {
    if input.len() > naive_json::BYTES_MAX {
        return;
    }
    let read = parse(input, usize::MAX);
    if let Ok(value) = serde_json::from_slice::<Value>(input) {
        assert_eq!(read.is_ok(), value.is_object(), "as serde_json sees it");
        if let (Ok(content), Some(object)) = (&read, value.as_object()) {
            assert_eq!(content.is_empty_object(), object.is_empty());
        }
    }
    let depth = match naive_json::kind(input) {
        None => {
            assert_eq!(read, Err(ContentError::NotJson));
            return;
        }
        Some(Kind::Other) => {
            assert_eq!(read, Err(ContentError::NotObject));
            return;
        }
        Some(Kind::Object(depth)) => depth,
    };
    let content = read.unwrap();
    let kept = naive_json::trim(input);
    assert_eq!(content.bytes(), kept);
    assert_eq!(content.as_str().as_bytes(), kept);
    assert_eq!(parse(input, depth).as_ref(), Ok(&content), "{depth}");
    let limit = depth - 1;
    assert_eq!(parse(input, limit), Err(ContentError::TooDeep { limit }));
    assert_eq!(parse(content.bytes(), depth), Ok(content));
}

fn parse(text: &[u8], json_depth_max: usize) -> Result<Content, ContentError> {
    let limits = Limits {
        json_depth_max,
        ..Limits::default()
    };
    Content::parse(Bytes::copy_from_slice(text), &limits)
}
