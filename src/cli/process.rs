//! What the operating system is asked for at the start of a process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// No core dump, and no other process of the same user that reads this one's memory: there are keys and passwords in it
/// (security.md S7). Where the system refuses, the service runs as well.
pub(super) fn keep_memory_private() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// As many open files as the system lets this process have: each connection is one, and the usual soft limit of 1024 would
/// be reached long before `max_connections`. Returns how many that are; none where there is no limit.
pub(super) fn raise_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current
}
