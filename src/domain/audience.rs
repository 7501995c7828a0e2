//! Audiences and roles: short names that appear in tokens.

use super::{ParseError, ScopeSet};

text_type! {
    /// A resource server's name: the value of `aud` (RFC 7519 §4.1.3), often a URL. 1 to 256 visible ASCII characters
    /// without `"` and `\`; compared byte for byte.
    Audience
}

impl Audience {
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let fits = !text.is_empty() && text.len() <= 256;
        if !fits || !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') {
            return Err(ParseError("an audience is 1 to 256 visible ASCII characters without \" and \\"));
        }
        Ok(Self(text.into()))
    }
}

text_type! {
    /// A role of a user: 1 to 64 of `A-Z a-z 0-9 . _ : / -`, which are safe in a header and in a comma-separated list.
    Role
}

impl Role {
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let is_role_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'/' | b'-');
        if text.is_empty() || text.len() > 64 || !text.bytes().all(is_role_byte) {
            return Err(ParseError("a role is 1 to 64 of the characters A-Z a-z 0-9 . _ : / -"));
        }
        Ok(Self(text.into()))
    }
}

/// Most bytes that a user's roles take in a token.
const MAX_ROLES_BYTES: usize = 512;
/// Most bytes that a client's audiences and scopes take in a token.
const MAX_CLIENT_BYTES: usize = 1024;

/// Every token of a user lists the roles. Together with the bounds of [`check_client`] and of user names, an access
/// token has at most 4 KiB (security.md T9), whatever signs it.
pub fn check_roles(roles: &[Role]) -> Result<(), ParseError> {
    if listed_bytes(roles.iter().map(Role::as_str)) <= MAX_ROLES_BYTES {
        return Ok(());
    }
    Err(ParseError("the roles of a user take at most 512 bytes as a JSON array, because every token lists them"))
}

/// Every token of a client lists the client's audiences and scopes. The error begins with the field that takes more.
pub fn check_client(audiences: &[Audience], scopes: &ScopeSet) -> Result<(), (&'static str, &'static str)> {
    let audiences = listed_bytes(audiences.iter().map(Audience::as_str));
    let scopes = scopes.iter().map(|scope| scope.len() + 1).sum::<usize>();
    if audiences + scopes <= MAX_CLIENT_BYTES {
        return Ok(());
    }
    let field = if audiences > scopes { "audiences" } else { "scopes" };
    Err((
        field,
        "audiences (as a JSON array) and scopes of a client take at most 1024 bytes, because every token lists them",
    ))
}

/// The length of a JSON array of these texts, which need no escapes.
fn listed_bytes<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    1 + texts.map(|text| text.len() + r#""","#.len()).sum::<usize>()
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
        assert!(check_roles(&[]).is_ok() && check_roles(&roles(73, 4)).is_ok() && check_roles(&roles(74, 4)).is_err());
        let audiences = |length| [Audience::parse(&"a".repeat(length)).unwrap()];
        let scopes = |length| ScopeSet::parse(&"s".repeat(length)).unwrap();
        assert!(check_client(&audiences(256), &scopes(763)).is_ok());
        assert_eq!(check_client(&audiences(256), &scopes(764)).unwrap_err().0, "scopes");
        assert_eq!(check_client(&[audiences(256), audiences(256)].concat(), &scopes(505)).unwrap_err().0, "audiences");
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
