//! `countersign clients`: applications, resource servers and gateways.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client_options::ClientOptions;
use super::confirmation::{Confirmation, counted};
use super::operator::operator;
use super::output::json_of;
use super::workplace::on_database;
use super::{CliError, Common};
use crate::app::{Core, Creation};
use crate::domain::{Client, ClientId, ClientKind, ClientSettings};
use crate::http::ClientItem;
use crate::service::{ClientError, ClientSecret};

const COLUMNS: [&str; 6] = ["client_id", "type", "enabled", "grants", "introspect", "display_name"];
const FIELDS: [&str; 15] = [
    "client_id",
    "type",
    "display_name",
    "enabled",
    "grants",
    "audiences",
    "scopes",
    "introspect",
    "feed",
    "access_ttl",
    "algorithm",
    "token_type",
    "secrets",
    "epoch",
    "created_at",
];

#[derive(Debug, Subcommand)]
pub(super) enum ClientsCommand {
    /// Create a client and print its secret once
    Create {
        /// The client's id
        id: String,
        /// `confidential` if it can keep a secret; `public` for an app or a browser
        #[arg(long = "type", value_name = "TYPE", value_parser = ClientKind::parse)]
        kind: ClientKind,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// List all clients
    List,
    /// Show one client
    Show {
        /// The client's id
        id: String,
    },
    /// Change a client; omitted options keep their values
    Set {
        /// The client's id
        id: String,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Create a new secret for a client and print it once
    NewSecret {
        /// The client's id
        id: String,
        /// How long the previous secret stays valid; 0s expires it at once
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = humantime::parse_duration)]
        grace: Duration,
    },
    /// Disable a client: its requests are refused, its tokens and sessions end
    Disable {
        /// The client's id
        id: String,
    },
    /// Enable a disabled client
    Enable {
        /// The client's id
        id: String,
    },
    /// Delete a client and its sessions
    Delete {
        /// The client's id
        id: String,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

pub(super) fn run(command: ClientsCommand, common: &Common) -> Result<(), CliError> {
    let from = operator();
    match command {
        ClientsCommand::Create { id, kind, options } => create(&id, kind, &options, common),
        ClientsCommand::List => on_database(common, Creation::Forbidden, async |core| list(core, common)),
        ClientsCommand::Show { id } => on_client(&id, common, async |_, client| Ok(client)),
        ClientsCommand::Set { id, options } => on_client(&id, common, async |core, client| {
            core.service.clients.change_client(&client.id, |settings| options.apply(settings), None, &from).await
        }),
        ClientsCommand::Disable { id } => on_client(&id, common, async |core, client| {
            core.service.clients.set_client_enabled(&client.id, false, &from).await.map_err(CliError::failed)
        }),
        ClientsCommand::Enable { id } => on_client(&id, common, async |core, client| {
            core.service.clients.set_client_enabled(&client.id, true, &from).await.map_err(CliError::failed)
        }),
        ClientsCommand::NewSecret { id, grace } => new_secret(&id, grace, common),
        ClientsCommand::Delete { id, confirmation } => delete(&id, &confirmation, common),
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        Self::failed(error)
    }
}

/// Reads a client id from the command line.
pub(super) fn client_id(text: &str) -> Result<ClientId, CliError> {
    ClientId::parse(text).map_err(|error| CliError::Usage(error.to_string()))
}

/// Reads the client from the database.
pub(super) fn find(core: &Core, id: &ClientId) -> Result<Client, CliError> {
    core.service
        .clients
        .client(id)
        .map(|client| (*client).clone())
        .ok_or_else(|| CliError::failed("there is no such client"))
}

fn create(id: &str, kind: ClientKind, options: &ClientOptions, common: &Common) -> Result<(), CliError> {
    let id = client_id(id)?;
    let settings = options.apply(ClientSettings::new(kind))?;
    on_database(common, Creation::Forbidden, async |core| {
        let created = core.service.clients.create_client(id, settings, true, &operator()).await;
        let (client, secret) = created.map_err(CliError::failed)?;
        hand_over(json!({"client_id": client.id.as_str()}), secret.as_ref(), common)
    })
}

fn new_secret(id: &str, grace: Duration, common: &Common) -> Result<(), CliError> {
    let id = client_id(id)?;
    on_database(common, Creation::Forbidden, async |core| {
        let made = core.service.clients.new_client_secret(&id, grace, &operator()).await;
        let (secret, until) = made.map_err(CliError::failed)?;
        let json = json!({"client_id": id.as_str(), "former_secrets_expire_at": until.rfc3339()});
        hand_over(json, Some(&secret), common)
    })
}

/// Prints a client's id and its secret, if it has one.
fn hand_over(mut json: Value, secret: Option<&ClientSecret>, common: &Common) -> Result<(), CliError> {
    let mut fields = vec!["client_id"];
    if let Some(secret) = secret {
        json["client_secret"] = secret.0.expose().into();
        fields.push("client_secret");
    }
    if json.get("former_secrets_expire_at").is_some() {
        fields.push("former_secrets_expire_at");
    }
    common.output().details(&json, &fields)
}

fn list(core: &Core, common: &Common) -> Result<(), CliError> {
    let mut clients = core.service.clients.clients();
    clients.sort_by(|one, other| one.id.cmp(&other.id));
    let items = clients
        .iter()
        .map(|client| json_of(&ClientItem::new(client, core.service.status.now())))
        .collect::<Result<Vec<_>, _>>()?;
    common.output().list("clients", &items, &COLUMNS)
}

/// Changes a client and shows the result.
fn on_client(
    id: &str,
    common: &Common,
    how: impl AsyncFnOnce(&Core, Client) -> Result<Client, CliError>,
) -> Result<(), CliError> {
    let id = client_id(id)?;
    on_database(common, Creation::Forbidden, async |core| {
        let client = how(core, find(core, &id)?).await?;
        common.output().details(&json_of(&ClientItem::new(&client, core.service.status.now()))?, &FIELDS)
    })
}

fn delete(id: &str, confirmation: &Confirmation, common: &Common) -> Result<(), CliError> {
    let id = client_id(id)?;
    on_database(common, Creation::Forbidden, async |core| {
        find(core, &id)?;
        let sessions = core.service.sessions.count_sessions(None, Some(&id)).await.map_err(CliError::failed)?;
        let ended = counted(sessions, "session", "sessions");
        confirmation.ask(&format!("This deletes the client {id} and ends {ended}."))?;
        if !core.service.clients.delete_client(&id, &operator()).await.map_err(CliError::failed)? {
            return Err(CliError::failed("there is no such client"));
        }
        common.output().answer(&json!({"deleted": id.as_str()}), || format!("deleted {id}\n"))
    })
}
