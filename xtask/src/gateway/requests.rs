//! Requests that are answered alike with and without the gateway, which stand in `requests.toml`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Deserializer, Value};

use super::lab::{Lab, User};
use crate::http::{self, Answer, Connection};
use crate::server::{ANY, CANARY};
use crate::synapse::Synapse;

const TABLE: &str = include_str!("requests.toml");

/// How much of a body is told where one is not as expected.
const SHOWN_CHARS_MAX: usize = 4_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    request: Vec<Request>,
}

/// One request. In its target, headers and body, `{name}` stands for what is known by this name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    method: String,
    /// Goes as it is written.
    target: String,
    #[serde(default)]
    headers: Vec<String>,
    #[serde(default)]
    body: String,
    /// A body of so many bytes, all of them different ones in turn.
    #[serde(default)]
    body_bytes: usize,
    /// Whether the body goes in chunks.
    #[serde(default)]
    chunked: bool,
    /// Whether it goes without the user's token.
    #[serde(default)]
    anonymous: bool,
    /// Whether it goes as that of another homeserver, signed with the key of Synapse itself: to which
    /// it is one only as long as no byte of its target is another.
    #[serde(default)]
    signed: bool,
    /// What Synapse answers, so that the request is what it is meant to be.
    status: u16,
    /// Headers of what Synapse answers, their names in lower case.
    #[serde(default)]
    answered_with: Vec<String>,
    /// Members of the answer, at any depth, that are others each time.
    #[serde(default)]
    volatile: Vec<String>,
    /// What the gateway adds to the text of the answer.
    adds: Option<String>,
    /// What of the answer is known to the requests behind, by its name and its place; of the URI of a
    /// media file what paths have of it.
    #[serde(default)]
    keep: BTreeMap<String, String>,
}

/// Sends each to Synapse and to a gateway that is as it is by default; returns how many there are.
pub(super) fn run(lab: &Lab<'_>) -> anyhow::Result<u64> {
    let table: Table = toml::from_str(TABLE).context("requests.toml is not as expected")?;
    let gateway = lab.another_gateway("requests", ANY, &[])?;
    let through = gateway.address()?;
    let user = User::register(lab.synapse.address())?;
    let mut known = BTreeMap::from([
        ("canary".to_owned(), CANARY.to_owned()),
        ("device".to_owned(), user.device_id),
        ("token".to_owned(), user.token),
        ("user".to_owned(), user.user_id),
    ]);
    let mut findings = Vec::new();
    for request in &table.request {
        let found = answered_alike(request, &lab.synapse, through, &mut known);
        if let Err(error) = found {
            let Request { method, target, .. } = request;
            findings.push(format!("{method} {target}: {error:#}"));
        }
    }
    gateway.stop()?;
    ensure!(findings.is_empty(), "{}", findings.join("\n"));
    u64::try_from(table.request.len()).context("requests fit in 64 bits")
}

fn answered_alike(
    request: &Request,
    synapse: &Synapse,
    through: SocketAddr,
    known: &mut BTreeMap<String, String>,
) -> anyhow::Result<()> {
    if request.signed {
        let [target, body] = [&request.target, &request.body].map(|text| fill(text, known));
        let signed = synapse.signed(&request.method, &target, &body)?;
        known.insert("signed".to_owned(), signed);
    }
    let bytes = request.bytes(known);
    let ask = |address| Connection::open(address)?.exchange(&bytes);
    let answer = ask(synapse.address()).context("Synapse")?;
    let status = answer.status;
    let expected = request.status;
    ensure!(
        status == expected,
        "Synapse answers {status}, not {expected}\n{}",
        shown(&answer.body)
    );
    for header in &request.answered_with {
        let mut told = { answer.headers.iter() }.map(|(name, value)| format!("{name}: {value}"));
        ensure!(
            told.any(|told| told == *header),
            "Synapse tells no {header}"
        );
    }
    for (name, place) in &request.keep {
        let value = answer
            .json()
            .pointer(place)
            .and_then(Value::as_str)
            .map(str::to_owned);
        let value = value.with_context(|| format!("the answer has no {place}"))?;
        known.insert(name.clone(), value.replace("mxc://", ""));
    }
    request.compare(&answer, &ask(through).context("the gateway")?)
}

/// Returns a text with what is known in the place of its names.
fn fill(text: &str, known: &BTreeMap<String, String>) -> String {
    known.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{name}}}"), value)
    })
}

/// Returns as much of a body as tells what it is: some are long.
fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    format!("{} bytes, {shown:?}", body.len())
}

impl Request {
    fn bytes(&self, known: &BTreeMap<String, String>) -> Vec<u8> {
        let fill = |text: &str| fill(text, known);
        let mut headers: Vec<_> = self.headers.iter().map(|header| fill(header)).collect();
        if self.signed {
            headers.push(fill("Authorization: {signed}"));
        } else if !self.anonymous {
            headers.push(fill("Authorization: Bearer {token}"));
        }
        let mut body = fill(&self.body).into_bytes();
        body.extend((0..self.body_bytes).map(|number| number.to_le_bytes()[0]));
        if self.chunked {
            headers.push("Transfer-Encoding: chunked".to_owned());
        }
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        let target = fill(&self.target);
        if !self.chunked {
            return http::request(&self.method, &target, &headers, &body);
        }
        let mut request = http::request(&self.method, &target, &headers, b"");
        for chunk in body.chunks(1_000) {
            request.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
            request.extend(chunk);
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\n\r\n");
        request
    }

    /// Compares the answers, byte for byte where nothing of them is another each time.
    fn compare(&self, directly: &Answer, through: &Answer) -> anyhow::Result<()> {
        ensure!(
            through.line == directly.line,
            "answered `{}` and not `{}` through the gateway\n{}",
            through.line,
            directly.line,
            shown(&through.body)
        );
        let is_framed = |name| directly.header(name).is_some();
        let is_ended_by_closing = !is_framed("content-length") && !is_framed("transfer-encoding");
        let headers = |answer: &Answer| {
            let mut headers = answer.headers.clone();
            headers.retain(|(name, _)| match name.as_str() {
                // What the gateway adds to has a length, whatever Synapse told. A 204 must not tell one
                // (RFC 9110, 8.6), so the gateway drops that of Synapse.
                "content-length" => self.adds.is_none() && answer.status != 204,
                // Where an answer ends with its connection, that of the gateway goes in chunks.
                "transfer-encoding" => self.adds.is_none() && !is_ended_by_closing,
                name => name != "date",
            });
            for (name, value) in &mut headers {
                if !self.volatile.is_empty() && name == "content-length" {
                    // So much was read: it is that of a body that is another one.
                    "its own".clone_into(value);
                }
            }
            headers.sort();
            headers
        };
        let [expected, got] = [directly, through].map(headers);
        ensure!(got == expected, "headers\n{expected:?}\n{got:?}");
        let expected = self.blanked(&directly.body)?;
        let mut got = self.blanked(&through.body)?;
        if let Some(added) = &self.adds {
            let text = String::from_utf8(got).context("the body is no text")?;
            let (before, behind) = text
                .split_once(added.as_str())
                .with_context(|| format!("{added} is not added"))?;
            got = [before, behind].concat().into_bytes();
        }
        ensure!(
            got == expected,
            "bodies\n{}\n{}",
            shown(&expected),
            shown(&got)
        );
        Ok(())
    }

    /// Returns a body with the same in the place of each value that is another each time, and all else
    /// byte for byte.
    fn blanked(&self, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut body = body.to_vec();
        for name in &self.volatile {
            let text = String::from_utf8(body).context("the body is no text")?;
            let key = format!("\"{name}\":");
            let mut rest = text.as_str();
            let mut blanked = String::new();
            while let Some((before, behind)) = rest.split_once(&key) {
                let mut values = Deserializer::from_str(behind).into_iter::<IgnoredAny>();
                let value = values.next().context("the body ends there")?;
                value.with_context(|| format!("the body is no JSON behind {name}"))?;
                blanked += &format!("{before}{key}null");
                rest = &behind[values.byte_offset()..];
            }
            ensure!(!blanked.is_empty(), "the answer has no {name}: {text}");
            body = (blanked + rest).into_bytes();
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(more: &str) -> Request {
        let text = format!("[[request]]\nmethod = \"GET\"\ntarget = \"/\"\nstatus = 200\n{more}");
        let table: Table = toml::from_str(&text).unwrap();
        table.request.into_iter().next().unwrap()
    }

    fn answer(headers: &[(&str, &str)], body: &str) -> Answer {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Answer {
            line: "HTTP/1.1 200 OK".to_owned(),
            status: 200,
            headers: headers.iter().map(owned).collect(),
            body: body.into(),
        }
    }

    fn is_alike(more: &str, directly: &Answer, through: &Answer) -> bool {
        request(more).compare(directly, through).is_ok()
    }

    #[test]
    fn answers_are_alike_but_for_the_date_and_the_order_of_headers() {
        let headers = [("content-length", "2"), ("date", "now"), ("server", "a")];
        let others = [("server", "a"), ("content-length", "2"), ("date", "then")];
        let directly = answer(&headers, "{}");
        assert!(is_alike("", &directly, &answer(&others, "{}")));
        assert!(!is_alike("", &directly, &answer(&others, "[]")));
        assert!(!is_alike("", &directly, &answer(&others[1..], "{}")));
        let more = [&headers[..], &[("x", "y")]].concat();
        assert!(!is_alike("", &directly, &answer(&more, "{}")));
        for line in ["HTTP/1.1 404 OK", "HTTP/1.1 200 Fine", "HTTP/1.0 200 OK"] {
            let through = Answer {
                line: line.to_owned(),
                ..directly.clone()
            };
            assert!(!is_alike("", &directly, &through), "{line}");
        }
    }

    #[test]
    fn only_named_members_may_be_others_each_time() {
        let told = |age: &str, text: &str| {
            let body = format!(r#"{{"a":[{{"age":{age},"t":"{text}"}},{{"age":2}}]}}"#);
            answer(&[("content-length", &body.len().to_string())], &body)
        };
        let volatile = "volatile = [\"age\"]";
        assert!(is_alike(volatile, &told("1", "x"), &told("22", "x")));
        assert!(is_alike(volatile, &told("[{}]", "x"), &told("\",}\"", "x")));
        assert!(!is_alike(volatile, &told("1", "x"), &told("1", "y")));
        assert!(!is_alike("", &told("1", "x"), &told("2", "x")));
        // All else is text, and not what it means.
        for another in [
            r#"{"a":[{"age":1,"t":"\u0078"},{"age":2}]}"#,
            r#"{"a":[{"t":"x","age":1},{"age":2}]}"#,
            r#"{"a": [{"age":1,"t":"x"},{"age":2}]}"#,
            r#"{"a":[{"age":1,"t":"x"},{"age":2}]} "#,
        ] {
            let headers = [("content-length", "40")];
            let through = answer(&headers, another);
            assert!(!is_alike(volatile, &told("1", "x"), &through), "{another}");
        }
    }

    #[test]
    fn named_member_that_is_not_there_is_noticed() {
        let told = answer(&[], "{\"a\":1}");
        assert!(is_alike("volatile = [\"a\"]", &told, &told));
        assert!(!is_alike("volatile = [\"b\"]", &told, &told));
    }

    #[test]
    fn only_the_named_text_may_be_added() {
        let adds = "adds = ',\"b\":true'";
        let directly = answer(&[], "{\"flags\":{\"a\":true}}");
        let told = |text: &str| answer(&[], text);
        let more = told("{\"flags\":{\"a\":true,\"b\":true}}");
        assert!(is_alike(adds, &directly, &more));
        assert!(!is_alike("", &directly, &more));
        assert!(!is_alike(adds, &directly, &directly));
        for another in [
            "{\"flags\":{\"a\":false,\"b\":true}}",
            "{\"flags\":{\"a\": true,\"b\":true}}",
            "{\"flags\":{\"a\":true,\"b\":true},\"c\":1}",
        ] {
            assert!(!is_alike(adds, &directly, &told(another)), "{another}");
        }
    }

    #[test]
    fn each_request_of_the_table_can_be_written() {
        let table: Table = toml::from_str(TABLE).unwrap();
        let known = BTreeMap::from([("user".to_owned(), "@a:b".to_owned())]);
        for request in &table.request {
            let bytes = request.bytes(&known);
            assert!(bytes.starts_with(request.method.as_bytes()));
            assert!(!String::from_utf8_lossy(&bytes).contains("{user}"));
        }
        let chunked = Request {
            chunked: true,
            ..request("body = \"abc\"")
        };
        assert!(chunked.bytes(&known).ends_with(b"3\r\nabc\r\n0\r\n\r\n"));
    }
}
