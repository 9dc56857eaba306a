//! Values that many threads write to at every request, each thread to one of its own.
//!
//! Two cores that write to one line of memory wait for each other, some hundred cycles each time.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many values there are at most; with more threads, some share one.
pub const STRIPES: usize = 8;

/// The value of each thread, made when the first one comes to it.
pub struct Stripes<T>([OnceLock<Box<Stripe<T>>>; STRIPES]);

/// Alone on its line, and on the one that a processor fetches with it.
#[repr(align(128))]
struct Stripe<T>(T);

impl<T> Default for Stripes<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Stripes<T> {
    /// Returns one without values.
    #[must_use]
    pub fn new() -> Self {
        Self([const { OnceLock::new() }; STRIPES])
    }

    /// Returns the value of this thread.
    pub fn own(&self, make: impl FnOnce() -> T) -> &T {
        let stripe = self.0[number()].get_or_init(|| Box::new(Stripe(make())));
        &stripe.0
    }

    /// Returns the values that there are.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        let made = self.0.iter().filter_map(OnceLock::get);
        made.map(|stripe| &stripe.0)
    }
}

/// Returns the number of this thread's stripe: threads take them by turns.
pub(crate) fn number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    }
    NUMBER.with(|number| {
        number.get().unwrap_or_else(|| {
            let new = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
            number.set(Some(new));
            new
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::*;

    #[test]
    fn threads_write_to_values_of_their_own_and_all_are_read() {
        let counts: Stripes<AtomicU64> = Stripes::new();
        let count_to_100 = || {
            for _ in 0..100 {
                let count = counts.own(AtomicU64::default);
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        thread::scope(|scope| {
            for _ in 0..STRIPES * 2 {
                scope.spawn(count_to_100);
            }
        });
        let counts: Vec<_> = counts
            .all()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        // Other tests' threads take numbers too, so that not each has exactly two here.
        assert!(counts.len() > 1, "{counts:?}");
        assert_eq!(counts.iter().sum::<u64>(), STRIPES as u64 * 200);
    }
}
