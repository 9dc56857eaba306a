use std::sync::{Arc, Mutex};

use kitbag_domain::{BoxFuture, Limits, MemoryStore, Store, StoreError};
use kitbag_testkit::hooked::{Hook, HookedStore};

/// A store in memory that notes how it is used, and fails or lets something happen when told.
pub(crate) struct FailingStore {
    memory: Arc<MemoryStore>,
    hooked: Arc<HookedStore<Planned>>,
}

type Interlude = Box<dyn FnOnce(&MemoryStore) + Send>;

struct Planned {
    memory: Arc<MemoryStore>,
    plan: Mutex<Plan>,
}

#[derive(Default)]
struct Plan {
    calls: Vec<&'static str>,
    failure: Option<(usize, StoreError)>,
    interlude: Option<(&'static str, Interlude)>,
}

impl FailingStore {
    pub(crate) fn new(limits: Limits) -> Self {
        let memory = Arc::new(MemoryStore::new(limits, 0xe90c));
        let planned = Planned {
            memory: Arc::clone(&memory),
            plan: Mutex::default(),
        };
        let hooked = Arc::new(HookedStore::new(memory.clone(), planned));
        Self { memory, hooked }
    }

    /// Returns the store that fails and notes.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        self.hooked.clone()
    }

    /// Returns the store below, which never fails and notes nothing.
    pub(crate) fn memory(&self) -> &MemoryStore {
        &self.memory
    }

    /// Fails the call that comes after `calls` others from now on.
    pub(crate) fn fail_after(&self, calls: usize, error: StoreError) {
        *self.plan().lock().unwrap() = Plan {
            failure: Some((calls, error)),
            ..Plan::default()
        };
    }

    /// Does something to the store right before the next call of `method`.
    pub(crate) fn before(
        &self,
        method: &'static str,
        interlude: impl FnOnce(&MemoryStore) + Send + 'static,
    ) {
        self.plan().lock().unwrap().interlude = Some((method, Box::new(interlude)));
    }

    /// Returns the methods called since the last time this was asked.
    pub(crate) fn take_calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.plan().lock().unwrap().calls)
    }

    fn plan(&self) -> &Mutex<Plan> {
        &self.hooked.hook.plan
    }
}

impl Hook for Planned {
    fn before(&self, method: &'static str) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut plan = self.plan.lock().unwrap();
        let number = plan.calls.len();
        plan.calls.push(method);
        let failure = plan.failure.take_if(|(at, _)| *at == number);
        let interlude = plan.interlude.take_if(|(before, _)| *before == method);
        drop(plan);
        if let Some((_, interlude)) = interlude {
            interlude(&self.memory);
        }
        Box::pin(async move { failure.map_or(Ok(()), |(_, error)| Err(error)) })
    }
}
