//! JSON as RFC 8259 has it, read in the simplest way: what the real readers are compared with.

use serde_json::Value;

/// Bytes that are read: the reader recurses, and so deep is what they can nest.
pub(crate) const BYTES_MAX: usize = 16 * 1024;

/// What a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An object, which nests so deep.
    Object(usize),
    /// Another value.
    Other,
}

/// Returns what `text` is; `None` where it is not JSON.
pub(crate) fn kind(text: &[u8]) -> Option<Kind> {
    std::str::from_utf8(text).ok()?;
    let text = trim(text);
    let mut reader = Reader { rest: text };
    let depth = reader.value()?;
    if !reader.rest.is_empty() {
        return None;
    }
    let is_object = text.first() == Some(&b'{');
    Some(if is_object {
        Kind::Object(depth)
    } else {
        Kind::Other
    })
}

/// Returns how deep an object nests; of one too long to be read, only that it looks like one.
pub(crate) fn object_depth(text: &[u8]) -> Option<usize> {
    if text.len() > BYTES_MAX {
        let looks = text.starts_with(b"{") && text.ends_with(b"}");
        return looks.then_some(0);
    }
    match kind(text)? {
        Kind::Object(depth) => Some(depth),
        Kind::Other => None,
    }
}

/// Returns the text without the white space around it.
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t' | b'\n' | b'\r'] = text {
        text = rest;
    }
    text
}

/// Counts the members of all objects in a value.
pub(crate) fn members_in(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.iter().map(members_in).sum(),
        Value::Object(object) => object.len() + object.values().map(members_in).sum::<usize>(),
        _ => 0,
    }
}

/// Counts the members of all objects in a text, of which a value has one of each name: its colons
/// outside of strings.
pub(crate) fn members_of(json: &str) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in json.bytes() {
        match byte {
            b'"' if !escaped => in_string = !in_string,
            b':' if !in_string => count += 1,
            _ => {}
        }
        escaped = byte == b'\\' && !escaped;
    }
    count
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    /// Reads a value and returns how deep it nests.
    fn value(&mut self) -> Option<usize> {
        match self.rest.first()? {
            b'{' => self.list(b'}', true),
            b'[' => self.list(b']', false),
            b'"' => self.string(),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number(),
        }
    }

    fn list(&mut self, end: u8, has_names: bool) -> Option<usize> {
        let mut deepest = 0;
        self.rest = &self.rest[1..];
        self.space();
        if self.take(end) {
            return Some(1);
        }
        loop {
            self.space();
            if has_names {
                self.string()?;
                self.space();
                self.take(b':').then_some(())?;
                self.space();
            }
            deepest = deepest.max(self.value()?);
            self.space();
            if self.take(end) {
                return Some(deepest + 1);
            }
            self.take(b',').then_some(())?;
        }
    }

    fn string(&mut self) -> Option<usize> {
        self.take(b'"').then_some(())?;
        loop {
            match self.next()? {
                b'"' => return Some(0),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        for _ in 0..4 {
                            self.next()?.is_ascii_hexdigit().then_some(())?;
                        }
                    }
                    _ => return None,
                },
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    fn number(&mut self) -> Option<usize> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Some(0)
    }

    fn digits(&mut self) -> Option<()> {
        let count = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        self.rest = &self.rest[count..];
        (count > 0).then_some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<usize> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(0)
    }

    fn space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.rest.first() == Some(&wanted);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }
}
