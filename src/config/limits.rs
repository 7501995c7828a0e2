//! Rate limits on logins and client authentication.

use std::time::Duration;

use super::reader::Reader;

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

/// Limits on logins and on failed client authentication (security.md L).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// False turns all of these limits off.
    pub enabled: bool,
    /// Login attempts from one address (IPv6: one /64).
    pub address: RateLimit,
    /// Failed logins of one account before delays begin.
    pub account_free: u32,
    /// Failed logins of one account from one address before delays begin.
    pub pair_free: u32,
    /// Failed authentications of one client from one address.
    pub client: RateLimit,
    /// Access tokens revoked by one client at one replica.
    pub revocation: RateLimit,
    /// Consecutive failures after which an account accepts logins only from addresses it has logged in from before.
    pub hard_stop: u32,
    /// How long the hard stop lasts.
    pub hard_stop_for: Duration,
    /// Maximum number of counters of each kind in memory.
    pub max_entries: usize,
}

/// A token bucket of `burst` attempts, refilled with `per_minute` attempts a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    pub burst: u32,
    pub per_minute: u32,
}

impl Limits {
    pub(super) fn load(read: &mut Reader<'_>) -> Self {
        read.section("Limits");
        Self {
            enabled: read.setting(
                "limits.enabled",
                true,
                "Turn the limits off only if a component in front of the service limits attempts per account.",
            ),
            address: RateLimit::load(read, "address", ADDRESS, "login attempts from one address (IPv6: one /64)"),
            account_free: read.within(
                "limits.account.free",
                ACCOUNT_FREE,
                1..=HARD_STOP,
                "Failed logins of one account, over all replicas, before delays of 1 to 10 s begin.",
            ),
            pair_free: read.within(
                "limits.pair.free",
                PAIR_FREE,
                1..=HARD_STOP,
                "Failed logins of one account from one address before such delays begin.",
            ),
            client: RateLimit::load(read, "client", CLIENT, "failed authentications of one client from one address"),
            revocation: RateLimit::load(
                read,
                "revocation",
                REVOCATION,
                "access tokens that one client revokes at one replica. Revocations of sessions and users are not limited",
            ),
            hard_stop: read.within(
                "limits.hard_stop",
                HARD_STOP,
                1..=HARD_STOP,
                "Consecutive failures after which an account accepts logins only from addresses it has logged in from before.",
            ),
            hard_stop_for: read.within("limits.hard_stop_for", HARD_STOP_FOR, MINUTE..=7 * DAY, "How long that stop lasts."),
            max_entries: read.within(
                "limits.max_entries",
                MAX_ENTRIES,
                1_000..=10_000_000,
                "Maximum number of counters of each kind in memory. Beyond it, the least used are removed.",
            ),
        }
    }
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
