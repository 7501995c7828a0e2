//! Converts stored rows to domain values. A row with an invalid value is an error that names it, never a guess.

use crate::domain::{
    Audience, Change, ClientId, EndReason, Jti, Kid, RetryMarks, Revocation, RevocationKind, Role, ScopeSet, Session,
    SessionId, SessionState, User, UserId, UserState, Username,
};
use crate::store::db::{Fields, Row};
use crate::store::{FeedEntry, Place, StoreError};

/// Rows of one table. An unreadable row does not withhold the others (security.md D18).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows<T, Id> {
    /// The readable rows, in the order of the query.
    pub readable: Vec<T>,
    /// The unreadable rows.
    pub unreadable: Vec<UnreadableRow<Id>>,
}

/// A row with an invalid value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableRow<Id> {
    /// Its key, if that is readable.
    pub id: Option<Id>,
    /// Table, column, row and problem.
    pub error: StoreError,
}

impl<T, Id> Default for Rows<T, Id> {
    fn default() -> Self {
        Self { readable: Vec::new(), unreadable: Vec::new() }
    }
}

impl<T, Id> Rows<T, Id> {
    /// The number of rows.
    pub const fn count(&self) -> usize {
        self.readable.len() + self.unreadable.len()
    }

    /// The greatest key of a page, after which the next one begins.
    pub fn last(&self, id: impl Fn(&T) -> Id) -> Option<Id>
    where
        Id: Ord + Clone,
    {
        let unreadable = self.unreadable.iter().filter_map(|row| row.id.clone());
        self.readable.last().map(id).into_iter().chain(unreadable).max()
    }

    /// Why rows cannot be read, as texts for operators.
    pub fn problems(&self) -> Vec<String> {
        self.unreadable.iter().map(|row| row.error.to_string()).collect()
    }

    /// Adds a row, or the reason why the row of `id` is unreadable.
    pub(super) fn add(&mut self, id: impl FnOnce() -> Option<Id>, row: Result<T, StoreError>) {
        match row {
            Ok(row) => self.readable.push(row),
            Err(error) => self.unreadable.push(UnreadableRow { id: id(), error }),
        }
    }
}

impl TryFrom<&Row> for User {
    type Error = StoreError;

    fn try_from(row: &Row) -> Result<Self, StoreError> {
        let row = row.of("users", "id");
        Ok(Self {
            id: UserId::from_bytes(row.array("id")?),
            username: username(&row, "username")?,
            roles: roles(&row, "roles")?,
            epoch: row.count("epoch")?,
            state: row.opt_time("disabled_at")?.map_or(UserState::Enabled, UserState::Disabled),
            created_at: row.time("created_at")?,
            last_login_at: row.opt_time("last_login_at")?,
        })
    }
}

impl TryFrom<&Row> for Session {
    type Error = StoreError;

    fn try_from(row: &Row) -> Result<Self, StoreError> {
        let row = row.of("sessions", "id");
        let state = match (row.opt_time("ended_at")?, row.opt_text("end_reason")?) {
            (None, None) => SessionState::Live,
            (Some(at), Some(reason)) => SessionState::Ended(at, end_reason(&row, &reason)?),
            _ => return Err(row.corrupt("end_reason", "does not agree with `ended_at`")),
        };
        let audience = words(&row, "audience", Audience::parse)?;
        if audience.is_empty() {
            return Err(row.corrupt("audience", "is empty"));
        }
        Ok(Self {
            id: SessionId::from_bytes(row.array("id")?),
            user: UserId::from_bytes(row.array("user_id")?),
            client: row.parsed("client_id", ClientId::parse)?,
            generation: row.count("generation")?,
            authenticated_at: row.time("authenticated_at")?,
            rotated_at: row.time("rotated_at")?,
            marks: RetryMarks {
                generation: row.count("marked_generation")?,
                floor: row.count("floor_generation")?,
                middle: row.count("middle_generation")?,
                middle_at: row.time("middle_at")?,
            },
            idle_expires_at: row.time("idle_expires_at")?,
            absolute_expires_at: row.time("absolute_expires_at")?,
            scope: row.parsed("scope", ScopeSet::parse)?,
            audience,
            user_epoch: row.count("user_epoch")?,
            client_epoch: row.count("client_epoch")?,
            installation_epoch: row.count("installation_epoch")?,
            state,
        })
    }
}

impl TryFrom<&Row> for FeedEntry {
    type Error = StoreError;

    fn try_from(row: &Row) -> Result<Self, StoreError> {
        let row = row.of("changes", "seq");
        Ok(Self {
            change: change(&row)?,
            created_at: row.time("created_at")?,
            expires_at: row.time("expires_at")?,
            place: Some(Place { position: row.int("place")?, seq: row.int("seq")? }),
        })
    }
}

/// A change as `kind`, `subject` and `epoch`.
pub(super) fn change_columns(change: &Change) -> (&'static str, Vec<u8>, u32) {
    match change {
        Change::Revoked(revocation) => {
            let (subject, epoch) = match revocation {
                Revocation::Jti(jti) => (jti.as_str().as_bytes().to_vec(), 0),
                Revocation::Session(id) => (id.as_bytes().to_vec(), 0),
                Revocation::User(id, epoch) => (id.as_bytes().to_vec(), *epoch),
                Revocation::Client(id, epoch) => (id.as_str().as_bytes().to_vec(), *epoch),
                Revocation::Key(kid) => (kid.as_str().as_bytes().to_vec(), 0),
                Revocation::Everything(epoch) => (Vec::new(), *epoch),
            };
            (revocation.kind().as_str(), subject, epoch)
        }
        Change::ClientChanged(id) => ("client_changed", id.as_str().as_bytes().to_vec(), 0),
        Change::KeysChanged => ("keys_changed", Vec::new(), 0),
    }
}

fn change(row: &Fields<'_>) -> Result<Change, StoreError> {
    let kind = row.text("kind")?;
    if let Some(kind) = RevocationKind::ALL.into_iter().find(|known| known.as_str() == kind) {
        return Ok(Change::Revoked(match kind {
            RevocationKind::Jti => Revocation::Jti(subject_text(row, Jti::parse)?),
            RevocationKind::Session => Revocation::Session(SessionId::from_bytes(row.array("subject")?)),
            RevocationKind::User => Revocation::User(UserId::from_bytes(row.array("subject")?), row.count("epoch")?),
            RevocationKind::Client => Revocation::Client(subject_text(row, ClientId::parse)?, row.count("epoch")?),
            RevocationKind::Key => Revocation::Key(subject_text(row, Kid::parse)?),
            RevocationKind::Everything => Revocation::Everything(row.count("epoch")?),
        }));
    }
    match kind.as_str() {
        "client_changed" => Ok(Change::ClientChanged(subject_text(row, ClientId::parse)?)),
        "keys_changed" => Ok(Change::KeysChanged),
        _ => Err(row.corrupt("kind", "is unknown to this release")),
    }
}

fn subject_text<T, E>(row: &Fields<'_>, parse: impl Fn(&str) -> Result<T, E>) -> Result<T, StoreError> {
    let bytes = row.bytes("subject")?;
    let text = std::str::from_utf8(&bytes).ok().and_then(|text| parse(text).ok());
    text.ok_or_else(|| row.corrupt("subject", "is not a value of its kind"))
}

/// A user name, which must be stored in its canonical form. Any other form was not written by this service.
pub(super) fn username(row: &Fields<'_>, column: &'static str) -> Result<Username, StoreError> {
    let text = row.text(column)?;
    let name = Username::parse(&text).ok().filter(|name| name.as_str() == text);
    name.ok_or_else(|| row.corrupt(column, "is not a canonical user name"))
}

/// Roles, in order and without duplicates.
pub(super) fn roles(row: &Fields<'_>, column: &'static str) -> Result<Vec<Role>, StoreError> {
    let mut roles = words(row, column, Role::parse)?;
    roles.sort_unstable();
    roles.dedup();
    Ok(roles)
}

/// A list of words, stored with a space as the separator; no word contains one.
pub(super) fn words<T, E>(
    row: &Fields<'_>,
    column: &'static str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, StoreError> {
    let text = row.text(column)?;
    let parsed = text.split(' ').filter(|word| !word.is_empty()).map(parse).collect::<Result<_, E>>();
    parsed.map_err(|_| row.corrupt(column, "holds a word that is not a value of its kind"))
}

/// Joins words to a text that [`words`] reads.
pub(super) fn joined<T: ToString>(words: impl IntoIterator<Item = T>) -> String {
    words.into_iter().map(|word| word.to_string()).collect::<Vec<_>>().join(" ")
}

fn end_reason(row: &Fields<'_>, text: &str) -> Result<EndReason, StoreError> {
    let reason = EndReason::ALL.into_iter().find(|reason| reason.as_str() == text);
    reason.ok_or_else(|| row.corrupt("end_reason", "is unknown to this release"))
}
