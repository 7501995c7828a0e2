//! How a command fails, and how that is told: on standard error, with exit code 1, or 2 for a wrong command line.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// Why a command did not do what it was asked to. The text is for the person at the terminal and holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// It failed: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The command line does not say what to do: exit code 2.
    #[error("{0}")]
    Usage(String),
}

impl CliError {
    /// A failure.
    pub fn failed(cause: impl Display) -> Self {
        Self::Failed(cause.to_string())
    }

    /// A failure in the words of `what` and `cause`.
    pub fn about(what: impl Display, cause: impl Display) -> Self {
        Self::Failed(format!("{what}: {cause}"))
    }
}

/// Tells a failure, and gives the exit code that stands for it.
pub fn report(error: &CliError) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "error: {error}");
    match error {
        CliError::Failed(_) => ExitCode::from(1),
        CliError::Usage(_) => ExitCode::from(2),
    }
}

/// Tells what is wrong with a command line, or the help that it asked for.
pub fn report_usage(usage: &clap::Error) -> ExitCode {
    let _ = usage.print();
    u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}
