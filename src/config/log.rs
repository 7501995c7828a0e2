//! What is logged, and in which form.

use tracing::level_filters::LevelFilter;

use super::raw::Raw;
use super::reader::Reader;
use super::value::{Fault, Value, choice};

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// From which level on.
    pub level: LogLevels,
    /// Whether every request is a line.
    pub requests: bool,
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

choice!(LogFormat, "write \"auto\", \"text\" or \"json\"", "auto" => Auto, "text" => Text, "json" => Json);

/// A level for everything, and others for single modules: `info,sqlx=warn`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevels {
    /// What holds where nothing else is said.
    pub default: LevelFilter,
    /// Modules (by the beginning of their path) with a level of their own.
    pub modules: Vec<(String, LevelFilter)>,
}

impl LogLevels {
    /// One level for everything.
    pub const fn all(level: LevelFilter) -> Self {
        Self { default: level, modules: Vec::new() }
    }
}

impl Log {
    pub(super) fn load(read: &mut Reader<'_>) -> Self {
        read.section("Log");
        Self {
            format: read.setting("log.format", LogFormat::Auto, "`auto` is `text` on a terminal and `json` elsewhere."),
            level: read.setting(
                "log.level",
                LogLevels::all(LevelFilter::INFO),
                "`off`, `error`, `warn`, `info`, `debug` or `trace`; with others for single modules, such as \
                 `info,countersign::store=debug`.",
            ),
            requests: read.setting("log.requests", true, "One line per request."),
        }
    }
}

impl Value for LogLevels {
    const FORM: &'static str = "write off, error, warn, info, debug or trace, then perhaps ,MODULE=LEVEL";

    fn read(raw: &Raw) -> Result<Self, Fault> {
        let mut parts = raw.text().ok_or(Fault::Form)?.split(',').map(str::trim);
        let mut levels = Self::all(level(parts.next())?);
        for part in parts {
            let (module, text) = part.split_once('=').ok_or(Fault::Form)?;
            if module.is_empty() || !module.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte)) {
                return Err(Fault::Form);
            }
            levels.modules.push((module.to_owned(), level(Some(text))?));
        }
        Ok(levels)
    }

    fn show(&self) -> String {
        let modules = self.modules.iter().map(|(module, level)| format!(",{module}={level}"));
        format!("{}{}", self.default, modules.collect::<String>())
    }
}

/// Only the words: `tracing` would also read `inof` as the name of a module, and log nothing else.
fn level(text: Option<&str>) -> Result<LevelFilter, Fault> {
    match text {
        Some("off") => Ok(LevelFilter::OFF),
        Some("error") => Ok(LevelFilter::ERROR),
        Some("warn") => Ok(LevelFilter::WARN),
        Some("info") => Ok(LevelFilter::INFO),
        Some("debug") => Ok(LevelFilter::DEBUG),
        Some("trace") => Ok(LevelFilter::TRACE),
        _ => Err(Fault::Form),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_words_and_a_slip_is_an_error() {
        let read = |text: &str| LogLevels::read(&Raw::Text(text.to_owned()));
        let levels = read("info, sqlx=warn,countersign::store=debug").unwrap();
        assert_eq!(levels.show(), "info,sqlx=warn,countersign::store=debug");
        for bad in ["", "inof", "INFO,", "sqlx=warn", "info,sqlx", "info,sq lx=warn", "info,=warn"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
