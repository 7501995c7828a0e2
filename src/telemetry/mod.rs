//! What operators see: the log, and the figures for Prometheus.
//!
//! Nothing here can hold a request up: a line of the log is copied into a bounded queue, a figure is an atomic increment.

mod escape;
mod events;
mod logger;
pub mod metrics;
mod once;
mod panics;
mod request;
mod time;
mod writer;

pub use logger::{LogSink, Logger, MemoryLog};
pub use metrics::Metrics;
pub use once::OncePerMinute;
pub use panics::tell_panics;
pub use request::{CacheUse, RequestLine};
