//! Work that would hold other requests up: the gateway has few threads, by default as few as one.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task;

/// Bytes that are read, copied or compared at once: less than a millisecond, as some 100 are taken by
/// 30 MiB, which is not worth waking another thread for.
const AT_ONCE_BYTES_MAX: usize = 64 * 1024;

/// Does work that takes as long as so many bytes are many. Beyond some, other requests go on meanwhile,
/// where the runtime has threads for that.
///
/// # Panics
/// In a `LocalSet` of a runtime with several threads, whose tasks nobody else can take.
pub(crate) fn aside<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes <= AT_ONCE_BYTES_MAX || !has_threads() {
        return work();
    }
    task::block_in_place(work)
}

/// Tells whether the caller runs on a runtime with threads of its own; commands have none.
fn has_threads() -> bool {
    let runtime = Handle::try_current();
    runtime.is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, RecvTimeoutError};
    use std::time::Duration;

    use super::*;

    /// Returns what work of so many bytes hears of another task while it goes on.
    async fn heard(bytes: usize) -> Result<(), RecvTimeoutError> {
        let work = tokio::spawn(async move {
            let (tell, told) = mpsc::channel();
            tokio::spawn(async move { tell.send(()) });
            aside(bytes, || told.recv_timeout(Duration::from_millis(500)))
        });
        work.await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn other_tasks_of_the_only_thread_go_on_beside_much_work_alone() {
        assert_eq!(heard(AT_ONCE_BYTES_MAX + 1).await, Ok(()));
        assert_eq!(
            heard(AT_ONCE_BYTES_MAX).await,
            Err(RecvTimeoutError::Timeout)
        );
    }

    #[tokio::test]
    async fn where_there_is_one_thread_it_does_the_work() {
        assert_eq!(aside(usize::MAX, || 1), 1);
    }
}
