//! Telemetry for operators: the log, and the metrics for Prometheus.
//!
//! Nothing here can delay a request. A log line is copied into a bounded queue, and a metric is an atomic increment.

mod escape;
mod events;
mod logger;
pub mod metrics;
mod once;
mod panics;
mod request;
mod writer;

pub use logger::{LogSink, Logger, MemoryLog};
pub use metrics::Metrics;
pub use once::OncePerMinute;
pub use panics::install_panic_hook;
pub use request::{CacheUse, RequestLine};
