//! A store whose calls a test can stop before they begin and after they returned.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kitbag_domain::{BoxFuture, Store, StoreError};

use crate::gate::{Gate, Stop};
use crate::hooked::{Hook, HookedStore};

/// Hands everything on to another store, through a gate before and a gate after each call.
///
/// The gates bear the names of the methods. A wait subscribes, reads, waits: so "between
/// subscribing and reading" is before `changes`, "between a snapshot and its use" behind it.
pub type PausingStore = HookedStore<Gates>;

/// The gates of a [`PausingStore`].
#[derive(Default)]
pub struct Gates(Mutex<HashMap<(Side, &'static str), Gate>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Side {
    Before,
    After,
}

impl PausingStore {
    /// Returns a store over `store` that stops nobody yet.
    #[must_use]
    pub fn over(store: Arc<dyn Store>) -> Self {
        Self::new(store, Gates::default())
    }

    /// Stops the next call of `method` before it begins.
    #[must_use = "dropping it lets the stopped one go on"]
    pub fn stop_before(&self, method: &'static str) -> Stop {
        self.hook.gate(Side::Before, method).stop_next()
    }

    /// Stops the next call of `method` once it has its answer.
    #[must_use = "dropping it lets the stopped one go on"]
    pub fn stop_after(&self, method: &'static str) -> Stop {
        self.stop_after_others(method, 0)
    }

    /// Stops a call of `method` once it has its answer, behind `others` that return first.
    #[must_use = "dropping it lets the stopped one go on"]
    pub fn stop_after_others(&self, method: &'static str, others: usize) -> Stop {
        self.hook.gate(Side::After, method).stop_after(others)
    }
}

impl Gates {
    fn gate(&self, side: Side, method: &'static str) -> Gate {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = gates
            .entry((side, method))
            .or_insert_with(|| Gate::new(format!("{side:?} {method}")));
        gate.clone()
    }
}

impl Hook for Gates {
    fn before(&self, method: &'static str) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.gate(Side::Before, method).pass().await;
            Ok(())
        })
    }

    fn after(&self, method: &'static str) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.gate(Side::After, method).pass().await })
    }
}
