//! `countersign users`: people who log in.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::confirmation::{Confirmation, counted};
use super::operator::operator;
use super::output::{json_of, print, table};
use super::secret_input::PasswordSource;
use super::workplace::on_database;
use super::{CliError, Common, import_users};
use crate::app::{Core, Creation};
use crate::domain::{Role, User, UserId, Username};
use crate::http::UserItem;

const COLUMNS: [&str; 6] = ["username", "id", "enabled", "roles", "created_at", "last_login_at"];
const FIELDS: [&str; 7] = ["id", "username", "enabled", "roles", "epoch", "created_at", "last_login_at"];
/// The number of users per read.
const PAGE: u32 = 500;

#[derive(Debug, Subcommand)]
pub(super) enum UsersCommand {
    /// Create a user and print the id
    Create {
        /// The name to log in with
        name: String,
        /// Roles, separated by commas
        #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = Role::parse)]
        roles: Vec<Role>,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// List all users by name
    List,
    /// Show one user
    Show {
        /// Name or id
        user: String,
    },
    /// Disable a user: logins are refused, every token and session ends
    Disable {
        /// Name or id
        user: String,
    },
    /// Enable a disabled user
    Enable {
        /// Name or id
        user: String,
    },
    /// Set a user's password and end every session
    SetPassword {
        /// Name or id
        user: String,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Replace a user's roles
    SetRoles {
        /// Name or id
        user: String,
        /// Roles, separated by commas; an empty text removes all
        roles: String,
    },
    /// Delete a user and every session; the id is never reused
    Delete {
        /// Name or id
        user: String,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Import users with their existing password hashes; run it again to resume
    Import {
        /// JSON Lines with `username` and `password_hash`, optionally `roles`, `disabled`, `created_at`; `-` is
        /// standard input
        file: PathBuf,
    },
}

pub(super) fn run(command: UsersCommand, common: &Common) -> Result<(), CliError> {
    match command {
        UsersCommand::Create { name, roles, password } => create(&name, roles, &password, common),
        UsersCommand::List => on_database(common, Creation::Forbidden, async |core| list(core, common).await),
        UsersCommand::Show { user } => change(&user, common, async |_, _| Ok(())),
        UsersCommand::Disable { user } => change(&user, common, async |core, user| {
            core.service.users.set_user_enabled(user.id, false, &operator()).await.map_err(CliError::failed)
        }),
        UsersCommand::Enable { user } => change(&user, common, async |core, user| {
            core.service.users.set_user_enabled(user.id, true, &operator()).await.map_err(CliError::failed)
        }),
        UsersCommand::SetPassword { user, password } => {
            let password = password.read()?;
            change(&user, common, async |core, user| {
                core.service.users.set_password(user.id, password, &operator()).await.map_err(CliError::failed)
            })
        }
        UsersCommand::SetRoles { user, roles } => {
            let roles = roles.split(',').map(str::trim).filter(|role| !role.is_empty()).map(Role::parse);
            let roles = roles.collect::<Result<Vec<_>, _>>().map_err(|error| CliError::Usage(error.to_string()))?;
            change(&user, common, async |core, user| {
                core.service.users.set_roles(user.id, roles, &operator()).await.map_err(CliError::failed)
            })
        }
        UsersCommand::Delete { user, confirmation } => delete(&user, &confirmation, common),
        UsersCommand::Import { file } => import_users::run(&file, common),
    }
}

/// Finds the user with this name or id.
pub(super) async fn find(core: &Core, text: &str) -> Result<User, CliError> {
    let found = match UserId::parse(text) {
        Ok(id) => core.service.users.user(id).await,
        Err(_) => {
            let name = Username::parse(text).map_err(|error| CliError::Usage(error.to_string()))?;
            core.service.users.user_named(&name).await
        }
    };
    found.map_err(CliError::failed)?.ok_or_else(|| CliError::failed("there is no such user"))
}

fn create(name: &str, roles: Vec<Role>, password: &PasswordSource, common: &Common) -> Result<(), CliError> {
    let name = Username::parse_new(name).map_err(|error| CliError::Usage(error.to_string()))?;
    let password = password.read()?;
    on_database(common, Creation::Forbidden, async |core| {
        let user =
            core.service.users.create_user(name, password, roles, &operator()).await.map_err(CliError::failed)?;
        common.output().answer(&json_of(&UserItem::from(&user))?, || format!("{}\n", user.id))
    })
}

/// Shows a changed user.
async fn changed(core: &Core, user: &User, common: &Common) -> Result<(), CliError> {
    let user = core.service.users.user(user.id).await.map_err(CliError::failed)?;
    let user = user.ok_or_else(|| CliError::failed("there is no such user"))?;
    common.output().details(&json_of(&UserItem::from(&user))?, &FIELDS)
}

/// Changes a user and shows the result.
fn change(
    text: &str,
    common: &Common,
    how: impl AsyncFnOnce(&Core, &User) -> Result<(), CliError>,
) -> Result<(), CliError> {
    on_database(common, Creation::Forbidden, async |core| {
        let user = find(core, text).await?;
        how(core, &user).await?;
        changed(core, &user, common).await
    })
}

fn delete(text: &str, confirmation: &Confirmation, common: &Common) -> Result<(), CliError> {
    on_database(common, Creation::Forbidden, async |core| {
        let user = find(core, text).await?;
        let sessions = core.service.sessions.count_sessions(Some(user.id), None).await.map_err(CliError::failed)?;
        let ended = counted(sessions, "session", "sessions");
        confirmation.ask(&format!("This deletes {} ({}) and ends {ended}.", user.username, user.id))?;
        core.service.users.delete_user(user.id, &operator()).await.map_err(CliError::failed)?;
        let json = json!({"deleted": user.id.to_string(), "username": user.username.as_str()});
        common.output().answer(&json, || format!("deleted {} ({})\n", user.username, user.id))
    })
}

/// Users are printed as they are read, because there may be millions.
async fn list(core: &Core, common: &Common) -> Result<(), CliError> {
    let (mut after, mut is_first) = (None, true);
    if common.json {
        print("{\"users\":[")?;
    }
    loop {
        let (users, next) = core.service.users.users(after.as_ref(), PAGE).await.map_err(CliError::failed)?;
        let items =
            users.readable.iter().map(|user| json_of(&UserItem::from(user))).collect::<Result<Vec<Value>, _>>()?;
        if common.json {
            let texts: Vec<String> = items.iter().map(Value::to_string).collect();
            let comma = if is_first || texts.is_empty() { "" } else { "," };
            print(&format!("{comma}{}", texts.join(",")))?;
        } else if is_first || !items.is_empty() {
            print(&table(&items, &COLUMNS))?;
        }
        is_first = false;
        after = match next {
            Some(next) => Some(next),
            None => break,
        };
    }
    if common.json { print("]}\n") } else { Ok(()) }
}
