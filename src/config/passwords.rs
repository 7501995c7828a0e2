//! Settings of password hashing and of new passwords.

use super::reader::Reader;
use crate::domain::{HASHING_QUEUE, HASHING_THREADS, LEGACY_COST, LEGACY_MEMORY_KIB};

/// The minimum of security.md P1 and the first recommendation of OWASP: about 30 ms on one core.
const MEMORY_KIB: u32 = 19_456;
/// From the same recommendation as `MEMORY_KIB`.
const ITERATIONS: u32 = 2;
/// More lanes would take cores from other logins.
const PARALLELISM: u32 = 1;
/// Stored hashes have the same limit (security.md P11).
const MOST_MEMORY_KIB: u32 = 1024 * 1024;
/// Stored hashes have the same limit (security.md P11).
const MOST_ITERATIONS: u32 = 16;
/// About one second of waiting time on two cores (security.md P5).
const QUEUE: usize = 64;
/// Allows bcrypt of cost 13 and Django's PBKDF2 of 1,200,000 iterations. A refused login takes less than a second.
const LEGACY_COST_DEFAULT: usize = 24;
/// Allows scrypt with N = 2^17 and r = 8, the largest parameters in common use.
const LEGACY_MEMORY_DEFAULT: usize = 128 * 1024;
/// NIST asks for 8 with a second factor and 15 without. The blocklist and the rate limits make up for the difference.
const MIN_LENGTH: usize = 12;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passwords {
    /// Memory of one hash in KiB.
    pub memory_kib: u32,
    pub iterations: u32,
    /// Lanes of one hash.
    pub parallelism: u32,
    /// Hashing threads. `None`: one per core, within the range of the setting.
    pub threads: Option<usize>,
    /// Logins that may wait for a hashing thread; further logins get 503.
    pub queue: usize,
    /// Work that hashes of other schemes may add to a refused login, in multiples of one hash with the current settings.
    pub legacy_cost: usize,
    /// Memory shared by all hashes that need more than `memory_kib`.
    pub legacy_memory_kib: usize,
    /// Minimum length of a new password, in code points.
    pub min_length: usize,
}

impl Passwords {
    pub(super) fn load(read: &mut Reader<'_>) -> Self {
        read.section("Passwords");
        Self {
            memory_kib: read.within(
                "passwords.memory_kib",
                MEMORY_KIB,
                MEMORY_KIB..=MOST_MEMORY_KIB,
                "Memory of one argon2id hash in KiB. Logins use up to this times `passwords.threads`.",
            ),
            iterations: read.within(
                "passwords.iterations",
                ITERATIONS,
                ITERATIONS..=MOST_ITERATIONS,
                "Argon2id iterations. A hash made with other parameters is replaced at the user's next login.",
            ),
            parallelism: read.within("passwords.parallelism", PARALLELISM, 1..=16, "Argon2id lanes of one hash."),
            threads: read.optional_within(
                "passwords.threads",
                format!("one per core, {} at most", HASHING_THREADS.end()),
                HASHING_THREADS,
                "Number of hashing threads, and so of hashes computed concurrently.",
            ),
            queue: read.within(
                "passwords.queue",
                QUEUE,
                HASHING_QUEUE,
                "Number of logins that may wait for a hashing thread. Further logins get 503 immediately.",
            ),
            legacy_cost: read.within(
                "passwords.legacy_cost",
                LEGACY_COST_DEFAULT,
                LEGACY_COST,
                "Limit on the work of verifying a hash that was imported or made with former settings, when the login is \
                 refused. The unit is one hash with the current settings. An import refuses hashes that cost more.",
            ),
            legacy_memory_kib: read.within(
                "passwords.legacy_memory_kib",
                LEGACY_MEMORY_DEFAULT,
                LEGACY_MEMORY_KIB,
                "Memory in KiB shared by all hashes that need more than `passwords.memory_kib`. An import refuses hashes \
                 that need more than this.",
            ),
            min_length: read.within(
                "passwords.min_length",
                MIN_LENGTH,
                8..=64,
                "Minimum length of a new password, in characters. Passwords of at least 64 characters are always long \
                 enough.",
            ),
        }
    }
}
