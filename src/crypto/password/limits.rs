//! Limits on the cost of verifying hashes of other schemes than the current one.

use std::sync::{Condvar, Mutex, PoisonError};

use super::scheme::{Pbkdf2Digest, Scheme};
use super::stored::HashRefusal;
use super::work::{Kind, Work};

/// The setting that limits the time of a hash.
const COST: &str = "passwords.legacy_cost";
/// The setting that limits the memory of a hash.
const MEMORY: &str = "passwords.legacy_memory_kib";

/// Nanoseconds per unit of each kind of work on one reference machine. The limits must be equal on every machine, so
/// nothing is measured at run time. Only the ratios matter.
const ARGON2_PER_KIB_AND_PASS: u64 = 700;
const BCRYPT_PER_ROUND: u64 = 76_000;
const SCRYPT_PER_KIB: u64 = 3_000;

/// Limits for hashes that were imported or made under other settings (security.md P5, P13).
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Nanoseconds that all other schemes together may add to a refusal.
    cost: u64,
    /// Memory limit of one such hash, and of all that run at once.
    memory_kib: u32,
    /// Memory that every thread owns. Hashes that fit into it take no shared memory.
    own_kib: u32,
}

impl Limits {
    /// `cost` counts hashes of the `current` scheme.
    pub(super) fn new(current: Scheme, cost: u32, memory_kib: u32) -> Self {
        let cost = Work::of(current).cost().saturating_mul(cost.into());
        Self { cost, memory_kib, own_kib: current.memory_kib() }
    }

    pub(super) const fn cost(&self) -> u64 {
        self.cost
    }

    /// Whether the pool has the memory to compute a hash of `scheme`.
    pub(super) fn check_memory(&self, scheme: Scheme) -> Result<(), HashRefusal> {
        let most = self.memory_kib;
        let memory_kib = match scheme {
            Scheme::Argon2 { memory_kib, .. } if memory_kib <= self.own_kib => return Ok(()),
            _ => scheme.memory_kib(),
        };
        if memory_kib <= most {
            return Ok(());
        }
        let algorithm = scheme.algorithm();
        Err(match scheme {
            Scheme::Scrypt { log_n, block, .. } => {
                let most = (u64::from(most) * 8 / u64::from(block)).max(1).ilog2();
                HashRefusal::TooExpensive { algorithm, parameter: "ln", value: log_n.into(), most, setting: MEMORY }
            }
            _ => HashRefusal::TooExpensive { algorithm, parameter: "m", value: memory_kib, most, setting: MEMORY },
        })
    }

    /// Whether a hash of `scheme` may be imported.
    pub(super) fn check(&self, scheme: Scheme) -> Result<(), HashRefusal> {
        self.check_memory(scheme)?;
        if Work::of(scheme).cost() <= self.cost {
            return Ok(());
        }
        let (parameter, value, most) = match scheme {
            Scheme::Argon2 { memory_kib, passes, .. } => match self.cost / argon2(memory_kib, 1) {
                0 => ("m", memory_kib, self.cost / argon2(1, passes)),
                most => ("t", passes, most),
            },
            Scheme::Bcrypt { cost } => ("the cost", cost.into(), log2(self.cost / BCRYPT_PER_ROUND)),
            Scheme::Scrypt { log_n, block, lanes } => {
                ("ln", log_n.into(), log2(self.cost / SCRYPT_PER_KIB * 8 / (u64::from(block) * u64::from(lanes))))
            }
            Scheme::Pbkdf2 { digest, iterations, .. } => {
                let blocks = u64::from(Work::of(scheme).units / iterations.max(1));
                ("i", iterations, self.cost / digest.cost() / blocks.max(1))
            }
        };
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        Err(HashRefusal::TooExpensive { algorithm: scheme.algorithm(), parameter, value, most, setting: COST })
    }
}

impl Work {
    /// Nanoseconds on the reference machine.
    pub(super) fn cost(&self) -> u64 {
        match self.kind {
            Kind::Whole(Scheme::Argon2 { memory_kib, passes, .. }) => argon2(memory_kib, passes),
            Kind::Whole(Scheme::Bcrypt { cost }) => BCRYPT_PER_ROUND << cost,
            Kind::Whole(scheme @ Scheme::Scrypt { lanes, .. }) => {
                SCRYPT_PER_KIB * u64::from(scheme.memory_kib()) * u64::from(lanes)
            }
            Kind::Whole(Scheme::Pbkdf2 { digest, .. }) | Kind::Pbkdf2(digest) => digest.cost() * u64::from(self.units),
        }
    }
}

fn argon2(memory_kib: u32, passes: u32) -> u64 {
    ARGON2_PER_KIB_AND_PASS * u64::from(memory_kib) * u64::from(passes)
}

/// The binary logarithm of `value`, rounded down.
fn log2(value: u64) -> u64 {
    value.max(1).ilog2().into()
}

impl Pbkdf2Digest {
    /// Nanoseconds of one iteration.
    const fn cost(self) -> u64 {
        match self {
            Self::Sha1 => 1_000,
            Self::Sha256 => 410,
            Self::Sha512 => 1_070,
        }
    }
}

/// Memory that the threads share, for hashes that need more than a thread owns.
pub(super) struct SharedMemory {
    free_kib: Mutex<u32>,
    freed: Condvar,
    /// Held by the thread that waits for memory, so that small hashes do not starve a large one.
    turn: Mutex<()>,
    #[cfg(test)]
    pub(super) least_free_kib: std::sync::atomic::AtomicU32,
}

/// A part of the shared memory; returned on drop.
pub(super) struct MemoryPermit<'a> {
    memory: &'a SharedMemory,
    kib: u32,
}

impl SharedMemory {
    /// A budget of `kib`; nothing is allocated.
    pub(super) fn new(kib: u32) -> Self {
        Self {
            free_kib: Mutex::new(kib),
            freed: Condvar::new(),
            turn: Mutex::new(()),
            #[cfg(test)]
            least_free_kib: kib.into(),
        }
    }

    #[cfg(test)]
    pub(super) fn free_kib(&self) -> u32 {
        *self.free_kib.lock().unwrap()
    }

    /// Waits until `kib` are free. The caller has checked `kib` against [`Limits`] and holds no other permit.
    pub(super) fn take(&self, kib: u32) -> MemoryPermit<'_> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.free_kib.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free < kib).unwrap_or_else(PoisonError::into_inner);
        *free -= kib;
        #[cfg(test)]
        self.least_free_kib.fetch_min(*free, std::sync::atomic::Ordering::SeqCst);
        MemoryPermit { memory: self, kib }
    }
}

impl Drop for MemoryPermit<'_> {
    fn drop(&mut self) {
        *self.memory.free_kib.lock().unwrap_or_else(PoisonError::into_inner) += self.kib;
        self.memory.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limits under the default settings.
    fn limits() -> Limits {
        let current = Scheme::argon2(argon2::Algorithm::Argon2id, argon2::Version::V0x13, 19_456, 2, 1).unwrap();
        Limits::new(current, 24, 128 * 1024)
    }

    fn argon2id(memory_kib: u32, passes: u32, lanes: u32) -> Scheme {
        Scheme::argon2(argon2::Algorithm::Argon2id, argon2::Version::V0x13, memory_kib, passes, lanes).unwrap()
    }

    #[test]
    fn p13_the_defaults_of_common_systems_can_be_imported() {
        for scheme in [
            Scheme::bcrypt(12).unwrap(),
            Scheme::bcrypt(13).unwrap(),
            Scheme::scrypt(15, 8, 3).unwrap(),
            Scheme::scrypt(17, 8, 1).unwrap(),
            Scheme::pbkdf2(Pbkdf2Digest::Sha256, 1_200_000, 32).unwrap(),
            Scheme::pbkdf2(Pbkdf2Digest::Sha512, 210_000, 64).unwrap(),
            argon2id(102_400, 2, 8),
            argon2id(65_536, 4, 1),
            argon2id(65_536, 3, 4),
        ] {
            assert_eq!(limits().check(scheme), Ok(()), "{scheme}");
        }
    }

    #[test]
    fn p13_a_hash_that_costs_too_much_is_refused_with_the_parameter_the_limit_and_the_setting() {
        for (scheme, said) in [
            (Scheme::bcrypt(16), "the bcrypt hash has the cost 16; passwords.legacy_cost allows 13 at most"),
            (Scheme::scrypt(14, 8, 16), "the scrypt hash has ln 14; passwords.legacy_cost allows 13 at most"),
            (Scheme::scrypt(18, 8, 1), "the scrypt hash has ln 18; passwords.legacy_memory_kib allows 17 at most"),
            (
                Scheme::pbkdf2(Pbkdf2Digest::Sha1, 10_000_000, 20),
                "the pbkdf2-sha1 hash has i 10000000; passwords.legacy_cost allows 653721 at most",
            ),
            (
                Scheme::pbkdf2(Pbkdf2Digest::Sha256, 1_000_000, 64),
                "the pbkdf2-sha256 hash has i 1000000; passwords.legacy_cost allows 797221 at most",
            ),
            (Ok(argon2id(65_536, 16, 1)), "the argon2id hash has t 16; passwords.legacy_cost allows 14 at most"),
            (
                Ok(argon2id(1_048_576, 1, 1)),
                "the argon2id hash has m 1048576; passwords.legacy_memory_kib allows 131072 at most",
            ),
        ] {
            assert_eq!(limits().check(scheme.unwrap()).unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn p13_the_maximum_that_a_refusal_names_is_accepted() {
        let Err(HashRefusal::TooExpensive { most, .. }) = limits().check(Scheme::bcrypt(16).unwrap()) else { panic!() };
        assert_eq!(limits().check(Scheme::bcrypt(most).unwrap()), Ok(()));
        assert!(limits().check(Scheme::bcrypt(most + 1).unwrap()).is_err());
        let most_passes = 14;
        assert_eq!(limits().check(argon2id(65_536, most_passes, 1)), Ok(()));
        assert!(limits().check(argon2id(65_536, most_passes + 1, 1)).is_err());
    }

    #[test]
    fn a_hash_that_fits_into_a_threads_own_memory_needs_no_shared_memory() {
        let current = argon2id(1_048_576, 2, 1);
        assert_eq!(Limits::new(current, 24, 8192).check(argon2id(524_288, 1, 1)), Ok(()));
        assert!(Limits::new(current, 24, 8192).check(Scheme::scrypt(17, 8, 1).unwrap()).is_err());
    }
}
