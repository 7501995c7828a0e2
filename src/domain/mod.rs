//! The words of the service as types: ids, scopes, claims, and the states of users, clients, sessions and keys.
//!
//! Pure: nothing here reads a clock, draws randomness, does I/O or knows a wire format. `parse` is the only door of
//! every type that holds text, so a value that exists is a value that is valid.

mod audience;
mod claims;
mod client;
mod common_passwords;
mod id;
mod key;
mod password;
mod password_patterns;
mod password_policy;
mod revocation;
mod scope;
mod secret;
mod session;
mod time;
mod user;

pub use audience::{Audience, Role, check_audiences, check_roles};
pub use claims::{AccessClaims, LoginClaims, Subject, TokenType};
pub use client::{Client, ClientKind, ClientSettings, Grant, Grants, IntrospectRight, SecretDigest, StoredSecret};
pub use id::{ClientId, IdText, Jti, Kid, SessionId, UserId};
pub use key::{Algorithm, KeyPhase, KeySchedule, signer_of};
pub use password::{HASHING_QUEUE, HASHING_THREADS, LEGACY_COST, LEGACY_MEMORY_KIB, Password};
pub use password_policy::{PasswordPolicy, PolicyRefusal};
pub use revocation::{Change, Revocation, RevocationKind};
pub use scope::ScopeSet;
pub use secret::SecretText;
pub use session::{EndReason, RefreshRefusal, Session, SessionState};
pub use time::Timestamp;
pub use user::{User, UserState, Username};

/// A text file without U+FEFF at its start, which editors on Windows write there.
pub fn without_byte_order_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Why a text is not a value of the type it was parsed as: a sentence for the person who sent it, free of what they sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub &'static str);
