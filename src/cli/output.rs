//! The output of commands: JSON for machines, or text for people. The text is generated from the JSON, so that both
//! always agree.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use super::CliError;

/// Standard output in the requested format.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub json: bool,
}

impl Output {
    /// Prints `json` on one line, or else `text`.
    pub fn answer(self, json: &Value, text: impl FnOnce() -> String) -> Result<(), CliError> {
        if self.json { print(&format!("{json}\n")) } else { print(&text()) }
    }

    /// Prints the `fields` of one object, one field per line.
    pub fn details(self, json: &Value, fields: &[&str]) -> Result<(), CliError> {
        self.answer(json, || details(json, fields))
    }

    /// Prints a list, as the member `name` of an object or as a table of `columns`.
    pub fn list(self, name: &str, rows: &[Value], columns: &[&str]) -> Result<(), CliError> {
        self.answer(&serde_json::json!({ name: rows }), || table(rows, columns))
    }
}

/// Prints a text unchanged. A reader that closes the pipe early, such as `head`, is not an error.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::about("standard output", error)),
        _ => Ok(()),
    }
}

/// Prints a note for the user on standard error, separate from the answer.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Serialises an item as JSON.
pub(super) fn json_of(item: &impl Serialize) -> Result<Value, CliError> {
    serde_json::to_value(item).map_err(CliError::failed)
}

/// Rows below their column names. The names are taken from the JSON.
pub(super) fn table(rows: &[Value], columns: &[&str]) -> String {
    let header: Vec<String> = columns.iter().map(|name| name.replace('_', " ").to_uppercase()).collect();
    let cells = rows.iter().map(|row| columns.iter().map(|name| cell(&row[*name])).collect());
    let lines: Vec<Vec<String>> = std::iter::once(header).chain(cells).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    lines.iter().map(|line| aligned(line, &widths)).collect()
}

fn details(json: &Value, fields: &[&str]) -> String {
    let width = fields.iter().map(|name| name.len()).max().unwrap_or(0);
    fields.iter().map(|name| aligned(&[(*name).to_owned(), cell(&json[*name])], &[width, 0])).collect()
}

fn aligned(cells: &[String], widths: &[usize]) -> String {
    let line: String = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  ")).collect();
    format!("{}\n", line.trim_end())
}

/// A value in readable form. Unsafe characters are replaced, so that untrusted text cannot control the terminal
/// (security.md S3).
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => return "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    let shown: String = text.chars().map(|char| if is_safe(char) { char } else { '\u{fffd}' }).collect();
    if shown.is_empty() { "-".to_owned() } else { shown }
}

/// Whether a character is neither a control character nor a change of the text direction.
fn is_safe(char: char) -> bool {
    !char.is_control() && !matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_are_aligned_and_an_empty_cell_is_a_dash() {
        let rows = [
            json!({"name": "ada", "roles": ["a", "b"], "last_login_at": null, "enabled": true}),
            json!({"name": "grace-hopper", "roles": [], "last_login_at": "1952", "enabled": false}),
        ];
        let expected = "\
NAME          ROLES  LAST LOGIN AT  ENABLED
ada           a,b    -              yes
grace-hopper  -      1952           no
";
        assert_eq!(table(&rows, &["name", "roles", "last_login_at", "enabled"]), expected);
        assert_eq!(details(&rows[0], &["name", "enabled"]), "name     ada\nenabled  yes\n");
    }

    #[test]
    fn s3_control_characters_in_stored_text_are_escaped() {
        let row = json!({"name": "a\u{1b}[2J\n\u{202e}b"});
        assert_eq!(details(&row, &["name"]), "name  a\u{fffd}[2J\u{fffd}\u{fffd}b\n");
    }
}
