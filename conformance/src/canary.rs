//! The text that contents and passwords carry, so that a server which tells them on is found out.
//!
//! Scenarios do not see it: contents get one more member on their way out, and lose it on their
//! way back, byte for byte. What the server keeps, delivers and may log is the marked content.

use std::sync::atomic::{AtomicU64, Ordering};

use kitbag_client::{Bytes, Response};

use crate::expect::{Failure, Outcome, Reply};

/// The canary if nothing else is said.
pub const CANARY_DEFAULT: &str = "conformance-canary-5e0c71d4";

/// The member that marks a content, with its quotes.
const MEMBER: &str = r#""com.example.canary""#;

/// What every access token and every refresh token begins with, those of Synapse too, which is behind
/// a gateway.
const TOKEN_PREFIXES: [&str; 4] = ["kt_", "ktr_", "syt_", "syr_"];

/// Larger contents are about their size, to the byte, and go as they are.
const MARKED_BYTES_MAX: usize = 4096;

/// The canary of a run, and how often the server took it.
#[derive(Debug)]
pub struct Canary {
    text: String,
    password: String,
    stored: AtomicU64,
}

impl Canary {
    /// A canary of this text: letters, digits and `-` only, so that it reads the same everywhere.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        (!text.is_empty() && text.chars().all(is_plain)).then(|| Self {
            text: text.to_owned(),
            password: format!("{text}-Passw0rd-1"),
            stored: AtomicU64::new(0),
        })
    }

    /// The password of every user that scenarios make.
    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// How many writes that carried the canary were accepted.
    pub(crate) fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    pub(crate) fn note_stored(&self) {
        self.stored.fetch_add(1, Ordering::Relaxed);
    }

    /// The content with the canary as its first member; `None` for what is no content of an entry
    /// and no part of a push rule, has no members, or is about its size. Malformed contents are marked too: parsers quote them.
    pub(crate) fn mark(&self, path: &str, content: &[u8]) -> Option<Bytes> {
        let is_kept = path.contains("account_data/") || path.contains("/pushrules/");
        if !is_kept || content.len() > MARKED_BYTES_MAX {
            return None;
        }
        let text = std::str::from_utf8(content).ok()?;
        let (before, members) = text.split_once('{')?;
        let is_object = before.trim().is_empty() && members.trim_start().starts_with('"');
        let marked = || format!(r#"{before}{{{MEMBER}:"{}",{members}"#, self.text);
        is_object.then(|| marked().into())
    }

    /// Makes a reply of an answer: the one place through which all go that scenarios look at.
    ///
    /// # Errors
    /// A 5xx that tells a content, a password or a token.
    pub(crate) fn reply(&self, request: String, response: Response) -> Outcome<Reply> {
        if response.status >= 500
            && let Some(secret) = self.secret_in(&response.body)
        {
            return Err(Failure::new(
                "no content, password or token in the body of a 5xx",
                format!("{} with `{secret}` for {request}", response.status),
            ));
        }
        let body = match std::str::from_utf8(&response.body) {
            Ok(text) if text.contains(MEMBER) => self.unmark(text).into(),
            _ => response.body,
        };
        let response = Response { body, ..response };
        Ok(Reply { request, response })
    }

    fn secret_in(&self, body: &[u8]) -> Option<&str> {
        let text = String::from_utf8_lossy(body);
        let mut secrets = TOKEN_PREFIXES.into_iter().chain([self.text.as_str()]);
        secrets.find(|&secret| text.contains(secret))
    }

    /// The text without the mark and its comma; all else as it is.
    fn unmark(&self, text: &str) -> String {
        let mut kept = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(MEMBER) {
            kept.push_str(before);
            rest = match self.behind_the_value(after) {
                None => {
                    kept.push_str(MEMBER);
                    after
                }
                // Servers that do not keep a content verbatim may have moved the mark to its end.
                Some(behind) => behind.trim_start().strip_prefix(',').unwrap_or_else(|| {
                    if let Some(shorter) = kept.trim_end().strip_suffix(',') {
                        kept.truncate(shorter.len());
                    }
                    behind
                }),
            };
        }
        kept.push_str(rest);
        kept
    }

    fn behind_the_value<'a>(&self, after: &'a str) -> Option<&'a str> {
        let value = after.trim_start().strip_prefix(':')?.trim_start();
        let value = value.strip_prefix('"')?.strip_prefix(self.text.as_str())?;
        value.strip_prefix('"')
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PATH: &str = "/_matrix/client/v3/user/@a:b/account_data/t";

    fn canary() -> Canary {
        Canary::new("bird-1").unwrap()
    }

    fn answer(status: u16, body: impl Into<Bytes>) -> Response {
        Response {
            status,
            headers: Default::default(),
            body: body.into(),
        }
    }

    fn seen(body: impl Into<Bytes>) -> Bytes {
        let reply = canary().reply(String::new(), answer(200, body)).unwrap();
        reply.response.body
    }

    #[test]
    fn marked_content_carries_the_canary_and_comes_back_as_it_was() {
        for content in [
            r#"{"a":1}"#,
            "{ \"a\": 1 , \"b\": {\"c\" : 2} }",
            "{\"a\":1",
            " \n{\"a\":1}",
        ] {
            let marked = canary().mark(PATH, content.as_bytes()).unwrap();
            assert!(String::from_utf8_lossy(&marked).contains(r#":"bird-1","#));
            assert_eq!(seen(marked), content);
        }
    }

    #[test]
    fn only_contents_with_members_are_marked() {
        let large = json!({"a": "x".repeat(MARKED_BYTES_MAX)}).to_string();
        for content in ["{}", "{", "[]", "[{\"a\":1}]", "\"{\\\"a\\\"}\"", &large] {
            assert_eq!(canary().mark(PATH, content.as_bytes()), None, "{content}");
        }
        let rule = "/_matrix/client/v3/pushrules/global/room/R";
        assert!(canary().mark(rule, br#"{"actions":[]}"#).is_some());
        let device = "/_matrix/client/v3/devices/D";
        assert_eq!(canary().mark(device, br#"{"display_name":"a"}"#), None);
    }

    #[test]
    fn mark_is_taken_out_wherever_a_server_puts_it() {
        for (body, rest) in [
            (r#"{"a": 1, "com.example.canary": "bird-1"}"#, r#"{"a": 1}"#),
            (r#"[{"com.example.canary" : "bird-1" }]"#, "[{ }]"),
            (
                r#"[{"com.example.canary":"bird-1","a":1},{"com.example.canary":"bird-1","b":2}]"#,
                r#"[{"a":1},{"b":2}]"#,
            ),
        ] {
            assert_eq!(seen(body), rest);
        }
    }

    #[test]
    fn what_only_looks_like_the_mark_stays() {
        for body in [
            r#"{"com.example.canary":"bird-2"}"#,
            r#"{"type":"com.example.canary"}"#,
            "bird-1",
        ] {
            assert_eq!(seen(body), body);
        }
    }

    #[test]
    fn server_error_with_a_secret_is_a_failure() {
        for secret in [
            "kt_YQ_00",
            "ktr_YQ_00",
            "syt_YQ_x_0",
            "syr_YQ_x_0",
            "bird-1",
        ] {
            for body in [
                format!("bad: {secret}"),
                json!({"errcode": "M_UNKNOWN", "error": format!("at \"{secret}\"")}).to_string(),
            ] {
                let reply =
                    |status| canary().reply("GET /".to_owned(), answer(status, body.clone()));
                assert!(reply(500).is_err() && reply(503).is_err(), "{body}");
                assert!(reply(400).is_ok(), "{body}");
            }
        }
        let plain = answer(500, r#"{"errcode":"M_UNKNOWN","error":"internal error"}"#);
        assert!(canary().reply(String::new(), plain).is_ok());
    }

    #[test]
    fn canary_that_would_be_escaped_is_refused() {
        for text in ["", "a b", "a\"b", "ü", "a_b"] {
            assert!(Canary::new(text).is_none(), "{text}");
        }
    }
}
