//! `countersign config`: checks the configuration, and shows the effective and the available settings.

use clap::Subcommand;
use serde_json::{Value, json};

use super::output::print;
use super::{CliError, Common};
use crate::app::examine;
use crate::config::{ConfigError, ConfigErrors, Origin, Sources, reference};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Report all configuration errors at once, including those of the TLS files
    Check,
    /// Print the effective settings and the origin of each; secrets are hidden
    Show,
    /// Print the page that describes every setting
    Reference,
}

pub(super) fn run(command: &ConfigCommand, common: &Common) -> Result<(), CliError> {
    if matches!(command, ConfigCommand::Reference) {
        return print(&reference::markdown());
    }
    let sources = Sources::gather(common.config.as_deref(), std::env::vars_os());
    let loaded = match sources.and_then(|sources| sources.load()) {
        Ok(loaded) => loaded,
        Err(errors) => return refuse(command, &errors, common),
    };
    if matches!(command, ConfigCommand::Show) {
        return print(&if common.json { loaded.render_json() } else { loaded.render_text() });
    }
    let flaws = examine(&loaded.config);
    if !flaws.is_empty() {
        let located = flaws.into_iter().map(|flaw| flaw.located(&loaded.settings)).collect();
        return refuse(command, &ConfigErrors(located), common);
    }
    let set = loaded.settings.iter().filter(|setting| setting.origin != Origin::Default).count();
    let json = json!({"ok": true, "set": set, "mistakes": []});
    common
        .output()
        .answer(&json, || format!("the configuration is in order: {set} settings are not at their default\n"))
}

/// Configuration errors are reported on standard error. `check --json` prints them on standard output as well.
fn refuse(command: &ConfigCommand, errors: &ConfigErrors, common: &Common) -> Result<(), CliError> {
    if common.json && matches!(command, ConfigCommand::Check) {
        let list: Vec<Value> = errors.0.iter().map(as_json).collect();
        print(&format!("{}\n", json!({"ok": false, "mistakes": list})))?;
    }
    Err(CliError::failed(errors))
}

fn as_json(error: &ConfigError) -> Value {
    let ConfigError { setting, origin, problem, remedy } = error;
    json!({"setting": setting, "source": origin.to_string(), "problem": problem, "remedy": remedy})
}
