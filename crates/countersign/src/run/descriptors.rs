//! File descriptors: the ledger opens files each second and every call takes two sockets, so connections that anybody
//! may open must never take the last one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::{Exit, Failure};

/// With fewer nothing useful can be served.
const MINIMUM: u64 = 256;
/// Kept for the ledger, health, keys, and what the process has open anyway.
const RESERVED: u64 = 256;
/// However many descriptors there are.
const MAX_CONNECTIONS: u64 = 4096;

/// Raises the limit of open files as far as the system lets this process, and returns how many connections of agents
/// it allows at once.
///
/// # Errors
/// When it stays too low to serve.
pub(super) fn connections() -> Result<usize, Failure> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    allowed(getrlimit(Resource::Nofile).current)
}

/// `limit` is `None` where there is none. Each connection may need one descriptor more, for the tool.
fn allowed(limit: Option<u64>) -> Result<usize, Failure> {
    let limit = limit.unwrap_or(u64::MAX);
    if limit < MINIMUM {
        let line = format!(
            "this process may open {limit} files at once, and needs at least {MINIMUM}: raise the hard limit \
             (`ulimit -Hn`, `LimitNOFILE=` of systemd, `nofile` of a container)"
        );
        return Err(Failure::new(Exit::Unavailable, line));
    }
    let connections = ((limit - RESERVED.min(limit / 2)) / 2).min(MAX_CONNECTIONS);
    if connections < MAX_CONNECTIONS {
        tracing::warn!(limit, connections, "few files may be open at once, so fewer connections are served at once");
    }
    Ok(usize::try_from(connections).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_tools_and_the_ledger() {
        for (limit, connections) in [(256, 64), (512, 128), (1024, 384), (8192, 3968), (8448, 4096), (1 << 20, 4096)] {
            assert_eq!(allowed(Some(limit)).unwrap(), connections, "{limit}");
            assert!(2 * connections as u64 <= limit - RESERVED.min(limit / 2));
        }
        assert_eq!(allowed(None).unwrap(), 4096);
    }

    #[test]
    fn too_few_descriptors_are_a_clear_refusal() {
        let failure = allowed(Some(255)).unwrap_err().to_string();
        assert!(failure.contains("255") && failure.contains("256") && failure.contains("LimitNOFILE"), "{failure}");
    }

    #[test]
    fn the_limit_is_raised_as_far_as_the_system_allows() {
        connections().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
