//! File descriptors: each connection needs one, and many systems begin with 1,024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Descriptors that are not connections: the store's, the listeners', the log's.
const RESERVE: u64 = 64;

/// Raises the soft limit to the hard one; warns where it does not suffice for so many connections of
/// clients, each of which needs `for_each`.
pub(crate) fn provide_for(connections_max: usize, for_each: u64) {
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
    let needed = needed(connections_max, for_each);
    if let Some(open_files_max) = current
        && open_files_max < needed
    {
        warn!(
            open_files_max,
            needed,
            connections_max,
            for_each,
            "the system allows fewer open files than `listener.connections_max` needs: raise that \
             limit (`LimitNOFILE` of systemd, `ulimit -n`), or lower the setting"
        );
    }
}

fn needed(connections_max: usize, for_each: u64) -> u64 {
    let connections_max = connections_max as u64;
    connections_max.saturating_mul(for_each) + RESERVE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_of_a_client_needs_so_many_and_some_are_for_the_rest() {
        assert_eq!(needed(16_384, 1), 16_384 + RESERVE);
        assert_eq!(needed(16_384, 2), 32_768 + RESERVE);
    }
}
