//! `countersign keys`: the keys that tokens are signed with.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;
use zeroize::Zeroizing;

use super::operator::operator;
use super::output::json_of;
use super::workplace::{on_database, read_text};
use super::{CliError, Common};
use crate::app::{Core, Creation};
use crate::domain::{Algorithm, Kid};
use crate::http::KeyItem;

const COLUMNS: [&str; 6] = ["kid", "algorithm", "state", "signs_from", "retires_at", "gone_at"];
/// A limit above the size of any private key.
const LONGEST_PEM: u64 = 64 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// List the published keys with their states
    List,
    /// Announce a new key now; it signs after `keys.announce_for`
    Rotate {
        /// Algorithm of the new key [default: `tokens.algorithm`]
        #[arg(long, value_parser = Algorithm::parse)]
        algorithm: Option<Algorithm>,
    },
    /// Withdraw a compromised key: its tokens are inactive at once
    Withdraw {
        /// The key's id
        #[arg(allow_hyphen_values = true)]
        kid: String,
    },
    /// Import a private key in PEM (PKCS#8, PKCS#1 or SEC1)
    Import {
        /// RS256 or PS256 for an RSA key, which can sign either
        #[arg(long, value_parser = Algorithm::parse)]
        algorithm: Option<Algorithm>,
        /// The file; `-` is standard input
        file: PathBuf,
    },
    /// Reseal every key under the current master key, after it was replaced
    Reseal,
}

pub(super) fn run(command: KeysCommand, common: &Common) -> Result<(), CliError> {
    let from = operator();
    match command {
        KeysCommand::List => {
            on_database(common, Creation::ForbiddenAndKeysOptional, async |core| list(core, common).await)
        }
        KeysCommand::Rotate { algorithm } => on_database(common, Creation::Forbidden, async |core| {
            let algorithm = algorithm.unwrap_or_else(|| core.service.status.default_algorithm());
            let kid = core.service.keys.rotate_key(algorithm, &from).await.map_err(CliError::failed)?;
            added(core, &kid, common)
        }),
        KeysCommand::Import { algorithm, file } => {
            let pem = Zeroizing::new(read_text(&file, LONGEST_PEM)?);
            on_database(common, Creation::Forbidden, async |core| {
                let kid = core.service.keys.import_key(&pem, algorithm, &from).await.map_err(CliError::failed)?;
                added(core, &kid, common)
            })
        }
        KeysCommand::Withdraw { kid } => {
            let kid = Kid::parse(&kid).map_err(|error| CliError::Usage(error.to_string()))?;
            on_database(common, Creation::ForbiddenAndKeysOptional, async |core| {
                if !core.service.keys.withdraw_key(&kid, &from).await.map_err(CliError::failed)? {
                    return Err(CliError::failed("there is no such key"));
                }
                common.output().answer(&json!({"withdrawn": kid.as_str()}), || format!("withdrawn {kid}\n"))
            })
        }
        KeysCommand::Reseal => on_database(common, Creation::Forbidden, async |core| {
            let count = core.service.keys.reseal_keys().await.map_err(CliError::failed)?;
            common.output().answer(&json!({"resealed": count}), || format!("resealed {count} keys\n"))
        }),
    }
}

async fn list(core: &Core, common: &Common) -> Result<(), CliError> {
    let keys = core.service.keys.stored_key_infos().await.map_err(CliError::failed)?;
    let items = keys.iter().map(|key| json_of(&KeyItem::from(key))).collect::<Result<Vec<_>, _>>()?;
    common.output().list("keys", &items, &COLUMNS)
}

/// Shows a key that was just added.
fn added(core: &Core, kid: &Kid, common: &Common) -> Result<(), CliError> {
    let keys = core.service.keys.key_infos();
    let key = keys.iter().find(|key| key.kid == *kid);
    let key = key.ok_or_else(|| CliError::failed("the key is there, but it could not be read back"))?;
    common.output().details(&json_of(&KeyItem::from(key))?, &COLUMNS)
}
