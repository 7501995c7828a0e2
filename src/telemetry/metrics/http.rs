//! Requests by route. A route's handle is made once, and counting through it hashes nothing.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, Registry, Result};

use super::labels::{options, register};
use super::seconds;

/// Methods with their own label value. Any other method is `other`, so that the label stays bounded.
const METHODS: [&str; 9] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "other"];

/// The statuses that the service returns. The label of any other status is looked up.
const STATUSES: [u16; 22] =
    [200, 201, 202, 204, 301, 304, 400, 401, 403, 404, 405, 406, 408, 409, 413, 414, 415, 422, 429, 431, 500, 503];

/// In seconds: from a cache hit to the request timeout.
const BUCKETS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0];

pub(super) struct Http {
    requests: IntCounterVec,
    seconds: HistogramVec,
}

/// The metrics of one route.
pub struct Route {
    route: String,
    requests: IntCounterVec,
    /// Filled by the first request of each kind, so that a series without requests is not published.
    counters: [[OnceLock<IntCounter>; STATUSES.len()]; METHODS.len()],
    seconds: Histogram,
}

impl Http {
    pub fn new(registry: &Registry) -> Result<Self> {
        let requests = options("http_requests_total", "Requests answered, by route template.");
        let labels = ["route", "method", "status"];
        let help = "Time from the complete header block until the answer was ready.";
        Ok(Self {
            requests: register(registry, IntCounterVec::new(requests, &labels)?)?,
            seconds: register(
                registry,
                HistogramVec::new(seconds("http_request_seconds", help, &BUCKETS), &["route"])?,
            )?,
        })
    }

    pub fn route(&self, route: &str) -> Route {
        Route {
            route: route.to_owned(),
            requests: self.requests.clone(),
            counters: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
            seconds: self.seconds.with_label_values(&[route]),
        }
    }
}

impl Route {
    /// Counts a request that was answered with `status` after `duration`.
    pub fn observe(&self, method: &str, status: u16, duration: Duration) {
        self.seconds.observe(duration.as_secs_f64());
        let method = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1);
        let find =
            || self.requests.with_label_values(&[&self.route, METHODS[method], itoa::Buffer::new().format(status)]);
        match STATUSES.iter().position(|known| *known == status) {
            Some(place) => self.counters[method][place].get_or_init(find).inc(),
            None => find().inc(),
        }
    }
}
