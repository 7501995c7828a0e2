//! The metrics, with the prefix `countersign_`.
//!
//! On the request path a metric is an atomic increment of a counter found by index. Values that can be read on demand
//! are read at the scrape: see [`Metrics::at_scrape`]. Labels have few values; none is an id of a user, client or
//! token.

mod gauges;
mod http;
mod labels;
mod process;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntGaugeVec, Registry, Result, TextEncoder};

pub use gauges::Gauges;
pub use http::Route;
pub use labels::{
    Family, FeedItemType, Grid, IntrospectionResult, Label, Limit, ListenerName, LoginResult, RefreshResult,
};

use labels::{options, register};

use super::request::CacheUse;
use crate::domain::{Grant, Timestamp};

/// In seconds: from a look-up in memory to a wait for a busy core.
const INTROSPECTION_BUCKETS: [f64; 12] =
    [0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25];
/// In seconds: around the 30 ms of the default parameters, and up to a delay that users notice.
const HASH_BUCKETS: [f64; 10] = [0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
/// In seconds: around the documented bounds of tens of milliseconds, one second and `revocation.max_lag`.
const LAG_BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0];
/// In seconds: from a read of the embedded database to the statement timeout.
const DATABASE_BUCKETS: [f64; 13] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// A closure that fills gauges at a scrape.
type Filler = Box<dyn Fn(&Gauges) + Send + Sync>;

/// Every metric of one replica.
pub struct Metrics {
    /// `introspections_total{result,cache}`, forward-auth included.
    pub introspections: Grid<IntrospectionResult, Option<CacheUse>>,
    /// `introspection_seconds`.
    pub introspection_seconds: Histogram,
    /// `logins_total{result}`.
    pub logins: Family<LoginResult, IntCounter>,
    /// `refreshes_total{result}`.
    pub refreshes: Family<RefreshResult, IntCounter>,
    /// `tokens_issued_total{grant}`.
    pub tokens_issued: Family<Grant, IntCounter>,
    /// `attempts_refused_total{limit}`.
    pub attempts_refused: Family<Limit, IntCounter>,
    /// `password_hash_seconds`.
    pub password_hash_seconds: Histogram,
    /// `revocation_lag_seconds`.
    pub revocation_lag_seconds: Histogram,
    /// `feed_items_total{type}`.
    pub feed_items: Family<FeedItemType, IntCounter>,
    /// `feed_delivery_seconds`.
    pub feed_delivery_seconds: Histogram,
    cache_hits: IntCounter,
    cache_misses: IntCounter,
    database_seconds: HistogramVec,
    http: http::Http,
    gauges: Gauges,
    process: process::Process,
    /// Locked during a scrape, because gauges are reset and filled, or read and raised.
    fillers: Mutex<Vec<Filler>>,
    registry: Registry,
}

impl Metrics {
    /// All metrics at zero. Fails only if two metrics have the same name.
    pub fn new(version: &str, started_at: Timestamp) -> Result<Self> {
        let registry = Registry::new();
        let histogram =
            |name, help, buckets: &[f64]| register(&registry, Histogram::with_opts(seconds(name, help, buckets))?);
        let counter = |name, help| register(&registry, IntCounter::with_opts(options(name, help))?);
        let build = IntGaugeVec::new(options("build_info", "Always 1; the labels say what runs."), &["version"])?;
        register(&registry, build)?.with_label_values(&[version]).set(1);
        let statements = seconds("database_seconds", "Time that a statement or transaction took.", &DATABASE_BUCKETS);
        Ok(Self {
            introspections: Grid::counters(
                &registry,
                "introspections_total",
                "Tokens judged, by result and by whether the signature was remembered.",
                ["result", "cache"],
            )?,
            introspection_seconds: histogram(
                "introspection_seconds",
                "Time to judge one token, the caller included.",
                &INTROSPECTION_BUCKETS,
            )?,
            logins: Family::counters(&registry, "logins_total", "Login attempts.", "result")?,
            refreshes: Family::counters(&registry, "refreshes_total", "Refresh attempts.", "result")?,
            tokens_issued: Family::counters(&registry, "tokens_issued_total", "Access tokens issued.", "grant")?,
            attempts_refused: Family::counters(
                &registry,
                "attempts_refused_total",
                "Attempts refused because a limit was reached.",
                "limit",
            )?,
            password_hash_seconds: histogram("password_hash_seconds", "Time of one password hash.", &HASH_BUCKETS)?,
            revocation_lag_seconds: histogram(
                "revocation_lag_seconds",
                "Time from when another replica began to write a revocation until this one applied it.",
                &LAG_BUCKETS,
            )?,
            feed_items: Family::counters(
                &registry,
                "feed_items_total",
                "Items of the revocation feed sent to readers.",
                "type",
            )?,
            feed_delivery_seconds: histogram(
                "feed_delivery_seconds",
                "Time from the start of a revocation's write until it was sent to a reader of the feed's stream.",
                &LAG_BUCKETS,
            )?,
            cache_hits: counter("verified_cache_hits_total", "Tokens whose signature was remembered.")?,
            cache_misses: counter("verified_cache_misses_total", "Tokens whose signature had to be verified.")?,
            database_seconds: register(&registry, HistogramVec::new(statements, &["query"])?)?,
            http: http::Http::new(&registry)?,
            gauges: Gauges::new(&registry)?,
            process: process::Process::new(&registry, started_at)?,
            fillers: Mutex::default(),
            registry,
        })
    }

    /// Counts a judged token. The metrics of the caches follow from it.
    pub fn introspection(&self, result: IntrospectionResult, cache: Option<CacheUse>, duration: Duration) {
        self.introspections.count(result, cache);
        match cache {
            Some(CacheUse::Hit) => self.cache_hits.inc(),
            Some(CacheUse::Miss) => self.cache_misses.inc(),
            None => {}
        }
        self.introspection_seconds.observe(duration.as_secs_f64());
    }

    /// Counts a statement or transaction by its name.
    pub fn database(&self, query: &'static str, duration: Duration) {
        self.database_seconds.with_label_values(&[query]).observe(duration.as_secs_f64());
    }

    /// The metrics of a route, by its template. Make them once and keep them, because each look-up takes a lock.
    pub fn route(&self, template: &str) -> Route {
        self.http.route(template)
    }

    /// The gauges that change with events instead of at the scrape, such as the rows of a table.
    pub const fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// Calls `fill` at each scrape, before the metrics are rendered. Scrapes run one at a time.
    pub fn at_scrape(&self, fill: impl Fn(&Gauges) + Send + Sync + 'static) {
        self.fillers.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(fill));
    }

    /// Every metric in Prometheus' text form, version 0.0.4. Reads files below `/proc` and waits for a scrape in
    /// progress, so the calling thread must be allowed to block.
    pub fn render(&self) -> String {
        let fillers = self.fillers.lock().unwrap_or_else(PoisonError::into_inner);
        for fill in fillers.iter() {
            fill(&self.gauges);
        }
        self.process.update();
        let mut text = String::new();
        // Encoding fails only for a family without metrics, which the registry leaves out.
        let _ = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text);
        text
    }
}

fn seconds(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::from(options(name, help)).buckets(buckets.to_vec())
}

#[cfg(test)]
mod tests;
