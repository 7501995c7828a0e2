//! Settings of shutdown and of the audit trail.

use std::time::Duration;

use super::section::section;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Load balancers poll readiness every few seconds. They must see the failure before connections are refused.
const DELAY: Duration = Duration::from_secs(5);
/// With `DELAY`, the default grace period of Kubernetes (30 s). Longer than `request_timeout`, so that every accepted
/// request is answered.
const DRAIN: Duration = Duration::from_secs(25);
/// Incidents are often discovered after weeks.
const RETENTION: Duration = Duration::from_secs(90 * 86_400);

section! {
    Shutdown(read) in ["shutdown"] as "Shutdown and audit" {
        /// After a stop signal, `/readyz` fails for this long before connections are refused.
        delay: Duration = DELAY, in Duration::ZERO..=300 * SECOND;
        /// How long accepted requests may then take to complete.
        drain: Duration = DRAIN, in SECOND..=600 * SECOND;
    }
}

section! {
    Audit(read) in ["audit"] {
        /// Audit events older than this are deleted.
        retention: Duration = RETENTION, in DAY..=3650 * DAY;
    }
}
