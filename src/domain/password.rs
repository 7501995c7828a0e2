//! A password in its canonical form.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
use zeroize::Zeroizing;

use super::ParseError;

/// Maximum length of the canonical form in code points, checked before hashing (security.md P2).
pub const MAX_PASSWORD_CHARS: usize = 256;
/// Maximum length of the canonical form in bytes.
pub const MAX_PASSWORD_BYTES: usize = 1024;
/// Maximum input length in bytes. A decomposed spelling may be three times as long as the canonical form.
const MAX_TYPED_BYTES: usize = 3 * MAX_PASSWORD_BYTES;

/// A password in its canonical form. Never truncated, hidden in `Debug`, wiped when dropped.
///
/// The form is that of PRECIS OpaqueString (RFC 8265 §4.2): every space becomes U+0020, then NFC; nothing else
/// changes. Characters without a stable or visible form are rejected: controls, line separators, private use,
/// invisible format characters and unassigned code points. A later Unicode version may change the normalization of
/// unassigned code points (UAX 15, "stabilized strings").
///
/// Every string that OpaqueString accepts is accepted here with the same form. Three rules are wider than the
/// profile's registered tables, which end at Unicode 6.3. Later characters are accepted. So are the joiners,
/// variation selectors and tags of emoji. The context rules for punctuation, which are meant for identifiers, do not
/// apply.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Reads a password as typed. The minimum length is checked by [`super::PasswordPolicy`], for new passwords only.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        const ERROR: ParseError =
            ParseError("a password is 1 to 256 characters (1024 bytes at most) without control characters");
        if text.is_empty() || text.len() > MAX_TYPED_BYTES || !text.chars().all(is_allowed) {
            return Err(ERROR);
        }
        // Full capacity up front: a reallocation would leave a copy in memory that is not wiped.
        let mut canonical = Zeroizing::new(String::with_capacity(3 * text.len()));
        canonical.extend(text.chars().map(plain_space).nfc());
        if canonical.len() > MAX_PASSWORD_BYTES || canonical.chars().count() > MAX_PASSWORD_CHARS {
            return Err(ERROR);
        }
        Ok(Self(canonical))
    }

    /// The canonical bytes, for hashing only.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The canonical text, for the password policy only.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Length in code points; each counts as one character (NIST SP 800-63B §3.1.1.2).
    pub fn chars(&self) -> usize {
        self.0.chars().count()
    }
}

fn plain_space(character: char) -> char {
    if character.general_category() == GeneralCategory::SpaceSeparator { ' ' } else { character }
}

fn is_allowed(character: char) -> bool {
    match character.general_category() {
        GeneralCategory::Format => is_joiner(character),
        GeneralCategory::Control
        | GeneralCategory::LineSeparator
        | GeneralCategory::ParagraphSeparator
        | GeneralCategory::PrivateUse
        | GeneralCategory::Surrogate
        | GeneralCategory::Unassigned => false,
        _ => true,
    }
}

/// Format characters that occur in words and emoji: the two joiners, and the tags of flags (UTS 51).
fn is_joiner(character: char) -> bool {
    matches!(character, '\u{200C}' | '\u{200D}' | '\u{E0020}'..='\u{E007F}')
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use precis_core::profile::PrecisFastInvocation;
    use precis_profiles::OpaqueString;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn p3_every_string_of_the_precis_profile_is_accepted_with_the_same_form(text in any::<String>()) {
            if let Ok(expected) = OpaqueString::enforce(text.as_str())
                && expected.chars().count() <= MAX_PASSWORD_CHARS
                && expected.len() <= MAX_PASSWORD_BYTES
            {
                let password = Password::parse(&text).unwrap();
                prop_assert_eq!(password.as_str(), expected);
            }
        }

        #[test]
        fn p3_the_canonical_form_is_a_fixed_point_and_the_same_for_every_spelling(text in "\\PC{1,40}") {
            if let Ok(password) = Password::parse(&text) {
                let decomposed: String = text.nfd().collect();
                for spelling in [password.as_str(), decomposed.as_str()] {
                    let other = Password::parse(spelling).unwrap();
                    prop_assert_eq!(other.as_str(), password.as_str());
                }
            }
        }

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
    fn p3_spellings_of_one_password_have_one_form() {
        for (typed, canonical) in [
            ("A\u{30a}", "\u{c5}"),
            ("\u{212b}", "\u{c5}"),
            ("q\u{307}\u{323}", "q\u{323}\u{307}"),
            ("\u{1112}\u{1161}\u{11ab}", "한"),
            ("a\u{a0}b\u{3000}c\u{2003}d", "a b c d"),
            ("ﬁｘ²", "ﬁｘ²"),
            ("l·l a·b", "l·l a·b"),
        ] {
            assert_eq!(Password::parse(typed).unwrap().as_str(), canonical, "{typed:?}");
        }
    }

    #[test]
    fn p3_emoji_of_every_composition_are_kept_as_they_are() {
        let compositions =
            ["🦀", "❤\u{fe0f}", "👩\u{200d}👩\u{200d}👧", "👍\u{1f3fd}", "🇩🇪", "1\u{fe0f}\u{20e3}", "🫠"];
        for emoji in compositions {
            assert_eq!(Password::parse(emoji).unwrap().as_str(), emoji, "{emoji:?}");
        }
        assert!(Password::parse("🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}").is_ok());
    }

    #[test]
    fn p3_characters_without_a_stable_or_visible_form_are_refused() {
        for bad in [
            "\u{0}", "\n", "\u{7f}", "\u{85}", "\u{2028}", "\u{200b}", "\u{202e}", "\u{feff}", "\u{e000}", "\u{ffff}",
            "\u{378}",
        ] {
            assert!(Password::parse(&format!("long enough {bad}")).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn p3_both_unicode_tables_are_of_one_version() {
        let (major, minor, patch) = unicode_normalization::UNICODE_VERSION;
        assert_eq!(unicode_properties::UNICODE_VERSION, (major.into(), minor.into(), patch.into()));
    }

    #[test]
    fn p2_the_cap_is_exact_and_nothing_is_truncated() {
        assert_eq!(Password::parse(&"x".repeat(256)).unwrap().chars(), 256);
        assert!(Password::parse(&"x".repeat(257)).is_err());
        assert!(Password::parse(&"\u{1F600}".repeat(256)).is_ok());
        assert_eq!(Password::parse(&"e\u{301}".repeat(256)).unwrap().chars(), 256);
        assert!(Password::parse(&"e\u{301}".repeat(257)).is_err());
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
