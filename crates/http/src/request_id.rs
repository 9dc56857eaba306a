//! The IDs of requests, which stand in every answer and in the log.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderName, HeaderValue};
use bytes::Bytes;

use crate::random::Random;
use crate::stripes::{self, STRIPES, Stripes};

/// The header that carries the request's ID in every answer.
pub const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Random characters that begin the IDs of a process's requests.
const RUN_CHARACTERS: usize = 6;
/// Digits of the largest number of a request.
const NUMBER_DIGITS_MAX: usize = 20;

/// Numbers the requests of a process.
/// Made once.
pub struct RequestIds {
    /// Tells processes apart.
    run: String,
    /// How many requests each stripe of threads has numbered.
    numbered: Stripes<AtomicU64>,
}

impl RequestIds {
    #[must_use]
    pub fn new(random: &dyn Random) -> Self {
        Self {
            run: random.id(RUN_CHARACTERS),
            numbered: Stripes::new(),
        }
    }

    #[must_use]
    pub fn next(&self) -> RequestId {
        let numbered = self.numbered.own(AtomicU64::default);
        let before = numbered.fetch_add(1, Ordering::Relaxed);
        let number = before * STRIPES as u64 + stripes::number() as u64;
        RequestId::new(&self.run, number)
    }
}

/// The ID of one request, as its header has it.
#[derive(Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    fn new(run: &str, number: u64) -> Self {
        // From the last digit on, by hand: each request has one, and it is written once.
        let mut digits = [0; NUMBER_DIGITS_MAX];
        let (mut start, mut rest) = (NUMBER_DIGITS_MAX, number);
        loop {
            start -= 1;
            digits[start] = b'0' + u8::try_from(rest % 10).expect("a digit is below 10");
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        let digits = &digits[start..];
        let mut text = Vec::with_capacity(run.len() + 1 + digits.len());
        text.extend_from_slice(run.as_bytes());
        text.push(b'-');
        text.extend_from_slice(digits);
        let header = HeaderValue::from_maybe_shared(Bytes::from(text));
        Self(header.expect("IDs are made of letters and digits"))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = self.0.to_str();
        text.expect("IDs are made of letters and digits")
    }

    pub(crate) fn into_header(self) -> HeaderValue {
        self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    #[test]
    fn no_two_requests_share_an_id() {
        struct Zeros;
        impl Random for Zeros {
            fn fill(&self, _bytes: &mut [u8]) {}
        }
        let ids = RequestIds::new(&Zeros);
        let take_100 = || (0..100).map(|_| ids.next().to_string()).collect::<Vec<_>>();
        let ids: HashSet<String> = thread::scope(|scope| {
            let threads: Vec<_> = (0..2 * STRIPES).map(|_| scope.spawn(take_100)).collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(ids.len(), 200 * STRIPES);
    }

    #[test]
    fn the_id_of_a_request_ends_with_its_number() {
        for number in [0, 7, 10, 4_096, u64::MAX] {
            let id = RequestId::new("aB3", number);
            assert_eq!(id.as_str(), format!("aB3-{number}"));
        }
    }
}
