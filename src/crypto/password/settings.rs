//! The settings of the hashing pool, and the scheme of new hashes.

use super::scheme::Scheme;
use super::stored::HashRefusal;

/// The hashing settings of the section `passwords`. The configuration checks their ranges (security.md P1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashSettings {
    /// Memory of one hash in KiB. Each thread holds it while it hashes, and for some seconds after.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes of argon2.
    pub parallelism: u32,
    pub threads: usize,
    /// Callers that may wait for a thread; the next one gets [`super::HashingError::Busy`].
    pub queue: usize,
    /// Limit on the work that hashes of other schemes add to a refusal, in hashes of the current scheme.
    pub legacy_cost: u32,
    /// Memory in KiB shared by hashes that need more than a thread owns.
    pub legacy_memory_kib: u32,
}

/// Why the hashing pool cannot start with these settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    Scheme(#[from] HashRefusal),
    /// The operating system refused the memory.
    #[error("there is no memory for passwords.threads times passwords.memory_kib ({0} KiB)")]
    NoMemory(usize),
    /// The operating system refused a thread.
    #[error("a hashing thread could not be started")]
    NoThread(#[source] std::io::Error),
}

impl HashSettings {
    /// The scheme of new hashes.
    pub fn scheme(&self) -> Result<Scheme, HashRefusal> {
        let (variant, version) = (argon2::Algorithm::Argon2id, argon2::Version::V0x13);
        Scheme::argon2(variant, version, self.memory_kib, self.iterations, self.parallelism)
    }
}
