//! Hash formats of other systems, read on import and never written.

use super::phc::{self, BASE64, decimal};
use super::scheme::{Pbkdf2Digest, Scheme};
use super::stored::{HashRefusal, PasswordHash};
use base64::Engine;

/// Reads a text that does not begin with `$`.
pub(super) fn parse(text: &str) -> Result<PasswordHash, HashRefusal> {
    let fields: Vec<&str> = text.split('$').collect();
    match fields.as_slice() {
        // Django: `pbkdf2_sha256$ITERATIONS$SALT$BASE64`; the salt is text.
        [name, iterations, salt, output] if name.starts_with("pbkdf2_") => {
            let digest = digest(name.strip_prefix("pbkdf2_"))?;
            pbkdf2(digest, iterations, salt, BASE64.decode(output).ok())
        }
        // Django: `scrypt$N$SALT$R$P$BASE64`.
        ["scrypt", cost, salt, block, lanes, output] => scrypt([cost, block, lanes], salt, BASE64.decode(output).ok()),
        // Django prefixes the usual string with its own name of the algorithm.
        ["argon2", "argon2id" | "argon2i" | "argon2d", ..] => phc::parse(&text["argon2".len()..]),
        ["bcrypt", "", ..] => phc::parse(&text["bcrypt$".len()..]),
        // Werkzeug: `pbkdf2:sha256:ITERATIONS$SALT$HEX` and `scrypt:N:R:P$SALT$HEX`.
        [method, salt, output] => match method.split(':').collect::<Vec<_>>().as_slice() {
            ["pbkdf2", name, iterations] => pbkdf2(digest(Some(name))?, iterations, salt, hex(output)),
            ["scrypt", cost, block, lanes] => scrypt([cost, block, lanes], salt, hex(output)),
            _ => Err(HashRefusal::UnknownFormat),
        },
        _ => Err(HashRefusal::UnknownFormat),
    }
}

fn digest(name: Option<&str>) -> Result<Pbkdf2Digest, HashRefusal> {
    name.and_then(Pbkdf2Digest::parse).ok_or(HashRefusal::UnknownFormat)
}

fn pbkdf2(
    digest: Pbkdf2Digest,
    iterations: &str,
    salt: &str,
    output: Option<Vec<u8>>,
) -> Result<PasswordHash, HashRefusal> {
    const ERROR: HashRefusal = HashRefusal::Malformed("PBKDF2");
    let output = output.ok_or(ERROR)?;
    let scheme = Scheme::pbkdf2(digest, decimal(iterations).ok_or(ERROR)?, output.len())?;
    PasswordHash::new(scheme, salt.into(), output)
}

/// scrypt with N instead of its logarithm. N must be a power of two.
fn scrypt(cost_block_lanes: [&str; 3], salt: &str, output: Option<Vec<u8>>) -> Result<PasswordHash, HashRefusal> {
    const ERROR: HashRefusal = HashRefusal::Malformed("scrypt");
    let [Some(cost), Some(block), Some(lanes)] = cost_block_lanes.map(decimal) else { return Err(ERROR) };
    if !cost.is_power_of_two() {
        return Err(ERROR);
    }
    PasswordHash::new(Scheme::scrypt(cost.ilog2(), block, lanes)?, salt.into(), output.ok_or(ERROR)?)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}
