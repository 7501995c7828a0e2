//! Rate limits on logins and client authentication.

use std::time::Duration;

use super::reader::Reader;
use super::section::section;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// Allows an office behind one address to log in at the same time.
const ADDRESS: RateLimit = RateLimit { burst: 60, per_minute: 60 };
/// Allows a user to mistype on several devices.
const ACCOUNT_FREE: u32 = 20;
/// Allows a user to mistype on one device.
const PAIR_FREE: u32 = 10;
/// A deployment that starts fifty replicas with an old secret can still authenticate after it gets the new one.
const CLIENT: RateLimit = RateLimit { burst: 60, per_minute: 60 };
/// At this rate, an hour of revocations takes 10 MiB of each replica's memory. A logout revokes a session, so it does not
/// count.
const REVOCATION: RateLimit = RateLimit { burst: 3000, per_minute: 3000 };
/// NIST SP 800-63B §3.2.2: at most 100 consecutive failures.
const HARD_STOP: u32 = 100;
/// The stop ends without an administrator (security.md L9). A hundred guesses a day do not find a password that passed the
/// blocklist.
const HARD_STOP_FOR: Duration = Duration::from_secs(86_400);
/// About 100 bytes each, so at most 10 MiB, regardless of the number of addresses and names tried (security.md L6).
const MAX_ENTRIES: usize = 100_000;

section! {
    /// Limits on logins and on failed client authentication (security.md L).
    Limits(read) in ["limits"] as "Limits" {
        /// Turn the limits off only if a component in front of the service limits attempts per account.
        enabled: bool = true;
        /// Login attempts from one address (IPv6: one /64).
        address: RateLimit,
            load RateLimit::load(read, "address", ADDRESS, "login attempts from one address (IPv6: one /64)");
        /// Failed logins of one account, over all replicas, before delays of 1 to 10 s begin.
        account_free as "account.free": u32 = ACCOUNT_FREE, in 1..=HARD_STOP;
        /// Failed logins of one account from one address before such delays begin.
        pair_free as "pair.free": u32 = PAIR_FREE, in 1..=HARD_STOP;
        /// Failed authentications of one client from one address.
        client: RateLimit,
            load RateLimit::load(read, "client", CLIENT, "failed authentications of one client from one address");
        /// Access tokens revoked by one client at one replica.
        revocation: RateLimit, load RateLimit::load(
            read,
            "revocation",
            REVOCATION,
            "access tokens that one client revokes at one replica. Revocations of sessions and users are not limited",
        );
        /// Consecutive failures after which an account accepts logins only from addresses it has logged in from before.
        hard_stop: u32 = HARD_STOP, in 1..=HARD_STOP;
        /// How long that stop lasts.
        hard_stop_for: Duration = HARD_STOP_FOR, in MINUTE..=7 * DAY;
        /// Maximum number of counters of each kind in memory. Beyond it, the least used are removed.
        max_entries: usize = MAX_ENTRIES, in 1_000..=10_000_000;
    }
}

/// A token bucket of `burst` attempts, refilled with `per_minute` attempts a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    pub burst: u32,
    pub per_minute: u32,
}

impl RateLimit {
    fn load(read: &mut Reader<'_>, of: &str, default: Self, whose: &str) -> Self {
        const MOST: u32 = 1_000_000;
        let name = |key: &str| format!("limits.{of}.{key}");
        Self {
            burst: read.within(name("burst"), default.burst, 1..=MOST, format!("Burst of {whose}.")),
            per_minute: read.within(
                name("per_minute"),
                default.per_minute,
                1..=MOST,
                format!("Sustained rate per minute of {whose}."),
            ),
        }
    }
}
