//! Audiences and roles: short names that appear in tokens.

use std::fmt;

use super::ParseError;

/// A resource server's name: the value of `aud` (RFC 7519 §4.1.3), often a URL. 1 to 256 visible ASCII characters
/// without `"` and `\`; compared byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Audience(Box<str>);

impl Audience {
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let fits = !text.is_empty() && text.len() <= 256;
        if !fits || !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') {
            return Err(ParseError("an audience is 1 to 256 visible ASCII characters without \" and \\"));
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A role of a user: 1 to 64 of `A-Z a-z 0-9 . _ : / -`, which are safe in a header and in a comma-separated list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Role(Box<str>);

impl Role {
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let is_role_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'/' | b'-');
        if text.is_empty() || text.len() > 64 || !text.bytes().all(is_role_byte) {
            return Err(ParseError("a role is 1 to 64 of the characters A-Z a-z 0-9 . _ : / -"));
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Longest list of one user's roles, or of one client's audiences, in bytes including separators. Every token carries
/// the list and must fit into 4 KiB (security.md T9).
const MAX_LISTED_BYTES: usize = 1024;
/// Maximum number of roles of a user, and of audiences of a client.
const MAX_LISTED: usize = 64;

pub fn check_roles(roles: &[Role]) -> Result<(), ParseError> {
    if fits(roles.iter().map(Role::as_str)) {
        return Ok(());
    }
    Err(ParseError("a user can have at most 64 roles, of at most 1024 bytes in total, because every token lists them"))
}

pub fn check_audiences(audiences: &[Audience]) -> Result<(), ParseError> {
    if fits(audiences.iter().map(Audience::as_str)) {
        return Ok(());
    }
    Err(ParseError(
        "a client can have at most 64 audiences, of at most 1024 bytes in total, because every token lists them",
    ))
}

fn fits<'a>(words: impl Iterator<Item = &'a str>) -> bool {
    let (count, bytes) = words.fold((0, 0), |(count, bytes), word| (count + 1, bytes + word.len() + 1));
    count <= MAX_LISTED && bytes <= MAX_LISTED_BYTES + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parse_never_panics_and_keeps_the_text(text in "\\PC{0,80}") {
            if let Ok(audience) = Audience::parse(&text) {
                prop_assert_eq!(audience.as_str(), text.as_str());
            }
            if let Ok(role) = Role::parse(&text) {
                prop_assert_eq!(role.as_str(), text.as_str());
            }
        }
    }

    #[test]
    fn t9_what_every_token_lists_is_bounded() {
        let roles = |count, length| vec![Role::parse(&"r".repeat(length)).unwrap(); count];
        assert!(check_roles(&roles(64, 15)).is_ok() && check_roles(&roles(65, 1)).is_err());
        assert!(check_roles(&roles(64, 16)).is_err() && check_roles(&[]).is_ok());
        let audiences = |count, length| vec![Audience::parse(&"a".repeat(length)).unwrap(); count];
        assert!(check_audiences(&audiences(4, 255)).is_ok() && check_audiences(&audiences(4, 256)).is_err());
    }

    #[test]
    fn separators_of_headers_and_lists_are_refused() {
        for bad in ["", "a b", "a,b", "a\"b", "a\r\nb", "é"] {
            assert!(Role::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a b", "a\"b", "a\nb", "é", &"a".repeat(257)] {
            assert!(Audience::parse(bad).is_err(), "{bad:?}");
        }
    }
}
