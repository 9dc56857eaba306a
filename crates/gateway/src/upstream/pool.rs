//! Connections to the homeserver that wait for a request.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kitbag_http::shared::{STRIPES, Stripes};
use tokio::time::Instant;

use super::link::Link;

/// How often ended connections are looked for.
const SWEEP_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Keeps idle connections, the one that was used last on top; each thread has a stack of its own, and
/// takes from another one where that is empty.
///
/// Nobody polls an idle connection: whether the homeserver ended it is seen when it is taken, and by
/// a sweep now and then, which also ends those that nobody needed for long.
pub(super) struct Pool {
    idle: Stripes<Mutex<Idle>>,
    idle_max: usize,
    idle_timeout: Duration,
    has_sweeper: AtomicBool,
}

#[derive(Default)]
struct Idle {
    #[expect(
        clippy::vec_box,
        reason = "they are large, and go from hand to hand in their boxes"
    )]
    links: Vec<Box<Link>>,
}

impl Pool {
    pub(super) fn new(idle_max: usize, idle_timeout: Duration) -> Self {
        Self {
            idle: Stripes::new(),
            idle_max,
            idle_timeout,
            has_sweeper: AtomicBool::new(false),
        }
    }

    /// Takes the connection that was used last, where one is alive.
    pub(super) fn take(&self) -> Option<Box<Link>> {
        let own = self.idle.own(Mutex::default);
        take_alive(own).or_else(|| self.idle.all().find_map(take_alive))
    }

    /// Keeps a connection for the next request. Returns whether somebody must begin to sweep.
    pub(super) fn put(&self, mut link: Box<Link>) -> bool {
        link.idle_since = Instant::now();
        let mut idle = lock(self.idle.own(Mutex::default));
        // All are counted only where there could be too many.
        if idle.links.len() >= self.idle_max / STRIPES {
            drop(idle);
            if self.count() >= self.idle_max {
                return false;
            }
            idle = lock(self.idle.own(Mutex::default));
        }
        idle.links.push(link);
        drop(idle);
        !self.has_sweeper.load(Ordering::SeqCst) && !self.has_sweeper.swap(true, Ordering::SeqCst)
    }

    /// Ends what ended already and what is idle for too long. Returns how long to wait until the
    /// next time; `None` where nothing is left to look after.
    pub(super) fn sweep(&self) -> Option<Duration> {
        self.idle.all().for_each(|idle| self.sweep_one(idle));
        if self.count() == 0 {
            self.has_sweeper.store(false, Ordering::SeqCst);
            // What came meanwhile was told that somebody sweeps.
            if self.count() == 0 || self.has_sweeper.swap(true, Ordering::SeqCst) {
                return None;
            }
        }
        Some(SWEEP_PAUSE_MAX.min(self.idle_timeout))
    }

    fn sweep_one(&self, idle: &Mutex<Idle>) {
        let now = Instant::now();
        let mut idle = lock(idle);
        let mut links = mem::take(&mut idle.links);
        let is_kept = |link: &mut Box<Link>| {
            now.duration_since(link.idle_since) < self.idle_timeout && link.is_ready()
        };
        let ended: Vec<_> = links.extract_if(.., |link| !is_kept(link)).collect();
        idle.links = links;
        drop(idle);
        // Connections are ended outside of the lock.
        drop(ended);
    }

    fn count(&self) -> usize {
        self.idle.all().map(|idle| lock(idle).links.len()).sum()
    }
}

fn take_alive(idle: &Mutex<Idle>) -> Option<Box<Link>> {
    loop {
        // Let go of at once: a connection that ended is dropped outside of the lock.
        let popped = lock(idle).links.pop();
        let mut link = popped?;
        if link.is_ready() {
            return Some(link);
        }
    }
}

fn lock(idle: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
