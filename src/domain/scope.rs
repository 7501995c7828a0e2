//! OAuth scopes.

use std::fmt;

use super::ParseError;

/// Maximum length of a `scope` text in bytes (security.md H5).
const MAX_SCOPE_BYTES: usize = 1024;

/// A set of scope tokens (RFC 6749 §3.3), sorted and without duplicates; may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScopeSet(Vec<Box<str>>);

impl ScopeSet {
    /// Reads scope tokens separated by single spaces. An empty text is the empty set.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.len() > MAX_SCOPE_BYTES {
            return Err(ParseError("a scope is at most 1024 bytes"));
        }
        if text.is_empty() {
            return Ok(Self::default());
        }
        let mut tokens = Vec::new();
        for token in text.split(' ') {
            if token.is_empty() || !token.bytes().all(is_scope_byte) {
                return Err(ParseError(
                    "a scope is a list of words of visible ASCII without \" and \\, separated by one space",
                ));
            }
            tokens.push(Box::from(token));
        }
        tokens.sort_unstable();
        tokens.dedup();
        Ok(Self(tokens))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compared byte for byte (RFC 6749 §3.3: case-sensitive).
    pub fn contains(&self, token: &str) -> bool {
        self.0.binary_search_by(|mine| mine.as_ref().cmp(token)).is_ok()
    }

    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.0.iter().all(|token| other.contains(token))
    }

    /// The scopes for which `keep` returns true.
    pub fn filter(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|token| keep(token)).cloned().collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, token) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(token)?;
        }
        Ok(())
    }
}

/// `scope-token = 1*( %x21 / %x23-5B / %x5D-7E )` (RFC 6749 §3.3).
fn is_scope_byte(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn scopes_round_trip(text in "[!#-\\[\\]-~]{1,8}( [!#-\\[\\]-~]{1,8}){0,5}") {
            let set = ScopeSet::parse(&text).unwrap();
            prop_assert_eq!(ScopeSet::parse(&set.to_string()).unwrap(), set);
        }

        #[test]
        fn parse_never_panics(text in "\\PC{0,80}") {
            let _ = ScopeSet::parse(&text);
        }
    }

    #[test]
    fn only_the_standards_characters_and_single_spaces_pass() {
        for bad in [" ", "a  b", " a", "a ", "a\tb", "a\"b", "a\\b", "é", "a\u{0}"] {
            assert!(ScopeSet::parse(bad).is_err(), "{bad:?}");
        }
        assert!(ScopeSet::parse(&"a".repeat(1024)).is_ok() && ScopeSet::parse(&"a".repeat(1025)).is_err());
    }

    #[test]
    fn narrowing_is_a_subset() {
        let all = ScopeSet::parse("read write").unwrap();
        assert!(ScopeSet::parse("read").unwrap().is_subset_of(&all));
        assert!(!ScopeSet::parse("read admin").unwrap().is_subset_of(&all));
        assert!(!ScopeSet::parse("Read").unwrap().is_subset_of(&all));
    }
}
