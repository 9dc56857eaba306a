//! The cases of `store_suite!`, a file for each area. Each name says the fact that it shows.

pub mod accounts;
pub mod changes;
pub mod compare_and_swap;
pub mod concurrency;
pub mod devices;
pub mod entries;
pub mod filters;
pub mod passwords;
pub mod profiles;
pub mod quota;
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

/// A small seeded source of numbers, for cases whose every run must be the same.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number from zero up to `bound`, which is not reached.
    fn below(&mut self, bound: usize) -> usize {
        // SplitMix64 by Vigna: a dozen lines, no state but a counter.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let drawn = (z ^ (z >> 31)) % bound as u64;
        usize::try_from(drawn).unwrap()
    }
}
