//! Settings of password hashing and of new passwords.

use std::ops::RangeInclusive;

use super::section::section;

/// Range of the number of hashing threads. More threads compete for caches and memory bandwidth without a gain.
pub const HASHING_THREADS: RangeInclusive<usize> = 1..=64;
/// Range of the number of callers that may wait for a hashing thread. With 0, a second login at the same moment would
/// be refused.
const HASHING_QUEUE: RangeInclusive<usize> = 1..=10_000;
/// Range of `passwords.legacy_cost`: the work that hashes of other schemes may add to a refused login. The unit is one
/// hash of the current scheme.
const LEGACY_COST: RangeInclusive<u32> = 1..=1000;
/// Range of `passwords.legacy_memory_kib`: memory in KiB shared by hashes that need more than a hashing thread owns.
/// Its maximum is the memory limit of one hash (security.md P11).
const LEGACY_MEMORY_KIB: RangeInclusive<u32> = 8192..=1024 * 1024;

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
const LEGACY_COST_DEFAULT: u32 = 24;
/// Allows scrypt with N = 2^17 and r = 8, the largest parameters in common use.
const LEGACY_MEMORY_DEFAULT: u32 = 128 * 1024;
/// NIST asks for 8 with a second factor and 15 without. The blocklist and the rate limits make up for the difference.
const MIN_LENGTH: usize = 12;

section! {
    Passwords(read) in ["passwords"] as "Passwords" {
        /// Memory of one argon2id hash in KiB. Logins use up to this times `passwords.threads`.
        memory_kib: u32 = MEMORY_KIB, in MEMORY_KIB..=MOST_MEMORY_KIB;
        /// Argon2id iterations. A hash made with other parameters is replaced at the user's next login.
        iterations: u32 = ITERATIONS, in ITERATIONS..=MOST_ITERATIONS;
        /// Argon2id lanes of one hash.
        parallelism: u32 = PARALLELISM, in 1..=16;
        /// Number of hashing threads, and so of hashes computed concurrently.
        threads: Option<usize>, in HASHING_THREADS, else format!("one per core, {} at most", HASHING_THREADS.end());
        /// Number of logins that may wait for a hashing thread. Further logins get 503 immediately.
        queue: usize = QUEUE, in HASHING_QUEUE;
        /// Limit on the work of verifying a hash that was imported or made with former settings, when the login is
        /// refused. The unit is one hash with the current settings. An import refuses hashes that cost more.
        legacy_cost: u32 = LEGACY_COST_DEFAULT, in LEGACY_COST;
        /// Memory in KiB shared by all hashes that need more than `passwords.memory_kib`. An import refuses hashes
        /// that need more than this.
        legacy_memory_kib: u32 = LEGACY_MEMORY_DEFAULT, in LEGACY_MEMORY_KIB;
        /// Minimum length of a new password, in characters. Passwords of at least 64 characters are always long
        /// enough.
        min_length: usize = MIN_LENGTH, in 8..=64;
    }
}
