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
pub struct RequestIds {
    /// Made once; tells processes apart.
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
    pub fn next(&self) -> RequestId<'_> {
        let numbered = self.numbered.own(AtomicU64::default);
        let before = numbered.fetch_add(1, Ordering::Relaxed);
        RequestId {
            run: &self.run,
            number: before * STRIPES as u64 + stripes::number() as u64,
        }
    }
}

/// The ID of one request. It is written only where it is told: most requests of a gateway go through
/// without it.
#[derive(Clone, Copy)]
pub struct RequestId<'a> {
    run: &'a str,
    number: u64,
}

impl RequestId<'_> {
    pub(crate) fn header(self) -> HeaderValue {
        // From the last digit on, by hand: each answer has one.
        let mut digits = [0; NUMBER_DIGITS_MAX];
        let (mut start, mut rest) = (NUMBER_DIGITS_MAX, self.number);
        loop {
            start -= 1;
            digits[start] = b'0' + u8::try_from(rest % 10).expect("a digit is below 10");
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        let digits = &digits[start..];
        let mut text = Vec::with_capacity(self.run.len() + 1 + digits.len());
        text.extend_from_slice(self.run.as_bytes());
        text.push(b'-');
        text.extend_from_slice(digits);
        let header = HeaderValue::from_maybe_shared(Bytes::from(text));
        header.expect("IDs are made of letters and digits")
    }
}

impl fmt::Display for RequestId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.run, self.number)
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
            let id = RequestId { run: "aB3", number };
            assert_eq!(id.header(), format!("aB3-{number}"));
            assert_eq!(id.to_string(), format!("aB3-{number}"));
        }
    }
}
