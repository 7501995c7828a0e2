//! Users and their password hashes.

use crate::domain::{Role, SessionId, Timestamp, User, UserId, Username};
use crate::store::columns::{installation_epoch, user_columns};
use crate::store::db::{Database, Tx, Written, values};
use crate::store::rows::{joined, username};
use crate::store::{AuditEvent, Rows, StoreError, audit};

mod password;
mod revoke;
mod scheme;

pub use self::password::{KeptSession, PasswordChange, RotatedByPassword};
use self::scheme::scheme_of;

/// A user to be created.
#[derive(Clone)]
pub struct NewUser {
    /// Fresh random id.
    pub id: UserId,
    /// Canonical name; unique.
    pub username: Username,
    /// Hash of the password, in PHC form.
    pub password_hash: String,
    /// Roles.
    pub roles: Vec<Role>,
    /// Whether the user cannot log in yet.
    pub disabled: bool,
    /// When the account was created, if not now.
    pub created_at: Option<Timestamp>,
}

/// The changes that an administrator makes to a user, each with its audit event.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    /// New roles.
    pub roles: Option<(Vec<Role>, Option<AuditEvent>)>,
    /// Enabled or disabled.
    pub enabled: Option<(bool, Option<AuditEvent>)>,
}

/// A user with the stored password hash, for login only.
#[derive(Clone)]
pub struct Credentials {
    /// The user.
    pub user: User,
    /// Hash of the password, in PHC form.
    pub password_hash: String,
    /// The installation's epoch when the user was read.
    pub installation_epoch: u32,
}

impl std::fmt::Debug for NewUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewUser").field("id", &self.id).field("username", &self.username).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Users.
#[derive(Clone, Copy)]
pub struct Users<'a>(pub(super) &'a Database);

impl Users<'_> {
    /// Creates a user. [`StoreError::Conflict`] when the name is taken: the unique index decides.
    pub async fn create(&self, new: NewUser, now: Timestamp, audit: Option<AuditEvent>) -> Result<User, StoreError> {
        let written = self.0.write("user_create", (new, now, audit), |tx, (new, now, audit)| {
            Box::pin(async move {
                let user = insert(tx, new, *now).await?.ok_or(StoreError::Conflict { what: "username" })?;
                audit::record(tx, *now, audit).await?;
                Ok(user)
            })
        });
        Ok(written.await?.value)
    }

    /// Creates users in one transaction, and skips those whose names are taken, also by an earlier user of the same
    /// call. Returns for each user whether it was created. `audit` records the number, and is not written if it is
    /// zero. For imports: pass a few hundred at a time.
    pub async fn import(
        &self,
        users: Vec<NewUser>,
        now: Timestamp,
        audit: Option<AuditEvent>,
    ) -> Result<Vec<bool>, StoreError> {
        let written = self.0.write("user_import", (users, now, audit), |tx, (users, now, audit)| {
            Box::pin(async move {
                let mut created = Vec::with_capacity(users.len());
                for user in users {
                    created.push(insert(tx, user, *now).await?.is_some());
                }
                let count = created.iter().filter(|is_created| **is_created).count();
                if count > 0 {
                    audit::record(tx, *now, &audit.clone().map(|event| event.noting("created", count))).await?;
                }
                Ok(created)
            })
        });
        Ok(written.await?.value)
    }

    /// A user by id.
    pub async fn by_id(&self, id: UserId) -> Result<Option<User>, StoreError> {
        const READ: &str = concat!("SELECT ", user_columns!(), " FROM users WHERE id = $1");
        self.0.row("user_by_id", READ, values![id]).await?.as_ref().map(User::try_from).transpose()
    }

    /// A user by name.
    pub async fn by_username(&self, username: &Username) -> Result<Option<User>, StoreError> {
        Ok(self.credentials(username).await?.map(|credentials| credentials.user))
    }

    /// A user and the password hash, by name.
    pub async fn credentials(&self, username: &Username) -> Result<Option<Credentials>, StoreError> {
        const READ: &str = concat!(
            "SELECT ",
            user_columns!(),
            ", ",
            installation_epoch!(),
            " AS installation_epoch FROM users WHERE username = $1"
        );
        let row = self.0.row("user_credentials", READ, values![username.as_str()]).await?;
        row.as_ref().map(credentials).transpose()
    }

    /// A user and the password hash, by id.
    pub async fn credentials_by_id(&self, id: UserId) -> Result<Option<Credentials>, StoreError> {
        const READ: &str = concat!(
            "SELECT ",
            user_columns!(),
            ", ",
            installation_epoch!(),
            " AS installation_epoch FROM users WHERE id = $1"
        );
        self.0.row("user_credentials", READ, values![id]).await?.as_ref().map(credentials).transpose()
    }

    /// Users ordered by name (byte by byte), after `after`. With `prefix`, only users whose names begin with it.
    pub async fn page(
        &self,
        after: Option<&str>,
        prefix: Option<&str>,
        limit: u32,
    ) -> Result<Rows<User, Username>, StoreError> {
        const PAGE: &str = concat!(
            "SELECT ",
            user_columns!(),
            " FROM users
            WHERE username > $1 AND username >= $2 AND username < $3 ORDER BY username LIMIT $4"
        );
        let (after, prefix) = (after.unwrap_or_default(), prefix.unwrap_or_default());
        if after.contains('\0') || prefix.contains('\0') {
            // No name contains NUL, and PostgreSQL accepts no text that does (security.md D11).
            return Ok(Rows::default());
        }
        // No name with the prefix sorts after the prefix followed by the greatest character.
        let end = format!("{prefix}\u{10FFFF}");
        let rows = self.0.rows("users_page", PAGE, values![after, prefix, end, limit]).await?;
        let mut users = Rows::default();
        for row in &rows {
            users.add(|| username(&row.of("users", "id"), "username").ok(), User::try_from(row));
        }
        Ok(users)
    }

    /// Replaces a user's roles. Issued access tokens keep the old roles until they expire; the next refresh issues the
    /// new ones.
    pub async fn set_roles(
        &self,
        id: UserId,
        roles: Vec<Role>,
        now: Timestamp,
        audit: Option<AuditEvent>,
    ) -> Result<User, StoreError> {
        let written = self.0.write("user_set_roles", (id, roles, now, audit), |tx, (id, roles, now, audit)| {
            Box::pin(set_roles(tx, *id, roles, *now, audit))
        });
        Ok(written.await?.value)
    }

    /// Makes several changes to a user in one transaction: all of them, or none.
    pub async fn change(
        &self,
        id: UserId,
        change: UserChange,
        revocation_expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Written<User>, StoreError> {
        let input = (id, change, revocation_expires_at, now);
        self.0
            .write("user_change", input, |tx, (id, change, until, now)| {
                Box::pin(async move {
                    if let Some((roles, audit)) = &change.roles {
                        set_roles(tx, *id, roles, *now, audit).await?;
                    }
                    match &change.enabled {
                        Some((true, audit)) => revoke::enable(tx, *id, *now, audit).await,
                        Some((false, audit)) => revoke::disable(tx, *id, *now, *until, audit).await,
                        None => revoke::existing(tx, *id).await,
                    }
                })
            })
            .await
    }

    /// Replaces the hash `old` of an unchanged password by a better one; false if the password was changed
    /// concurrently.
    pub async fn upgrade_hash(&self, id: UserId, old: &str, new: &str) -> Result<bool, StoreError> {
        const UPGRADE: &str = "UPDATE users SET password_hash = $1, password_scheme = $4
            WHERE id = $2 AND password_hash = $3 RETURNING id";
        let values = values![new, id, old, scheme_of(new)];
        Ok(!self.0.write_one("user_upgrade_hash", UPGRADE, values).await?.is_empty())
    }
}

fn credentials(row: &crate::store::db::Row) -> Result<Credentials, StoreError> {
    let user = User::try_from(row)?;
    let row = row.of("users", "id");
    let (password_hash, installation_epoch) = (row.text("password_hash")?, row.count("installation_epoch")?);
    Ok(Credentials { user, password_hash, installation_epoch })
}

async fn set_roles(
    tx: &mut Tx,
    id: UserId,
    roles: &[Role],
    now: Timestamp,
    audit: &Option<AuditEvent>,
) -> Result<User, StoreError> {
    const SET: &str = concat!("UPDATE users SET roles = $1 WHERE id = $2 RETURNING ", user_columns!());
    let row = tx.row(SET, values![joined(roles.iter().map(Role::as_str)), id]).await?;
    let user = row.as_ref().map(User::try_from).ok_or(StoreError::NotFound { what: "user" })??;
    audit::record(tx, now, audit).await?;
    Ok(user)
}

async fn insert(tx: &mut Tx, new: &NewUser, now: Timestamp) -> Result<Option<User>, StoreError> {
    const INSERT: &str =
        concat!("INSERT INTO users (id, username, password_hash, roles, created_at, password_changed_at, disabled_at, password_scheme)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (username) DO NOTHING RETURNING ", user_columns!());
    let (hash, roles) = (new.password_hash.as_str(), joined(&new.roles));
    let row = tx
        .row(
            INSERT,
            values![
                new.id,
                new.username.as_str(),
                hash,
                roles,
                new.created_at.unwrap_or(now),
                now,
                new.disabled.then_some(now),
                scheme_of(hash),
            ],
        )
        .await?;
    row.as_ref().map(User::try_from).transpose()
}

/// Marks the live sessions of a user as ended, except `kept`. The user's epoch already invalidates their tokens; the
/// marks are for lists and the sweeper.
async fn end_sessions(tx: &mut Tx, user: UserId, kept: Option<SessionId>, now: Timestamp) -> Result<(), StoreError> {
    const END: &str = "UPDATE sessions SET ended_at = $1, end_reason = $2
        WHERE user_id = $3 AND ended_at IS NULL AND ($4 IS NULL OR id <> $4)";
    let reason = crate::domain::EndReason::UserRevoked.as_str();
    tx.run(END, values![now, reason, user, kept]).await
}
