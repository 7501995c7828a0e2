//! The command line: one command per file. Commands work on the database itself, beside a running service, which sees
//! their changes within `revocation.poll_interval`.

mod demo;
mod error;
mod output;
mod process;
mod serve;
mod workplace;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use error::{CliError, report, report_usage};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, about, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
struct Common {
    /// Configuration file [default: countersign.toml in the working folder, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print machine-readable JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Serve(serve::ServeArgs),
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> Result<(), CliError> {
        process::keep_memory_private();
        let common = &self.common;
        match self.command {
            Command::Serve(args) => serve::run(&args, common),
        }
    }
}
