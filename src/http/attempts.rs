//! The metric of refused attempts.

use crate::service::Limit;
use crate::telemetry::{Metrics, metrics};

/// Counts an attempt refused by `limit`.
pub fn count(metrics: &Metrics, limit: Limit) {
    metrics.attempts_refused.count(match limit {
        Limit::Account => metrics::Limit::Account,
        Limit::Address => metrics::Limit::Address,
        Limit::Pair => metrics::Limit::Pair,
    });
}
