//! Secrets are read from a prompt, standard input or a file. They are never arguments, because every process of the
//! machine can read those (security.md S6).

use std::io::{IsTerminal, stdin};
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use super::CliError;
use super::workplace::read_text;
use crate::domain::Password;

/// A limit above the length of any password or token.
const LONGEST: u64 = 16 * 1024;

/// The source of a password.
#[derive(Debug, Args)]
pub(super) struct PasswordSource {
    /// Read the password from standard input instead of asking for it
    #[arg(long)]
    password_stdin: bool,
    /// Read the password from a file
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
}

impl PasswordSource {
    /// Reads the password. At a terminal it is read twice, because the input is not visible.
    pub fn read(&self) -> Result<Password, CliError> {
        let text = match (&self.password_file, self.password_stdin) {
            (Some(path), _) => first_line(path)?,
            (None, true) => first_line(Path::new("-"))?,
            (None, false) => {
                if !stdin().is_terminal() {
                    let text =
                        "there is no terminal to ask for the password on: use --password-stdin or --password-file";
                    return Err(CliError::Usage(text.to_owned()));
                }
                let (text, again) = (prompt("Password: ")?, prompt("Again: ")?);
                if text != again {
                    return Err(CliError::failed("the two passwords differ"));
                }
                text
            }
        };
        Password::parse(&text).map_err(CliError::failed)
    }
}

/// Reads a token from a file or from standard input. At a terminal, a prompt is shown.
pub(super) fn read_token(file: Option<&Path>) -> Result<Zeroizing<String>, CliError> {
    let is_asked = file.is_none() && stdin().is_terminal();
    let text = if is_asked { prompt("Token: ")? } else { first_line(file.unwrap_or(Path::new("-")))? };
    let token = text.trim();
    // Many tools print this prefix before a token.
    let token = token.strip_prefix("Bearer ").unwrap_or(token);
    if token.is_empty() { Err(CliError::failed("there is no token")) } else { Ok(Zeroizing::new(token.to_owned())) }
}

fn prompt(text: &str) -> Result<Zeroizing<String>, CliError> {
    rpassword::prompt_password(text).map(Zeroizing::new).map_err(|error| CliError::about("the terminal", error))
}

/// The text without the trailing line end that editors and `echo` append.
fn first_line(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let text = Zeroizing::new(read_text(path, LONGEST)?);
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.contains('\n') {
        return Err(CliError::about(path.display(), "holds more than one line"));
    }
    Ok(Zeroizing::new(line.to_owned()))
}
