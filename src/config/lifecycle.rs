//! Stopping, and what is kept of the past.

use std::time::Duration;

use super::reader::Reader;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Load balancers ask for readiness every few seconds and need to have seen the refusal before connections are.
const DELAY: Duration = Duration::from_secs(5);
/// With the delay, Kubernetes' default grace of 30 s: above `request_timeout`, so that whatever was accepted is answered.
const DRAIN: Duration = Duration::from_secs(25);
/// A season: incidents come to light after weeks.
const RETENTION: Duration = Duration::from_secs(90 * 86_400);

/// How the service stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// Not ready, but still accepting.
    pub delay: Duration,
    /// Accepting no more, but finishing what was accepted.
    pub drain: Duration,
}

impl Shutdown {
    pub(super) fn load(read: &mut Reader<'_>) -> Self {
        read.section("Shutdown and audit");
        Self {
            delay: read.within(
                "shutdown.delay",
                DELAY,
                Duration::ZERO..=300 * SECOND,
                "After a signal to stop, `/readyz` refuses for so long before connections are refused.",
            ),
            drain: read.within(
                "shutdown.drain",
                DRAIN,
                SECOND..=600 * SECOND,
                "Then requests under way may take so long.",
            ),
        }
    }
}

/// The audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// Older entries are deleted.
    pub retention: Duration,
}

impl Audit {
    pub(super) fn load(read: &mut Reader<'_>) -> Self {
        Self {
            retention: read.within(
                "audit.retention",
                RETENTION,
                DAY..=3650 * DAY,
                "Audit entries older than this are deleted.",
            ),
        }
    }
}
