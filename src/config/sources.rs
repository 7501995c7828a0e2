//! Gathers the configuration file and the environment. All other modules here do no I/O of their own.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::{ConfigError, ConfigErrors, Origin};
use super::{Config, Inputs, Loaded, environment};
use crate::domain::without_byte_order_mark;

/// Path of the configuration file, used without `--config`.
pub(super) const FILE_VARIABLE: &str = "COUNTERSIGN_CONFIG";

/// Read from the working directory when no file is named.
const DEFAULT_FILE: &str = "countersign.toml";

/// In bytes. Stops reading of `/dev/zero`, or of a database named by accident.
const LONGEST_FILE: u64 = 1024 * 1024;

/// The text of the configuration file and the environment variables with our prefix.
pub struct Sources {
    file: Option<(String, String)>,
    environment: Vec<(String, String)>,
}

impl Sources {
    /// Reads `environment` (`std::env::vars_os`) and the file at `path`; without a path, the file that
    /// `COUNTERSIGN_CONFIG` names; without either, the default one if it exists.
    pub fn gather<V>(path: Option<&Path>, environment: V) -> Result<Self, ConfigErrors>
    where
        V: IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    {
        let environment: Vec<_> = environment.into_iter().collect();
        let named = environment.iter().find(|(name, value)| name == FILE_VARIABLE && !value.is_empty());
        let path = path.or_else(|| named.map(|(_, value)| Path::new(value)));
        let name = path.unwrap_or(Path::new(DEFAULT_FILE));
        let mut errors = Vec::new();
        let file = match read_text(name) {
            Ok(text) => Some((name.display().to_string(), text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_none() => None,
            Err(error) => {
                errors.push(ConfigError {
                    setting: String::new(),
                    origin: Origin::WholeFile(name.display().to_string().into()),
                    problem: format!("cannot be read ({error})"),
                    remedy: "check the path and the file's permissions".to_owned(),
                });
                None
            }
        };
        let mut ours = Vec::new();
        for (name, value) in &environment {
            let Some(name) = name.to_str().filter(|name| environment::is_ours(name)) else { continue };
            match value.to_str() {
                Some(value) => ours.push((name.to_owned(), value.to_owned())),
                None => errors.push(ConfigError {
                    setting: name.to_owned(),
                    origin: Origin::Environment(name.to_owned()),
                    problem: "is not UTF-8".to_owned(),
                    remedy: "write it in UTF-8".to_owned(),
                }),
            }
        }
        if errors.is_empty() { Ok(Self { file, environment: ours }) } else { Err(ConfigErrors(errors)) }
    }

    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        let file = self.file.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
        Config::load(&Inputs { file, environment: &self.environment, read_secret_file: &read_text })
    }
}

/// Reads a secret file again, which may have changed since the start.
pub fn read_secret_again(path: &Path) -> io::Result<String> {
    read_text(path).map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 1 MiB"));
    }
    Ok(without_byte_order_mark(&text).to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn a_named_file_must_exist_but_the_default_file_need_not() {
        let errors = Sources::gather(Some(Path::new("/nowhere/cs.toml")), []).err().unwrap();
        assert!(errors.to_string().contains("  /nowhere/cs.toml cannot be read (No such file"), "{errors}");
        assert!(Sources::gather(None, []).is_ok());
        assert!(Sources::gather(Some(Path::new("/dev/zero")), []).is_err());
    }

    #[test]
    fn the_variable_names_the_file_unless_an_argument_does() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, issuer: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("\u{feff}issuer = \"https://{issuer}.example\"\n")).unwrap();
            path
        };
        let (by_variable, by_argument) = (write("a.toml", "a"), write("b.toml", "b"));
        let issuer = |path: Option<&Path>, variable: &Path| {
            let environment = [("COUNTERSIGN_CONFIG".into(), variable.into())];
            let loaded = Sources::gather(path, environment).and_then(|sources| sources.load());
            loaded.map(|loaded| loaded.config.issuer.as_str().to_owned())
        };
        assert_eq!(issuer(None, &by_variable).unwrap(), "https://a.example");
        assert_eq!(issuer(Some(&by_argument), &by_variable).unwrap(), "https://b.example");
        assert_eq!(issuer(None, Path::new("")).unwrap(), "http://localhost:8080", "empty is not set");
        let missing = issuer(None, Path::new("/nowhere/cs.toml")).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/cs.toml cannot be read"), "{missing}");
    }

    #[test]
    fn a_variable_that_is_not_utf_8_is_an_error_only_with_our_prefix() {
        let value = std::ffi::OsString::from_vec(vec![0xff]);
        assert!(Sources::gather(None, [("LS_COLORS".into(), value.clone())]).is_ok());
        assert!(Sources::gather(None, [("COUNTERSIGN_ISSUER".into(), value)]).is_err());
    }

    #[test]
    fn the_file_secret_files_and_the_environment_are_combined() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("url");
        std::fs::write(&secret, "\u{feff}sqlite:///srv/x.db\n").unwrap();
        let file = folder.path().join("cs.toml");
        std::fs::write(&file, format!("[database]\nurl_file = {secret:?}\n")).unwrap();
        let variables = [("COUNTERSIGN_ISSUER".into(), "https://auth.example.com".into())];
        let config = Sources::gather(Some(&file), variables).unwrap().load().unwrap().config;
        assert_eq!(config.database.url.expose(), "sqlite:///srv/x.db");
        assert_eq!(config.issuer.as_str(), "https://auth.example.com");
    }
}
