//! Identifiers. No text is valid as the id of more than one of user, session and client (security.md T17, RFC 9068
//! §5).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{ParseError, Timestamp};

/// Prefixes that a client id may not have, so that no client id reads as a user, session or secret.
const RESERVED_CLIENT_PREFIXES: [&str; 3] = ["usr_", "ses_", "cs_"];

/// The text of an id, without an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdText<'a> {
    /// Text held by the id.
    Borrowed(&'a str),
    /// Text encoded from random bytes.
    Made([u8; 26]),
}

impl std::ops::Deref for IdText<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Made(text) => std::str::from_utf8(text).unwrap_or_default(),
        }
    }
}

/// Defines an id of 16 random bytes, written as a prefix and 22 characters of base64url.
macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $error:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// From 16 bytes of a random generator or of a stored row.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            pub fn text(&self) -> IdText<'static> {
                let mut text = [0_u8; 26];
                let (prefix, body) = text.split_at_mut($prefix.len());
                prefix.copy_from_slice($prefix.as_bytes());
                let _ = URL_SAFE_NO_PAD.encode_slice(self.0, body);
                IdText::Made(text)
            }

            /// Reads the text of an id; each id has exactly one accepted text.
            pub fn parse(text: &str) -> Result<Self, ParseError> {
                let body = text.strip_prefix($prefix).ok_or(ParseError($error))?;
                let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| ParseError($error))?;
                Ok(Self(bytes.try_into().map_err(|_| ParseError($error))?))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.text())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

random_id! {
    /// A user: immutable and never reused; the `sub` of the tokens of a login.
    UserId, "usr_", "a user id is `usr_` followed by 22 characters of base64url"
}

random_id! {
    /// A session; the `sid` claim.
    SessionId, "ses_", "a session id is `ses_` followed by 22 characters of base64url"
}

impl SessionId {
    /// A new id: 48 bits of the time in milliseconds, then 80 random bits. The rows of sessions that begin together are
    /// then neighbours in the table's index. Older releases made ids of random bits only.
    pub fn at(now: Timestamp, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        let (time, rest) = bytes.split_at_mut(6);
        time.copy_from_slice(&now.millis().to_be_bytes()[2..]);
        rest.copy_from_slice(&random);
        Self(bytes)
    }
}

text_type! {
    /// An OAuth client (RFC 6749 §2.2): 1 to 64 of `A-Z a-z 0-9 . _ -`, without the prefixes of users, sessions and
    /// secrets.
    ClientId
}

impl ClientId {
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() || text.len() > 64 || !text.bytes().all(is_name_byte) {
            return Err(ParseError("a client id is 1 to 64 of the characters A-Z a-z 0-9 . _ -"));
        }
        if RESERVED_CLIENT_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            return Err(ParseError("a client id may not start with `usr_`, `ses_` or `cs_`"));
        }
        Ok(Self(text.into()))
    }
}

text_type! {
    /// A key id (RFC 7515 §4.1.4): 1 to 64 of `A-Z a-z 0-9 . _ -` (security.md T5).
    Kid
}

impl Kid {
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() || text.len() > 64 || !text.bytes().all(is_name_byte) {
            return Err(ParseError("a key id is 1 to 64 of the characters A-Z a-z 0-9 . _ -"));
        }
        Ok(Self(text.into()))
    }

    pub fn from_digest(digest: [u8; 32]) -> Self {
        Self(URL_SAFE_NO_PAD.encode(digest).into())
    }
}

text_type! {
    /// The id of a token (RFC 7519 §4.1.7). This service writes 22 characters of base64url. It accepts 1 to 128
    /// visible ASCII characters, because an imported key may have signed tokens of another issuer.
    Jti
}

impl Jti {
    /// Reads a `jti` claim, or the `jti` of a revocation request.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() || text.len() > 128 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ParseError("a jti is 1 to 128 visible ASCII characters"));
        }
        Ok(Self(text.into()))
    }

    /// From 16 unpredictable bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(URL_SAFE_NO_PAD.encode(bytes).into())
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn session_ids_sort_by_the_time_of_the_login() {
        let id = |millis, random| SessionId::at(Timestamp::from_millis(millis), random);
        let times = [0, 1, 1_800_000_000_000, 1_800_000_000_001, (1 << 48) - 1];
        assert!(times.is_sorted_by(|one, other| id(*one, [255; 10]) < id(*other, [0; 10])));
        assert_eq!(id(1, [7; 10]).as_bytes()[6..], [7; 10]);
    }

    proptest! {
        #[test]
        fn a_user_id_round_trips(bytes: [u8; 16]) {
            let id = UserId::from_bytes(bytes);
            prop_assert_eq!(UserId::parse(&id.to_string()), Ok(id));
        }

        #[test]
        fn a_random_id_has_exactly_one_spelling(text in "(ses_|usr_)?[A-Za-z0-9_=+/-]{0,24}") {
            if let Ok(id) = SessionId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn t17_no_text_is_both_a_client_and_a_user(text in "(usr_|ses_|cs_)?[ -~]{0,70}") {
            prop_assert!(ClientId::parse(&text).is_err() || UserId::parse(&text).is_err());
        }

        #[test]
        fn parse_never_panics(text in "\\PC{0,200}") {
            let _ = (ClientId::parse(&text), Kid::parse(&text), Jti::parse(&text), UserId::parse(&text));
        }
    }

    #[test]
    fn length_limits_are_exact() {
        assert!(ClientId::parse(&"a".repeat(64)).is_ok() && ClientId::parse(&"a".repeat(65)).is_err());
        assert!(Kid::parse(&"a".repeat(64)).is_ok() && Kid::parse(&"a".repeat(65)).is_err());
        assert!(Jti::parse(&"a".repeat(128)).is_ok() && Jti::parse(&"a".repeat(129)).is_err());
        assert!(Jti::parse("has space").is_err() && Kid::parse("../../etc").is_err());
    }
}
