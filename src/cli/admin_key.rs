//! `countersign admin-key`: admin keys, with which scripts use the administration API.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::operator::operator;
use super::workplace::on_database;
use super::{CliError, Common};
use crate::app::{Core, Creation};

const COLUMNS: [&str; 4] = ["name", "created_at", "expires_at", "last_used_at"];

#[derive(Debug, Subcommand)]
pub(super) enum AdminKeyCommand {
    /// Create an admin key and print it once
    Create {
        /// Name of the key, shown in the audit trail
        name: String,
        /// Lifetime, such as 90d [default: never]
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires_in: Option<Duration>,
    },
    /// List the admin keys
    List,
    /// Delete an admin key; it stops working at once
    Delete {
        /// Name of the key
        name: String,
    },
}

pub(super) fn run(command: AdminKeyCommand, common: &Common) -> Result<(), CliError> {
    let from = operator();
    match command {
        AdminKeyCommand::Create { name, expires_in } => on_database(common, Creation::Forbidden, async |core| {
            let key = core
                .service
                .administration
                .create_admin_key(&name, expires_in, &from)
                .await
                .map_err(CliError::failed)?;
            let json = json!({"name": name, "admin_key": key.expose()});
            common.output().answer(&json, || format!("{}\n", key.expose()))
        }),
        AdminKeyCommand::List => on_database(common, Creation::Forbidden, async |core| list(core, common).await),
        AdminKeyCommand::Delete { name } => on_database(common, Creation::Forbidden, async |core| {
            if !core.service.administration.delete_admin_key(&name, &from).await.map_err(CliError::failed)? {
                return Err(CliError::failed("there is no such admin key"));
            }
            common.output().answer(&json!({"deleted": name}), || format!("deleted {name}\n"))
        }),
    }
}

async fn list(core: &Core, common: &Common) -> Result<(), CliError> {
    let keys = core.service.administration.admin_keys().await.map_err(CliError::failed)?;
    for problem in keys.problems() {
        tracing::error!(problem, "an admin key cannot be read");
    }
    let rows: Vec<Value> = keys
        .readable
        .iter()
        .map(|key| {
            json!({
                "name": key.name,
                "created_at": key.created_at.rfc3339(),
                "expires_at": key.expires_at.map(crate::domain::Timestamp::rfc3339),
                "last_used_at": key.last_used_at.map(crate::domain::Timestamp::rfc3339),
            })
        })
        .collect();
    common.output().list("admin_keys", &rows, &COLUMNS)
}
