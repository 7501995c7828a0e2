//! Signatures, sealing, digests and password hashes: the only module that imports jsonwebtoken, ring and argon2.

mod password;
mod random;

pub use password::{
    HashObserver, HashRefusal, HashSettings, HashingError, PasswordHash, PasswordHasher, Pbkdf2Digest, Scheme,
    SettingsError, Verdict,
};
pub use random::{Random, SeededRandom, SystemRandom};
