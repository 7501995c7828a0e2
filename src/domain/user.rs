//! Users, and the canonical form of user names.

use precis_core::profile::PrecisFastInvocation;
use precis_profiles::UsernameCaseMapped;
use unicode_normalization::UnicodeNormalization;

use super::{ParseError, Role, Timestamp, UserId};

/// Maximum length of a user name in bytes, before and after mapping.
const MAX_USERNAME_BYTES: usize = 256;
const MAX_ESCAPES: usize = 48;

text_type! {
    /// A user name in canonical form: PRECIS UsernameCaseMapped (RFC 8265 §3.3). Width, case and normalization variants
    /// of a name are one account (security.md P7).
    Username
}

impl Username {
    /// Reads a user name as typed. Control characters, NUL and spaces are rejected.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        const ERROR: ParseError = ParseError(
            "a user name is 1 to 256 bytes of letters, digits and visible punctuation, without spaces or control characters",
        );
        if text.is_empty() || text.len() > MAX_USERNAME_BYTES {
            return Err(ERROR);
        }
        let mapped = canonical(text).ok_or(ERROR)?;
        // One pass does not reach a fixed point for every string. Without a fixed point there is no canonical form.
        if mapped.is_empty() || mapped.len() > MAX_USERNAME_BYTES || canonical(&mapped).as_ref() != Some(&mapped) {
            return Err(ERROR);
        }
        Ok(Self(mapped.into()))
    }

    /// The name of a new user. Fewer quotes and backslashes are accepted, because each takes two bytes in a token, and
    /// the longest token has 4 KiB (security.md T9).
    pub fn parse_new(text: &str) -> Result<Self, ParseError> {
        let name = Self::parse(text)?;
        if name.0.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count() > MAX_ESCAPES {
            return Err(ParseError("a user name has at most 48 of the characters \" and \\"));
        }
        Ok(name)
    }
}

/// One pass of the profile. NFC comes first, because the profile checks characters before it composes them: it would
/// reject 한 in decomposed form (three Jamo) and accept it in composed form. `str::to_lowercase` follows RFC 8265
/// §3.3.2 in full, with the rule for the final sigma; the library maps single characters.
fn canonical(text: &str) -> Option<String> {
    UsernameCaseMapped::enforce(text.to_lowercase().nfc().collect::<String>()).ok().map(Into::into)
}

/// Whether a user can log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserState {
    /// The user can log in.
    Enabled,
    /// Logins are refused until an administrator enables the account. Holds the time of disabling.
    Disabled(Timestamp),
}

/// A user without the password hash, which only the login reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    /// Canonical and unique.
    pub username: Username,
    pub roles: Vec<Role>,
    /// Raised to make every older token and session of this user inactive.
    pub epoch: u32,
    pub state: UserState,
    pub created_at: Timestamp,
    pub last_login_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn p7_the_canonical_form_is_a_fixed_point(text in "\\PC{1,40}") {
            if let Ok(name) = Username::parse(&text) {
                prop_assert_eq!(Username::parse(name.as_str()), Ok(name));
            }
        }

        #[test]
        fn p7_canonically_equal_spellings_are_all_accepted_or_all_refused(text in "\\PC{1,20}") {
            let composed: String = text.nfc().collect();
            let decomposed: String = text.nfd().collect();
            prop_assert_eq!(Username::parse(&composed), Username::parse(&decomposed));
        }

        #[test]
        fn p7_parse_never_panics(text in any::<String>()) {
            let _ = Username::parse(&text);
        }
    }

    #[test]
    fn p7_variants_of_a_name_are_one_account() {
        let name = Username::parse("josé").unwrap();
        for variant in ["José", "JOSÉ", "jose\u{301}", "ＪＯＳＥ\u{301}"] {
            assert_eq!(Username::parse(variant).as_ref(), Ok(&name), "{variant}");
        }
        for (one, other) in
            [("σίσυφος", "ΣΊΣΥΦΟΣ"), ("한글", "\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}"), ("Å", "\u{212b}")]
        {
            assert_eq!(Username::parse(one).unwrap(), Username::parse(other).unwrap(), "{one}");
        }
    }

    #[test]
    fn p7_nul_controls_and_spaces_are_refused() {
        for bad in ["", "a\u{0}b", "a\nb", "a b", "\u{200b}", "a\u{7f}", &"a".repeat(257)] {
            assert!(Username::parse(bad).is_err(), "{bad:?}");
        }
    }
}
