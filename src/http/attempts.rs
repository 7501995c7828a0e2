//! The figure of attempts that a limit refused.

use crate::service::Limit;
use crate::telemetry::{Metrics, metrics};

/// Counts a refused attempt under the limit that refused it.
pub fn count(metrics: &Metrics, limit: Limit) {
    metrics.attempts_refused.count(match limit {
        Limit::Account => metrics::Limit::Account,
        Limit::Address => metrics::Limit::Address,
        Limit::Pair => metrics::Limit::Pair,
    });
}
