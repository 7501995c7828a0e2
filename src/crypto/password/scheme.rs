//! The algorithm of a hash and its parameters, all of them bounded.

use std::fmt;
use std::ops::RangeInclusive;

use super::stored::HashRefusal;

/// Maximum memory of one hash: 1 GiB (security.md P11).
const MAX_MEMORY_KIB: u32 = 1024 * 1024;
/// Maximum passes of argon2 over its memory (security.md P11).
const MAX_PASSES: u32 = 16;
/// Maximum lanes of argon2, and maximum parallelism of scrypt.
const MAX_LANES: u32 = 16;
/// Lower than for argon2: scrypt hashes are only imported, and the library allocates their memory for each hash.
const MAX_SCRYPT_MEMORY_KIB: u32 = 256 * 1024;
/// Ten times the current recommendation for PBKDF2-HMAC-SHA-256.
const MAX_ITERATIONS: u32 = 10_000_000;
/// Below 128 bits, accidental matches are possible. No known system writes more than 64 bytes.
pub(super) const OUTPUT_BYTES: RangeInclusive<usize> = 16..=64;

/// An algorithm with its parameters. `Display` writes the stored hash up to the salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// RFC 9106, versions 16 and 19.
    Argon2 {
        /// `argon2id`, `argon2i` or `argon2d`.
        variant: argon2::Algorithm,
        /// 16 (without XOR in later passes) or 19.
        version: argon2::Version,
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes over the memory.
        passes: u32,
        /// Lanes, computed sequentially.
        lanes: u32,
    },
    /// `$2a$`, `$2b$` and `$2y$`. They differ only in the bugs of their first implementations.
    Bcrypt {
        /// Binary logarithm of the rounds.
        cost: u8,
    },
    /// RFC 7914.
    Scrypt {
        /// Binary logarithm of N.
        log_n: u8,
        /// Block size r.
        block: u32,
        /// Parallelism p, computed sequentially.
        lanes: u32,
    },
    /// RFC 8018 §5.2 with HMAC.
    Pbkdf2 {
        /// The hash function of the HMAC.
        digest: Pbkdf2Digest,
        /// Iterations for each block of output.
        iterations: u32,
        /// Length of the output in bytes.
        output: u8,
    },
}

/// The hash function that PBKDF2 iterates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pbkdf2Digest {
    /// SHA-1, in old exports.
    Sha1,
    Sha256,
    Sha512,
}

impl Pbkdf2Digest {
    /// Reads the name used in exports.
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "sha1" => Some(Self::Sha1),
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Bytes of one output block. Each further block costs all iterations again.
    pub(super) const fn block_bytes(self) -> u8 {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl Scheme {
    /// argon2 with checked parameters.
    pub(super) fn argon2(
        variant: argon2::Algorithm,
        version: argon2::Version,
        memory_kib: u32,
        passes: u32,
        lanes: u32,
    ) -> Result<Self, HashRefusal> {
        bounded("argon2", "p", lanes, 1..=MAX_LANES)?;
        bounded("argon2", "m", memory_kib, 8 * lanes..=MAX_MEMORY_KIB)?;
        bounded("argon2", "t", passes, 1..=MAX_PASSES)?;
        Ok(Self::Argon2 { variant, version, memory_kib, passes, lanes })
    }

    /// bcrypt with checked parameters.
    pub(super) fn bcrypt(cost: u32) -> Result<Self, HashRefusal> {
        let cost = bounded("bcrypt", "the cost", cost, 4..=16)?;
        Ok(Self::Bcrypt { cost: u8::try_from(cost).map_err(|_| HashRefusal::Malformed("bcrypt"))? })
    }

    /// scrypt with checked parameters.
    pub(super) fn scrypt(log_n: u32, block: u32, lanes: u32) -> Result<Self, HashRefusal> {
        bounded("scrypt", "ln", log_n, 1..=20)?;
        bounded("scrypt", "r", block, 1..=32)?;
        bounded("scrypt", "p", lanes, 1..=MAX_LANES)?;
        bounded("scrypt", "its memory in KiB", scrypt_memory_kib(log_n, block), 0..=MAX_SCRYPT_MEMORY_KIB)?;
        Ok(Self::Scrypt { log_n: u8::try_from(log_n).map_err(|_| HashRefusal::Malformed("scrypt"))?, block, lanes })
    }

    /// PBKDF2 with checked parameters.
    pub(super) fn pbkdf2(digest: Pbkdf2Digest, iterations: u32, output: usize) -> Result<Self, HashRefusal> {
        bounded("PBKDF2", "i", iterations, 1..=MAX_ITERATIONS)?;
        let output = u8::try_from(output).map_err(|_| HashRefusal::Malformed("PBKDF2"))?;
        Ok(Self::Pbkdf2 { digest, iterations, output })
    }

    /// Working memory in KiB, without password, salt and output.
    pub(super) fn memory_kib(self) -> u32 {
        match self {
            Self::Argon2 { memory_kib, .. } => memory_kib,
            Self::Scrypt { log_n, block, .. } => scrypt_memory_kib(log_n.into(), block),
            Self::Bcrypt { .. } | Self::Pbkdf2 { .. } => 4,
        }
    }

    /// The name of the algorithm for messages.
    pub const fn algorithm(self) -> &'static str {
        match self {
            Self::Argon2 { variant, .. } => variant.as_str(),
            Self::Bcrypt { .. } => "bcrypt",
            Self::Scrypt { .. } => "scrypt",
            Self::Pbkdf2 { digest: Pbkdf2Digest::Sha1, .. } => "pbkdf2-sha1",
            Self::Pbkdf2 { digest: Pbkdf2Digest::Sha256, .. } => "pbkdf2-sha256",
            Self::Pbkdf2 { digest: Pbkdf2Digest::Sha512, .. } => "pbkdf2-sha512",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Argon2 { variant, version, memory_kib, passes, lanes } => {
                write!(f, "${variant}$v={}$m={memory_kib},t={passes},p={lanes}", u32::from(version))
            }
            Self::Bcrypt { cost } => write!(f, "$2b${cost:02}"),
            Self::Scrypt { log_n, block, lanes } => write!(f, "$scrypt$ln={log_n},r={block},p={lanes}"),
            Self::Pbkdf2 { digest, iterations, output } => {
                write!(f, "$pbkdf2-{}$i={iterations},l={output}", digest.name())
            }
        }
    }
}

const fn scrypt_memory_kib(log_n: u32, block: u32) -> u32 {
    // 128 bytes × N × r. The callers have bounded `log_n` and `r`.
    ((1_u64 << log_n) * block as u64 / 8) as u32
}

fn bounded(
    algorithm: &'static str,
    parameter: &'static str,
    value: u32,
    bounds: RangeInclusive<u32>,
) -> Result<u32, HashRefusal> {
    let (least, most) = (*bounds.start(), *bounds.end());
    if bounds.contains(&value) {
        Ok(value)
    } else {
        Err(HashRefusal::OutOfBounds { algorithm, parameter, least, most })
    }
}
