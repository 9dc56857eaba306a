//! Answers, what is expected of them, and what is said when they are not as expected.

use std::fmt;

use kitbag_client::{Error, Response};
use serde_json::Value;

/// The result of a scenario or of a step of one.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// How much of a body is shown: enough for any error body, not a whole sync.
const SHOWN_CHARS_MAX: usize = 400;

/// How much of a request's path is shown: any but those that are long on purpose.
const REQUEST_CHARS_MAX: usize = 240;

/// What was expected, and what came.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What should have come.
    pub expected: String,
    /// What came, with the request that it came for.
    pub got: String,
}

impl Failure {
    pub(crate) fn new(expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self {
            expected: expected.into(),
            got: got.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, got {}", self.expected, self.got)
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut got = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            got = format!("{got}: {cause}");
            source = cause.source();
        }
        Self::new("an answer", got)
    }
}

/// Fails with these words unless `holds`.
pub(crate) fn check(holds: bool, expected: impl Into<String>, got: impl Into<String>) -> Outcome {
    if holds {
        Ok(())
    } else {
        Err(Failure::new(expected, got))
    }
}

/// Fails unless the two are equal. `what` names the thing compared.
pub(crate) fn check_eq<T: PartialEq + fmt::Debug>(got: &T, expected: &T, what: &str) -> Outcome {
    if got == expected {
        return Ok(());
    }
    Err(Failure::new(
        format!("{what} {}", shorten(&format!("{expected:?}"))),
        shorten(&format!("{got:?}")),
    ))
}

/// Fails unless the two JSON values are equal.
pub(crate) fn check_json(got: &Value, expected: &Value, what: &str) -> Outcome {
    if got == expected {
        return Ok(());
    }
    let text = |value: &Value| shorten(&value.to_string());
    Err(Failure::new(
        format!("{what} {}", text(expected)),
        text(got),
    ))
}

/// An answer together with the request that it came for.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) request: String,
    pub(crate) response: Response,
}

impl Reply {
    pub(crate) fn status(&self) -> u16 {
        self.response.status
    }

    /// The reply itself, if it has this status.
    pub(crate) fn expect_status(self, status: u16) -> Outcome<Self> {
        if self.status() == status {
            Ok(self)
        } else {
            Err(self.failure(format!("{status}")))
        }
    }

    /// The body of a 200.
    pub(crate) fn ok(self) -> Outcome<Value> {
        self.expect_status(200)?.json()
    }

    /// Fails unless this is a 200 with just this JSON.
    pub(crate) fn expect_json(self, expected: &Value) -> Outcome {
        if self.status() == 200 && self.json()? == *expected {
            return Ok(());
        }
        Err(self.failure(format!("200 {}", shorten(&expected.to_string()))))
    }

    /// Fails unless this is a 200 with just these bytes.
    pub(crate) fn expect_bytes(self, expected: &[u8]) -> Outcome {
        if self.status() == 200 && self.response.body == expected {
            return Ok(());
        }
        Err(self.failure(format!(
            "200 {}",
            shorten(&String::from_utf8_lossy(expected))
        )))
    }

    /// The body of a standard error with this status and code, and some text.
    pub(crate) fn expect_error(self, status: u16, errcode: &str) -> Outcome<Value> {
        self.expect_error_in(status, &[errcode])
    }

    /// The body of a standard error with this status, one of these codes, and some text.
    pub(crate) fn expect_error_in(self, status: u16, errcodes: &[&str]) -> Outcome<Value> {
        let body = self.json().unwrap_or(Value::Null);
        let errcode = body["errcode"].as_str().unwrap_or("");
        if self.status() == status && errcodes.contains(&errcode) && body["error"].is_string() {
            return Ok(body);
        }
        Err(self.failure(format!(
            "{status} {} with an `error`",
            errcodes.join(" or ")
        )))
    }

    /// Fails unless the status is 4xx and the body is a standard error.
    pub(crate) fn expect_refusal(self) -> Outcome {
        let body = self.json().unwrap_or(Value::Null);
        if (400..500).contains(&self.status()) && body["errcode"].is_string() {
            return Ok(());
        }
        Err(self.failure("a 4xx with an errcode"))
    }

    /// The body of a UIA challenge: 401 with flows, params and session.
    pub(crate) fn expect_challenge(self) -> Outcome<Value> {
        let body = self.json().unwrap_or(Value::Null);
        let is_challenge = self.status() == 401
            && body["flows"]
                .as_array()
                .is_some_and(|flows| !flows.is_empty())
            && body["flows"][0]["stages"].is_array()
            && body["session"].is_string();
        if is_challenge {
            Ok(body)
        } else {
            Err(self.failure("401 with flows and session"))
        }
    }

    pub(crate) fn json(&self) -> Outcome<Value> {
        self.response
            .json()
            .map_err(|_| self.failure("a JSON body"))
    }

    pub(crate) fn failure(&self, expected: impl Into<String>) -> Failure {
        let body = shorten(&String::from_utf8_lossy(&self.response.body));
        let request = cut(&self.request, REQUEST_CHARS_MAX);
        Failure::new(expected, format!("{} {body} for {request}", self.status()))
    }
}

/// Cuts a text that would flood a table.
pub(crate) fn shorten(text: &str) -> String {
    cut(text, SHOWN_CHARS_MAX)
}

fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}
