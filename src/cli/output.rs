//! What a command prints: JSON for machines, or text for people.

use std::io::{self, Write};

use serde_json::Value;

use super::CliError;

/// Standard output, in the form that was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub json: bool,
}

impl Output {
    /// Prints `json` on a line of its own, or else `text`.
    pub fn answer(self, json: &Value, text: impl FnOnce() -> String) -> Result<(), CliError> {
        if self.json { print(&format!("{json}\n")) } else { print(&text()) }
    }
}

/// Prints a text as it is. A reader that has seen enough, such as `head`, is no failure.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::about("standard output", error)),
        _ => Ok(()),
    }
}
