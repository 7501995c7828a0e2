//! Output of `countersign config show`.

use serde_json::json;

use super::{Loaded, Origin};

impl Loaded {
    /// One line per setting: name, value, origin. Secrets are hidden (security.md S6).
    pub fn render_text(&self) -> String {
        let width =
            |of: fn(&super::Setting) -> &str| self.settings.iter().map(|s| of(s).chars().count()).max().unwrap_or(0);
        let (names, values) = (width(|setting| &setting.name), width(|setting| &setting.value).min(60));
        let line = |setting: &super::Setting| {
            format!("{:names$}  {:values$}  {}\n", setting.name, setting.value, setting.origin)
        };
        self.settings.iter().map(line).collect()
    }

    /// JSON with an object per setting. `origin` is `default`, `file`, `environment` or `secret_file`; `source` names the
    /// file and line, or the variable.
    pub fn render_json(&self) -> String {
        let settings = self.settings.iter().map(|setting| {
            let kind = match setting.origin {
                Origin::Default => "default",
                Origin::File(..) | Origin::WholeFile(_) => "file",
                Origin::Environment(_) => "environment",
                Origin::SecretFile(..) => "secret_file",
            };
            json!({
                "name": setting.name,
                "variable": setting.variable,
                "value": setting.value,
                "default": setting.default,
                "secret": setting.secret,
                "origin": kind,
                "source": setting.origin.to_string(),
            })
        });
        format!("{:#}\n", json!({ "settings": settings.collect::<Vec<_>>() }))
    }
}
