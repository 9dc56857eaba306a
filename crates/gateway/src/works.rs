//! Places for work that goes on where its client leaves: bounded over all users and for each, so that
//! nobody keeps others from logging out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kitbag_domain::UserId;

/// Ends of devices of one user: a client has one under way, or a few.
const ENDS_OF_ONE_MAX: usize = 64;

/// Emptyings of one user that can be done later too: they wait for each other in any case.
const LATER_OF_ONE_MAX: usize = 8;

/// Of so many places for ends there is one more for what can be done later too.
const LATER_SHARE: usize = 4;

/// The places of all users.
pub(crate) struct Works {
    /// For what ends devices, and for logins.
    pub(crate) ends: Pool,
    /// For what can be done later too.
    pub(crate) later: Pool,
}

/// Places for work of one kind.
pub(crate) struct Pool(Arc<Shared>);

struct Shared {
    all_max: usize,
    of_one_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    /// Of those who have some.
    of_users: HashMap<UserId, usize>,
}

/// A place, until it is dropped.
pub(crate) struct Place {
    shared: Arc<Shared>,
    user: UserId,
}

impl Works {
    /// `ends_max` are the ends of devices of all users.
    pub(crate) fn new(ends_max: usize) -> Self {
        let later_max = (ends_max / LATER_SHARE).max(1);
        Self {
            ends: Pool::new(ends_max, ENDS_OF_ONE_MAX),
            later: Pool::new(later_max, LATER_OF_ONE_MAX),
        }
    }
}

impl Pool {
    fn new(all_max: usize, of_one_max: usize) -> Self {
        Self(Arc::new(Shared {
            all_max,
            of_one_max,
            taken: Mutex::default(),
        }))
    }

    /// Takes a place; `None` where all are taken, or all that the user may have.
    pub(crate) fn take(&self, user: &UserId) -> Option<Place> {
        let mut taken = self.0.lock();
        let of_one = taken.of_users.get(user).copied().unwrap_or_default();
        if taken.all >= self.0.all_max || of_one >= self.0.of_one_max {
            return None;
        }
        taken.all += 1;
        taken.of_users.insert(user.clone(), of_one + 1);
        Some(Place {
            shared: Arc::clone(&self.0),
            user: user.clone(),
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.shared.lock();
        taken.all -= 1;
        if let Some(of_one) = taken.of_users.get_mut(&self.user) {
            *of_one -= 1;
            if *of_one == 0 {
                taken.of_users.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    #[test]
    fn neither_one_user_nor_all_have_more_places_than_there_are() {
        let pool = Pool::new(3, 2);
        let alice = [(), ()].map(|()| pool.take(&user("@alice:x")));
        assert!(alice.iter().all(Option::is_some));
        assert!(pool.take(&user("@alice:x")).is_none());
        let bob = pool.take(&user("@bob:x"));
        assert!(bob.is_some());
        assert!(pool.take(&user("@carol:x")).is_none());
        drop(alice);
        assert!(pool.take(&user("@alice:x")).is_some());
        drop(bob);
        let taken = pool.0.lock();
        assert!(taken.all == 0 && taken.of_users.is_empty());
    }

    #[test]
    fn what_can_be_done_later_takes_no_place_of_an_end() {
        let works = Works::new(8);
        let users = ["@a:x", "@b:x", "@c:x"].map(user);
        let [one, other, third] = users.each_ref().map(|user| works.later.take(user));
        assert!(one.is_some() && other.is_some() && third.is_none());
        let ends: Vec<_> = (0..8).map(|_| works.ends.take(&users[0])).collect();
        assert!(ends.iter().all(Option::is_some));
    }
}
