//! The price of a password.

use super::reader::Reader;
use crate::domain::{HASHING_QUEUE, HASHING_THREADS, LEGACY_COST, LEGACY_MEMORY_KIB};

/// The least that security.md P1 accepts, and OWASP's first choice: some 30 ms on one core.
const MEMORY_KIB: u32 = 19_456;
/// As above.
const ITERATIONS: u32 = 2;
/// Lanes would only use cores that other logins need.
const PARALLELISM: u32 = 1;
/// A stored hash may not ask for more either (security.md P11).
const MOST_MEMORY_KIB: u32 = 1024 * 1024;
/// As above.
const MOST_ITERATIONS: u32 = 16;
/// About one second of waiting on two cores. Further logins are answered 503 at once (security.md P5).
const QUEUE: usize = 64;
/// Bcrypt of cost 13 and PBKDF2 of Django's 1,200,000 iterations fit; a refused login takes less than a second.
const LEGACY_COST_DEFAULT: usize = 24;
/// Fits scrypt with N = 2^17 and r = 8, the most memory that a common system asks for.
const LEGACY_MEMORY_DEFAULT: usize = 128 * 1024;
/// Between NIST's 8 for a second factor and 15 for none; the blocklist and the limits carry the rest.
const MIN_LENGTH: usize = 12;

/// Password hashing (argon2id) and the policy for new passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passwords {
    /// Memory of one hash, KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub iterations: u32,
    /// Lanes of it.
    pub parallelism: u32,
    /// Hashes computed at once; one per core when not set, as far as that is within the range.
    pub threads: Option<usize>,
    /// Logins waiting for a hash; more are refused with 503.
    pub queue: usize,
    /// Limit on the work that hashes of other schemes add to a refused login, in hashes of the current settings.
    pub legacy_cost: usize,
    /// Memory for hashes that need more than `memory_kib`, KiB.
    pub legacy_memory_kib: usize,
    /// Least length of a new password, in code points.
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
                "Memory of one argon2id hash in KiB. Times `passwords.threads`, it is the memory that logins can take.",
            ),
            iterations: read.within(
                "passwords.iterations",
                ITERATIONS,
                ITERATIONS..=MOST_ITERATIONS,
                "Passes over that memory. Hashes made with other values are renewed at the next login.",
            ),
            parallelism: read.within("passwords.parallelism", PARALLELISM, 1..=16, "Lanes of one hash."),
            threads: read.optional_within(
                "passwords.threads",
                format!("one per core, {} at most", HASHING_THREADS.end()),
                HASHING_THREADS,
                "Hashes computed at once.",
            ),
            queue: read.within(
                "passwords.queue",
                QUEUE,
                HASHING_QUEUE,
                "Logins that may wait for a hash; further ones are answered 503 at once.",
            ),
            legacy_cost: read.within(
                "passwords.legacy_cost",
                LEGACY_COST_DEFAULT,
                LEGACY_COST,
                "How much work verifying hashes from imports and former settings may add to a refused login, in hashes of \
                 the current settings. An import refuses hashes that cost more.",
            ),
            legacy_memory_kib: read.within(
                "passwords.legacy_memory_kib",
                LEGACY_MEMORY_DEFAULT,
                LEGACY_MEMORY_KIB,
                "Memory in KiB that hashes share which need more than `passwords.memory_kib`. An import refuses hashes that \
                 need more.",
            ),
            min_length: read.within(
                "passwords.min_length",
                MIN_LENGTH,
                8..=64,
                "Least length of a new password, in characters. Passwords of 64 and more are always accepted.",
            ),
        }
    }
}
