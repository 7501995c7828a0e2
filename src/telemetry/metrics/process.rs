//! The process's use of system resources, under the metric names that every Prometheus client library uses.

use std::time::Duration;

use prometheus::{Counter, Gauge, IntGauge, Registry, Result};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::labels::register;
use crate::domain::Timestamp;

pub(super) struct Process {
    cpu: Counter,
    resident: IntGauge,
    virtual_memory: IntGauge,
    threads: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
}

impl Process {
    pub fn new(registry: &Registry, started_at: Timestamp) -> Result<Self> {
        let gauge = |name, help| register(registry, IntGauge::new(name, help)?);
        let started =
            Gauge::new("process_start_time_seconds", "Start of the process, in seconds since the Unix epoch.")?;
        register(registry, started)?.set(Duration::from_millis(started_at.millis().unsigned_abs()).as_secs_f64());
        Ok(Self {
            cpu: register(registry, Counter::new("process_cpu_seconds_total", "CPU time of the process.")?)?,
            resident: gauge("process_resident_memory_bytes", "Resident memory of the process.")?,
            virtual_memory: gauge("process_virtual_memory_bytes", "Virtual memory of the process.")?,
            threads: gauge("process_threads", "Threads of the process.")?,
            open_fds: gauge("process_open_fds", "Open file descriptors.")?,
            max_fds: gauge("process_max_fds", "Most file descriptors that may be open.")?,
        })
    }

    /// Reads every value again. A value that the system does not report keeps its last state.
    pub fn update(&self) {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |name: &str| -> Option<i64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let set = |gauge: &IntGauge, value: Option<i64>| value.into_iter().for_each(|value| gauge.set(value));
        set(&self.resident, number("VmRSS").map(|kib| kib * 1024));
        set(&self.virtual_memory, number("VmSize").map(|kib| kib * 1024));
        set(&self.threads, number("Threads"));
        // The folder itself is open during the count.
        let fds = std::fs::read_dir("/proc/self/fd").ok().and_then(|fds| i64::try_from(fds.count()).ok());
        set(&self.open_fds, fds.map(|fds| fds - 1));
        set(&self.max_fds, getrlimit(Resource::Nofile).current.and_then(|most| i64::try_from(most).ok()));
    }
}
