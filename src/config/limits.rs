//! How many attempts anyone has.

use std::time::Duration;

use super::reader::Reader;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// An office behind one address logs in after lunch.
const ADDRESS: RateLimit = RateLimit { burst: 60, per_minute: 60 };
/// A person who mistypes on several devices.
const ACCOUNT_FREE: u32 = 20;
/// A person who mistypes on one device.
const PAIR_FREE: u32 = 10;
/// A deployment that starts fifty replicas with an old secret still gets in once it has the new one.
const CLIENT: RateLimit = RateLimit { burst: 60, per_minute: 60 };
/// At this rate an hour of revocations takes 10 MiB of each replica's memory. Logouts of large sites stay below it: they end sessions.
const REVOCATION: RateLimit = RateLimit { burst: 3000, per_minute: 3000 };
/// NIST SP 800-63B §3.2.2: no more than 100 consecutive failures.
const HARD_STOP: u32 = 100;
/// A stop always lifts by itself (security.md L9): a hundred guesses a day find no password that passed the blocklist.
const HARD_STOP_FOR: Duration = Duration::from_secs(86_400);
/// Some 100 bytes each: 10 MiB at most, whatever number of addresses and names is tried (security.md L6).
const MAX_ENTRIES: usize = 100_000;

/// Limits on logins and on failed client authentication (security.md L).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Off, none of them holds.
    pub enabled: bool,
    /// Login attempts from one address (IPv6: one /64).
    pub address: RateLimit,
    /// Failed logins at one account before delays begin.
    pub account_free: u32,
    /// Failed logins from one address at one account before delays begin.
    pub pair_free: u32,
    /// Failed authentications of one client.
    pub client: RateLimit,
    /// Access tokens that one client revokes.
    pub revocation: RateLimit,
    /// Failures in a row after which an account takes no password from addresses that it does not know.
    pub hard_stop: u32,
    /// When that lifts.
    pub hard_stop_for: Duration,
    /// Counters kept in memory, of each kind.
    pub max_entries: usize,
}

/// A bucket of `burst` attempts that fills by `per_minute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Attempts at once.
    pub burst: u32,
    /// Attempts regained per minute.
    pub per_minute: u32,
}

impl Limits {
    pub(super) fn load(read: &mut Reader<'_>) -> Self {
        read.section("Limits");
        Self {
            enabled: read.setting(
                "limits.enabled",
                true,
                "Off only where something before the service limits attempts per account.",
            ),
            address: RateLimit::load(read, "address", ADDRESS, "login attempts from one address (IPv6: one /64)"),
            account_free: read.within(
                "limits.account.free",
                ACCOUNT_FREE,
                1..=HARD_STOP,
                "Failed logins at one account, over all replicas, before delays of 1 to 10 s begin.",
            ),
            pair_free: read.within(
                "limits.pair.free",
                PAIR_FREE,
                1..=HARD_STOP,
                "Failed logins from one address at one account before such delays begin.",
            ),
            client: RateLimit::load(read, "client", CLIENT, "failed authentications of one client from one address"),
            revocation: RateLimit::load(
                read,
                "revocation",
                REVOCATION,
                "access tokens that one client revokes at one replica. Sessions and users are never limited",
            ),
            hard_stop: read.within(
                "limits.hard_stop",
                HARD_STOP,
                1..=HARD_STOP,
                "Failures in a row after which an account takes no password from addresses that it never logged in from.",
            ),
            hard_stop_for: read.within("limits.hard_stop_for", HARD_STOP_FOR, MINUTE..=7 * DAY, "When that stop lifts."),
            max_entries: read.within(
                "limits.max_entries",
                MAX_ENTRIES,
                1_000..=10_000_000,
                "Counters of each kind in memory; the least used make room.",
            ),
        }
    }
}

impl RateLimit {
    fn load(read: &mut Reader<'_>, of: &str, default: Self, whose: &str) -> Self {
        const MOST: u32 = 1_000_000;
        let name = |key: &str| format!("limits.{of}.{key}");
        Self {
            burst: read.within(name("burst"), default.burst, 1..=MOST, format!("At once: {whose}.")),
            per_minute: read.within(name("per_minute"), default.per_minute, 1..=MOST, format!("Per minute: {whose}.")),
        }
    }
}
