//! The check that a body is one JSON object, without building it.

use serde::de::IgnoredAny;

/// Why bytes are not an acceptable JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonError {
    /// Not UTF-8, not JSON, or more than one value.
    NotJson,
    /// A JSON value of another kind.
    NotObject,
    /// Nested deeper than the limit.
    TooDeep,
}

/// Returns where the object stands in `bytes`: from `{` to `}`, without the white space around it.
///
/// Duplicate keys and numbers of any size are accepted: account data is not canonical JSON.
pub(crate) fn check_object(
    bytes: &[u8],
    depth_max: usize,
) -> Result<std::ops::Range<usize>, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|_| JsonError::NotJson)?;
    // The scanner comes first: it bounds what a recursive reader would meet afterwards.
    if may_nest_below(bytes, depth_max) && depth(bytes) > depth_max {
        return Err(JsonError::TooDeep);
    }
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| JsonError::NotJson)?;
    let whitespace = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let start = bytes.iter().take_while(|byte| whitespace(byte)).count();
    let end = bytes.len()
        - bytes
            .iter()
            .rev()
            .take_while(|byte| whitespace(byte))
            .count();
    if bytes[start] == b'{' {
        Ok(start..end)
    } else {
        Err(JsonError::NotObject)
    }
}

/// Tells whether there are brackets enough to nest deeper than `depth_max`.
///
/// Most contents have fewer. Counting is some twenty times quicker than telling what is in strings.
fn may_nest_below(bytes: &[u8], depth_max: usize) -> bool {
    // The two differ in one bit. A part is so short that its count fits into a byte.
    let is_opening = |byte: &u8| u8::from(byte | 0x20 == b'{');
    let parts = bytes.chunks(usize::from(u8::MAX));
    let counts = parts.map(|part| usize::from(part.iter().map(is_opening).sum::<u8>()));
    counts.sum::<usize>() > depth_max
}

/// Returns how deep brackets nest outside of strings; what is not JSON has a depth too.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in bytes {
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<&str, JsonError> {
        check_object(text.as_bytes(), 3).map(|range| &text[range])
    }

    #[test]
    fn keeps_everything_between_the_braces() {
        assert_eq!(
            check(" \r\n\t{ \"a\" : 1e999, \"a\":-0.0 } \n"),
            Ok("{ \"a\" : 1e999, \"a\":-0.0 }")
        );
        assert_eq!(
            check(r#"{"\ud800":"\ud800"}"#),
            Ok(r#"{"\ud800":"\ud800"}"#)
        );
    }

    #[test]
    fn other_values_are_not_objects() {
        for text in ["[]", "1", "\"{}\"", "null", " true "] {
            assert_eq!(check(text), Err(JsonError::NotObject), "{text}");
        }
    }

    #[test]
    fn what_does_not_parse_is_not_json() {
        for text in [
            "",
            " ",
            "{",
            "{}}",
            "{} {}",
            "{a:1}",
            "{\"a\":1,}",
            "nul",
            "\u{feff}{}",
        ] {
            assert_eq!(check(text), Err(JsonError::NotJson), "{text}");
        }
        assert_eq!(
            check_object(b"{\"a\":\"\xff\"}", 3),
            Err(JsonError::NotJson)
        );
    }

    #[test]
    fn many_brackets_are_deep_only_where_they_nest() {
        let wide = |bracket: &str, count| format!("{{\"a\":[{}1]}}", bracket.repeat(count));
        for count in [0, 1, 2, 300] {
            assert!(check(&wide("[],", count)).is_ok(), "{count}");
            assert!(check(&wide("{},", count)).is_ok(), "{count}");
        }
        let late = format!("{{\"a\":\"{}\",\"b\":[[{{}}]]}}", " ".repeat(600));
        assert_eq!(check(&late), Err(JsonError::TooDeep));
    }

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        assert!(check(r#"{"a":[[1]],"b":"[[[[","c\"[[[[":{"d":[]}}"#).is_ok());
        assert_eq!(check(r#"{"a":[[[]]]}"#), Err(JsonError::TooDeep));
        assert_eq!(check(r#"{"\\":[[[]]]}"#), Err(JsonError::TooDeep));
    }
}
