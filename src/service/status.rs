//! How a replica is: readiness, and what its figures are made of.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::domain::{Algorithm, RevocationKind, Timestamp};
use crate::keyring::JwksDocument;
use crate::store::PoolStatus;
use crate::view::Freshness;

use super::{KeyInfo, Service};

/// Whether a replica should be sent requests, check by check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness([bool; 4]);

impl Readiness {
    /// The names of the checks, in the order of [`Readiness::passed`].
    pub const CHECKS: [&str; 4] = ["view_fresh", "signing_key", "clock", "not_stopping"];

    /// Which checks pass.
    pub const fn passed(self) -> [bool; 4] {
        self.0
    }

    /// Whether all do.
    pub fn is_ready(self) -> bool {
        self.0.iter().all(|passed| *passed)
    }
}

/// A replica in one glance.
#[derive(Debug, Clone)]
pub struct Status {
    /// Whether it is ready.
    pub readiness: Readiness,
    /// Upper bound of how old its view is.
    pub view_age: Duration,
    /// Of the last revocation that another replica took: from when that one began to write it until it was honoured here.
    pub last_lag: Duration,
    /// This machine's clock minus the database's.
    pub clock_offset_millis: i64,
    /// Verified tokens in memory.
    pub cached_tokens: usize,
    /// Clients in memory.
    pub clients: usize,
    /// Passwords that wait for a hashing thread.
    pub password_queue: usize,
}

impl Service {
    /// How busy the database connections of requests are.
    pub fn pool_status(&self) -> PoolStatus {
        self.store.pool_status()
    }

    /// Whether this replica should be sent requests. Asks memory only.
    pub fn readiness(&self) -> Readiness {
        let freshness = self.view.freshness(&*self.clock);
        let has_time = !matches!(freshness, Freshness::TimeUnknown(_));
        let is_fresh = !matches!(freshness, Freshness::Stale | Freshness::Empty);
        Readiness([is_fresh, self.can_sign(), has_time, !self.stopping.load(Ordering::Relaxed)])
    }

    /// Whether the time is known.
    pub fn has_time(&self) -> bool {
        !matches!(self.view.freshness(&*self.clock), Freshness::TimeUnknown(_))
    }

    /// Whether everything was loaded that a replica holds in memory.
    pub fn has_started(&self) -> bool {
        self.view.freshness(&*self.clock) != Freshness::Empty
    }

    /// Records why the replica cannot start yet, or that it has. Logs each reason once.
    pub fn set_start_problem(&self, error: Option<&dyn std::error::Error>) {
        let problem = error.map(|error| Arc::new(error.to_string()));
        let known = self.start_problem.swap(problem.clone());
        if let Some(error) = problem.filter(|problem| known.as_ref() != Some(problem)) {
            tracing::error!(%error, "the replica cannot start yet; it is not ready and tries again");
        }
    }

    /// Problems of this replica and its database, for operators.
    pub fn problems(&self) -> Vec<String> {
        let start = self.start_problem.load_full();
        let start = start.iter().map(|problem| format!("the replica has not started: {problem}"));
        let sync = self.follower.sync_error().map(|error| format!("the change feed cannot be followed: {error}"));
        let keys = self.keyring.keys();
        let keys = keys.unreadable().iter().map(|key| key.problem.clone());
        start.chain(sync).chain(self.store.write_problem()).chain(keys).chain(self.view.unreadable_clients()).collect()
    }

    /// Whether a signing key is stored that this replica cannot use.
    pub fn has_unreadable_keys(&self) -> bool {
        !self.keyring.keys().unreadable().is_empty()
    }

    /// How many rows of each table that a replica holds in memory cannot be read.
    pub fn unreadable_rows(&self) -> [(&'static str, usize); 2] {
        [("clients", self.view.unreadable_clients().len()), ("signing_keys", self.keyring.keys().unreadable().len())]
    }

    /// Makes the replica unready for good: the first step of a stop, so that balancers look elsewhere.
    pub fn begin_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// The installation's epoch, as this replica knows it.
    pub fn installation_epoch(&self) -> u32 {
        self.view.installation_epoch()
    }

    /// The replica in one glance.
    pub fn status(&self) -> Status {
        Status {
            readiness: self.readiness(),
            view_age: self.view.age(&*self.clock),
            last_lag: self.follower.last_lag(),
            clock_offset_millis: self.clock.offset_millis(),
            cached_tokens: self.judge.cached(),
            clients: self.view.clients().len(),
            password_queue: self.passwords.queue_depth(),
        }
    }

    /// How many revocations of a kind are in memory.
    pub fn revocations(&self, kind: RevocationKind) -> usize {
        self.view.count(kind)
    }

    /// Whether there is a key to sign with.
    pub fn can_sign(&self) -> bool {
        self.keyring.keys().signer(self.settings.algorithm, self.clock.now()).is_some()
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Now, for deleting what has expired; none while the time is not known. What is deleted early is missed when the
    /// clock is right again.
    pub fn time_to_forget(&self) -> Option<Timestamp> {
        let now = self.clock.now();
        // Asked after the clock was read: a step before that is seen.
        (self.view.freshness(&*self.clock) == Freshness::Fresh).then_some(now)
    }

    /// Frees what is in memory and expired before `now`.
    pub fn sweep_view(&self, now: Timestamp) {
        self.view.sweep(now);
        self.judge.sweep(now);
    }

    /// Seconds until a key stops signing: its retirement, or the end of its regular life while it has no successor.
    pub fn signs_for_seconds(&self, key: &KeyInfo) -> f64 {
        let end = key.schedule.retires_at.unwrap_or_else(|| key.schedule.signs_from.plus(self.settings.rotate_every));
        (end.millis() - self.clock.now().millis()) as f64 / 1000.0
    }

    /// The JWK set, and for how long it may be kept.
    pub fn jwks(&self) -> (Arc<JwksDocument>, Duration) {
        self.keyring.jwks(self.clock.now())
    }

    /// `tokens.algorithm`.
    pub const fn default_algorithm(&self) -> Algorithm {
        self.settings.algorithm
    }
}
