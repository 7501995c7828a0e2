//! Panics, as lines of the log.

/// From now on a panic is one line that says where it happened, in place of the standard message on standard error. What
/// it says is left out: panics of slices quote the text that was sliced, which may be a secret (security.md S1).
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, thread = thread.name().unwrap_or_default(), "panicked");
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tracing::level_filters::LevelFilter;

    use super::*;
    use crate::clock::ManualClock;
    use crate::config::{self, LogFormat, LogLevels};
    use crate::domain::Timestamp;
    use crate::telemetry::{LogSink, Logger, MemoryLog};

    #[test]
    fn s1_a_panic_is_a_line_that_says_where_and_never_what() {
        let memory = MemoryLog::default();
        let settings =
            config::Log { format: LogFormat::Json, level: LogLevels::all(LevelFilter::INFO), requests: true };
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_millis(0)));
        let logger = Logger::start(LogSink::Memory(memory.clone()), &settings, clock).unwrap();
        let standard = std::panic::take_hook();
        log_panics();
        let secret = "hunter2\u{e9}".to_owned();
        let panicked =
            tracing::subscriber::with_default(logger.subscriber(), || std::panic::catch_unwind(|| secret[..8].len()));
        std::panic::set_hook(standard);
        assert!(panicked.is_err() && logger.flush(Duration::from_secs(10)));
        let text = memory.text();
        assert!(text.contains("\"panicked\"") && text.contains("panics.rs:") && !text.contains("hunter2"), "{text}");
    }
}
