//! What the log says of requests that fail inside.
//!
//! A failing disk fails every request, and so does a queue that stays full: of each such trouble
//! one line a minute is written, with the number of requests that it left out. A handler that
//! panics is a mistake of its own each time, and so it is logged.

use std::mem;
use std::sync::{Mutex, PoisonError};

use kitbag_domain::{StoreError, UnixMs};
use tracing::{debug, error};

use crate::error::ApiError;
use crate::passwords::PasswordError;
use crate::request_id::RequestId;

/// How often a line tells of a trouble that lasts.
const INTERVAL_MS: u64 = 60_000;
/// As many as [`trouble`] tells apart.
const TROUBLES: usize = 5;

/// What the log has told of each trouble.
#[derive(Default)]
pub(crate) struct Failures([Mutex<Told>; TROUBLES]);

#[derive(Default)]
struct Told {
    at: Option<UnixMs>,
    /// Failures since then.
    left_out: u64,
}

impl Failures {
    /// Logs a request that failed inside, where the log does not tell of its trouble already.
    pub(crate) fn log(&self, error: &ApiError, request_id: RequestId<'_>, now: UnixMs) {
        let status = error.row().0.as_u16();
        let told = trouble(error).map(|trouble| &self.0[trouble]);
        match told.map_or(Some(0), |told| tell(told, now)) {
            Some(left_out) => {
                error!(request.id = %request_id, status, cause = ?error, left_out, "request failed");
            }
            None => debug!(request.id = %request_id, status, cause = ?error, "request failed"),
        }
    }
}

/// Returns how many failures were left out since the last line, where one may be written now.
fn tell(told: &Mutex<Told>, now: UnixMs) -> Option<u64> {
    let told = &mut *told.lock().unwrap_or_else(PoisonError::into_inner);
    // Also where the clock was set back.
    let is_due = told.at.is_none_or(|at| at.abs_diff(now) >= INTERVAL_MS);
    if !is_due {
        told.left_out += 1;
        return None;
    }
    told.at = Some(now);
    Some(mem::take(&mut told.left_out))
}

/// Returns the number of what is wrong beyond this one request, if it is.
fn trouble(error: &ApiError) -> Option<usize> {
    if matches!(error, ApiError::Password(PasswordError::Overloaded)) {
        return Some(0);
    }
    Some(match error.store_error()? {
        StoreError::Corrupt(_) => 1,
        StoreError::OutcomeUnknown(_) => 2,
        StoreError::Overloaded => 3,
        StoreError::Unavailable(_) => 4,
    })
}
