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

texts! {
    /// The kinds of [`Revocation`].
    RevocationKind {
        Jti = "jti",
        Session = "session",
        User = "user",
        Client = "client",
        Key = "key",
        Everything = "everything",
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
