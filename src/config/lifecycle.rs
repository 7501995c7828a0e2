//! Settings of shutdown and of the audit trail.

use std::time::Duration;

use super::reader::Reader;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Load balancers poll readiness every few seconds. They must see the failure before connections are refused.
const DELAY: Duration = Duration::from_secs(5);
/// With `DELAY`, the default grace period of Kubernetes (30 s). Longer than `request_timeout`, so that every accepted
/// request is answered.
const DRAIN: Duration = Duration::from_secs(25);
/// Incidents are often discovered after weeks.
const RETENTION: Duration = Duration::from_secs(90 * 86_400);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// How long the replica is not ready but still accepts connections.
    pub delay: Duration,
    /// How long accepted requests may then take to complete. No connection is accepted.
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
                "After a stop signal, `/readyz` fails for this long before connections are refused.",
            ),
            drain: read.within(
                "shutdown.drain",
                DRAIN,
                SECOND..=600 * SECOND,
                "How long accepted requests may then take to complete.",
            ),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// Older events are deleted.
    pub retention: Duration,
}

impl Audit {
    pub(super) fn load(read: &mut Reader<'_>) -> Self {
        Self {
            retention: read.within(
                "audit.retention",
                RETENTION,
                DAY..=3650 * DAY,
                "Audit events older than this are deleted.",
            ),
        }
    }
}
