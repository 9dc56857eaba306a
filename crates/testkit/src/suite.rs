//! The cases of `store_suite!`, a file for each area. Each name says the fact that it shows.

pub mod accounts;
pub mod changes;
pub mod compare_and_swap;
pub mod concurrency;
pub mod device_data;
pub mod devices;
pub mod entries;
pub mod filters;
pub mod laws;
pub mod passwords;
pub mod profiles;
pub mod quota;
pub mod reader;
pub mod sessions;
pub mod tombstones;
pub mod wakeups;

use kitbag_domain::{ApplyError, Refusal};

/// Returns why an operation was refused, where the store itself did not fail.
fn refusal(error: ApplyError) -> Refusal {
    match error {
        ApplyError::Refused(refusal) => refusal,
        ApplyError::Store(error) => unreachable!("the store failed: {error}"),
    }
}
