//! A session that was found in memory, and what tells for how long it may be told again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Session;
use crate::DeviceId;

/// Counts what may change some users' sessions.
///
/// Read at every request and written to seldom: so it stands on a line of memory of its own, and on
/// the one that a processor fetches with it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct SessionChanges(AtomicU64);

impl SessionChanges {
    /// Notes that sessions are about to change: to be called *before* anybody can see the change,
    /// and under the lock under which [`KeptSession::new`] is called.
    pub fn note(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A session that was found in memory, for whoever is asked for it again and again.
///
/// It holds until a change is noted, so that [`KeptSession::get`] never tells what ended before it
/// was called: who knows of the end (the answer to a logout, say) was told behind the note.
#[derive(Clone, Debug)]
pub struct KeptSession {
    session: Session,
    changes: Arc<SessionChanges>,
    found_at: u64,
}

impl KeptSession {
    /// Keeps a session that is known to hold now.
    #[must_use]
    pub fn new(session: &Session, changes: &Arc<SessionChanges>) -> Self {
        // With a text of its own, as each request counts who holds it: on one count for all, the
        // cores would wait for each other.
        let device = DeviceId::parse(session.device.as_str());
        Self {
            session: Session {
                device: device.expect("it is that of a device"),
                ..session.clone()
            },
            changes: Arc::clone(changes),
            found_at: changes.count(),
        }
    }

    /// Returns the session; `None` once it may have changed.
    #[must_use]
    pub fn get(&self) -> Option<&Session> {
        (self.changes.count() == self.found_at).then_some(&self.session)
    }

    /// Returns the session as it was found.
    #[must_use]
    pub fn found(&self) -> &Session {
        &self.session
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Incarnation;

    #[test]
    fn a_kept_session_is_told_until_a_change_is_noted() {
        let session = Session {
            device: DeviceId::parse("PHONE").unwrap(),
            incarnation: Incarnation(1),
            expires_at: Some(2),
            last_seen_at: 3,
            replaces_others: false,
        };
        let changes = Arc::<SessionChanges>::default();
        let kept = KeptSession::new(&session, &changes);
        assert_eq!(kept.get(), Some(&session));
        changes.note();
        assert_eq!(kept.get(), None);
        let again = KeptSession::new(&session, &changes);
        assert_eq!((again.get(), kept.get()), (Some(&session), None));
        assert_eq!(kept.found(), &session);
    }
}
