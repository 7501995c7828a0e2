//! A stored password hash.

use std::fmt;

use super::scheme::{OUTPUT_BYTES, Scheme};
use super::workspace::BCRYPT_PASSWORD_BYTES;
use super::{foreign, phc};

/// Longer text is rejected unread. The longest hash within the bounds is shorter than half of it.
const MAX_TEXT_BYTES: usize = 512;
const MAX_SALT_BYTES: usize = 64;
/// Salt length of new hashes.
pub(super) const NEW_SALT_BYTES: usize = 16;
/// Output length of new hashes.
pub(super) const NEW_OUTPUT_BYTES: usize = 32;
/// argon2 requires at least this (RFC 9106 §3.1).
const MIN_ARGON2_SALT_BYTES: usize = 8;

/// A password hash: scheme, salt and output. Its text has one of four formats, whatever the format of the import.
/// `Debug` shows only the algorithm.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    scheme: Scheme,
    salt: Box<[u8]>,
    output: Box<[u8]>,
    text: Box<str>,
}

/// Why a text is not a supported password hash. Does not contain the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashRefusal {
    /// Longer than any hash within the bounds, or not visible ASCII.
    #[error("a password hash is at most {MAX_TEXT_BYTES} bytes of visible ASCII")]
    NotText,
    /// The prefix is of no known format.
    #[error(
        "the password hash is in none of the known formats (PHC strings of argon2, scrypt and PBKDF2; bcrypt; the PBKDF2, scrypt and argon2 forms of passlib, Django and Werkzeug)"
    )]
    UnknownFormat,
    /// The format is known, but the text does not follow it.
    #[error("the {0} hash is malformed")]
    Malformed(&'static str),
    /// A parameter is too expensive or too weak.
    #[error("the {algorithm} hash has {parameter} outside of {least} to {most}")]
    OutOfBounds {
        algorithm: &'static str,
        /// The parameter, as the format names it.
        parameter: &'static str,
        least: u32,
        most: u32,
    },
    /// Verifying it would cost more than the settings allow.
    #[error("the {algorithm} hash has {parameter} {value}; {setting} allows {most} at most")]
    TooExpensive {
        algorithm: &'static str,
        /// The parameter, as the format names it.
        parameter: &'static str,
        /// Its value in the hash.
        value: u32,
        /// The greatest accepted value, given the other parameters.
        most: u32,
        /// The setting with the limit.
        setting: &'static str,
    },
}

impl PasswordHash {
    /// Reads a stored or imported hash. Formats: PHC strings of argon2id, argon2i, argon2d, scrypt and PBKDF2; bcrypt
    /// (`$2a$`, `$2b$`, `$2y$`); PBKDF2 of passlib, Django and Werkzeug; scrypt, bcrypt and argon2 of Django; scrypt
    /// of Werkzeug. Length and cost are bounded (security.md P11).
    pub fn parse(text: &str) -> Result<Self, HashRefusal> {
        if text.len() > MAX_TEXT_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(HashRefusal::NotText);
        }
        if text.starts_with('$') { phc::parse(text) } else { foreign::parse(text) }
    }

    /// The only constructor; checks the lengths of salt and output.
    pub(super) fn new(scheme: Scheme, salt: Vec<u8>, output: Vec<u8>) -> Result<Self, HashRefusal> {
        let shortest_salt = if matches!(scheme, Scheme::Argon2 { .. }) { MIN_ARGON2_SALT_BYTES } else { 1 };
        if !(shortest_salt..=MAX_SALT_BYTES).contains(&salt.len()) || !OUTPUT_BYTES.contains(&output.len()) {
            return Err(HashRefusal::Malformed(scheme.algorithm()));
        }
        let text = phc::write(scheme, &salt, &output).into();
        Ok(Self { scheme, salt: salt.into(), output: output.into(), text })
    }

    /// The text to store.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Algorithm and parameters.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether a new hash under `scheme` would have the same scheme and lengths.
    pub(super) fn is_current(&self, scheme: Scheme) -> bool {
        self.scheme == scheme && self.salt.len() == NEW_SALT_BYTES && self.output.len() == NEW_OUTPUT_BYTES
    }

    /// Whether `password`, which matches, is the only password that matches. A bcrypt hash
    /// covers 72 bytes, so a longer password shares its hash with every password that begins with the same bytes. The
    /// other schemes read the whole password.
    ///
    /// HMAC hashes a key that is longer than its block, so PBKDF2 and scrypt also match the digest of a long
    /// password. This is ignored: a digest is almost never text that [`crate::domain::Password`] accepts.
    pub(super) fn matches_only(&self, password: &[u8]) -> bool {
        match self.scheme {
            Scheme::Bcrypt { .. } => password.len() < BCRYPT_PASSWORD_BYTES,
            Scheme::Argon2 { .. } | Scheme::Scrypt { .. } | Scheme::Pbkdf2 { .. } => true,
        }
    }

    pub(super) const fn salt(&self) -> &[u8] {
        &self.salt
    }

    pub(super) const fn output(&self) -> &[u8] {
        &self.output
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordHash({}, hidden)", self.scheme.algorithm())
    }
}
