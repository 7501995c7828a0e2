//! A password hash as it is stored.

use std::fmt;

use super::bench::BCRYPT_PASSWORD_BYTES;
use super::scheme::{OUTPUT_BYTES, Scheme};
use super::{foreign, phc};

/// Longest text that is looked at. The longest hash within all bounds is shorter than half of it.
const MAX_TEXT_BYTES: usize = 512;
/// Longest salt of an imported hash.
const MAX_SALT_BYTES: usize = 64;
/// Salt of a new hash.
pub(super) const NEW_SALT_BYTES: usize = 16;
/// Output of a new hash.
pub(super) const NEW_OUTPUT_BYTES: usize = 32;
/// argon2 has no shorter salt (RFC 9106 §3.1).
const MIN_ARGON2_SALT_BYTES: usize = 8;

/// A password hash: scheme, salt and output. Its text is one of four forms, whatever spelling it was imported from, and is
/// for storing alone: `Debug` names the algorithm only.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    scheme: Scheme,
    salt: Box<[u8]>,
    output: Box<[u8]>,
    text: Box<str>,
}

/// Why a text is no password hash that could be verified here. Carries nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashRefusal {
    /// Longer than any hash within the bounds.
    #[error("a password hash is at most {MAX_TEXT_BYTES} bytes of visible ASCII")]
    NotText,
    /// No known format begins like this.
    #[error(
        "the password hash is in none of the known formats (PHC strings of argon2, scrypt and PBKDF2; bcrypt; the PBKDF2, scrypt and argon2 forms of passlib, Django and Werkzeug)"
    )]
    UnknownFormat,
    /// The format is known, and broken.
    #[error("the {0} hash is malformed")]
    Malformed(&'static str),
    /// Verifying it would cost too much, or prove too little.
    #[error("the {algorithm} hash has {parameter} outside of {least} to {most}")]
    OutOfBounds {
        /// The algorithm.
        algorithm: &'static str,
        /// The parameter, in the spelling of the format.
        parameter: &'static str,
        /// The least value accepted.
        least: u32,
        /// The greatest value accepted.
        most: u32,
    },
    /// Verifying it would cost more than the settings allow.
    #[error("the {algorithm} hash has {parameter} {value}; {setting} allows {most} at most")]
    TooExpensive {
        /// The algorithm.
        algorithm: &'static str,
        /// The parameter, in the spelling of the format.
        parameter: &'static str,
        /// Its value in the hash.
        value: u32,
        /// The greatest value that is accepted beside the other parameters.
        most: u32,
        /// The setting that bounds it.
        setting: &'static str,
    },
}

impl PasswordHash {
    /// Reads a stored hash, or one from elsewhere: PHC strings of argon2id, argon2i, argon2d, scrypt and PBKDF2; bcrypt as
    /// `$2a$`, `$2b$` and `$2y$`; PBKDF2 as passlib, Django and Werkzeug write it; scrypt, bcrypt and argon2 as Django
    /// does, scrypt as Werkzeug does. Bounded in length and in the cost of verifying (security.md P11).
    pub fn parse(text: &str) -> Result<Self, HashRefusal> {
        if text.len() > MAX_TEXT_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(HashRefusal::NotText);
        }
        if text.starts_with('$') { phc::parse(text) } else { foreign::parse(text) }
    }

    /// Puts a hash together; only here are the lengths of salt and output judged.
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

    /// Whether a new hash under `scheme` would be of the same make.
    pub(super) fn is_current(&self, scheme: Scheme) -> bool {
        self.scheme == scheme && self.salt.len() == NEW_SALT_BYTES && self.output.len() == NEW_OUTPUT_BYTES
    }

    /// Whether `password`, which matches, is the only password that does. bcrypt compares 72 bytes. A password of 72 bytes or
    /// more shares its hash with every password that begins with these bytes. The other schemes read the whole password.
    /// (HMAC hashes a key that is longer than its block, so PBKDF2 and scrypt also match the digest of a long password. A
    /// digest is no text that [`crate::domain::Password`] reads, except by a negligible chance.)
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
