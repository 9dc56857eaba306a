//! JSON answers.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use kitbag_domain::{Content, Entry, LiveEntry};
use serde::Serialize;

use crate::headers;

/// An answer of 200 with a JSON body.
pub(crate) struct MatrixJson<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for MatrixJson<T> {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.0).expect("answers are made of serialisable values");
        json_response(StatusCode::OK, body.into())
    }
}

/// The answer `{}`.
pub struct EmptyObject;

impl IntoResponse for EmptyObject {
    fn into_response(self) -> Response {
        json_response(StatusCode::OK, Bytes::from_static(b"{}"))
    }
}

/// An answer of 200 with a stored content: the bytes go straight into the body.
pub(crate) struct Verbatim(pub(crate) Content);

impl IntoResponse for Verbatim {
    fn into_response(self) -> Response {
        json_response(StatusCode::OK, self.0.into_bytes())
    }
}

/// Builds an answer with a JSON body.
pub fn json_response(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    *response.headers_mut() = headers::of_json();
    response
}

/// Writes an answer that holds stored contents, which no serialiser may touch.
pub(crate) struct JsonObject(Vec<u8>);

impl JsonObject {
    pub(crate) fn new() -> Self {
        Self::with_capacity(0)
    }

    /// Begins an object that will hold entries and push rules, with room for about what they take:
    /// a large one is not copied as it grows.
    pub(crate) fn for_entries(entries: &[Entry], push_rules: Option<&Content>) -> Self {
        let bytes: u64 = entries.iter().map(Entry::size_bytes).sum();
        Self::for_bytes(
            entries.len(),
            usize::try_from(bytes).unwrap_or(0),
            push_rules,
        )
    }

    /// Does as [`JsonObject::for_entries`], for what is packed.
    pub(crate) fn for_events(entries: &[LiveEntry<'_>], push_rules: Option<&Content>) -> Self {
        let bytes = |entry: &LiveEntry<'_>| entry.event_type.len() + entry.content.len();
        let bytes = entries.iter().map(bytes).sum();
        Self::for_bytes(entries.len(), bytes, push_rules)
    }

    fn for_bytes(entries: usize, bytes: usize, push_rules: Option<&Content>) -> Self {
        const FRAME_BYTES: usize = 1024;
        const ENTRY_BYTES: usize = 64;
        let rules = push_rules.map_or(0, |rules| rules.bytes().len());
        Self::with_capacity(FRAME_BYTES + rules + bytes + entries * ENTRY_BYTES)
    }

    fn with_capacity(bytes: usize) -> Self {
        let mut out = Vec::with_capacity(bytes);
        out.push(b'{');
        Self(out)
    }

    /// Adds a member whose value is a string.
    pub(crate) fn string(&mut self, name: &str, value: &str) {
        self.name(name);
        self.text(value);
    }

    /// Adds a member whose value is a string or null.
    pub(crate) fn optional_string(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.string(name, value),
            None => self.raw(name, "null"),
        }
    }

    /// Adds a member whose value is JSON already.
    pub(crate) fn raw(&mut self, name: &str, json: impl AsRef<[u8]>) {
        self.name(name);
        self.0.extend_from_slice(json.as_ref());
    }

    /// Adds members that are JSON already.
    pub(crate) fn members(&mut self, json: &str) {
        self.comma();
        self.0.extend_from_slice(json.as_bytes());
    }

    /// Adds the members of an event that is told: many stand in an answer, under the same names.
    pub(crate) fn event(&mut self, event_type: &str, content: &[u8]) {
        self.0.extend_from_slice(br#""type":"#);
        self.text(event_type);
        self.0.extend_from_slice(br#","content":"#);
        self.0.extend_from_slice(content);
    }

    /// Adds a member whose value is an object that `write` fills.
    pub(crate) fn object(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        self.name(name);
        self.0.push(b'{');
        write(self);
        self.0.push(b'}');
    }

    /// Adds a member whose value is an array of objects, each filled by `write`.
    pub(crate) fn array<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.name(name);
        self.0.push(b'[');
        for item in items {
            self.comma();
            self.0.push(b'{');
            write(self, item);
            self.0.push(b'}');
        }
        self.0.push(b']');
    }

    /// Ends the object.
    pub(crate) fn finish(mut self) -> Bytes {
        self.0.push(b'}');
        self.0.into()
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    fn name(&mut self, name: &str) {
        self.comma();
        self.text(name);
        self.0.push(b':');
    }

    /// What was written last tells whether a comma is due.
    fn comma(&mut self) {
        if !matches!(self.0.last(), Some(b'{' | b'[')) {
            self.0.push(b',');
        }
    }

    fn text(&mut self, text: &str) {
        let needs_escape = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
        // Without a way out at the first one: so many are looked at together, and names are short.
        let bytes = text.as_bytes().iter();
        if bytes.fold(false, |found, byte| found | needs_escape(byte)) {
            serde_json::to_writer(&mut self.0, text).expect("a string can be written to memory");
        } else {
            self.0.push(b'"');
            self.0.extend_from_slice(text.as_bytes());
            self.0.push(b'"');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_written_as_serde_writes_them() {
        for character in ('\0'..='\u{ff}').chain(['\u{2028}', '\u{1f600}']) {
            for text in [format!("{character}"), format!("ab{character}c")] {
                let mut object = JsonObject::new();
                object.string("name", &text);
                let expected = serde_json::json!({ "name": text }).to_string();
                assert_eq!(object.finish(), expected, "{character:?}");
                let mut event = JsonObject::new();
                event.event(&text, b"{}");
                let expected = serde_json::json!({ "type": text }).to_string();
                let expected = format!("{},\"content\":{{}}}}", &expected[..expected.len() - 1]);
                assert_eq!(event.finish(), expected, "{character:?}");
            }
        }
    }
}
