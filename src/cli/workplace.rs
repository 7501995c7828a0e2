//! What a command needs before it can do anything: settings, a clock, randomness, a log, a runtime.

use std::ffi::OsString;
use std::sync::Arc;

use super::{CliError, Common};
use crate::app::Parts;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Loaded, Sources};
use crate::crypto::SystemRandom;
use crate::telemetry::{LogSink, Logger, log_panics};

/// Reads the configuration file and the environment; every mistake is told at once.
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

/// Time, randomness, and the log of the whole process.
pub(super) fn parts(sink: LogSink, log: &config::Log) -> Result<Parts, CliError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let logger = Logger::start(sink, log, Arc::clone(&clock)).map_err(|error| CliError::about("the log", error))?;
    logger.install().map_err(|error| CliError::about("the log", error))?;
    log_panics();
    Ok(Parts { clock, random: Arc::new(SystemRandom::default()), logger })
}
