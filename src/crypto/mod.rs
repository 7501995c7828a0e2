//! Signatures, sealing, digests and password hashes: the only module that imports jsonwebtoken, ring and argon2.

mod random;

pub use random::{Random, SeededRandom, SystemRandom};
