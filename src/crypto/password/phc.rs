//! The stored formats: PHC strings (argon2, scrypt, PBKDF2) and bcrypt's own.

use std::str::FromStr;

use base64::alphabet::{BCRYPT, STANDARD};
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};

use super::scheme::{Pbkdf2Digest, Scheme};
use super::stored::{HashRefusal, PasswordHash};

/// Base64 of PHC strings. Django adds padding.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// bcrypt's alphabet. Some writers leave unused bits in the last character of the salt; every reader ignores them.
const BCRYPT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &BCRYPT,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);
const BCRYPT_SALT_CHARS: usize = 22;
const BCRYPT_SALT_BYTES: usize = 16;
pub(super) const BCRYPT_OUTPUT_BYTES: usize = 23;

/// Reads a text that begins with `$`.
pub(super) fn parse(text: &str) -> Result<PasswordHash, HashRefusal> {
    let fields: Vec<&str> = text.split('$').skip(1).collect();
    match fields.as_slice() {
        [variant @ ("argon2id" | "argon2i" | "argon2d"), rest @ ..] => argon2(variant, rest),
        ["2a" | "2b" | "2y", rest @ ..] => bcrypt(rest),
        ["scrypt", rest @ ..] => scrypt(rest),
        ["pbkdf2" | "pbkdf2-sha1", rest @ ..] => pbkdf2(Pbkdf2Digest::Sha1, rest),
        ["pbkdf2-sha256", rest @ ..] => pbkdf2(Pbkdf2Digest::Sha256, rest),
        ["pbkdf2-sha512", rest @ ..] => pbkdf2(Pbkdf2Digest::Sha512, rest),
        _ => Err(HashRefusal::UnknownFormat),
    }
}

/// Writes the stored format, which [`parse`] reads.
pub(super) fn write(scheme: Scheme, salt: &[u8], output: &[u8]) -> String {
    match scheme {
        Scheme::Bcrypt { .. } => format!("{scheme}${}{}", BCRYPT_BASE64.encode(salt), BCRYPT_BASE64.encode(output)),
        _ => format!("{scheme}${}${}", BASE64.encode(salt), BASE64.encode(output)),
    }
}

fn argon2(variant: &str, fields: &[&str]) -> Result<PasswordHash, HashRefusal> {
    const ERROR: HashRefusal = HashRefusal::Malformed("argon2");
    let variant = argon2::Algorithm::from_str(variant).map_err(|_| ERROR)?;
    // The first strings of the reference implementation have no version field; they are version 16.
    let (version, fields) = match fields {
        ["v=19", rest @ ..] => (argon2::Version::V0x13, rest),
        ["v=16", rest @ ..] | rest => (argon2::Version::V0x10, rest),
    };
    let [parameters, salt, output] = fields else { return Err(ERROR) };
    let [memory, passes, lanes] = named(parameters, ["m", "t", "p"]).ok_or(ERROR)?;
    let (memory, passes, lanes) = (memory.ok_or(ERROR)?, passes.ok_or(ERROR)?, lanes.ok_or(ERROR)?);
    let scheme = Scheme::argon2(variant, version, memory, passes, lanes)?;
    PasswordHash::new(scheme, decode(salt).ok_or(ERROR)?, decode(output).ok_or(ERROR)?)
}

fn bcrypt(fields: &[&str]) -> Result<PasswordHash, HashRefusal> {
    const ERROR: HashRefusal = HashRefusal::Malformed("bcrypt");
    let [cost, salt_and_output] = fields else { return Err(ERROR) };
    if cost.len() != 2 || !cost.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ERROR);
    }
    let scheme = Scheme::bcrypt(cost.parse().map_err(|_| ERROR)?)?;
    let (salt, output) = salt_and_output.split_at_checked(BCRYPT_SALT_CHARS).ok_or(ERROR)?;
    let (salt, output) =
        (BCRYPT_BASE64.decode(salt).map_err(|_| ERROR)?, BCRYPT_BASE64.decode(output).map_err(|_| ERROR)?);
    if salt.len() != BCRYPT_SALT_BYTES || output.len() != BCRYPT_OUTPUT_BYTES {
        return Err(ERROR);
    }
    PasswordHash::new(scheme, salt, output)
}

fn scrypt(fields: &[&str]) -> Result<PasswordHash, HashRefusal> {
    const ERROR: HashRefusal = HashRefusal::Malformed("scrypt");
    let [parameters, salt, output] = fields else { return Err(ERROR) };
    let [log_n, block, lanes] = named(parameters, ["ln", "r", "p"]).ok_or(ERROR)?;
    let scheme = Scheme::scrypt(log_n.ok_or(ERROR)?, block.ok_or(ERROR)?, lanes.ok_or(ERROR)?)?;
    PasswordHash::new(scheme, decode(salt).ok_or(ERROR)?, decode(output).ok_or(ERROR)?)
}

/// The PHC form `i=29000,l=32`, or passlib's form with the iterations only.
fn pbkdf2(digest: Pbkdf2Digest, fields: &[&str]) -> Result<PasswordHash, HashRefusal> {
    const ERROR: HashRefusal = HashRefusal::Malformed("PBKDF2");
    let [parameters, salt, output] = fields else { return Err(ERROR) };
    let output = decode(output).ok_or(ERROR)?;
    let iterations = match decimal(parameters) {
        Some(iterations) => iterations,
        None => {
            let [iterations, length] = named(parameters, ["i", "l"]).ok_or(ERROR)?;
            if length.is_some_and(|length| usize::try_from(length) != Ok(output.len())) {
                return Err(ERROR);
            }
            iterations.ok_or(ERROR)?
        }
    };
    PasswordHash::new(Scheme::pbkdf2(digest, iterations, output.len())?, decode(salt).ok_or(ERROR)?, output)
}

/// Base64 of PHC strings; passlib writes `.` instead of `+`.
fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.replace('.', "+")).ok()
}

/// Comma-separated `name=number` pairs in any order; only the listed names, each at most once.
fn named<const N: usize>(text: &str, names: [&str; N]) -> Option<[Option<u32>; N]> {
    let mut values = [None; N];
    for pair in text.split(',') {
        let (name, value) = pair.split_once('=')?;
        let place = &mut values[names.iter().position(|known| *known == name)?];
        if place.replace(decimal(value)?).is_some() {
            return None;
        }
    }
    Some(values)
}

/// A decimal number without sign or leading zero.
pub(super) fn decimal(text: &str) -> Option<u32> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}
