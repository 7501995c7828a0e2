//! Log lines and metrics of a finished request.

use std::sync::Arc;

use http::StatusCode;

use crate::clock::Clock;
use crate::domain::Subject;
use crate::telemetry::metrics::Route;
use crate::telemetry::{CacheUse, Logger, Metrics, RequestLine};

use super::middleware::{Principal, RequestObserver, RequestRecord};

/// Metric label of requests that match no route.
const UNMATCHED: &str = "unmatched";

/// Records every request of one listener.
pub struct Observer {
    metrics: Arc<Metrics>,
    logger: Logger,
    clock: Arc<dyn Clock>,
    writes_lines: bool,
    /// Added by the first request of a route, read by later ones.
    routes: papaya::HashMap<Box<str>, Route>,
}

impl Observer {
    /// Counts in `metrics`, and logs every request if `writes_lines`.
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
            let request_id = record.request_id.as_str();
            // A 503 is expected while a dependency is down, so it is a warning.
            if record.status == StatusCode::SERVICE_UNAVAILABLE.as_u16() {
                tracing::warn!(request_id, route = template, %cause, "request not served");
            } else {
                tracing::error!(request_id, route = template, %cause, "request failed");
            }
        }
        if !self.writes_lines {
            return;
        }
        let caller = record.caller.map(Principal::text);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing::level_filters::LevelFilter;

    use super::super::bearer::unavailable;
    use super::super::middleware::{ClientAddress, RequestFacts, RequestId};
    use super::*;
    use crate::clock::ManualClock;
    use crate::config::{self, LogFormat, LogLevels};
    use crate::domain::Timestamp;
    use crate::service::Unavailable;
    use crate::telemetry::{LogSink, MemoryLog};

    /// The log of a request that ended with `status` because the view was stale.
    fn logged(status: u16) -> String {
        let memory = MemoryLog::default();
        let settings =
            config::Log { format: LogFormat::Json, level: LogLevels::all(LevelFilter::INFO), requests: true };
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_millis(0)));
        let logger = Logger::start(LogSink::Memory(memory.clone()), &settings, clock.clone()).unwrap();
        let metrics = Arc::new(Metrics::new("0", Timestamp::from_millis(0)).unwrap());
        let observer = Observer::new(metrics, logger.clone(), clock, true);
        let failure = unavailable(Unavailable::StaleView).into_content();
        let record = RequestRecord {
            method: "GET",
            route: Some("/v1/me"),
            status,
            duration: Duration::ZERO,
            request_id: &RequestId::from_random([0; 16]),
            client: ClientAddress::new(std::net::Ipv4Addr::LOCALHOST.into()),
            caller: None,
            facts: &RequestFacts::default(),
            error: None,
            cause: failure.cause.as_ref(),
        };
        tracing::subscriber::with_default(logger.subscriber(), || observer.finished(&record));
        assert!(logger.flush(Duration::from_secs(10)));
        memory.text()
    }

    #[test]
    fn a_503_is_a_warning_that_explains_its_cause() {
        let text = logged(503);
        assert_eq!((text.lines().count(), text.matches("\"WARN\"").count()), (2, 2), "{text}");
        assert!(text.contains("older than revocation.max_lag") && !text.contains("StaleView"), "{text}");
        assert_eq!(logged(500).matches("\"ERROR\"").count(), 2, "a fault is logged as an error");
    }
}
