//! The confirmation of a command that cannot be undone.

use std::io::{IsTerminal, Write, stderr, stdin};

use clap::Args;

use super::CliError;

#[derive(Debug, Args)]
pub(super) struct Confirmation {
    /// Do not ask for confirmation; required without a terminal
    #[arg(long)]
    yes: bool,
}

impl Confirmation {
    /// Asks for confirmation of `effect`. Returns an error unless the answer is yes.
    pub fn ask(&self, effect: &str) -> Result<(), CliError> {
        if self.yes {
            return Ok(());
        }
        if !stdin().is_terminal() {
            return Err(CliError::Usage(format!("{effect} There is no terminal to ask on: add --yes to do it.")));
        }
        let mut terminal = stderr().lock();
        let asked = write!(terminal, "{effect} Continue? [y/N] ").and_then(|()| terminal.flush());
        let mut answer = String::new();
        asked.and_then(|()| stdin().read_line(&mut answer)).map_err(|error| CliError::about("the terminal", error))?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(CliError::failed("nothing was changed")),
        }
    }
}

/// A count with its noun, in singular or plural.
pub(super) fn counted(count: i64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}
