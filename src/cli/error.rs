//! The failures of commands. They are reported on standard error, with exit code 1, or 2 for a wrong command line.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// Why a command failed. The text is intended for the user at the terminal and holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command failed: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The command line is wrong or incomplete: exit code 2.
    #[error("{0}")]
    Usage(String),
}

impl CliError {
    /// A failure with this cause.
    pub fn failed(cause: impl Display) -> Self {
        Self::Failed(cause.to_string())
    }

    /// A failure with the subject `what` and this cause.
    pub fn about(what: impl Display, cause: impl Display) -> Self {
        Self::Failed(format!("{what}: {cause}"))
    }
}

/// Reports a failure, and returns its exit code.
pub fn report(error: &CliError) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "error: {error}");
    match error {
        CliError::Failed(_) => ExitCode::from(1),
        CliError::Usage(_) => ExitCode::from(2),
    }
}

/// Reports an error of the command line, or prints the requested help.
pub fn report_usage(usage: &clap::Error) -> ExitCode {
    let _ = usage.print();
    u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}
