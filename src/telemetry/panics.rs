//! Panics as log lines and, if they end the process, also on standard error.

use std::io::Write;
use std::panic::PanicHookInfo;
use std::time::Duration;

use super::Logger;

/// The time limit for writing the last log lines when the process ends.
const FLUSH: Duration = Duration::from_secs(1);

/// Replaces the standard panic message with a report of the panic's location. The panic's own message is left out:
/// panics of slices quote the sliced text, which may be a secret (security.md S1).
///
/// The report is a line of `logger`, if there is one. A panic of the main thread ends the process, and a panic without
/// a log would be invisible. Both are therefore also reported on standard error.
pub fn install_panic_hook(logger: Option<Logger>) {
    std::panic::set_hook(Box::new(hook(logger, |line| {
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    })));
}

fn hook(logger: Option<Logger>, on_stderr: impl Fn(&str)) -> impl Fn(&PanicHookInfo<'_>) {
    move |panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or_default();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, thread, "panicked");
        if thread == "main" || logger.is_none() {
            on_stderr(&format!("error: panicked at {place}: a defect in countersign, please report it\n"));
            if let Some(logger) = &logger {
                logger.flush(FLUSH);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::level_filters::LevelFilter;

    use super::*;
    use crate::clock::ManualClock;
    use crate::config::{self, LogFormat, LogLevels};
    use crate::domain::Timestamp;
    use crate::telemetry::{LogSink, MemoryLog};

    fn logger() -> (Logger, MemoryLog) {
        let memory = MemoryLog::default();
        let settings =
            config::Log { format: LogFormat::Json, level: LogLevels::all(LevelFilter::INFO), requests: true };
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_millis(0)));
        (Logger::start(LogSink::Memory(memory.clone()), &settings, clock).unwrap(), memory)
    }

    /// The standard error output of a thread with this name that panics over a secret.
    fn panic_of(thread: &str, logger: Option<Logger>) -> String {
        let shown = Arc::new(Mutex::new(String::new()));
        let copy = Arc::clone(&shown);
        let subscriber = self::logger().0;
        let subscriber = logger.as_ref().unwrap_or(&subscriber).subscriber();
        std::panic::set_hook(Box::new(hook(logger, move |line| copy.lock().unwrap().push_str(line))));
        let panicking = std::thread::Builder::new().name(thread.to_owned()).spawn(move || {
            let secret = "hunter2\u{e9}".to_owned();
            tracing::subscriber::with_default(subscriber, || secret[..8].len())
        });
        assert!(panicking.unwrap().join().is_err());
        let shown = shown.lock().unwrap();
        shown.clone()
    }

    /// One test covers all cases, because the process has only one hook.
    #[test]
    fn s1_a_panic_logs_its_location_without_its_message_and_a_fatal_panic_is_logged() {
        let standard = std::panic::take_hook();
        let (logger, memory) = logger();
        let of_worker = panic_of("worker", Some(logger.clone()));
        assert!(logger.flush(FLUSH * 10));
        let of_main = panic_of("main", Some(logger));
        let text = memory.text();
        let before_the_log = panic_of("main", None);
        std::panic::set_hook(standard);
        assert_eq!(of_worker, "", "the service goes on, and its log has it");
        assert_eq!(text.matches("\"panicked\"").count(), 2, "the second is flushed before the process ends: {text}");
        for shown in [of_main, before_the_log, text] {
            assert!(shown.contains("panics.rs:") && !shown.contains("hunter2"), "{shown}");
        }
    }
}
