//! Requests that are answered alike with and without the gateway, which stand in `requests.toml`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::lab::{Lab, User};
use crate::http::{self, Answer, Connection};
use crate::server::{ANY, CANARY};

const TABLE: &str = include_str!("requests.toml");

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
    /// What Synapse answers, so that the request is what it is meant to be.
    status: u16,
    /// Members of the answer, at any depth, that are others each time.
    #[serde(default)]
    volatile: Vec<String>,
    /// Where the answer has an object that the gateway adds to.
    adds_to: Option<String>,
    /// What of the answer is known to the requests behind, by its name and its place.
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
        let found = answered_alike(request, lab.synapse.address(), through, &mut known);
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
    directly: SocketAddr,
    through: SocketAddr,
    known: &mut BTreeMap<String, String>,
) -> anyhow::Result<()> {
    let bytes = request.bytes(known);
    let ask = |address| Connection::open(address)?.exchange(&bytes);
    let answer = ask(directly).context("Synapse")?;
    let status = answer.status;
    let expected = request.status;
    ensure!(
        status == expected,
        "Synapse answers {status}, not {expected}\n{}",
        String::from_utf8_lossy(&answer.body)
    );
    for (name, place) in &request.keep {
        let value = answer
            .json()
            .pointer(place)
            .and_then(Value::as_str)
            .map(str::to_owned);
        let value = value.with_context(|| format!("the answer has no {place}"))?;
        known.insert(name.clone(), value);
    }
    request.compare(&answer, &ask(through).context("the gateway")?)
}

impl Request {
    fn bytes(&self, known: &BTreeMap<String, String>) -> Vec<u8> {
        let fill = |text: &str| {
            let known = known.iter();
            known.fold(text.to_owned(), |text, (name, value)| {
                text.replace(&format!("{{{name}}}"), value)
            })
        };
        let mut headers: Vec<_> = self.headers.iter().map(|header| fill(header)).collect();
        if !self.anonymous {
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
            through.status == directly.status,
            "answered {} through the gateway\n{}",
            through.status,
            String::from_utf8_lossy(&through.body)
        );
        // A 204 must not tell a length (RFC 9110, 8.6), so the gateway drops that of Synapse; and where
        // an answer ends with its connection, that of the gateway goes in chunks.
        let is_added_to = self.adds_to.is_some();
        let is_framed = |name| directly.header(name).is_some();
        let is_ended_by_closing = !is_framed("content-length") && !is_framed("transfer-encoding");
        let headers = |answer: &Answer| {
            let mut headers = answer.headers.clone();
            headers.retain(|(name, _)| {
                let may_differ = match name.as_str() {
                    "content-length" => is_added_to || answer.status == 204,
                    "transfer-encoding" => is_added_to || is_ended_by_closing,
                    name => name == "date",
                };
                !may_differ
            });
            headers.sort();
            headers
        };
        let [expected, got] = [directly, through].map(headers);
        ensure!(got == expected, "headers\n{expected:?}\n{got:?}");
        if self.volatile.is_empty() && !is_added_to {
            let [expected, got] = [directly, through].map(|answer| &answer.body);
            ensure!(
                got == expected,
                "bodies\n{}\n{}",
                String::from_utf8_lossy(expected),
                String::from_utf8_lossy(got)
            );
            return Ok(());
        }
        let [mut expected, mut got] = [directly.json(), through.json()];
        ensure!(!expected.is_null(), "the body is no JSON");
        if let Some(place) = &self.adds_to {
            let there = expected.pointer(place).and_then(Value::as_object);
            let there = there.with_context(|| format!("the answer has no {place}"))?;
            if let Some(got) = got.pointer_mut(place).and_then(Value::as_object_mut) {
                got.retain(|name, _| there.contains_key(name));
            }
        }
        for answer in [&mut expected, &mut got] {
            self.blank(answer);
        }
        ensure!(got == expected, "bodies\n{expected}\n{got}");
        Ok(())
    }

    fn blank(&self, value: &mut Value) {
        match value {
            Value::Array(values) => values.iter_mut().for_each(|value| self.blank(value)),
            Value::Object(members) => {
                for (name, value) in members {
                    if self.volatile.contains(name) {
                        *value = json!("another each time");
                    } else {
                        self.blank(value);
                    }
                }
            }
            _ => {}
        }
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
        let through = Answer {
            status: 404,
            ..directly.clone()
        };
        assert!(!is_alike("", &directly, &through));
    }

    #[test]
    fn only_named_members_may_be_others_each_time() {
        let told = |age, text| answer(&[], &json!({"a": [{"age": age, "t": text}]}).to_string());
        let volatile = "volatile = [\"age\"]";
        assert!(is_alike(volatile, &told(1, "x"), &told(2, "x")));
        assert!(!is_alike(volatile, &told(1, "x"), &told(1, "y")));
        assert!(!is_alike("", &told(1, "x"), &told(2, "x")));
    }

    #[test]
    fn only_the_named_object_may_have_more_members() {
        let adds = "adds_to = \"/flags\"";
        let directly = answer(&[], "{\"flags\":{\"a\":true}}");
        let told = |text: &str| answer(&[], text);
        let more = told("{\"flags\":{\"a\":true,\"b\":true}}");
        assert!(is_alike(adds, &directly, &more));
        assert!(!is_alike("", &directly, &more));
        assert!(!is_alike(
            adds,
            &directly,
            &told("{\"flags\":{\"a\":false}}")
        ));
        assert!(!is_alike(
            adds,
            &directly,
            &told("{\"flags\":{\"a\":true},\"b\":1}")
        ));
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
