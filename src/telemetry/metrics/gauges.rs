//! Gauges, and counters that are read at the scrape.

use prometheus::{Gauge, GaugeVec, IntCounter, IntGauge, IntGaugeVec, Registry, Result};

use super::labels::{Family, ListenerName, options, register};
use crate::domain::{Algorithm, Kid, RevocationKind};

/// The state of one replica. Fill it in a closure given to [`super::Metrics::at_scrape`].
pub struct Gauges {
    /// `revocations_live{kind}`.
    pub revocations_live: Family<RevocationKind, IntGauge>,
    /// `view_age_seconds`: compare it with `revocation.max_lag`.
    pub view_age_seconds: Gauge,
    /// `clock_offset_seconds`: this machine's clock minus the database's.
    pub clock_offset_seconds: Gauge,
    /// `verified_cache_entries`.
    pub verified_cache_entries: IntGauge,
    /// `password_queue_depth`.
    pub password_queue_depth: IntGauge,
    /// `database_pool_in_use`.
    pub database_pool_in_use: IntGauge,
    /// `database_pool_idle`.
    pub database_pool_idle: IntGauge,
    /// `database_pool_waiting`.
    pub database_pool_waiting: IntGauge,
    /// `feed_readers`.
    pub feed_readers: IntGauge,
    /// `sqlite_wal_bytes`.
    pub sqlite_wal_bytes: IntGauge,
    connections: Family<ListenerName, IntGauge>,
    connections_refused: Family<ListenerName, IntCounter>,
    connections_evicted: Family<ListenerName, IntCounter>,
    log_lines_dropped: IntCounter,
    ready: IntGaugeVec,
    rows: IntGaugeVec,
    unreadable_rows: IntGaugeVec,
    signing_key_expires: GaugeVec,
}

impl Gauges {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let integer = |name, help| register(registry, IntGauge::with_opts(options(name, help))?);
        let real = |name, help| register(registry, Gauge::with_opts(options(name, help))?);
        let dropped =
            options("log_lines_dropped_total", "Log lines lost because the sink was too slow or refused them.");
        let ready = options("ready", "1 while the readiness check passes: tells why a replica is not ready.");
        let rows = options("rows", "Rows of a table.");
        let unreadable = options("unreadable_rows", "Rows of a table that the replica cannot read or open.");
        let keys =
            options("signing_key_expires_seconds", "Time until the key stops signing; negative when that is overdue.");
        Ok(Self {
            revocations_live: Family::gauges(registry, "revocations_live", "Revocations that are in force.", "kind")?,
            view_age_seconds: real("view_age_seconds", "Age of the view: time since the last successful sync began.")?,
            clock_offset_seconds: real("clock_offset_seconds", "This machine's clock minus the database's.")?,
            verified_cache_entries: integer("verified_cache_entries", "Tokens whose signature is remembered.")?,
            password_queue_depth: integer("password_queue_depth", "Logins that wait for a password hash.")?,
            database_pool_in_use: integer("database_pool_in_use", "Database connections at work.")?,
            database_pool_idle: integer("database_pool_idle", "Database connections without work.")?,
            database_pool_waiting: integer("database_pool_waiting", "Requests that wait for a database connection.")?,
            feed_readers: integer("feed_readers", "Requests that read the revocation feed.")?,
            sqlite_wal_bytes: integer("sqlite_wal_bytes", "Size of SQLite's write-ahead log; 0 with PostgreSQL.")?,
            connections: Family::gauges(registry, "connections", "Open connections of callers.", "listener")?,
            connections_refused: Family::counters(
                registry,
                "connections_refused_total",
                "Connections closed at once because their address had as many as it may.",
                "listener",
            )?,
            connections_evicted: Family::counters(
                registry,
                "connections_evicted_total",
                "Idle connections closed because the listener had almost as many as it may.",
                "listener",
            )?,
            log_lines_dropped: register(registry, IntCounter::with_opts(dropped)?)?,
            ready: register(registry, IntGaugeVec::new(ready, &["check"])?)?,
            rows: register(registry, IntGaugeVec::new(rows, &["table"])?)?,
            unreadable_rows: register(registry, IntGaugeVec::new(unreadable, &["table"])?)?,
            signing_key_expires: register(registry, GaugeVec::new(keys, &["kid", "alg"])?)?,
        })
    }

    /// `log_lines_dropped_total`, as the log counts it.
    pub fn set_log_lines_dropped(&self, total: u64) {
        raise(&self.log_lines_dropped, total);
    }

    /// `connections{listener}`, `connections_refused_total{listener}` and `connections_evicted_total{listener}`.
    pub fn set_connections(&self, listener: ListenerName, open: usize, refused: usize, evicted: usize) {
        self.connections.of(listener).set(i64::try_from(open).unwrap_or(i64::MAX));
        raise(self.connections_refused.of(listener), refused as u64);
        raise(self.connections_evicted.of(listener), evicted as u64);
    }

    /// `ready{check}`.
    pub fn set_ready(&self, check: &str, passes: bool) {
        self.ready.with_label_values(&[check]).set(i64::from(passes));
    }

    /// `rows{table}`.
    pub fn set_rows(&self, table: &str, rows: u64) {
        self.rows.with_label_values(&[table]).set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    /// `unreadable_rows{table}`.
    pub fn set_unreadable_rows(&self, table: &str, rows: usize) {
        self.unreadable_rows.with_label_values(&[table]).set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    /// `signing_key_expires_seconds{kid,alg}`, only for the keys that sign now.
    pub fn set_signing_keys<'a>(&self, keys: impl IntoIterator<Item = (&'a Kid, Algorithm, f64)>) {
        self.signing_key_expires.reset();
        for (kid, algorithm, seconds) in keys {
            self.signing_key_expires.with_label_values(&[kid.as_str(), algorithm.as_str()]).set(seconds);
        }
    }
}

/// Raises a counter to a total that is counted elsewhere. Scrapes run one at a time, so no increment is added twice.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}
