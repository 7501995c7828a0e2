//! `countersign migrate`: brings the schema up to date separately from the start of the service.

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::{CliError, Common, workplace};
use crate::app::{Core, Creation, store_settings};
use crate::store::{Location, SchemaStatus, Store};

#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    /// Change nothing; exit 1 when migrations are pending
    #[arg(long)]
    check: bool,
}

/// Applies the pending migrations, or lists them. `serve` applies them at each start.
pub(super) fn run(args: &MigrateArgs, common: &Common) -> Result<(), CliError> {
    let mut config = workplace::load(common)?.config;
    config.database.create_if_missing = !args.check;
    let parts = workplace::quiet_parts()?;
    let mut settings = store_settings(&config);
    if let Location::Sqlite { create, .. } = &mut settings.location {
        *create = !args.check;
    }
    workplace::runtime()?.block_on(async {
        let store = Store::open(&settings, Arc::clone(&parts.clock), Arc::new(())).await.map_err(CliError::failed)?;
        let before = store.check_schema().await.map_err(CliError::failed)?;
        if args.check {
            print_summary(before, before.current, common)?;
            return match before.pending {
                0 => Ok(()),
                pending => {
                    Err(CliError::failed(format!("{pending} migrations are pending: run `countersign migrate`")))
                }
            };
        }
        let core = Core::open_with(&config, &parts, Creation::Allowed).await.map_err(CliError::failed)?;
        let after = core.store.check_schema().await.map_err(CliError::failed)?;
        print_summary(after, before.current, common)
    })
}

fn print_summary(status: SchemaStatus, before: u32, common: &Common) -> Result<(), CliError> {
    let SchemaStatus { current, latest, pending } = status;
    let json = json!({"schema": current, "latest": latest, "pending": pending, "applied": current - before});
    common.output().answer(&json, || match current - before {
        0 => format!("the schema is at {current} of {latest}\n"),
        applied => format!("the schema is at {current} of {latest}: {applied} applied now\n"),
    })
}
