//! Time comes in from outside, so that tests can set it.

/// Milliseconds since the Unix epoch, as the Matrix API writes them.
pub type UnixMs = u64;

/// Tells the time of day.
pub trait Clock: Send + Sync + 'static {
    /// Returns the present time in milliseconds since the Unix epoch.
    fn now_ms(&self) -> UnixMs;
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn now_ms(&self) -> UnixMs {
        (**self).now_ms()
    }
}
