//! The memory limit of this process, and the part of it that connections may use.

use std::fs;
use std::path::Path;

use rustix::system::sysinfo;

use crate::config::MOST_DEFAULT_CONNECTIONS;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The expected maximum of memory per connection. Hostile clients reach 50 KiB of buffers over TLS (42 KiB without).
/// The kernel holds as much again of bytes that neither side has read.
const CONNECTION_BYTES: u64 = 128 * KIB;
/// By default, connections may use the memory divided by this. Password hashes, caches and the view have the rest.
const PART_OF_CONNECTIONS: u64 = 4;
/// Unfinished bodies may use the memory divided by this.
const PART_OF_BODIES: u64 = 16;
const LEAST_CONNECTIONS: u64 = 64;
const LEAST_BODY_MEMORY: u64 = 4 * MIB;
/// The largest body is 1 MiB. Nearly all bodies are complete with the first packet, and are not counted.
const MOST_BODY_MEMORY: u64 = 64 * MIB;

/// The memory available to this process, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory(u64);

impl Memory {
    /// The limit of the control group, or the physical memory if that is less.
    pub fn of_process() -> Self {
        let info = sysinfo();
        let physical = info.totalram.saturating_mul(u64::from(info.mem_unit.max(1)));
        Self(control_group_limit(Path::new("/")).map_or(physical, |limit| limit.min(physical)))
    }

    /// The default of `public.max_connections`.
    pub fn connections(self) -> usize {
        let fit = (self.0 / PART_OF_CONNECTIONS / CONNECTION_BYTES).max(LEAST_CONNECTIONS);
        usize::try_from(fit).unwrap_or(usize::MAX).min(MOST_DEFAULT_CONNECTIONS)
    }

    /// The maximum memory of one listener's unfinished bodies.
    pub(super) fn bodies(self) -> usize {
        let most = (self.0 / PART_OF_BODIES).clamp(LEAST_BODY_MEMORY, MOST_BODY_MEMORY);
        usize::try_from(most).unwrap_or(usize::MAX)
    }
}

/// The lowest memory limit of this process's control groups: of version 2 if it is mounted, else of version 1. None if
/// there is no readable limit.
fn control_group_limit(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, group) = (parts.next()?, parts.next()?, parts.next()?);
        match controllers {
            "" => least(&root.join("sys/fs/cgroup"), group, "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                least(&root.join("sys/fs/cgroup/memory"), group, "memory.limit_in_bytes")
            }
            _ => None,
        }
    });
    limits.min()
}

/// The lowest limit of a group and its ancestors. In a container the mount often begins at the container's own group.
/// `/proc/self/cgroup` names that group by a path of the host, so the mount's root is read as well.
fn least(mount: &Path, group: &str, file: &str) -> Option<u64> {
    let group = mount.join(group.trim_start_matches('/'));
    let around = group.ancestors().take_while(|folder| folder.starts_with(mount));
    around.filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        control_group_limit(root.path())
    }

    #[test]
    fn h19_the_lowest_limit_of_a_control_group_and_its_parents_applies() {
        let v2 = ("proc/self/cgroup", "0::/kubepods/pod1/box\n");
        assert_eq!(limit(&[]), None);
        assert_eq!(limit(&[v2]), None);
        assert_eq!(limit(&[v2, ("sys/fs/cgroup/kubepods/pod1/box/memory.max", "max\n")]), None);
        assert_eq!(
            limit(&[
                v2,
                ("sys/fs/cgroup/kubepods/pod1/box/memory.max", "max\n"),
                ("sys/fs/cgroup/kubepods/pod1/memory.max", "536870912\n"),
                ("sys/fs/cgroup/kubepods/memory.max", "1073741824\n"),
            ]),
            Some(512 * MIB)
        );
        assert_eq!(limit(&[v2, ("sys/fs/cgroup/memory.max", "268435456\n")]), Some(256 * MIB), "a mount of its own");
        let v1 = ("proc/self/cgroup", "12:cpu,cpuacct:/a\n4:memory:/docker/x\n0::/\n");
        assert_eq!(
            limit(&[v1, ("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "134217728\n")]),
            Some(128 * MIB)
        );
    }

    #[test]
    fn h19_defaults_follow_from_the_memory() {
        let connections = [0, 512 * MIB, 2048 * MIB, 8192 * MIB, u64::MAX].map(|bytes| Memory(bytes).connections());
        assert_eq!(connections, [64, 1024, 4096, 16_384, 16_384]);
        let bodies = [0, 512 * MIB, u64::MAX].map(|bytes| Memory(bytes).bodies());
        assert_eq!(bodies, [4 << 20, 32 << 20, 64 << 20]);
    }
}
