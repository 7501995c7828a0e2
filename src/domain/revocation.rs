//! Revocations, and the entries of the change feed.

use super::{ClientId, Jti, Kid, SessionId, UserId};

/// The tokens that become inactive. Each revocation is one short-lived record; none lists tokens (security.md I13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// The token with this `jti`.
    Jti(Jti),
    /// Every token of one session.
    Session(SessionId),
    /// Every token of the user with a lower epoch.
    User(UserId, u32),
    /// Every token of the client with a lower epoch.
    Client(ClientId, u32),
    /// Every token signed by this key.
    Key(Kid),
    /// Every token with a lower installation epoch.
    Everything(u32),
}

impl Revocation {
    pub const fn kind(&self) -> RevocationKind {
        match self {
            Self::Jti(_) => RevocationKind::Jti,
            Self::Session(_) => RevocationKind::Session,
            Self::User(..) => RevocationKind::User,
            Self::Client(..) => RevocationKind::Client,
            Self::Key(_) => RevocationKind::Key,
            Self::Everything(_) => RevocationKind::Everything,
        }
    }
}

/// The kinds of [`Revocation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RevocationKind {
    Jti,
    Session,
    User,
    Client,
    Key,
    Everything,
}

impl RevocationKind {
    pub const ALL: [Self; 6] = [Self::Jti, Self::Session, Self::User, Self::Client, Self::Key, Self::Everything];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jti => "jti",
            Self::Session => "session",
            Self::User => "user",
            Self::Client => "client",
            Self::Key => "key",
            Self::Everything => "everything",
        }
    }
}

/// One entry of the change feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Revoked(Revocation),
    /// The client was created, changed or deleted; replicas read it again.
    ClientChanged(ClientId),
    /// The set of signing keys changed; replicas read the whole set again.
    KeysChanged,
}
