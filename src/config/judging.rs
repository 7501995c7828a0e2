//! How fresh the judgement of a token is.

use std::time::Duration;

use super::reader::Reader;

const SECOND: Duration = Duration::from_secs(1);

/// Two short queries per second and replica, for which every revocation is known within a second even where no
/// notification arrives.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Six polls: a single lost packet does not take a replica out, and the promise stays a few seconds.
const MAX_LAG: Duration = Duration::from_secs(3);

/// What a gateway may reuse adds to the bound, and five seconds already spare a busy one almost every call.
const MAX_AGE: Duration = Duration::from_secs(5);
/// Up to 3 KiB each, which the longest tokens take: 300 MiB at most for the tokens of a hundred thousand users at once.
const CACHE_ENTRIES: usize = 100_000;

/// How revocations reach this replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Between two looks at the change feed, even when notifications arrive.
    pub poll_interval: Duration,
    /// A view older than this judges nothing.
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
                "Between two looks at the change feed. Notifications only make it faster.",
            ),
            max_lag: read.within(
                "revocation.max_lag",
                MAX_LAG,
                SECOND..=60 * SECOND,
                "A replica that cannot prove that it knows every revocation older than this answers 503 instead of guessing.",
            ),
        };
        let survives_a_lost_poll = 2 * revocation.poll_interval <= revocation.max_lag;
        read.rule(
            &["revocation.poll_interval", "revocation.max_lag"],
            survives_a_lost_poll,
            "leaves no room for one failed poll within revocation.max_lag",
            "keep it at half of revocation.max_lag or less",
        );
        revocation
    }
}

/// Introspection and forward-auth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introspection {
    /// Longest time for which a gateway may reuse `active: true`.
    pub max_age: Duration,
    /// Verified tokens kept in memory.
    pub cache_entries: usize,
}

impl Introspection {
    pub(super) fn load(read: &mut Reader<'_>) -> Self {
        Self {
            max_age: read.within(
                "introspection.max_age",
                MAX_AGE,
                Duration::ZERO..=60 * SECOND,
                "How long a gateway may reuse an active answer (`Cache-Control: max-age`). It adds to the revocation bound.",
            ),
            cache_entries: read.within(
                "introspection.cache_entries",
                CACHE_ENTRIES,
                0..=10_000_000,
                "Tokens whose signature is remembered as good; revocation is checked on every request all the same. 0 turns \
                 it off.",
            ),
        }
    }
}
