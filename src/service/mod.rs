//! The use cases by subject, one per file. They take and return domain types, and use neither axum nor SQL. A verified token also caches
//! the responses that `http` renders for it (`judge.rs`).

mod account;
mod administration;
mod clients;
mod feed;
mod introspection;
mod judge;
mod keys;
mod passwords;
mod request;
mod revocations;
mod sessions;
mod status;
mod tokens;
mod users;

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{Algorithm, Audience, TokenType};
use crate::replica::follower::Follower;
use crate::store::{StoreError, Written};

pub use account::{Account, PasswordChangeError};
pub use administration::admin_keys::AdminKeyError;
pub use administration::audit::{AuditSearches, Page};
pub use administration::{ADMIN_KEY_PREFIX, AdminError, Administration};
pub use clients::assertion_keys::AssertionKeys;
pub use clients::authenticate::{Caller, CallerError, ClientAuth};
pub use clients::cache::{BeforeAuthentication, ClientCache};
pub use clients::failures::ClientFailures;
pub use clients::{ClientError, ClientSecret, Clients};
pub use feed::{ClientItem, Feed, FeedError, FeedItem, Fresh, FullRead, Part, Reader};
pub use introspection::denials::Denials;
pub use introspection::{Introspected, Introspection, IntrospectionError, Introspections};
pub use judge::{Inactivity, Judge, JudgedToken, Judgement, Signature, Unavailable, Verdict};
pub use keys::{AddKeyError, KeyInfo, Keys, MaintenanceError};
pub use passwords::Passwords;
pub use passwords::attempts::{AttemptRules, Limit, Refusals};
pub use passwords::failed_logins::FailedLogins;
pub use request::Requester;
pub use revocations::{RevocationLimit, Revocations, RevokeError, Target};
pub use sessions::login::{Login, LoginError};
pub use sessions::logout::{Bearer, BearerError, WrongAudience};
pub use sessions::refresh::{RefreshError, Refreshed};
pub use sessions::{SessionPage, Sessions};
pub use status::{Readiness, ReplicaStatus, Status};
pub use tokens::client_credentials::GrantError;
pub use tokens::granted::Narrowing;
pub use tokens::{IssuedRefresh, IssuedTokens, Tokens};
pub use users::import::{IMPORT_BATCH, ImportReport, RefusedLine};
pub use users::import_line::MAX_LINE_BYTES as MAX_IMPORT_LINE_BYTES;
pub use users::{UserError, Users};

pub use crate::crypto::HashingError;
pub use crate::store::{AuditFilter, AuditRecord, LiveRevocation, Owner as SessionOwner, PublicCursor};

/// The built-in public client, used by logins without a `client_id`.
pub const BUILT_IN_CLIENT: &str = "countersign";

/// The scope of the administration API, and the role that a user needs to get it.
pub const ADMIN_SCOPE: &str = "countersign:admin";

/// How long a revocation is kept: the maximum lifetime of an access token, and two minutes for clock skew (security.md I12).
pub const REVOCATION_LIFE: Duration = Duration::from_secs(60 * 60 + 120);

/// Maximum number of callers that wait for a sync before they are refused as unknown clients. A sync takes milliseconds and
/// serves all of them, so the limit is reached only while the database is slow. Further callers get 503.
pub const UNKNOWN_CLIENTS: usize = 1024;

/// The settings that the use cases need.
#[derive(Debug, Clone)]
pub struct Settings {
    pub access_ttl: Duration,
    pub algorithm: Algorithm,
    pub token_type: TokenType,
    pub default_audience: Audience,
    pub idle_ttl: Duration,
    pub absolute_ttl: Duration,
    /// `sessions.max_per_user`.
    pub max_sessions: u32,
    pub retry_window: Duration,
    pub rotate_every: Duration,
    pub announce_for: Duration,
}

/// The use cases by subject. One per process, shared by all requests.
pub struct Service {
    pub tokens: Arc<Tokens>,
    pub judge: Arc<Judge>,
    pub introspection: Introspections,
    pub sessions: Arc<Sessions>,
    pub account: Account,
    pub revocations: Arc<Revocations>,
    pub clients: Clients,
    pub users: Users,
    pub keys: Arc<Keys>,
    pub feed: Feed,
    pub administration: Administration,
    pub status: ReplicaStatus,
    pub passwords: Arc<Passwords>,
}

impl Service {
    pub fn issuer(&self) -> &str {
        &self.tokens.issuer
    }
}

/// Applies a change whose target may not exist. Returns whether it exists.
async fn apply_if_found<T>(follower: &Follower, changed: Result<Written<T>, StoreError>) -> Result<bool, Failure> {
    match changed {
        Ok(written) => {
            follower.apply_locally(written).await;
            Ok(true)
        }
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Why a use case failed for a reason other than the request: an unavailable dependency, contradictory settings, or a fault of
/// the service.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A dependency is unavailable: 503 with `Retry-After`.
    #[error("{0}")]
    Unavailable(Box<dyn std::error::Error + Send + Sync>),
    /// A stored row that the request needs cannot be read: 503 with `Retry-After`.
    #[error("{0}")]
    UnreadableRow(Box<dyn std::error::Error + Send + Sync>),
    /// The database is unavailable, and nothing was changed: 503 with `Retry-After`.
    #[error("{0}")]
    NotChanged(Box<dyn std::error::Error + Send + Sync>),
    /// The answer of the database was lost, and the change may have been made: 503 with `Retry-After`.
    #[error("{0}")]
    OutcomeUnknown(Box<dyn std::error::Error + Send + Sync>),
    /// A fault of the service: 500 with a fixed text.
    #[error("{0}")]
    Internal(Box<dyn std::error::Error + Send + Sync>),
}

impl Failure {
    /// Wraps a cause that is logged and never sent to the caller.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(cause.into())
    }

    /// Whether a later attempt may succeed.
    pub const fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::UnreadableRow(_) | Self::NotChanged(_) | Self::OutcomeUnknown(_))
    }

    fn no_verdict(reason: Unavailable) -> Self {
        Self::Unavailable(format!("this replica gives no verdicts now: {reason}").into())
    }

    fn no_signing_key(algorithm: Algorithm) -> Self {
        Self::Unavailable(
            format!("no key signs with {algorithm}: import one with `countersign keys import --algorithm {algorithm}`")
                .into(),
        )
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::CannotWrite(_) => Self::NotChanged(Box::new(error)),
            StoreError::OutcomeUnknown(_) => Self::OutcomeUnknown(Box::new(error)),
            // An unreadable row affects only requests that need it, until an operator repairs it.
            StoreError::Corrupt { .. } => Self::UnreadableRow(Box::new(error)),
            _ => Self::Internal(Box::new(error)),
        }
    }
}
