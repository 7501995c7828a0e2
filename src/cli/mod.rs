//! The command line, with one command per file. Commands work on the database itself, beside a running service. The
//! service sees their changes within `revocation.poll_interval`.

mod admin_key;
mod audit;
mod client_options;
mod clients;
mod completions;
mod config;
mod confirmation;
mod demo;
mod error;
mod fetch;
mod healthcheck;
mod import_users;
mod keys;
mod migrate;
mod openapi;
mod operator;
mod output;
mod process;
mod revoke;
mod secret_input;
mod serve;
mod token;
mod users;
mod workplace;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use error::{CliError, report, report_usage};
use output::Output;

use crate::telemetry::install_panic_hook;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, about, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// The options of every command.
#[derive(Debug, Args)]
struct Common {
    /// Configuration file [default: COUNTERSIGN_CONFIG, else countersign.toml in the working folder, if there is one]
    #[arg(long, global = true, value_name = "FILE", help_heading = "General")]
    config: Option<PathBuf>,
    /// Print machine-readable JSON
    #[arg(long, global = true, help_heading = "General")]
    json: bool,
}

impl Common {
    const fn output(&self) -> Output {
        Output { json: self.json }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Serve(serve::ServeArgs),
    /// Bring the database's schema up to date, or check it
    Migrate(migrate::MigrateArgs),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Manage users
    #[command(subcommand)]
    Users(users::UsersCommand),
    /// Manage clients: applications, resource servers and gateways
    #[command(subcommand)]
    Clients(Box<clients::ClientsCommand>),
    /// Manage signing keys
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Make tokens and sessions inactive everywhere
    Revoke(revoke::RevokeArgs),
    /// Decode a token, or verify it offline
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Manage admin keys, with which scripts use the administration API
    #[command(subcommand)]
    AdminKey(admin_key::AdminKeyCommand),
    /// Export the audit trail
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Print the OpenAPI document
    Openapi,
    /// Exit with 0 if the service is ready; for container health checks
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> Result<(), CliError> {
        process::keep_memory_private();
        install_panic_hook(None);
        let common = &self.common;
        match self.command {
            Command::Serve(args) => serve::run(&args, common),
            Command::Migrate(args) => migrate::run(&args, common),
            Command::Config(command) => config::run(&command, common),
            Command::Users(command) => users::run(command, common),
            Command::Clients(command) => clients::run(*command, common),
            Command::Keys(command) => keys::run(command, common),
            Command::Revoke(args) => revoke::run(args, common),
            Command::Token(command) => token::run(&command, common),
            Command::AdminKey(command) => admin_key::run(command, common),
            Command::Audit(command) => audit::run(&command, common),
            Command::Openapi => openapi::run(),
            Command::Healthcheck(args) => healthcheck::run(&args, common),
            Command::Completions(args) => completions::run(&args),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One id in 64 begins with a hyphen.
    #[test]
    fn ids_that_begin_with_a_hyphen_are_not_parsed_as_options() {
        for id in
            ["-puJ2nvZRkdrWNGv_J973vj-REECOzAs3pratV_zI5g", "--uJ2nvZRkdrWNGv_J973g", "-hJ2nvZRkdrWNGv_J973g", "-V"]
        {
            for command in
                [&["keys", "withdraw", id][..], &["revoke", "--jti", id], &["keys", "withdraw", "--json", id]]
            {
                let parsed = Cli::try_parse_from([&["countersign"], command].concat());
                let parsed = format!("{:?}", parsed.map_err(|error| error.to_string()));
                assert!(parsed.starts_with("Ok") && parsed.contains(id), "{command:?}: {parsed}");
            }
        }
    }
}
