//! What is written and counted of a finished request: one line, and the figures of its route.

use std::sync::Arc;

use crate::clock::Clock;
use crate::domain::Subject;
use crate::telemetry::metrics::Route;
use crate::telemetry::{CacheUse, Logger, Metrics, RequestLine};

use super::middleware::{Caller, RequestObserver, RequestRecord};

/// The route of requests that matched none.
const UNMATCHED: &str = "unmatched";

/// Hears of every request of one listener.
pub struct Observer {
    metrics: Arc<Metrics>,
    logger: Logger,
    clock: Arc<dyn Clock>,
    writes_lines: bool,
    /// Filled by the first request of each route, read by all others.
    routes: papaya::HashMap<Box<str>, Route>,
}

impl Observer {
    /// Counts into `metrics`, and writes a line per request unless `log.requests` is off.
    pub fn new(metrics: Arc<Metrics>, logger: Logger, clock: Arc<dyn Clock>, writes_lines: bool) -> Self {
        Self { metrics, logger, clock, writes_lines, routes: papaya::HashMap::new() }
    }

    fn count(&self, record: &RequestRecord<'_>, template: &str) {
        let routes = self.routes.pin();
        let route = match routes.get(template) {
            Some(route) => route,
            None => routes.get_or_insert_with(template.into(), || self.metrics.route(template)),
        };
        route.observe(record.method, record.status, record.duration);
    }
}

impl RequestObserver for Observer {
    fn finished(&self, record: &RequestRecord<'_>) {
        let template = record.route.unwrap_or(UNMATCHED);
        self.count(record, template);
        if let Some(cause) = record.cause {
            tracing::error!(request_id = record.request_id.as_str(), route = template, %cause, "a request failed");
        }
        if !self.writes_lines {
            return;
        }
        let caller = record.facts.caller.as_ref().map(Caller::text);
        let subject = record.facts.subject.as_ref().map(Subject::text);
        self.logger.request(&RequestLine {
            at: self.clock.now(),
            method: record.method,
            route: template,
            status: record.status,
            duration: record.duration,
            request_id: record.request_id.as_str(),
            client_address: record.client.ip(),
            caller: caller.as_deref(),
            subject: subject.as_deref(),
            cache: record.facts.cache_hit.map(|hit| if hit { CacheUse::Hit } else { CacheUse::Miss }),
            outcome: record.facts.outcome.or(record.error),
        });
    }
}
