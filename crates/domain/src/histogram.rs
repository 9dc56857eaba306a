//! How values are spread, counted by many threads at once.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts values in a few buckets; what a store or a server tells of how long something takes.
///
/// To observe is three steps without a lock, some nanoseconds. The unit is that of the bounds.
///
/// ```
/// use kitbag_domain::Histogram;
///
/// let sizes = Histogram::new(&[1, 10, 100]);
/// for size in [1, 7, 1_000] {
///     sizes.observe(size);
/// }
/// let spread = sizes.read();
/// assert_eq!(spread.counts, [1, 1, 0, 1]);
/// assert_eq!((spread.count(), spread.sum), (3, 1_008));
/// ```
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One for each bound, and one for what is above the last.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What a [`Histogram`] has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// The largest value of each bucket but the last, which has no bound.
    pub bounds: &'static [u64],
    /// How many values fell into each bucket and into none before it: one more than `bounds`.
    pub counts: Vec<u64>,
    /// All values added up.
    pub sum: u64,
}

impl Histogram {
    /// Returns an empty one with these largest values of its buckets, in rising order.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// Counts `value`.
    pub fn observe(&self, value: u64) {
        // Small values are the usual ones, so the search from the front is the short one.
        let bucket = self.bounds.iter().position(|bound| value <= *bound);
        let bucket = bucket.unwrap_or(self.bounds.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Returns what was counted so far; values that come meanwhile may be in the sum alone, or not.
    #[must_use]
    pub fn read(&self) -> Spread {
        let counts = self.counts.iter();
        Spread {
            bounds: self.bounds,
            counts: counts.map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

impl AddAssign for Spread {
    /// Adds what another histogram of the same bounds has counted.
    fn add_assign(&mut self, other: Self) {
        debug_assert_eq!(self.bounds, other.bounds, "spreads of other bounds");
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }
}

impl Spread {
    /// Returns how many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_at_a_bound_falls_into_the_bucket_of_that_bound() {
        let histogram = Histogram::new(&[10, 20]);
        for value in [0, 10, 11, 20, 21] {
            histogram.observe(value);
        }
        let spread = histogram.read();
        assert_eq!(spread.counts, [2, 2, 1]);
        assert_eq!((spread.count(), spread.sum), (5, 62));
    }
}
