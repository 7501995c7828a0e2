//! What is wrong with a configuration, told so that it can be put right without reading the source.

use std::fmt;
use std::sync::Arc;

use super::Setting;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file, and the line (from 1).
    File(Arc<str>, usize),
    /// The configuration file as a whole.
    WholeFile(Arc<str>),
    /// The environment variable of this name.
    Environment(String),
    /// A file that holds the secret alone, and what named that file.
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

/// One thing to put right. Holds no secret: values of secret settings and of unknown keys are never repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The setting's name, as in the reference; empty when the file cannot be read as TOML.
    pub setting: String,
    /// Where the offending value stands.
    pub origin: Origin,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl Mistake {
    /// The same with the place where its setting was set, as `settings` know it.
    #[must_use]
    pub fn located(mut self, settings: &[Setting]) -> Self {
        if let Some(setting) = settings.iter().find(|setting| setting.name == self.setting) {
            self.origin = setting.origin.clone();
        }
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.setting.as_str(), &self.origin) {
            ("", origin) => write!(f, "{origin}")?,
            (setting, Origin::Default) => f.write_str(setting)?,
            (setting, origin) => write!(f, "{setting} ({origin})")?,
        }
        write!(f, " {}: {}", self.problem, self.remedy)
    }
}

/// Every mistake of a configuration, never none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 { "mistake" } else { "mistakes" };
        write!(f, "{} {noun} in the configuration", self.0.len())?;
        for mistake in &self.0 {
            write!(f, "\n  {mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
