//! How a suite opens the store that it tests.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use kitbag_domain::{BoxFuture, Limits, Store};

/// A fresh store and what must live as long as it.
pub struct Fixture {
    // Dropped in this order: first the store, then its directory.
    store: Arc<dyn Store>,
    _kept: Box<dyn Any + Send + Sync>,
}

impl Fixture {
    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fixture")
    }
}

impl<S: Store> From<Arc<S>> for Fixture {
    fn from(store: Arc<S>) -> Self {
        (store, ()).into()
    }
}

impl<S: Store, K: Send + Sync + 'static> From<(Arc<S>, K)> for Fixture {
    fn from((store, kept): (Arc<S>, K)) -> Self {
        Self {
            store,
            _kept: Box::new(kept),
        }
    }
}

type Open = dyn Fn(Limits) -> BoxFuture<'static, Fixture> + Send + Sync;

/// Opens fresh stores with chosen limits.
pub struct Opener {
    open: Box<Open>,
}

impl Opener {
    /// Wraps a closure that returns a fresh store.
    #[must_use]
    pub fn new<F, Fut>(open: F) -> Self
    where
        F: Fn(Limits) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Into<Fixture>> + Send + 'static,
    {
        Self {
            open: Box::new(move |limits| {
                let opening = open(limits);
                Box::pin(async move { opening.await.into() })
            }),
        }
    }

    /// Opens a fresh store with the default limits.
    pub async fn open(&self) -> Fixture {
        self.open_with(Limits::default()).await
    }

    /// Opens a fresh store.
    pub async fn open_with(&self, limits: Limits) -> Fixture {
        (self.open)(limits).await
    }
}
