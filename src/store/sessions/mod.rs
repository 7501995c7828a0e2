//! Sessions: one row for each login, rewritten by every refresh.

mod end;
mod gate;
mod open;
mod rotate;

use std::sync::Arc;

pub use self::end::{EndOutcome, EndRequest, Owner};
pub(in crate::store) use self::gate::SessionGate;
pub use self::open::{NewSession, Opened};
pub use self::rotate::{MatchingSession, RotateOutcome, RotateRequest};
use crate::domain::{ClientId, Role, Session, SessionId, Timestamp, UserId, Username};
use crate::store::columns::{installation_epoch, session_columns};
use crate::store::db::{Database, Row, values};
use crate::store::rows::{roles, username, words};
use crate::store::{AuditEvent, Rows, StoreError};

/// A session with the user data for its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionDetail {
    /// The session.
    pub session: Session,
    /// The user's authentication methods (`amr`).
    pub methods: Vec<String>,
    /// The user's current name.
    pub username: Username,
    /// The user's current roles.
    pub roles: Vec<Role>,
}

impl TryFrom<&Row> for SessionDetail {
    type Error = StoreError;

    fn try_from(row: &Row) -> Result<Self, StoreError> {
        let session = Session::try_from(row)?;
        let row = row.of("sessions", "id");
        let methods = words(&row, "methods", |word| Ok::<_, StoreError>(word.to_owned()))?;
        Ok(Self { session, methods, username: username(&row, "username")?, roles: roles(&row, "roles")? })
    }
}

/// Sessions.
#[derive(Clone, Copy)]
pub struct Sessions<'a> {
    pub(super) database: &'a Database,
    pub(super) gate: &'a Arc<SessionGate>,
}

impl Sessions<'_> {
    /// A session, whether live or ended.
    pub async fn by_id(&self, id: SessionId) -> Result<Option<SessionDetail>, StoreError> {
        const READ: &str = concat!(
            "SELECT ",
            session_columns!(),
            ", users.username, users.roles
            FROM sessions JOIN users ON users.id = sessions.user_id WHERE sessions.id = $1"
        );
        self.database.row("session_read", READ, values![id]).await?.as_ref().map(SessionDetail::try_from).transpose()
    }

    /// Sessions of a user that can still be refreshed at `now`, ordered by id, after `after`.
    pub async fn of_user(
        &self,
        user: UserId,
        after: Option<SessionId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Rows<SessionDetail, SessionId>, StoreError> {
        const PAGE: &str = concat!(
            "SELECT ",
            session_columns!(),
            ", users.username, users.roles
            FROM sessions JOIN users ON users.id = sessions.user_id JOIN clients ON clients.id = sessions.client_id
            WHERE sessions.user_id = $1 AND sessions.id > $2 AND ended_at IS NULL
              AND idle_expires_at > $3 AND absolute_expires_at > $3
              AND user_epoch = users.epoch AND client_epoch = clients.epoch AND installation_epoch = ",
            installation_epoch!(),
            "
            ORDER BY sessions.id LIMIT $4"
        );
        let rows = self.database.rows("sessions_of_user", PAGE, values![user, start(after), now, limit]).await?;
        Ok(listed(&rows))
    }

    /// Number of sessions that have neither ended nor expired: of a user, of a client, or of all.
    pub async fn count(
        &self,
        user: Option<UserId>,
        client: Option<&ClientId>,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        const COUNT: &str = "SELECT count(*) AS size FROM sessions
            WHERE ($1 IS NULL OR user_id = $1) AND ($2 IS NULL OR client_id = $2)
              AND ended_at IS NULL AND idle_expires_at > $3 AND absolute_expires_at > $3";
        let row = self.database.row("sessions_count", COUNT, values![user, client.map(ClientId::as_str), now]).await?;
        row.map_or(Ok(0), |row| row.of("sessions", "size").int("size"))
    }

    /// Sessions on a client that can still be refreshed at `now`, ordered by id, after `after`.
    pub async fn of_client(
        &self,
        client: &ClientId,
        after: Option<SessionId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Rows<SessionDetail, SessionId>, StoreError> {
        const PAGE: &str = concat!(
            "SELECT ",
            session_columns!(),
            ", users.username, users.roles
            FROM sessions JOIN users ON users.id = sessions.user_id JOIN clients ON clients.id = sessions.client_id
            WHERE sessions.client_id = $1 AND sessions.id > $2 AND ended_at IS NULL
              AND idle_expires_at > $3 AND absolute_expires_at > $3
              AND user_epoch = users.epoch AND client_epoch = clients.epoch AND installation_epoch = ",
            installation_epoch!(),
            "
            ORDER BY sessions.id LIMIT $4"
        );
        let rows = self.database.rows("sessions_of_client", PAGE, values![client, start(after), now, limit]).await?;
        Ok(listed(&rows))
    }
}

/// The sessions of a page.
fn listed(rows: &[Row]) -> Rows<SessionDetail, SessionId> {
    let mut sessions = Rows::default();
    for row in rows {
        let id = || row.of("sessions", "id").array("id").ok().map(SessionId::from_bytes);
        sessions.add(id, SessionDetail::try_from(row));
    }
    sessions
}

/// `event` about the session of a row with `id`, `user_id` and `client_id`.
pub(super) fn about_session_in(row: &Row, event: &AuditEvent) -> Result<AuditEvent, StoreError> {
    let row = row.of("sessions", "id");
    let (id, user) = (SessionId::from_bytes(row.array("id")?), UserId::from_bytes(row.array("user_id")?));
    let client = Some(row.text("client_id")?);
    Ok(AuditEvent { client, ..event.clone().about_session(id).of_user(user) })
}

/// The bytes after which a page begins. The empty string sorts first.
fn start(after: Option<SessionId>) -> Vec<u8> {
    after.map_or_else(Vec::new, |id| id.as_bytes().to_vec())
}
