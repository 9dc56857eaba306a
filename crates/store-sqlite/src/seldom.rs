//! Lines of the log that must not come as often as what they tell of.

use std::mem;
use std::time::{Duration, Instant};

use crate::options::limit;

/// Tells whether a line may be written again.
pub(crate) fn is_due(told_at: Option<Instant>, now: Instant) -> bool {
    let interval = Duration::from_millis(limit::LOG_INTERVAL_MS);
    told_at.is_none_or(|told_at| now.saturating_duration_since(told_at) >= interval)
}

/// Lets one line through in [`limit::LOG_INTERVAL_MS`], and counts the others.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    told_at: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// Returns how many lines were left out since the last one, where one may be written now.
    pub(crate) fn tell(&mut self, now: Instant) -> Option<u64> {
        if !is_due(self.told_at, now) {
            self.left_out += 1;
            return None;
        }
        self.told_at = Some(now);
        Some(mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_passes_in_its_time_and_the_others_are_counted() {
        let mut seldom = Seldom::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(seldom.tell(start), Some(0));
        for ms in 0..3 {
            assert_eq!(seldom.tell(at(ms)), None);
        }
        assert_eq!(seldom.tell(at(limit::LOG_INTERVAL_MS - 1)), None);
        assert_eq!(seldom.tell(at(limit::LOG_INTERVAL_MS)), Some(4));
        assert_eq!(seldom.tell(at(limit::LOG_INTERVAL_MS)), None);
    }
}
