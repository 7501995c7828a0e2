//! Sessions: one login of one user on one client, and what a presented refresh token means for it.

use super::{Audience, ClientId, ScopeSet, SessionId, Timestamp, UserId};

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The user or the client ended it (logout, RFC 7009 revocation).
    LoggedOut,
    /// An old refresh token was used outside the retry window: theft (RFC 9700 §4.14).
    Reused,
    /// An administrator ended it.
    Administrator,
    /// The user changed the password elsewhere, or logged out everywhere.
    UserRevoked,
    /// The user has more sessions than allowed; the oldest made room.
    Displaced,
}

impl EndReason {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::LoggedOut, Self::Reused, Self::Administrator, Self::UserRevoked, Self::Displaced];

    /// The name in rows and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LoggedOut => "logged_out",
            Self::Reused => "reused",
            Self::Administrator => "administrator",
            Self::UserRevoked => "user_revoked",
            Self::Displaced => "displaced",
        }
    }
}

/// Whether a session can still be refreshed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// It can, as far as the session itself is concerned.
    Live,
    /// It was ended.
    Ended(Timestamp, EndReason),
}

/// A session as it is stored: one row, whatever the number of refreshes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Who logged in.
    pub user: UserId,
    /// On which client.
    pub client: ClientId,
    /// How often its refresh token was rotated.
    pub generation: u32,
    /// When the user proved who they are.
    pub authenticated_at: Timestamp,
    /// When the current generation was made: `iat` of the access token that came with it, in milliseconds.
    pub rotated_at: Timestamp,
    /// Ends here unless it is refreshed before.
    pub idle_expires_at: Timestamp,
    /// Ends here whatever happens; never extended.
    pub absolute_expires_at: Timestamp,
    /// What was granted; a refresh may narrow the access token, never widen it.
    pub scope: ScopeSet,
    /// Whom the access tokens are for.
    pub audience: Vec<Audience>,
    /// The user's epoch at login.
    pub user_epoch: u32,
    /// The client's epoch at login.
    pub client_epoch: u32,
    /// Live or ended.
    pub state: SessionState,
}

impl Session {
    /// Whether either clock of the session has run out at `now`.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        now >= self.idle_expires_at || now >= self.absolute_expires_at
    }
}

/// Why a refresh token was refused. The caller learns only whether it was reuse; the operator learns all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshRefusal {
    /// Not one of ours: wrong form or wrong MAC. The database was not asked.
    Forged,
    /// No such session, or another family secret under its id.
    Unknown,
    /// It belongs to another client; nothing was changed (security.md R7).
    ForeignClient,
    /// The idle or the absolute end has passed.
    Expired,
    /// The session was ended.
    Ended,
    /// The user or the client was disabled, deleted or revoked since.
    Revoked,
    /// An old generation outside the retry window: the session has just been ended.
    Reused,
}

impl RefreshRefusal {
    /// The label in figures and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forged => "forged",
            Self::Unknown => "unknown",
            Self::ForeignClient => "foreign_client",
            Self::Expired => "expired",
            Self::Ended => "ended",
            Self::Revoked => "revoked",
            Self::Reused => "reused",
        }
    }
}
