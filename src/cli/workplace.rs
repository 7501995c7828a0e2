//! The environment of a command: settings, a clock, randomness, a log, a runtime, and the database.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tracing::level_filters::LevelFilter;

use super::{CliError, Common};
use crate::app::{Core, Creation, Parts};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Loaded, LogFormat, LogLevels, Sources};
use crate::crypto::SystemRandom;
use crate::domain::without_byte_order_mark;
use crate::telemetry::{LogSink, Logger, install_panic_hook};

/// A command needs one connection to read and one to write.
const CONNECTIONS: u32 = 2;
/// The time limit for writing the last log lines.
const FLUSH: Duration = Duration::from_secs(1);

/// Reads the configuration file and the environment. Reports every configuration error at once.
pub(super) fn load(common: &Common) -> Result<Loaded, CliError> {
    load_from(common, std::env::vars_os())
}

/// The same with another environment.
pub(super) fn load_from(
    common: &Common,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, CliError> {
    let sources = Sources::gather(common.config.as_deref(), environment);
    sources.and_then(|sources| sources.load()).map_err(CliError::failed)
}

/// The clock, the randomness, and the log of the whole process.
pub(super) fn parts(sink: LogSink, log: &config::Log) -> Result<Parts, CliError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let logger = Logger::start(sink, log, Arc::clone(&clock)).map_err(|error| CliError::about("the log", error))?;
    logger.install().map_err(|error| CliError::about("the log", error))?;
    install_panic_hook(Some(logger.clone()));
    Ok(Parts { clock, random: Arc::new(SystemRandom::default()), logger })
}

/// The parts of a command other than `serve`. Warnings appear on standard error, everything else in the command's
/// answer.
pub(super) fn quiet_parts() -> Result<Parts, CliError> {
    let log = config::Log { format: LogFormat::Text, level: LogLevels::all(LevelFilter::WARN), requests: false };
    parts(LogSink::Stderr, &log)
}

/// The runtime of one command.
pub(super) fn runtime() -> Result<Runtime, CliError> {
    Builder::new_current_thread().enable_all().build().map_err(CliError::failed)
}

/// Runs `work` on the configured database.
pub(super) fn on_database<T>(
    common: &Common,
    creation: Creation,
    work: impl AsyncFnOnce(&Core) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let mut config = load(common)?.config;
    config.database.max_connections = CONNECTIONS;
    config.passwords.threads = Some(1);
    let parts = quiet_parts()?;
    let outcome = runtime()?.block_on(async {
        let core = Core::open_with(&config, &parts, creation).await.map_err(CliError::failed)?;
        let outcome = work(&core).await;
        core.store.settle().await;
        outcome
    });
    parts.logger.flush(FLUSH);
    outcome
}

/// Reads a text file, or standard input if `path` is `-`. The `limit` in bytes refuses files that cannot be the
/// intended ones.
pub(super) fn read_text(path: &Path, limit: u64) -> Result<String, CliError> {
    use std::io::Read;
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(limit + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_string(&mut text))
    };
    match read {
        Ok(bytes) if bytes as u64 > limit => {
            Err(CliError::about(path.display(), format!("is longer than {limit} bytes")))
        }
        Ok(_) => Ok(without_byte_order_mark(&text).to_owned()),
        Err(error) => Err(CliError::about(path.display(), error)),
    }
}
