//! The settings of the hashing pool, and the scheme of new hashes.

use std::ops::RangeInclusive;

use super::scheme::{MAX_LANES, MAX_MEMORY_KIB, MAX_PASSES, Scheme};
use super::stored::HashRefusal;
use crate::domain::{HASHING_QUEUE, HASHING_THREADS, LEGACY_COST, LEGACY_MEMORY_KIB};

/// The weakest accepted argon2id parameters: pairs of memory (KiB) and passes that OWASP rates as equal (Password
/// Storage Cheat Sheet; security.md P1). Settings must reach both values of one pair.
const FLOOR: [(u32, u32); 5] = [(47_104, 1), (19_456, 2), (12_288, 3), (9_216, 4), (7_168, 5)];

/// The hashing settings of the section `passwords`.
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
    /// Weaker than every pair of [`FLOOR`].
    #[error(
        "passwords.memory_kib and passwords.iterations are too weak: the least accepted pairs are 47104 with 1, 19456 with 2, 12288 with 3, 9216 with 4 and 7168 with 5"
    )]
    TooWeak,
    /// A setting is out of range.
    #[error("{setting} must be {least} to {most}")]
    OutOfRange { setting: &'static str, least: usize, most: usize },
    /// The operating system refused the memory.
    #[error("there is no memory for passwords.threads times passwords.memory_kib ({0} KiB)")]
    NoMemory(usize),
    /// The operating system refused a thread.
    #[error("a hashing thread could not be started")]
    NoThread(#[source] std::io::Error),
}

impl HashSettings {
    /// The scheme of new hashes. Checks every setting.
    pub fn scheme(&self) -> Result<Scheme, SettingsError> {
        in_range("passwords.threads", self.threads, HASHING_THREADS)?;
        in_range("passwords.queue", self.queue, HASHING_QUEUE)?;
        in_range("passwords.parallelism", self.parallelism as usize, 1..=MAX_LANES as usize)?;
        in_range("passwords.iterations", self.iterations as usize, 1..=MAX_PASSES as usize)?;
        in_range("passwords.legacy_cost", self.legacy_cost as usize, LEGACY_COST)?;
        in_range("passwords.legacy_memory_kib", self.legacy_memory_kib as usize, LEGACY_MEMORY_KIB)?;
        in_range("passwords.memory_kib", self.memory_kib as usize, 0..=MAX_MEMORY_KIB as usize)?;
        if !FLOOR.iter().any(|(memory, passes)| self.memory_kib >= *memory && self.iterations >= *passes) {
            return Err(SettingsError::TooWeak);
        }
        let (variant, version) = (argon2::Algorithm::Argon2id, argon2::Version::V0x13);
        Scheme::argon2(variant, version, self.memory_kib, self.iterations, self.parallelism)
            .map_err(|_: HashRefusal| SettingsError::TooWeak)
    }
}

fn in_range(setting: &'static str, value: usize, range: RangeInclusive<usize>) -> Result<(), SettingsError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(SettingsError::OutOfRange { setting, least: *range.start(), most: *range.end() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(memory_kib: u32, iterations: u32) -> HashSettings {
        HashSettings {
            memory_kib,
            iterations,
            parallelism: 1,
            threads: 2,
            queue: 64,
            legacy_cost: 24,
            legacy_memory_kib: 131_072,
        }
    }

    #[test]
    fn p1_the_floor_is_every_pair_that_owasp_rates_as_equal() {
        for (memory, passes) in
            [(47_104, 1), (19_456, 2), (12_288, 3), (9_216, 4), (7_168, 5), (65_536, 3), (1_048_576, 16)]
        {
            assert!(settings(memory, passes).scheme().is_ok(), "{memory}/{passes}");
        }
        for (memory, passes) in [(47_103, 1), (19_455, 2), (12_287, 3), (9_215, 4), (7_167, 5), (7_167, 16), (8, 1)] {
            assert!(matches!(settings(memory, passes).scheme(), Err(SettingsError::TooWeak)), "{memory}/{passes}");
        }
    }

    #[test]
    fn a_setting_out_of_range_is_named() {
        let good = settings(19_456, 2);
        for (bad, name) in [
            (HashSettings { threads: 0, ..good }, "passwords.threads"),
            (HashSettings { threads: 65, ..good }, "passwords.threads"),
            (HashSettings { queue: 0, ..good }, "passwords.queue"),
            (HashSettings { parallelism: 0, ..good }, "passwords.parallelism"),
            (HashSettings { parallelism: 17, ..good }, "passwords.parallelism"),
            (HashSettings { iterations: 17, ..good }, "passwords.iterations"),
            (HashSettings { iterations: 0, ..good }, "passwords.iterations"),
            (HashSettings { memory_kib: 1_048_577, ..good }, "passwords.memory_kib"),
            (HashSettings { legacy_cost: 0, ..good }, "passwords.legacy_cost"),
            (HashSettings { legacy_memory_kib: 8191, ..good }, "passwords.legacy_memory_kib"),
        ] {
            assert!(bad.scheme().unwrap_err().to_string().starts_with(name), "{name}");
        }
    }
}
