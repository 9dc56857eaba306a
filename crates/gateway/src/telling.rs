//! What the log tells once a minute at most, with how many there were: each request of a client can be
//! one more.

/// How long the log says nothing of further ones.
const PAUSE_MS: u64 = 60_000;

/// How many there were of something since it was told.
#[derive(Default)]
pub(crate) struct Telling {
    told_at_ms: Option<u64>,
    count: u64,
}

impl Telling {
    /// Counts one more. Returns how many there were since it was told last, where it is to be told now,
    /// by any clock in milliseconds.
    pub(crate) fn count(&mut self, now_ms: u64) -> Option<u64> {
        self.count += 1;
        let since_ms = self.told_at_ms.map(|at| now_ms.saturating_sub(at));
        if since_ms.is_some_and(|since_ms| since_ms < PAUSE_MS) {
            return None;
        }
        self.told_at_ms = Some(now_ms);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_a_minute_with_how_many_there_were() {
        let mut telling = Telling::default();
        assert_eq!(telling.count(7), Some(1));
        assert_eq!(telling.count(7), None);
        assert_eq!(telling.count(60_006), None);
        assert_eq!(telling.count(60_007), Some(3));
        assert_eq!(telling.count(60_008), None);
    }
}
