//! The types of the domain: ids, scopes, claims, and the states of users, clients, sessions and keys.
//!
//! Nothing here reads a clock, draws random numbers, does I/O or knows a wire format. `parse` is the only constructor
//! of types that hold text, so every value is valid.

/// Declares an enum whose values have fixed texts. With an error, `parse` reads them.
macro_rules! texts {
    (
        $(#[$attribute:meta])*
        $Name:ident $(else $error:literal)? { $($(#[$about:meta])* $Value:ident = $text:literal,)* }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $Name {
            $($(#[$about])* $Value,)*
        }

        impl $Name {
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$Value),*];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$Value => $text,)*
                }
            }

            $(
                pub fn parse(text: &str) -> Result<Self, $crate::domain::ParseError> {
                    let found = Self::ALL.into_iter().find(|value| value.as_str() == text);
                    found.ok_or($crate::domain::ParseError($error))
                }
            )?
        }
    };
}

/// Declares a type of short text; its `parse` is written beside it.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

pub(crate) use texts;

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

pub use audience::{Audience, Role, check_client, check_roles};
pub use claims::{AccessClaims, LoginClaims, Subject, TokenType};
pub use client::{
    Client, ClientKind, ClientSettings, FeedRight, Grant, Grants, IntrospectRight, SecretDigest, StoredSecret,
};
pub use id::{ClientId, IdText, Jti, Kid, SessionId, UserId};
pub use key::{Algorithm, KeyPhase, KeySchedule, signer_of};
pub use password::Password;
pub use password_policy::{PasswordPolicy, PolicyRefusal};
pub use revocation::{Change, Revocation, RevocationKind};
pub use scope::ScopeSet;
pub use secret::SecretText;
pub use session::{EndReason, RefreshRefusal, RetryMarks, Session, SessionState};
pub use time::Timestamp;
pub use user::{User, UserState, Username};

/// A text file without U+FEFF at its start, which editors on Windows write there.
pub fn without_byte_order_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Why a text is not a value of the type. The sentence is for the sender of the text and does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub &'static str);
