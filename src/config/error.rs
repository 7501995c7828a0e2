//! Configuration errors. Each names the setting, the place where it was set, the problem and the remedy.

use std::fmt;
use std::sync::Arc;

use super::Setting;

/// The place where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The setting was not set.
    Default,
    /// Name of the configuration file and line number, counted from 1.
    File(Arc<str>, usize),
    /// The configuration file as a whole, without a line.
    WholeFile(Arc<str>),
    /// Name of the environment variable.
    Environment(String),
    /// Path of a file that contains only the secret, and where that path was set.
    SecretFile(String, Box<Origin>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(name, line) => write!(f, "{name}, line {line}"),
            Self::WholeFile(name) => f.write_str(name),
            Self::Environment(name) => f.write_str(name),
            Self::SecretFile(path, named_by) => write!(f, "file {path}, named by {named_by}"),
        }
    }
}

/// One configuration error. It never contains the value of a secret setting or of an unknown key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The setting's dotted name; empty if the file is unreadable or not TOML.
    pub setting: String,
    /// The origin of the invalid value.
    pub origin: Origin,
    /// Completes a sentence that begins with the setting's name.
    pub problem: String,
    /// Instruction for the operator.
    pub remedy: String,
}

impl ConfigError {
    /// Sets `origin` to that of the setting of the same name in `settings`.
    #[must_use]
    pub fn located(mut self, settings: &[Setting]) -> Self {
        if let Some(setting) = settings.iter().find(|setting| setting.name == self.setting) {
            self.origin = setting.origin.clone();
        }
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.setting.as_str(), &self.origin) {
            ("", origin) => write!(f, "{origin}")?,
            (setting, Origin::Default) => f.write_str(setting)?,
            (setting, origin) => write!(f, "{setting} ({origin})")?,
        }
        write!(f, " {}: {}", self.problem, self.remedy)
    }
}

/// All errors of a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 { "error" } else { "errors" };
        write!(f, "{} configuration {noun}", self.0.len())?;
        for error in &self.0 {
            write!(f, "\n  {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
