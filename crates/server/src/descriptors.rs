//! File descriptors: each connection needs one, and many systems begin with 1,024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Descriptors that are not connections: the store's, the listeners', the log's.
const RESERVE: u64 = 64;

/// Raises the soft limit to the hard one; warns where it does not suffice for `connections`.
pub(crate) fn provide_for(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where it is refused, the limit is what it was.
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let connections = connections as u64;
    if let Some(descriptors) = current
        && descriptors < connections + RESERVE
    {
        warn!(
            descriptors,
            connections,
            "the system allows fewer descriptors than `listener.connections_max` needs"
        );
    }
}
