//! docs/configuration.md, written by the settings themselves and compared by a test.

use super::{Config, Inputs, Setting};

/// What the tables cannot say.
const INTRODUCTION: &str = "\
# Configuration

Written by `countersign config reference`; a test compares this page with the settings.

The service starts without any configuration. Settings come from a TOML file (`--config FILE`, or `countersign.toml` in
the working folder) and from environment variables, which win over the file. `countersign config check` reports every
mistake at once; `countersign config show` prints what is in force and where each value came from, with secrets hidden.

- **In the file** a setting stands below its section: `tokens.access_ttl` is `access_ttl` in `[tokens]`.
- **In the environment** it is `COUNTERSIGN_`, the section, two underscores and the key, in capitals:
  `COUNTERSIGN_TOKENS__ACCESS_TTL`. Lists are separated by commas.
- **Secrets** can also be given as the path of a file that holds nothing else: `master_key_file` in the file,
  `COUNTERSIGN_MASTER_KEY_FILE` in the environment. No secret is ever an argument of a command.
- **Durations** are texts: `500ms`, `10s`, `5m`, `1h30m`, `30d`.
- **Unknown names are errors**, in the file and among the variables that begin with `COUNTERSIGN_`. The variables that
  Kubernetes adds for a Service of that name are left alone.
";

/// Every setting with its default, in the order of the page.
pub fn settings() -> Vec<Setting> {
    let nothing =
        Inputs { file: None, environment: &[], read_secret_file: &|_| Err(std::io::ErrorKind::NotFound.into()) };
    Config::load(&nothing).map(|loaded| loaded.settings).unwrap_or_default()
}

/// The page.
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    let settings = settings();
    for section in settings.chunk_by(|one, next| one.section == next.section) {
        page.push_str(&format!("\n## {}\n\n", section[0].section));
        page.push_str("| setting | default | range | meaning |\n|---|---|---|---|\n");
        section.iter().for_each(|setting| page.push_str(&row(setting)));
    }
    page
}

fn row(setting: &Setting) -> String {
    let Setting { name, default, allowed, meaning, .. } = setting;
    let is_sentence = default.contains(' ');
    let default = if is_sentence { default.replace('|', "\\|") } else { format!("`{default}`") };
    format!("| `{name}` | {default} | {allowed} | {} |\n", meaning.replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the page lies. With `COUNTERSIGN_REWRITE=1` the test writes it instead of comparing.
    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");

    #[test]
    fn the_page_in_docs_is_the_one_that_the_settings_write() {
        if std::env::var_os("COUNTERSIGN_REWRITE").is_some() {
            std::fs::write(PAGE, markdown()).unwrap();
        }
        let written = std::fs::read_to_string(PAGE).unwrap_or_default();
        assert!(written == markdown(), "docs/configuration.md is stale: run this test with COUNTERSIGN_REWRITE=1");
    }

    #[test]
    fn every_setting_has_a_sentence_and_a_section() {
        let settings = settings();
        assert!(settings.len() > 60);
        for setting in settings {
            assert!(setting.meaning.ends_with('.') && !setting.section.is_empty(), "{}", setting.name);
        }
    }
}
