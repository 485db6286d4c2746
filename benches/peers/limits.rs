//! Limits on the open files of a process here, and the sessions that they allow.

use std::sync::LazyLock;

/// Descriptors other than those of connections.
const OTHER_FILES: usize = 600;

static FILES: LazyLock<u64> =
    LazyLock::new(|| rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024));

/// The number of files that a process may open: this one raises its limit first, and those that it starts inherit it.
pub(crate) fn files() -> u64 {
    // Without a limit, more than this would make some programs reserve memory for all of them.
    (*FILES).min(64 * 1024)
}

/// More sessions than are ever opened here, for programs that want to be told; fewer than would not be allowed.
pub(crate) fn most_sessions() -> usize {
    usize::try_from(files()).unwrap_or(usize::MAX) / 2 - OTHER_FILES / 4
}

/// As many sessions as wanted, or as a process can have that needs two descriptors for each.
pub(crate) fn sessions(wanted: usize) -> usize {
    at_most(wanted, 2)
}

/// The same where the accounts of the sessions are watched: a third descriptor for each.
pub(crate) fn watched_sessions(wanted: usize) -> usize {
    at_most(wanted, 3)
}

fn at_most(wanted: usize, descriptors_each: usize) -> usize {
    let possible = usize::try_from(files()).unwrap_or(usize::MAX).saturating_sub(OTHER_FILES)
        / descriptors_each;
    wanted.min(possible / 100 * 100)
}
