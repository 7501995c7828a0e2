//! Reads settings one by one. A section is a struct literal of calls on [`Reader`], and each call says all there is to
//! say about its setting: name, default, range and meaning. The reference, `config show` and the list of known names
//! follow from those calls.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::mistake::{Mistake, Origin};
use super::raw::{Found, Raw};
use super::value::{Fault, Value};
use super::{Inputs, Setting, environment, file, unknown};

/// A setting that must not be shown.
pub(super) trait Hidden: Sized {
    /// Reads the secret. The error is fixed text: what is wrong, what to do.
    fn read(text: &str) -> Result<Self, (&'static str, &'static str)>;

    /// What may be shown instead of it.
    fn show(&self) -> String;
}

/// What is left to read, and what was found out so far.
pub(super) struct Reader<'a> {
    file: BTreeMap<String, Found>,
    environment: BTreeMap<String, Found>,
    read_secret_file: &'a dyn Fn(&Path) -> io::Result<String>,
    file_is_broken: bool,
    section: &'static str,
    settings: Vec<Setting>,
    mistakes: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    pub fn new(inputs: &Inputs<'a>) -> Self {
        let (file, mistakes) = inputs.file.as_ref().map(|(name, text)| file::read(name, text)).unwrap_or_default();
        let file_is_broken = !mistakes.is_empty();
        Self {
            // What a broken file seems to say would only bring up mistakes that nobody made.
            file: if file_is_broken { BTreeMap::new() } else { file },
            environment: environment::read(inputs.environment),
            read_secret_file: inputs.read_secret_file,
            file_is_broken,
            section: "",
            settings: Vec::new(),
            mistakes,
        }
    }

    /// Begins a section of the reference.
    pub fn section(&mut self, title: &'static str) {
        self.section = title;
    }

    /// A setting that takes every value of its type.
    pub fn setting<T: Value>(&mut self, name: impl Into<String>, default: T, meaning: impl Into<String>) -> T {
        let default_shown = default.show();
        self.read(name.into(), default_shown, String::new(), meaning, T::read).unwrap_or(default)
    }

    /// A setting with a range, both ends included.
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

    /// A setting that need not have a value; `otherwise` says what holds then. An empty variable means "not set": container
    /// tools pass one for each value that the operator left out.
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

    /// The same within a range.
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

    /// A secret: given itself, or by the path of a file that holds it under the name with `_file` at its end.
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
                self.mistake(name, origin.clone(), "is not a text or is empty", "write the secret as a text");
                None
            }
            Some(text) => {
                T::read(text).map_err(|(problem, remedy)| self.mistake(name, origin.clone(), problem, remedy)).ok()
            }
        });
        let shown = value.as_ref().map_or_else(|| default.clone(), T::show);
        self.record(Setting { secret: true, ..self.describe(name, shown, default, String::new(), meaning, origin) });
        value
    }

    /// The same where the secret need not be set: an empty variable means "not set".
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

    /// A rule over several settings, silent when one of them is wrong in itself. The first is the one to change; where
    /// nobody set it, the problem names the place of another that somebody did set.
    pub fn rule(&mut self, settings: &[&str], holds: bool, problem: &str, remedy: &str) {
        let is_blamed = |name: &&str| self.mistakes.iter().any(|mistake| mistake.setting == *name);
        let Some(first) = settings.first().filter(|_| !holds && !settings.iter().any(is_blamed)) else { return };
        let mut set = settings.iter().filter_map(|name| {
            self.settings.iter().find(|setting| setting.name == *name && setting.origin != Origin::Default)
        });
        let (origin, problem) = match set.next() {
            Some(setting) if setting.name == *first => (setting.origin.clone(), problem.to_owned()),
            Some(other) => (Origin::Default, format!("{problem} ({} comes from {})", other.name, other.origin)),
            None => (Origin::Default, problem.to_owned()),
        };
        self.mistake(first, origin, problem, remedy);
    }

    /// The value of a setting that is read later; none when it is not set, or not valid.
    pub fn peek<T: Value>(&self, name: &str) -> Option<T> {
        let found = self.environment.get(name).or_else(|| self.file.get(name))?;
        T::read(&found.raw).ok()
    }

    /// Whether a setting that is read later is there.
    pub fn is_given(&self, name: &str) -> bool {
        self.environment.contains_key(name) || self.file.contains_key(name)
    }

    /// Whether somebody set this setting, rightly or wrongly.
    pub fn is_set(&self, name: &str) -> bool {
        self.settings.iter().any(|setting| setting.name == name && setting.origin != Origin::Default)
    }

    /// The file that a secret was read from, if it was given by one.
    pub fn secret_file(&self, name: &str) -> Option<PathBuf> {
        let setting = self.settings.iter().find(|setting| setting.name == name)?;
        match &setting.origin {
            Origin::SecretFile(path, _) => Some(path.into()),
            _ => None,
        }
    }

    /// What was read, or every mistake. Whatever was not asked for is unknown.
    pub fn finish(mut self) -> Result<Vec<Setting>, Vec<Mistake>> {
        let known: BTreeSet<&str> = self.settings.iter().map(|setting| setting.name.as_str()).collect();
        let left = self.file.iter().chain(&self.environment);
        let unknown = left.filter_map(|(name, found)| unknown::mistake(name, found, &known));
        self.mistakes.extend(unknown.collect::<Vec<_>>());
        if self.file_is_broken {
            self.mistakes.retain(|mistake| mistake.setting.is_empty() || mistake.origin != Origin::Default);
        }
        if self.mistakes.is_empty() { Ok(self.settings) } else { Err(self.mistakes) }
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
        let value = found.and_then(|Found { raw, .. }| {
            let faulty = |fault: Fault| {
                let (form, quoted) = (T::FORM, format!("is {}", raw.quoted()));
                let (problem, remedy) = match fault {
                    Fault::Range => (quoted, format!("write {allowed}")),
                    Fault::Form if allowed.is_empty() => (quoted, form.to_owned()),
                    Fault::Form => (quoted, format!("{form}, {allowed}")),
                    Fault::Because(problem) => (problem, form.to_owned()),
                };
                self.mistake(&name, origin.clone(), problem, remedy);
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

    fn take_secret(&mut self, name: &'static str) -> Option<Found> {
        let pointer = format!("{name}_file");
        let in_file = (self.file.remove(name), self.file.remove(&pointer));
        let in_environment = (self.environment.remove(name), self.environment.remove(&pointer));
        let is_in_environment = in_environment.0.is_some() || in_environment.1.is_some();
        match if is_in_environment { in_environment } else { in_file } {
            (direct, None) => direct,
            (None, Some(pointer)) => self.follow(name, &pointer),
            (Some(_), Some(pointer)) => {
                let problem = format!("is given twice, also as {name}_file");
                self.mistake(name, pointer.origin, problem, "keep one of the two");
                None
            }
        }
    }

    fn follow(&mut self, name: &str, pointer: &Found) -> Option<Found> {
        let Some(path) = pointer.raw.text().filter(|path| !path.is_empty()) else {
            self.mistake(&format!("{name}_file"), pointer.origin.clone(), "is not a path", "write the path of a file");
            return None;
        };
        let origin = Origin::SecretFile(path.to_owned(), Box::new(pointer.origin.clone()));
        match (self.read_secret_file)(Path::new(path)) {
            Ok(text) => Some(Found { raw: Raw::Text(text.trim_end_matches(['\r', '\n']).to_owned()), origin }),
            Err(error) => {
                self.mistake(name, origin, format!("cannot be read ({error})"), "check the path and its permissions");
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
        let (name, meaning) = (name.to_owned(), meaning.into());
        Setting { name, variable, section, value, default, allowed, meaning, origin, secret: false }
    }

    fn record(&mut self, setting: Setting) {
        debug_assert!(!self.settings.iter().any(|known| known.name == setting.name), "{} is read twice", setting.name);
        self.settings.push(setting);
    }

    fn mistake(&mut self, name: &str, origin: Origin, problem: impl Into<String>, remedy: impl Into<String>) {
        let (problem, remedy) = (problem.into(), remedy.into());
        self.mistakes.push(Mistake { setting: name.to_owned(), origin, problem, remedy });
    }
}

/// How a range is told, and how a value within it is read.
fn bounded<T: Value + PartialOrd>(range: RangeInclusive<T>) -> (String, impl Fn(&Raw) -> Result<T, Fault>) {
    let allowed = format!("{} to {}", range.start().show(), range.end().show());
    let read = move |raw: &Raw| {
        let value = T::read(raw)?;
        if range.contains(&value) { Ok(value) } else { Err(Fault::Range) }
    };
    (allowed, read)
}
