//! Reads settings one by one. A section is a struct literal of calls on [`Reader`]. Each call declares the name, default,
//! range and description of a setting. docs/configuration.md, `config show` and the list of known names are generated
//! from these calls.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Origin};
use super::raw::{Raw, Written};
use super::value::{Fault, Value};
use super::{Inputs, Setting, environment, file, unknown};

/// The type of a secret setting, whose value must not be printed.
pub(super) trait Hidden: Sized {
    /// Parses the secret. The error is a problem and a remedy; both are constants, so they cannot contain the secret.
    fn read(text: &str) -> Result<Self, (&'static str, &'static str)>;

    /// A printable form without the secret.
    fn show(&self) -> String;
}

/// The values not yet read, and the settings and errors so far.
pub(super) struct Reader<'a> {
    file: BTreeMap<String, Written>,
    environment: BTreeMap<String, Written>,
    read_secret_file: &'a dyn Fn(&Path) -> io::Result<String>,
    file_is_broken: bool,
    section: &'static str,
    settings: Vec<Setting>,
    errors: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    pub fn new(inputs: &Inputs<'a>) -> Self {
        let (file, errors) = inputs.file.as_ref().map(|(name, text)| file::read(name, text)).unwrap_or_default();
        let file_is_broken = !errors.is_empty();
        Self {
            // A file with syntax errors parses only in part. Reading its settings would report misleading errors.
            file: if file_is_broken { BTreeMap::new() } else { file },
            environment: environment::read(inputs.environment),
            read_secret_file: inputs.read_secret_file,
            file_is_broken,
            section: "",
            settings: Vec::new(),
            errors,
        }
    }

    /// Begins a section of docs/configuration.md.
    pub fn section(&mut self, title: &'static str) {
        self.section = title;
    }

    /// A setting that accepts every value of its type.
    pub fn setting<T: Value>(&mut self, name: impl Into<String>, default: T, meaning: impl Into<String>) -> T {
        let default_shown = default.show();
        self.read(name.into(), default_shown, String::new(), meaning, T::read).unwrap_or(default)
    }

    /// A setting with an inclusive range.
    pub fn within<T: Value + PartialOrd>(
        &mut self,
        name: impl Into<String>,
        default: T,
        range: RangeInclusive<T>,
        meaning: impl Into<String>,
    ) -> T {
        let (allowed, read) = bounded(range);
        self.read(name.into(), default.show(), allowed, meaning, read).unwrap_or(default)
    }

    /// A setting without a default value. `otherwise` describes the behaviour when it is not set. An empty environment
    /// variable means "not set", because container tools pass an empty variable for each value that is left out.
    pub fn optional<T: Value>(
        &mut self,
        name: impl Into<String>,
        otherwise: impl Into<String>,
        meaning: impl Into<String>,
    ) -> Option<T> {
        let name = name.into();
        self.drop_empty_variable(&name);
        self.read(name, otherwise.into(), String::new(), meaning, T::read)
    }

    /// As `optional`, with an inclusive range.
    pub fn optional_within<T: Value + PartialOrd>(
        &mut self,
        name: impl Into<String>,
        otherwise: impl Into<String>,
        range: RangeInclusive<T>,
        meaning: impl Into<String>,
    ) -> Option<T> {
        let name = name.into();
        self.drop_empty_variable(&name);
        let (allowed, read) = bounded(range);
        self.read(name, otherwise.into(), allowed, meaning, read)
    }

    /// A secret, set directly or as the path of a file in the setting `{name}_file`.
    pub fn secret<T: Hidden>(
        &mut self,
        name: &'static str,
        otherwise: impl Into<String>,
        meaning: impl Into<String>,
    ) -> Option<T> {
        let default = otherwise.into();
        let found = self.take_secret(name);
        let origin = found.as_ref().map_or(Origin::Default, |found| found.origin.clone());
        let value = found.and_then(|found| match found.raw.text() {
            None | Some("") => {
                self.error(name, origin.clone(), "is empty or not a string", "write the secret as a string");
                None
            }
            Some(text) => {
                T::read(text).map_err(|(problem, remedy)| self.error(name, origin.clone(), problem, remedy)).ok()
            }
        });
        let shown = value.as_ref().map_or_else(|| default.clone(), T::show);
        self.record(Setting { secret: true, ..self.describe(name, shown, default, String::new(), meaning, origin) });
        value
    }

    /// As `secret`, but an empty environment variable means "not set".
    pub fn optional_secret<T: Hidden>(
        &mut self,
        name: &'static str,
        otherwise: impl Into<String>,
        meaning: impl Into<String>,
    ) -> Option<T> {
        self.drop_empty_variable(name);
        self.drop_empty_variable(&format!("{name}_file"));
        self.secret(name, otherwise, meaning)
    }

    /// Checks a rule that involves several settings. The error names the first of them. If that one has its default, the
    /// error also names another that was set, and where. A setting that is invalid by itself suppresses the error.
    pub fn rule(&mut self, settings: &[&str], holds: bool, problem: &str, remedy: &str) {
        let is_blamed = |name: &&str| self.errors.iter().any(|error| error.setting == *name);
        let Some(first) = settings.first().filter(|_| !holds && !settings.iter().any(is_blamed)) else { return };
        let mut set = settings.iter().filter_map(|name| {
            self.settings.iter().find(|setting| setting.name == *name && setting.origin != Origin::Default)
        });
        let (origin, problem) = match set.next() {
            Some(setting) if setting.name == *first => (setting.origin.clone(), problem.to_owned()),
            Some(other) => (Origin::Default, format!("{problem} ({} comes from {})", other.name, other.origin)),
            None => (Origin::Default, problem.to_owned()),
        };
        self.error(first, origin, problem, remedy);
    }

    /// The value of a setting that is read later; `None` if it is not set or invalid.
    pub fn peek<T: Value>(&self, name: &str) -> Option<T> {
        let found = self.environment.get(name).or_else(|| self.file.get(name))?;
        T::read(&found.raw).ok()
    }

    /// Whether an optional setting that is read later is set. An empty environment variable means "not set".
    pub fn is_given(&self, name: &str) -> bool {
        let variable = self.environment.get(name);
        variable.is_some_and(|written| written.raw.text() != Some("")) || self.file.contains_key(name)
    }

    /// Whether a setting that was already read is set, even if its value is invalid.
    pub fn is_set(&self, name: &str) -> bool {
        self.settings.iter().any(|setting| setting.name == name && setting.origin != Origin::Default)
    }

    /// The path of the file that a secret was read from.
    pub fn secret_file(&self, name: &str) -> Option<PathBuf> {
        let setting = self.settings.iter().find(|setting| setting.name == name)?;
        match &setting.origin {
            Origin::SecretFile(path, _) => Some(path.into()),
            _ => None,
        }
    }

    /// The settings, or all errors. Values that were not read are unknown settings.
    pub fn finish(mut self) -> Result<Vec<Setting>, Vec<ConfigError>> {
        let known: BTreeSet<&str> = self.settings.iter().map(|setting| setting.name.as_str()).collect();
        let left = self.file.iter().chain(&self.environment);
        let unknown = left.filter_map(|(name, found)| unknown::error(name, found, &known));
        self.errors.extend(unknown.collect::<Vec<_>>());
        if self.file_is_broken {
            self.errors.retain(|error| error.setting.is_empty() || error.origin != Origin::Default);
        }
        if self.errors.is_empty() { Ok(self.settings) } else { Err(self.errors) }
    }

    fn read<T: Value>(
        &mut self,
        name: String,
        default: String,
        allowed: String,
        meaning: impl Into<String>,
        read: impl Fn(&Raw) -> Result<T, Fault>,
    ) -> Option<T> {
        let in_file = self.file.remove(&name);
        let found = self.environment.remove(&name).or(in_file);
        let origin = found.as_ref().map_or(Origin::Default, |found| found.origin.clone());
        let value = found.and_then(|Written { raw, .. }| {
            let faulty = |fault: Fault| {
                let (form, quoted) = (T::FORM, format!("is {}", raw.quoted()));
                let (problem, remedy) = match fault {
                    Fault::Range => (quoted, format!("write {allowed}")),
                    Fault::Form if allowed.is_empty() => (quoted, form.to_owned()),
                    Fault::Form => (quoted, format!("{form}, {allowed}")),
                    Fault::Because(problem) => (problem, form.to_owned()),
                };
                self.error(&name, origin.clone(), problem, remedy);
            };
            read(&raw).map_err(faulty).ok()
        });
        let shown = value.as_ref().map_or_else(|| default.clone(), Value::show);
        self.record(self.describe(&name, shown, default, allowed, meaning, origin));
        value
    }

    fn drop_empty_variable(&mut self, name: &str) {
        if self.environment.get(name).is_some_and(|found| found.raw.text().is_some_and(str::is_empty)) {
            self.environment.remove(name);
        }
    }

    fn take_secret(&mut self, name: &'static str) -> Option<Written> {
        let pointer = format!("{name}_file");
        let in_file = (self.file.remove(name), self.file.remove(&pointer));
        let in_environment = (self.environment.remove(name), self.environment.remove(&pointer));
        let is_in_environment = in_environment.0.is_some() || in_environment.1.is_some();
        match if is_in_environment { in_environment } else { in_file } {
            (direct, None) => direct,
            (None, Some(pointer)) => self.follow(name, &pointer),
            (Some(_), Some(pointer)) => {
                let problem = format!("is given twice, also as {name}_file");
                self.error(name, pointer.origin, problem, "keep one of the two");
                None
            }
        }
    }

    fn follow(&mut self, name: &str, pointer: &Written) -> Option<Written> {
        let Some(path) = pointer.raw.text().filter(|path| !path.is_empty()) else {
            self.error(&format!("{name}_file"), pointer.origin.clone(), "is not a path", "write the path of a file");
            return None;
        };
        let origin = Origin::SecretFile(path.to_owned(), Box::new(pointer.origin.clone()));
        match (self.read_secret_file)(Path::new(path)) {
            Ok(text) => Some(Written { raw: Raw::Text(text.trim_end_matches(['\r', '\n']).to_owned()), origin }),
            Err(error) => {
                self.error(
                    name,
                    origin,
                    format!("cannot be read ({error})"),
                    "check the path and the file's permissions",
                );
                None
            }
        }
    }

    fn describe(
        &self,
        name: &str,
        value: String,
        default: String,
        allowed: String,
        meaning: impl Into<String>,
        origin: Origin,
    ) -> Setting {
        let variable = environment::variable_name(name);
        let section = self.section;
        let (name, meaning) = (name.to_owned(), meaning.into().trim_start().to_owned());
        Setting { name, variable, section, value, default, allowed, meaning, origin, secret: false }
    }

    fn record(&mut self, setting: Setting) {
        debug_assert!(!self.settings.iter().any(|known| known.name == setting.name), "{} is read twice", setting.name);
        self.settings.push(setting);
    }

    fn error(&mut self, name: &str, origin: Origin, problem: impl Into<String>, remedy: impl Into<String>) {
        let (problem, remedy) = (problem.into(), remedy.into());
        self.errors.push(ConfigError { setting: name.to_owned(), origin, problem, remedy });
    }
}

/// The range as text, and a function that parses a value within it.
fn bounded<T: Value + PartialOrd>(range: RangeInclusive<T>) -> (String, impl Fn(&Raw) -> Result<T, Fault>) {
    let allowed = format!("{} to {}", range.start().show(), range.end().show());
    let read = move |raw: &Raw| {
        let value = T::read(raw)?;
        if range.contains(&value) { Ok(value) } else { Err(Fault::Range) }
    };
    (allowed, read)
}
