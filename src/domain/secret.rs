//! Text that grants access.

use std::fmt;

use zeroize::Zeroizing;

/// A token or secret in clear text. Only [`SecretText::expose`] reveals it; hidden in `Debug`, wiped when dropped
/// (security.md S2).
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for a response, a digest or a verifier.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<Zeroizing<String>> for SecretText {
    fn from(text: Zeroizing<String>) -> Self {
        Self(text)
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s2_secret_text_does_not_print() {
        let secret = SecretText::new("cs_rt_secret".to_owned());
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "SecretText(hidden) Some(SecretText(hidden))");
        assert_eq!(secret.expose(), "cs_rt_secret");
    }
}
