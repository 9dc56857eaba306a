//! Gates: places in the code under test where a test stops who comes, to bring about a race.
//!
//! An open gate lets everyone through. [`Gate::stop_next`] stops the next one who comes, and gives
//! the test a [`Stop`]: with it the test waits until somebody stands there, does what must fall
//! into that moment, and lets them go on. Nothing sleeps in the hope that the moment is hit.
//!
//! ```
//! use kitbag_testkit::gate::Gate;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let gate = Gate::new("between two steps");
//! let mut stop = gate.stop_next();
//! let worker = std::thread::spawn(move || gate.pass_blocking());
//! stop.reached().await;
//! assert!(!worker.is_finished());
//! stop.go_on();
//! worker.join().unwrap();
//! # }
//! ```

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// What every wait of a race ends with at last: far more than any of them needs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A place with a name, open until a test stops somebody there.
#[derive(Clone)]
pub struct Gate {
    name: Arc<str>,
    next: Arc<Mutex<VecDeque<Next>>>,
}

/// What happens to one who comes.
enum Next {
    Passes,
    Stops(Standing),
}

/// The side of the one who stands at a gate.
struct Standing {
    arrived: oneshot::Sender<()>,
    leave: oneshot::Receiver<()>,
}

impl Gate {
    /// Returns an open gate.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            next: Arc::default(),
        }
    }

    /// Stops the next one who comes; those behind it pass, unless they are stopped too.
    #[must_use = "dropping it lets the stopped one go on"]
    pub fn stop_next(&self) -> Stop {
        self.stop_after(0)
    }

    /// Stops one who comes after `others`, who pass.
    ///
    /// Counts from those whom earlier calls spoke of.
    #[must_use = "dropping it lets the stopped one go on"]
    pub fn stop_after(&self, others: usize) -> Stop {
        let (arrived, reached) = oneshot::channel();
        let (release, leave) = oneshot::channel();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.extend((0..others).map(|_| Next::Passes));
        next.push_back(Next::Stops(Standing { arrived, leave }));
        Stop {
            name: Arc::clone(&self.name),
            reached: Some(reached),
            _release: release,
        }
    }

    /// Goes through, once the test lets it: for a task.
    pub async fn pass(&self) {
        if let Some(leave) = self.arrive() {
            // An error is the end of the test's side, which lets go as well.
            drop(leave.await);
        }
    }

    /// Goes through, once the test lets it: for a thread outside of any runtime.
    pub fn pass_blocking(&self) {
        if let Some(leave) = self.arrive() {
            drop(leave.blocking_recv());
        }
    }

    fn arrive(&self) -> Option<oneshot::Receiver<()>> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        match next.pop_front()? {
            Next::Passes => None,
            Next::Stops(Standing { arrived, leave }) => {
                // An error means that the test has stopped to wait for anybody.
                arrived.send(()).ok();
                Some(leave)
            }
        }
    }
}

/// The test's side of one stop. Dropping it lets the stopped one go on, so no failure hangs.
pub struct Stop {
    name: Arc<str>,
    /// `None` once somebody came.
    reached: Option<oneshot::Receiver<()>>,
    _release: oneshot::Sender<()>,
}

impl Stop {
    /// Waits until somebody stands at the gate.
    /// # Panics
    /// When nobody comes in time.
    pub async fn reached(&mut self) {
        if let Some(reached) = self.reached.take() {
            let what = format!("somebody to come to the gate \"{}\"", self.name);
            in_time(&what, reached).await.unwrap();
        }
    }

    /// Tells whether somebody came to the gate.
    pub fn is_reached(&mut self) -> bool {
        if let Some(reached) = &mut self.reached
            && reached.try_recv().is_ok()
        {
            self.reached = None;
        }
        self.reached.is_none()
    }

    /// Lets the stopped one go on.
    /// # Panics
    /// Where nobody came: then the race that the test speaks of did not take place.
    pub fn go_on(mut self) {
        assert!(
            self.is_reached(),
            "nobody came to the gate \"{}\"",
            self.name
        );
    }
}

/// Waits for `future`, which is soon done where nothing hangs.
/// # Panics
/// When it is not; `what` says what was waited for.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let awaited = tokio::time::timeout(PATIENCE, future).await;
    awaited.unwrap_or_else(|_| unreachable!("waited {PATIENCE:?} for {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stops_the_one_that_was_meant_and_nobody_else() {
        let gate = Gate::new("test");
        gate.pass().await;
        let mut stop = gate.stop_after(1);
        gate.pass().await;
        assert!(!stop.is_reached());
        let passing = gate.clone();
        let stopped = tokio::spawn(async move { passing.pass().await });
        stop.reached().await;
        gate.pass().await;
        assert!(!stopped.is_finished());
        stop.go_on();
        stopped.await.unwrap();
    }

    #[tokio::test]
    async fn a_dropped_stop_lets_go() {
        let gate = Gate::new("test");
        let stop = gate.stop_next();
        let passing = gate.clone();
        let thread = std::thread::spawn(move || passing.pass_blocking());
        drop(stop);
        thread.join().unwrap();
    }

    #[tokio::test]
    #[should_panic(expected = "nobody came to the gate \"test\"")]
    async fn a_race_that_did_not_take_place_is_told() {
        Gate::new("test").stop_next().go_on();
    }
}
