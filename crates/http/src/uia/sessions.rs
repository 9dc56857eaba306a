use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kitbag_domain::UnixMs;

use super::Purpose;

/// Sessions kept at once; the oldest go first. Whoever asks for more to push others out has to ask
/// for all of them within the time that a user takes to type a password.
const SESSIONS_MAX: usize = 10_000;
/// How long a session may be taken up.
const LIFETIME_MS: u64 = 15 * 60 * 1_000;

/// The sessions that wait for their stage, in memory.
#[derive(Default)]
pub(crate) struct UiaSessions(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    sessions: HashMap<Arc<str>, (Purpose, UnixMs)>,
    /// In the order of their making, which is that of their end; used up ones too.
    order: VecDeque<(Arc<str>, UnixMs)>,
}

impl UiaSessions {
    pub(super) fn insert(&self, id: &str, purpose: Purpose, now: UnixMs) {
        let id: Arc<str> = id.into();
        let mut waiting = self.lock();
        while let Some((_, made_at)) = waiting.order.front()
            && (waiting.order.len() >= SESSIONS_MAX || has_ended(*made_at, now))
            && let Some((oldest, _)) = waiting.order.pop_front()
        {
            waiting.sessions.remove(&oldest);
        }
        waiting.order.push_back((Arc::clone(&id), now));
        waiting.sessions.insert(id, (purpose, now));
    }

    /// Tells whether there is such a session for this purpose.
    pub(super) fn contains(&self, id: &str, purpose: &Purpose, now: UnixMs) -> bool {
        let waiting = self.lock();
        let session = waiting.sessions.get(id);
        session.is_some_and(|(known, made_at)| known == purpose && !has_ended(*made_at, now))
    }

    pub(super) fn remove(&self, id: &str) {
        self.lock().sessions.remove(id);
    }

    /// Both collections are whole after any panic.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_ended(made_at: UnixMs, now: UnixMs) -> bool {
    now.saturating_sub(made_at) >= LIFETIME_MS
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;

    fn purpose() -> Purpose {
        Purpose {
            user: None,
            method: Method::POST,
            path: "/register".to_owned(),
        }
    }

    #[test]
    fn the_oldest_make_way_and_all_others_stay() {
        let sessions = UiaSessions::default();
        for number in 0..SESSIONS_MAX + 100 {
            sessions.insert(&number.to_string(), purpose(), 0);
        }
        for number in 0..SESSIONS_MAX + 100 {
            let is_kept = sessions.contains(&number.to_string(), &purpose(), 0);
            assert_eq!(is_kept, number >= 100, "{number}");
        }
        assert_eq!(sessions.lock().sessions.len(), SESSIONS_MAX);
        assert_eq!(sessions.lock().order.len(), SESSIONS_MAX);
    }

    #[test]
    fn ended_and_used_up_ones_take_no_place() {
        let sessions = UiaSessions::default();
        sessions.insert("used", purpose(), 0);
        sessions.remove("used");
        sessions.insert("ended", purpose(), 1);
        assert!(!sessions.contains("ended", &purpose(), LIFETIME_MS + 1));
        sessions.insert("new", purpose(), LIFETIME_MS + 1);
        assert_eq!(sessions.lock().sessions.len(), 1);
        assert_eq!(sessions.lock().order.len(), 1);
    }
}
