//! Settings of revocation and introspection.

use std::time::Duration;

use super::reader::Reader;
use super::section::section;

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

section! {
    Revocation(read) in ["revocation"] as "Revocation and introspection" {
        /// Time between two polls of the change feed. A notification triggers an earlier poll.
        poll_interval: Duration = POLL_INTERVAL, in SECOND / 20..=SECOND;
        /// Maximum time since the last sync with the change feed. Above it, the replica answers 503 instead of judging
        /// tokens by a stale view.
        max_lag: Duration = MAX_LAG, in SECOND..=60 * SECOND;
    }
}

/// A reader takes up to 24 KiB, so the default takes at most 24 MiB.
const MAX_READERS: usize = 1_000;

section! {
    Feed(read) in ["feed"] {
        /// Maximum number of requests that read the revocation feed at one time. Further ones are answered 503 with
        /// `Retry-After`.
        max_readers: usize = MAX_READERS, in 0..=100_000;
    }
}

section! {
    Introspection(read) in ["introspection"] {
        /// How long a gateway may reuse an answer for an active token (`Cache-Control: max-age`). It adds to the
        /// revocation bound.
        max_age: Duration = MAX_AGE, in Duration::ZERO..=60 * SECOND;
        /// Size of the verified-token cache. It saves the signature check of a token; revocation is still checked on
        /// every request. 0 turns the cache off.
        cache_entries: usize = CACHE_ENTRIES, in 0..=10_000_000;
    }
}

impl Revocation {
    pub(super) fn check(&self, read: &mut Reader<'_>) {
        read.rule(
            &["revocation.poll_interval", "revocation.max_lag"],
            2 * self.poll_interval <= self.max_lag,
            "is more than half of revocation.max_lag, so that one failed poll would make the replica unavailable",
            "set it to at most half of revocation.max_lag",
        );
    }
}
