//! Revocations and changes: what travels on the change feed.

use super::{ClientId, Jti, Kid, SessionId, UserId};

/// What is revoked. Each is one short-lived record; none iterates over tokens (security.md I13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// One token.
    Jti(Jti),
    /// Every token of one session.
    Session(SessionId),
    /// Every token of the user that carries an epoch below this one.
    User(UserId, u32),
    /// Every token of the client that carries an epoch below this one.
    Client(ClientId, u32),
    /// Every token that this key signed.
    Key(Kid),
}

impl Revocation {
    /// The kind, for rows, figures and answers.
    pub const fn kind(&self) -> RevocationKind {
        match self {
            Self::Jti(_) => RevocationKind::Jti,
            Self::Session(_) => RevocationKind::Session,
            Self::User(..) => RevocationKind::User,
            Self::Client(..) => RevocationKind::Client,
            Self::Key(_) => RevocationKind::Key,
        }
    }
}

/// The kinds of [`Revocation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RevocationKind {
    /// One token.
    Jti,
    /// A session.
    Session,
    /// A user below an epoch.
    User,
    /// A client below an epoch.
    Client,
    /// A key.
    Key,
}

impl RevocationKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Jti, Self::Session, Self::User, Self::Client, Self::Key];

    /// The kind's name in rows, figures and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jti => "jti",
            Self::Session => "session",
            Self::User => "user",
            Self::Client => "client",
            Self::Key => "key",
        }
    }
}

/// One entry of the change feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Something was revoked.
    Revoked(Revocation),
    /// This client was created, changed or deleted: read it again.
    ClientChanged(ClientId),
    /// The set of signing keys changed: read it again, whole.
    KeysChanged,
}
