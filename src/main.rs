//! The `countersign` command: parses the arguments, runs the command, and reports the result as exit code.

use std::process::ExitCode;

use clap::Parser;
use countersign::cli::{Cli, report, report_usage};

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => cli.run().map_or_else(|error| report(&error), |()| ExitCode::SUCCESS),
        Err(usage) => report_usage(&usage),
    }
}
