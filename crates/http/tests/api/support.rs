//! The API as a test sees it: a server over memory, calls, replies.

mod call;
mod failing_store;
mod log;
mod server;
mod stepping;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

pub(crate) use call::{Call, Reply, ending_body, endless_body, fed_body};
pub(crate) use failing_store::FailingStore;
pub(crate) use log::{LogCapture, capture as capture_log};
pub(crate) use server::{
    ADMIN_TOKEN, EPOCH, PASSWORD, Server, Session, Setup, password_hash, sqlite,
};
pub(crate) use stepping::{STEPS, SteppingStore};

/// Polls once: what a future does before it first waits.
pub(crate) fn poll_once<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

/// Returns the output of a future that never waits, as those of the store in memory.
pub(crate) fn ready<F: Future>(future: F) -> F::Output {
    match poll_once(&mut Box::pin(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future waits"),
    }
}
