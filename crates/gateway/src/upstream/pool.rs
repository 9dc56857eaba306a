//! Connections to the homeserver that wait for a request.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::link::Link;

/// How often ended connections are looked for.
const SWEEP_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Keeps idle connections, the one that was used last on top.
///
/// Nobody polls an idle connection: whether the homeserver ended it is seen when it is taken, and by
/// a sweep now and then, which also ends those that nobody needed for long.
pub(super) struct Pool {
    idle: Mutex<Idle>,
    idle_max: usize,
    idle_timeout: Duration,
}

#[derive(Default)]
struct Idle {
    #[expect(
        clippy::vec_box,
        reason = "they are large, and go from hand to hand in their boxes"
    )]
    links: Vec<Box<Link>>,
    has_sweeper: bool,
}

impl Pool {
    pub(super) fn new(idle_max: usize, idle_timeout: Duration) -> Self {
        Self {
            idle: Mutex::default(),
            idle_max,
            idle_timeout,
        }
    }

    /// Takes the connection that was used last, where one is alive.
    pub(super) fn take(&self) -> Option<Box<Link>> {
        loop {
            let mut link = self.idle().links.pop()?;
            if link.is_ready() {
                return Some(link);
            }
        }
    }

    /// Keeps a connection for the next request. Returns whether somebody must begin to sweep.
    pub(super) fn put(&self, mut link: Box<Link>) -> bool {
        link.idle_since = Instant::now();
        let mut idle = self.idle();
        if idle.links.len() >= self.idle_max {
            drop(idle); // The connection is ended outside of the lock.
            return false;
        }
        idle.links.push(link);
        !mem::replace(&mut idle.has_sweeper, true)
    }

    /// Ends what ended already and what is idle for too long. Returns how long to wait until the
    /// next time; `None` where nothing is left to look after.
    pub(super) fn sweep(&self) -> Option<Duration> {
        let now = Instant::now();
        let mut idle = self.idle();
        let mut links = mem::take(&mut idle.links);
        let is_kept = |link: &mut Box<Link>| {
            now.duration_since(link.idle_since) < self.idle_timeout && link.is_ready()
        };
        let ended: Vec<_> = links.extract_if(.., |link| !is_kept(link)).collect();
        idle.links = links;
        idle.has_sweeper = !idle.links.is_empty();
        let has_sweeper = idle.has_sweeper;
        drop(idle);
        drop(ended);
        has_sweeper.then(|| SWEEP_PAUSE_MAX.min(self.idle_timeout))
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
