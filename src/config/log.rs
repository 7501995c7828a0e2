//! Settings of the log.

use tracing::level_filters::LevelFilter;

use super::raw::Raw;
use super::section::section;
use super::value::{Fault, Value, choice};

section! {
    Log(read) in ["log"] as "Log" {
        /// `auto` is `text` on a terminal and `json` elsewhere.
        format: LogFormat = LogFormat::Auto;
        /// `off`, `error`, `warn`, `info`, `debug` or `trace`. Levels of single modules can follow:
        /// `info,countersign::store=debug`.
        level: LogLevels = LogLevels::all(LevelFilter::INFO);
        /// Log one line per request.
        requests: bool = true;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

choice!(LogFormat, "write \"auto\", \"text\" or \"json\"", "auto" => Auto, "text" => Text, "json" => Json);

/// A default level, and levels of single modules: `info,sqlx=warn`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevels {
    pub default: LevelFilter,
    /// Module path prefixes and their levels.
    pub modules: Vec<(String, LevelFilter)>,
}

impl LogLevels {
    pub const fn all(level: LevelFilter) -> Self {
        Self { default: level, modules: Vec::new() }
    }
}

impl Value for LogLevels {
    const FORM: &'static str = "write off, error, warn, info, debug or trace, optionally followed by ,MODULE=LEVEL";

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

/// Accepts only the names of levels. `tracing` would read the typing error `inof` as a module and log only that module.
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
    fn a_misspelled_level_is_an_error() {
        let read = |text: &str| LogLevels::read(&Raw::Text(text.to_owned()));
        let levels = read("info, sqlx=warn,countersign::store=debug").unwrap();
        assert_eq!(levels.show(), "info,sqlx=warn,countersign::store=debug");
        for bad in ["", "inof", "INFO,", "sqlx=warn", "info,sqlx", "info,sq lx=warn", "info,=warn"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
