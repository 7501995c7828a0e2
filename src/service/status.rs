//! The state of a replica: readiness, problems, and values for metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::domain::{Algorithm, RevocationKind, Timestamp};
use crate::replica::Replica;
use crate::replica::keyring::JwksDocument;
use crate::replica::view::Freshness;
use crate::service::{Judge, KeyInfo, Passwords, Settings};
use crate::store::PoolStatus;

/// The readiness checks of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness([bool; 4]);

impl Readiness {
    /// The names of the checks, in the order of [`Readiness::passed`].
    pub const CHECKS: [&str; 4] = ["view_fresh", "signing_key", "clock", "not_stopping"];

    /// Which checks pass.
    pub const fn passed(self) -> [bool; 4] {
        self.0
    }

    /// Whether all checks pass.
    pub fn is_ready(self) -> bool {
        self.0.iter().all(|passed| *passed)
    }
}

/// Values for metrics and `countersign status`.
#[derive(Debug, Clone)]
pub struct Status {
    pub readiness: Readiness,
    /// An upper bound.
    pub view_age: Duration,
    /// Propagation delay of the last revocation received from another replica.
    pub last_lag: Duration,
    /// This machine's clock minus the database's.
    pub clock_offset_millis: i64,
    /// Tokens in the verified-token cache.
    pub cached_tokens: usize,
    /// Clients in the view.
    pub clients: usize,
    /// Passwords waiting for a hashing thread.
    pub password_queue: usize,
}

/// The state of this replica.
pub struct ReplicaStatus {
    pub(crate) replica: Replica,
    pub(crate) judge: Arc<Judge>,
    pub(crate) passwords: Arc<Passwords>,
    pub(crate) settings: Settings,
    pub(crate) stopping: Arc<AtomicBool>,
    /// Why the replica has not started yet.
    pub(crate) start_problem: ArcSwapOption<String>,
}

impl ReplicaStatus {
    /// Use of the database connections for requests.
    pub fn pool_status(&self) -> PoolStatus {
        self.replica.store.pool_status()
    }

    /// Whether this replica can serve requests. Reads only memory.
    pub fn readiness(&self) -> Readiness {
        let freshness = self.replica.view.freshness(&*self.replica.clock);
        let has_time = !matches!(freshness, Freshness::TimeUnknown(_));
        let is_fresh = !matches!(freshness, Freshness::Stale | Freshness::Empty);
        Readiness([is_fresh, self.can_sign(), has_time, !self.stopping.load(Ordering::Relaxed)])
    }

    pub fn has_time(&self) -> bool {
        self.replica.view.has_time(&*self.replica.clock)
    }

    /// Whether the view has been loaded.
    pub fn has_started(&self) -> bool {
        self.replica.view.is_loaded()
    }

    /// Records why the replica cannot start yet, or with `None` that it has started. Logs each reason once.
    pub fn set_start_problem(&self, error: Option<&dyn std::error::Error>) {
        let problem = error.map(|error| Arc::new(error.to_string()));
        let known = self.start_problem.swap(problem.clone());
        if let Some(error) = problem.filter(|problem| known.as_ref() != Some(problem)) {
            tracing::error!(%error, "the replica cannot start yet and keeps trying; it is not ready");
        }
    }

    /// Problems of this replica and its database, as texts for operators.
    pub fn problems(&self) -> Vec<String> {
        let start = self.start_problem.load_full();
        let start = start.iter().map(|problem| format!("the replica has not started: {problem}"));
        let sync =
            self.replica.follower.sync_error().map(|error| format!("the change feed cannot be followed: {error}"));
        let keys = self.replica.keyring.keys();
        let keys = keys.unreadable().iter().map(|key| key.problem.clone());
        start
            .chain(sync)
            .chain(self.replica.store.write_problem())
            .chain(keys)
            .chain(self.replica.view.unreadable_clients())
            .collect()
    }

    /// Whether the database contains a signing key that this replica cannot use.
    pub fn has_unreadable_keys(&self) -> bool {
        !self.replica.keyring.keys().unreadable().is_empty()
    }

    /// Number of unreadable rows in each table that the view or the key ring loads.
    pub fn unreadable_rows(&self) -> [(&'static str, usize); 2] {
        [
            ("clients", self.replica.view.unreadable_clients().len()),
            ("signing_keys", self.replica.keyring.keys().unreadable().len()),
        ]
    }

    /// Makes the replica unready until the process ends. The first step of a stop, so that load balancers use other replicas.
    pub fn begin_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// The epoch of the installation, according to the view.
    pub fn installation_epoch(&self) -> u32 {
        self.replica.view.installation_epoch()
    }

    pub fn status(&self) -> Status {
        Status {
            readiness: self.readiness(),
            view_age: self.replica.view.age(&*self.replica.clock),
            last_lag: self.replica.follower.last_lag(),
            clock_offset_millis: self.replica.clock.offset_millis(),
            cached_tokens: self.judge.cached(),
            clients: self.replica.view.clients().len(),
            password_queue: self.passwords.hasher.queue_depth(),
        }
    }

    /// Number of revocations of a kind in the view.
    pub fn revocations(&self, kind: RevocationKind) -> usize {
        self.replica.view.count(kind)
    }

    /// Whether a key signs with the default algorithm now.
    pub fn can_sign(&self) -> bool {
        self.replica.keyring.keys().signer(self.settings.algorithm, self.replica.clock.now()).is_some()
    }

    pub fn now(&self) -> Timestamp {
        self.replica.clock.now()
    }

    /// The time for deleting expired data; `None` while the view is not fresh. Data deleted too early would be missing once the
    /// clock is right again.
    pub fn time_to_forget(&self) -> Option<Timestamp> {
        let now = self.replica.clock.now();
        // Checked after the clock was read, so that an earlier step of the clock is noticed.
        (self.replica.view.freshness(&*self.replica.clock) == Freshness::Fresh).then_some(now)
    }

    /// Removes data from memory that expired before `now`.
    pub fn sweep_view(&self, now: Timestamp) {
        self.replica.view.sweep(now);
        self.judge.sweep(now);
        self.replica.follower.log().sweep(now);
    }

    /// Seconds until a key stops signing: until its retirement, or until its regular rotation if it has no successor.
    pub fn signs_for_seconds(&self, key: &KeyInfo) -> f64 {
        let end = key.schedule.retires_at.unwrap_or_else(|| key.schedule.signs_from.plus(self.settings.rotate_every));
        (end.millis() - self.replica.clock.now().millis()) as f64 / 1000.0
    }

    /// The JWK set and its `max-age`.
    pub fn jwks(&self) -> (Arc<JwksDocument>, Duration) {
        self.replica.keyring.jwks(self.replica.clock.now())
    }

    pub const fn default_algorithm(&self) -> Algorithm {
        self.settings.algorithm
    }
}
