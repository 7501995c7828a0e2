//! Sessions, and the reasons to end one or to refuse its refresh token.

use super::{Audience, ClientId, ScopeSet, SessionId, Timestamp, UserId};

texts! {
    /// Why a session ended.
    EndReason {
        /// The user or the client ended it (logout, RFC 7009 revocation).
        LoggedOut = "logged_out",
        /// A refresh token was reused after its retry window (RFC 9700 §4.14).
        Reused = "reused",
        /// An administrator ended it.
        Administrator = "administrator",
        /// The user changed the password in another session, or logged out everywhere.
        UserRevoked = "user_revoked",
        /// The user exceeded the session limit, and this was the oldest session.
        Displaced = "displaced",
    }
}

/// Whether the session was ended. Expiry is checked separately ([`Session::has_expired`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Not ended.
    Live,
    /// When it was ended, and why.
    Ended(Timestamp, EndReason),
}

/// A session as stored: one row, whatever the number of refreshes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub id: SessionId,
    /// The user who logged in.
    pub user: UserId,
    /// The client through which the user logged in.
    pub client: ClientId,
    /// Number of refresh-token rotations.
    pub generation: u32,
    /// When the user authenticated.
    pub authenticated_at: Timestamp,
    /// When the current generation was created, in milliseconds. In whole seconds, it is the `iat` of the access
    /// token of the same pair.
    pub rotated_at: Timestamp,
    /// When earlier generations were superseded, as far as known.
    pub marks: RetryMarks,
    /// The session expires here unless it is refreshed before.
    pub idle_expires_at: Timestamp,
    /// The session expires here in any case; never extended.
    pub absolute_expires_at: Timestamp,
    /// Granted at login. A refresh may narrow the access token's scope, never widen it.
    pub scope: ScopeSet,
    /// `aud` of the access tokens.
    pub audience: Vec<Audience>,
    /// The user's epoch at login.
    pub user_epoch: u32,
    /// The client's epoch at login.
    pub client_epoch: u32,
    /// The installation's epoch at login.
    pub installation_epoch: u32,
    pub state: SessionState,
}

/// When earlier refresh tokens of a session were superseded, in four numbers instead of a history (security.md R4).
///
/// A token of generation `g` is superseded when generation `g + 1` is made. Two marks divide the generations: those above
/// `middle`, and those above `floor` up to `middle`. Each rotation moves the marks once the upper division is wider than the
/// retry window. Each division then either is no wider than one window or holds a single generation. A division counts
/// as superseded at its latest moment, so a token is never refused too early, and accepted at most one window too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryMarks {
    /// The generation that the marks belong to. Release 0.1.0 rotates without them, which leaves this one behind.
    pub generation: u32,
    /// The highest generation below both divisions.
    pub floor: u32,
    /// The highest generation of the lower division.
    pub middle: u32,
    /// When generation `middle` was made.
    pub middle_at: Timestamp,
}

impl RetryMarks {
    /// The marks of a new session, and the defaults of the columns.
    pub const NEW: Self = Self { generation: 0, floor: 0, middle: 0, middle_at: Timestamp::from_millis(0) };
}

impl Session {
    /// The latest moment at which the refresh token of `generation` may have been superseded. None if that is longer ago than
    /// the marks reach, or if the token was not superseded.
    pub fn superseded_at(&self, generation: u32) -> Option<Timestamp> {
        let next = generation.checked_add(1).filter(|next| *next <= self.generation)?;
        if next == self.generation {
            return Some(self.rotated_at);
        }
        if self.marks.generation != self.generation || next <= self.marks.floor {
            return None;
        }
        Some(if next > self.marks.middle { self.rotated_at } else { self.marks.middle_at })
    }

    /// Whether the idle or the absolute lifetime has ended at `now`.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        now >= self.idle_expires_at || now >= self.absolute_expires_at
    }
}

texts! {
    /// Why a refresh token was refused. The caller learns only whether it was reuse; logs have the reason.
    RefreshRefusal {
        /// Malformed, or the MAC does not verify. The database was not read.
        Forged = "forged",
        /// No such session, or the family secret does not match.
        Unknown = "unknown",
        /// The session belongs to another client; nothing was changed (security.md R7).
        ForeignClient = "foreign_client",
        /// The idle or the absolute lifetime has ended.
        Expired = "expired",
        /// The session was ended.
        Ended = "ended",
        /// The user or the client was disabled, deleted or revoked.
        Revoked = "revoked",
        /// The token was superseded before the retry window; the session was ended now.
        Reused = "reused",
    }
}
