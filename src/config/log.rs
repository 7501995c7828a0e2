//! Settings of the log.

use tracing::level_filters::LevelFilter;

use super::raw::Raw;
use super::section::section;
use super::value::{Fault, Value};
use crate::domain::texts;

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

texts! {
    LogFormat else "a log format is `auto`, `text` or `json`" {
        /// Text on a terminal, JSON elsewhere.
        Auto = "auto",
        /// Text for people.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

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
    let names = ["off", "error", "warn", "info", "debug", "trace"];
    text.filter(|text| names.contains(text)).and_then(|text| text.parse().ok()).ok_or(Fault::Form)
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
