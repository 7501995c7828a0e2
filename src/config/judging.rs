//! Settings of revocation and introspection.

use std::time::Duration;

use super::reader::Reader;

const SECOND: Duration = Duration::from_secs(1);

/// A revocation is applied within one second even if no notification arrives. The cost is two short queries per second and
/// replica.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Six polls: one lost packet does not make a replica unavailable, and the revocation bound stays at a few seconds.
const MAX_LAG: Duration = Duration::from_secs(3);

/// This time adds to the revocation bound. Five seconds already save a busy gateway almost every call.
const MAX_AGE: Duration = Duration::from_secs(5);
/// Enough for a hundred thousand concurrent users. An entry takes up to 3 KiB, so the cache takes at most 300 MiB.
const CACHE_ENTRIES: usize = 100_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Time between two regular polls of the change feed. Notifications cause additional polls.
    pub poll_interval: Duration,
    /// Maximum view age. Above it, the replica gives no verdict.
    pub max_lag: Duration,
}

impl Revocation {
    pub(super) fn load(read: &mut Reader<'_>) -> Self {
        read.section("Revocation and introspection");
        let revocation = Self {
            poll_interval: read.within(
                "revocation.poll_interval",
                POLL_INTERVAL,
                SECOND / 20..=SECOND,
                "Time between two polls of the change feed. A notification triggers an earlier poll.",
            ),
            max_lag: read.within(
                "revocation.max_lag",
                MAX_LAG,
                SECOND..=60 * SECOND,
                "Maximum time since the last sync with the change feed. Above it, the replica answers 503 instead of judging \
                 tokens by a stale view.",
            ),
        };
        let survives_a_lost_poll = 2 * revocation.poll_interval <= revocation.max_lag;
        read.rule(
            &["revocation.poll_interval", "revocation.max_lag"],
            survives_a_lost_poll,
            "is more than half of revocation.max_lag, so that one failed poll would make the replica unavailable",
            "set it to at most half of revocation.max_lag",
        );
        revocation
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introspection {
    /// How long a gateway may reuse `active: true`.
    pub max_age: Duration,
    /// Size of the verified-token cache.
    pub cache_entries: usize,
}

impl Introspection {
    pub(super) fn load(read: &mut Reader<'_>) -> Self {
        Self {
            max_age: read.within(
                "introspection.max_age",
                MAX_AGE,
                Duration::ZERO..=60 * SECOND,
                "How long a gateway may reuse an answer for an active token (`Cache-Control: max-age`). It adds to the \
                 revocation bound.",
            ),
            cache_entries: read.within(
                "introspection.cache_entries",
                CACHE_ENTRIES,
                0..=10_000_000,
                "Size of the verified-token cache. It saves the signature check of a token; revocation is still checked on \
                 every request. 0 turns the cache off.",
            ),
        }
    }
}
