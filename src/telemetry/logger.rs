//! The log: its sink, its format and its levels.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

use super::events::Events;
use super::request::{self, RequestLine};
use super::writer::Writer;
use crate::clock::Clock;
use crate::config::{self, LogFormat, LogLevels};

/// The maximum number of bytes queued for the sink: some ten thousand lines, or one second of a busy replica.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// The HTTP/2 library warns about each connection whose peer violates the protocol, so the peer controls the number of
/// warnings. Its errors are logged. Its warnings are logged only if `log.level` names the module.
const HTTP2_LIBRARY: &str = "h2";

/// The sink of log lines.
pub enum LogSink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Unbounded memory, for tests.
    Memory(MemoryLog),
    /// Any other writer.
    Writer(Box<dyn Write + Send>),
}

/// A log in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryLog(Arc<Mutex<Vec<u8>>>);

impl MemoryLog {
    /// Everything written so far. Call [`Logger::flush`] first.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for MemoryLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The resolved format of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Json,
}

/// The state shared by every handle.
pub(super) struct Shared {
    pub writer: Writer,
    pub form: Form,
    pub clock: Arc<dyn Clock>,
    levels: LogLevels,
    requests: LevelFilter,
}

/// A handle to the log. Clones write to the same sink.
#[derive(Clone)]
pub struct Logger(Arc<Shared>);

thread_local! {
    /// The line buffer of this thread. It is reused, so that no request allocates for its line.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Logger {
    /// Starts the writing thread. Fails only if the system provides no thread or no standard stream.
    pub fn start(sink: LogSink, settings: &config::Log, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let (sink, is_terminal, capacity) = sink.open()?;
        let form = match settings.format {
            LogFormat::Auto if is_terminal => Form::Text,
            LogFormat::Text => Form::Text,
            LogFormat::Auto | LogFormat::Json => Form::Json,
        };
        let of_gap = Arc::clone(&clock);
        let writer = Writer::start(sink, capacity, move |lines| gap(form, &*of_gap, lines))?;
        let requests = if settings.requests { level_of(&settings.level, request::TARGET) } else { LevelFilter::OFF };
        Ok(Self(Arc::new(Shared { writer, form, clock, levels: settings.level.clone(), requests })))
    }

    /// Installs this as the log of `tracing` and of the `log` crate for the whole process. Fails if one is already
    /// installed.
    pub fn install(&self) -> Result<(), TryInitError> {
        self.subscriber().try_init()
    }

    /// The subscriber for `tracing` events, for [`Logger::install`] or for one thread of a test.
    pub fn subscriber(&self) -> impl Subscriber + Send + Sync + use<> {
        let LogLevels { default, modules } = &self.0.levels;
        let filter = Targets::new()
            .with_default(*default)
            .with_target(HTTP2_LIBRARY, (*default).min(LevelFilter::ERROR))
            .with_targets(modules.iter().cloned());
        Registry::default().with(Events(Arc::clone(&self.0)).with_filter(filter))
    }

    /// Writes the line of a request. Never blocks. Never allocates after the thread's first line.
    pub fn request(&self, request: &RequestLine<'_>) {
        if request.level() > self.0.requests {
            return;
        }
        // A thread that is ending has no line buffer left, and no request to log.
        let _ = LINE.try_with(|line| {
            let mut line = line.borrow_mut();
            line.clear();
            match self.0.form {
                Form::Json => request.write_json(&mut line),
                Form::Text => request.write_text(&mut line),
            }
            self.0.writer.push(&line);
        });
    }

    /// The number of lines lost so far, because the sink was too slow or refused them.
    pub fn dropped_lines(&self) -> u64 {
        self.0.writer.dropped()
    }

    /// Waits until every line is written, at most for `deadline`. Returns whether all lines were written.
    pub fn flush(&self, deadline: Duration) -> bool {
        self.0.writer.flush(deadline)
    }
}

impl LogSink {
    /// The sink, whether it is a terminal, and the size of its queue. Standard streams are written through a separate
    /// descriptor. A stalled write must not hold the lock that `print!` and the end of the process take.
    fn open(self) -> io::Result<(Box<dyn Write + Send>, bool, usize)> {
        let file = |stream: &dyn AsFd| stream.as_fd().try_clone_to_owned().map(|fd| Box::new(File::from(fd)));
        Ok(match self {
            Self::Stdout => (file(&io::stdout())?, io::stdout().is_terminal(), QUEUE_BYTES),
            Self::Stderr => (file(&io::stderr())?, io::stderr().is_terminal(), QUEUE_BYTES),
            Self::Memory(memory) => (Box::new(memory), false, usize::MAX),
            Self::Writer(writer) => (writer, false, QUEUE_BYTES),
        })
    }
}

/// The level of a target: the level of the longest configured module that contains it.
fn level_of(levels: &LogLevels, target: &str) -> LevelFilter {
    let named = levels.modules.iter().filter(|(module, _)| target.starts_with(module.as_str()));
    named.max_by_key(|(module, _)| module.len()).map_or(levels.default, |(_, level)| *level)
}

fn gap(form: Form, clock: &dyn Clock, lines: u64) -> Vec<u8> {
    let mut line = Vec::new();
    match form {
        Form::Json => {
            line.extend_from_slice(b"{\"timestamp\":\"");
            let _ = write!(line, "{}", clock.now());
            line.extend_from_slice(b"\",\"level\":\"WARN\",\"target\":\"countersign::telemetry\",");
            line.extend_from_slice(format!("\"message\":\"log lines were lost\",\"lines\":{lines}}}\n").as_bytes());
        }
        Form::Text => {
            let _ = write!(line, "{}", clock.now());
            line.extend_from_slice(
                format!(" WARN  countersign::telemetry: log lines were lost lines={lines}\n").as_bytes(),
            );
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::example;
    use super::*;
    use crate::clock::ManualClock;
    use crate::domain::Timestamp;

    const SOON: Duration = Duration::from_secs(10);

    fn logger(format: LogFormat, level: LevelFilter, modules: &[(&str, LevelFilter)]) -> (Logger, MemoryLog) {
        let memory = MemoryLog::default();
        let modules = modules.iter().map(|(module, level)| ((*module).to_owned(), *level)).collect();
        let settings = config::Log { format, level: LogLevels { default: level, modules }, requests: true };
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_millis(1_767_225_600_123)));
        (Logger::start(LogSink::Memory(memory.clone()), &settings, clock).unwrap(), memory)
    }

    fn logged(logger: &Logger, memory: &MemoryLog, log: impl FnOnce()) -> String {
        tracing::subscriber::with_default(logger.subscriber(), log);
        assert!(logger.flush(SOON));
        memory.text()
    }

    fn say_things() {
        let outer = tracing::info_span!("request", request_id = "abc", depth = 1);
        let _outer = outer.enter();
        let inner = tracing::info_span!("login", depth = 2, user = tracing::field::Empty);
        inner.record("user", "usr_1");
        let _inner = inner.enter();
        let error = io::Error::other("disk\nfull");
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            ok = false,
            ratio = 0.5,
            level = "mine",
            "cannot {}",
            "store"
        );
        tracing::info!(infinite = f64::INFINITY);
    }

    #[test]
    fn events_carry_their_own_fields_and_those_of_the_spans_around_them() {
        let (json, json_memory) = logger(LogFormat::Auto, LevelFilter::INFO, &[]);
        let (text, text_memory) = logger(LogFormat::Text, LevelFilter::INFO, &[]);
        let lines = [logged(&json, &json_memory, say_things), logged(&text, &text_memory, say_things)].concat();
        insta::assert_snapshot!(lines);
    }

    #[test]
    fn s3_untrusted_text_cannot_break_a_line_and_every_line_parses_back() {
        let hostile = "x\r\n{\"level\":\"ERROR\"}\u{1b}[2J\u{2028}\u{202e}\u{85}";
        let (logger, memory) = logger(LogFormat::Json, LevelFilter::TRACE, &[]);
        let text = logged(&logger, &memory, || {
            tracing::info!(name = hostile, debug = ?hostile, display = %hostile, "{hostile}");
            tracing::trace!(target: "sqlx", "{hostile}");
        });
        assert_eq!(text.lines().count(), 2);
        for line in text.lines() {
            assert!(line.chars().all(|char| !char.is_control() && !"\u{2028}\u{202e}".contains(char)), "{line:?}");
            let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(parsed["message"], hostile);
        }
    }

    #[test]
    fn levels_apply_per_module_and_request_lines_have_their_own_level() {
        let modules = [("sqlx", LevelFilter::OFF), ("countersign::request", LevelFilter::WARN)];
        let (logger, memory) = logger(LogFormat::Json, LevelFilter::INFO, &modules);
        let text = logged(&logger, &memory, || {
            tracing::error!(target: "sqlx::query", "hidden");
            tracing::debug!("hidden");
            tracing::info!("seen");
            logger.request(&example());
            logger.request(&RequestLine { status: 503, ..example() });
        });
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("\"seen\"") && text.contains("\"status\":503"));
    }

    #[test]
    fn h10_warnings_of_the_http2_library_are_logged_only_if_enabled() {
        let lines = |level, modules: &[(&str, LevelFilter)]| {
            let (logger, memory) = logger(LogFormat::Json, level, modules);
            let text = logged(&logger, &memory, || {
                tracing::error!(target: "h2::proto", "seen");
                tracing::warn!(target: "h2::proto::ping_pong", "of a peer");
                tracing::warn!(target: "hyper::proto", "of another crate");
            });
            text.lines().count()
        };
        assert_eq!(lines(LevelFilter::TRACE, &[]), 2);
        assert_eq!(lines(LevelFilter::OFF, &[]), 0);
        assert_eq!(lines(LevelFilter::INFO, &[("h2", LevelFilter::WARN)]), 3);
    }

    #[test]
    fn request_lines_can_be_turned_off() {
        let memory = MemoryLog::default();
        let settings =
            config::Log { format: LogFormat::Json, level: LogLevels::all(LevelFilter::TRACE), requests: false };
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_millis(0)));
        let logger = Logger::start(LogSink::Memory(memory.clone()), &settings, clock).unwrap();
        logger.request(&RequestLine { status: 500, ..example() });
        assert!(logger.flush(SOON) && memory.text().is_empty());
    }
}
