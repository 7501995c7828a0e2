//! Process settings that are requested from the operating system at the start.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Disables core dumps, and prevents other processes of the same user from reading this process's memory. The memory
/// holds keys and passwords (security.md S7). If the system refuses, the service runs nevertheless.
pub(super) fn keep_memory_private() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Raises the limit of open files to the permitted maximum. Each connection is an open file, and the usual soft limit
/// of 1024 is far below `max_connections`. Returns the limit, or none if there is no limit.
pub(super) fn raise_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current
}
