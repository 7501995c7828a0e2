//! A password as it was typed, in its canonical form.

use precis_core::profile::PrecisFastInvocation;
use precis_profiles::OpaqueString;
use zeroize::Zeroizing;

use super::ParseError;

/// Hard cap in code points, checked before anything is hashed (security.md P2).
pub const MAX_PASSWORD_CHARS: usize = 256;
/// Hard cap in bytes.
pub const MAX_PASSWORD_BYTES: usize = 1024;

/// A password in its canonical form: PRECIS OpaqueString (RFC 8265 §4.2), which normalises to NFC and maps unusual
/// spaces, and changes nothing else; never truncated. Cannot be printed; wiped when dropped.
pub struct Password(Zeroizing<String>);

impl Password {
    /// Reads what somebody typed. The minimum length is a matter of policy for new passwords, not of reading.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        const ERROR: ParseError =
            ParseError("a password is 1 to 256 characters (1024 bytes at most) without control characters");
        if text.is_empty() || text.len() > MAX_PASSWORD_BYTES || text.chars().count() > MAX_PASSWORD_CHARS {
            return Err(ERROR);
        }
        let canonical = Zeroizing::new(OpaqueString::enforce(text).map_err(|_| ERROR)?.into_owned());
        if canonical.len() > MAX_PASSWORD_BYTES || canonical.chars().count() > MAX_PASSWORD_CHARS {
            return Err(ERROR);
        }
        Ok(Self(canonical))
    }

    /// The canonical bytes, for the hash alone.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The canonical text, for the policy on new passwords.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Length in code points: one code point counts as one character (NIST SP 800-63B §3.1.1.2).
    pub fn chars(&self) -> usize {
        self.0.chars().count()
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn p3_parse_never_panics(text in any::<String>()) {
            let _ = Password::parse(&text);
        }
    }

    #[test]
    fn p3_equal_looking_passwords_are_equal_and_nothing_else_changes() {
        let composed = Password::parse("caf\u{e9} Ünïcode ☂").unwrap();
        let decomposed = Password::parse("cafe\u{301} U\u{308}ni\u{308}code ☂").unwrap();
        assert_eq!(composed.as_bytes(), decomposed.as_bytes());
        assert_ne!(Password::parse("Secret").unwrap().as_bytes(), Password::parse("secret").unwrap().as_bytes());
        assert_eq!(Password::parse(" two  spaces ").unwrap().as_str(), " two  spaces ");
    }

    #[test]
    fn p2_the_cap_is_exact_and_nothing_is_truncated() {
        assert_eq!(Password::parse(&"x".repeat(256)).unwrap().chars(), 256);
        assert!(Password::parse(&"x".repeat(257)).is_err());
        assert!(Password::parse(&"\u{1F600}".repeat(256)).is_ok());
        for length in [71, 72, 73] {
            assert_eq!(Password::parse(&"y".repeat(length)).unwrap().as_bytes().len(), length);
        }
        assert!(Password::parse("").is_err() && Password::parse("a\u{0}b").is_err());
    }

    #[test]
    fn s2_a_password_does_not_print() {
        assert_eq!(format!("{:?}", Password::parse("hunter2-hunter2").unwrap()), "Password(hidden)");
    }
}
