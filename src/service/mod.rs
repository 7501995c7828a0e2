//! The use cases, one per file. They take and return domain types, and use neither axum nor SQL. A verified token also caches
//! the responses that `http` renders for it (`judge.rs`).

mod account;
mod admin_keys;
mod administrator;
mod assertion_keys;
mod attempts;
mod audit;
mod client_auth;
mod client_cache;
mod client_credentials;
mod client_failures;
mod clients;
mod denials;
mod failed_logins;
mod granted;
mod import;
mod import_line;
mod introspect;
mod issue;
mod judge;
mod keys;
mod login;
mod logout;
mod password;
mod refresh;
mod request;
mod revoke;
mod status;
mod users;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::crypto::{PasswordHasher, Random, RefreshCodec, Sealer};
use crate::domain::{Algorithm, Audience, PasswordPolicy, TokenType};
use crate::replica::follower::Follower;
use crate::replica::keyring::Keyring;
use crate::replica::view::View;
use crate::store::{Store, StoreError, Turns};

pub use account::{PasswordChangeError, SessionPage};
pub use admin_keys::AdminKeyError;
pub use administrator::{ADMIN_KEY_PREFIX, AdminError};
pub use assertion_keys::AssertionKeys;
pub use attempts::{AttemptRules, Limit, Refusals};
pub use audit::{AuditSearches, Page};
pub use client_auth::{Caller, CallerError, ClientAuth};
pub use client_cache::{BeforeAuthentication, ClientCache};
pub use client_credentials::GrantError;
pub use client_failures::ClientFailures;
pub use clients::{ClientError, ClientSecret};
pub use denials::Denials;
pub use failed_logins::FailedLogins;
pub use granted::Narrowing;
pub use import::{IMPORT_BATCH, ImportReport, RefusedLine};
pub use import_line::MAX_LINE_BYTES as MAX_IMPORT_LINE_BYTES;
pub use introspect::{Introspected, Introspection, IntrospectionError};
pub use issue::{IssuedRefresh, IssuedTokens};
pub use judge::{Inactivity, Judge, JudgedToken, Judgement, Signature, Unavailable, Verdict};
pub use keys::{AddKeyError, KeyInfo, MaintenanceError};
pub use login::{Login, LoginError};
pub use logout::{Bearer, BearerError, WrongAudience};
pub use refresh::{RefreshError, Refreshed};
pub use request::Requester;
pub use revoke::{RevocationLimit, RevokeError, Target};
pub use status::{Readiness, Status};
pub use users::UserError;

pub use crate::crypto::HashingError;
pub use crate::store::{AuditFilter, AuditRecord, LiveRevocation, Owner as SessionOwner};

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

/// The state of the use cases. One per process, shared by all requests.
pub struct Service {
    pub(crate) store: Store,
    pub(crate) view: Arc<View>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) judge: Judge,
    pub(crate) follower: Arc<Follower>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) passwords: PasswordHasher,
    pub(crate) policy: PasswordPolicy,
    pub(crate) attempt_rules: AttemptRules,
    pub(crate) refusals: Refusals,
    pub(crate) client_failures: ClientFailures,
    pub(crate) assertion_keys: AssertionKeys,
    /// [`UNKNOWN_CLIENTS`] permits.
    pub(crate) unknown_clients: Semaphore,
    pub(crate) revocation_limit: RevocationLimit,
    /// Running revocations of single tokens.
    pub(crate) revoking: Arc<Turns<[u8; 16], (), Result<(), StoreError>>>,
    pub(crate) client_cache: ClientCache,
    pub(crate) denials: Denials,
    pub(crate) failed_logins: FailedLogins,
    pub(crate) audit_searches: AuditSearches,
    pub(crate) refresh_codec: RefreshCodec,
    pub(crate) issuer: String,
    /// Audiences accepted in client assertions (RFC 7523 §3).
    pub(crate) assertion_audiences: Vec<String>,
    pub(crate) settings: Settings,
    pub(crate) stopping: AtomicBool,
    /// Why the replica has not started yet.
    pub(crate) start_problem: ArcSwapOption<String>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("issuer", &self.issuer)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Service {
    pub const fn judge(&self) -> &Judge {
        &self.judge
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }
}

/// Why a use case failed for a reason other than the request: an unavailable dependency, contradictory settings, or a fault of
/// the service.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A dependency is unavailable: 503 with `Retry-After`.
    #[error("{0}")]
    Unavailable(Box<dyn std::error::Error + Send + Sync>),
    /// The access token would exceed the maximum length (security.md T9): the user has too many roles, or the client too many
    /// audiences or scopes. 400; nothing was changed.
    #[error("{0}")]
    TokenTooLong(Box<dyn std::error::Error + Send + Sync>),
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
        matches!(self, Self::Unavailable(_))
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
            // An unreadable row affects only requests that need it, until an operator repairs it.
            StoreError::Unavailable(_) | StoreError::CannotWrite(_) | StoreError::Corrupt { .. } => {
                Self::Unavailable(Box::new(error))
            }
            _ => Self::Internal(Box::new(error)),
        }
    }
}
