//! The background work of a replica: follow the feed, maintain keys, sweep, and fill the gauges.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::Core;
use crate::config::Config;
use crate::domain::{KeyPhase, RevocationKind, Timestamp};
use crate::service::{Readiness, Service};
use crate::store::{Round, Store, SweepCursor, SweepStep};
use crate::telemetry::{Logger, Metrics};

/// The interval between two checks whether a key is due.
const MAINTAIN_KEYS_EVERY: Duration = Duration::from_secs(10);
/// The interval between two sweeps when no deletable rows are left, and between two rounds through a table.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// How long a replica keeps a sweep before another may take it. A replica that stops responding blocks it for twice this.
const SWEEP_FOR: Duration = Duration::from_secs(30);
/// The interval between two batches of a round. A batch costs the database a few milliseconds, so the load is some
/// tenths of a percent of one core. A round through ten million sessions takes three hours.
const STEP_EVERY: Duration = Duration::from_secs(1);
/// The interval after a batch that deleted rows. A shorter one would slow refreshes down.
const STEP_AFTER_DELETING: Duration = Duration::from_millis(200);
/// The interval between two checks of the stored passwords' schemes: another process may import users.
const LEARN_SCHEMES_EVERY: Duration = Duration::from_secs(60);
/// The interval between two counts of rows.
const COUNT_ROWS_EVERY: Duration = Duration::from_secs(60);
/// The interval between two writes of the events that are counted in memory.
const AUDIT_COUNTS_EVERY: Duration = Duration::from_secs(60);
/// SQLite's write-ahead log is reported above this size, in bytes. A checkpoint cuts it back to a quarter of this,
/// unless a reader prevents it.
const LARGE_WAL: u64 = 256 * 1024 * 1024;
/// The delay before a loop that ended unexpectedly is restarted.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// The running loops.
#[derive(Debug)]
pub struct Loops(TaskTracker);

impl Loops {
    /// Waits until all loops have ended.
    pub async fn wait(self) {
        self.0.close();
        self.0.wait().await;
    }
}

/// Starts every loop. The loops end when `stop` is cancelled.
pub fn start(core: &Core, config: &Config, stop: CancellationToken) -> Loops {
    let tracker = TaskTracker::new();
    let follower = Arc::clone(&core.follower);
    supervise(&tracker, "follow the feed", stop.clone(), move |stop| {
        let follower = Arc::clone(&follower);
        async move { follower.run(&stop).await }
    });
    let service = Arc::clone(&core.service);
    supervise(&tracker, "maintain keys", stop.clone(), move |stop| maintain_keys(Arc::clone(&service), stop));
    let (service, store, retention) = (Arc::clone(&core.service), core.store.clone(), config.audit.retention);
    supervise(&tracker, "sweep", stop.clone(), move |stop| sweep(Arc::clone(&service), store.clone(), retention, stop));
    for (name, round) in [("sweep sessions", Round::Sessions), ("sweep login attempts", Round::LoginAttempts)] {
        let (service, store) = (Arc::clone(&core.service), core.store.clone());
        supervise(&tracker, name, stop.clone(), move |stop| {
            sweep_rounds(round, Arc::clone(&service), store.clone(), stop)
        });
    }
    let service = Arc::clone(&core.service);
    supervise(&tracker, "learn password schemes", stop.clone(), move |stop| {
        learn_password_schemes(Arc::clone(&service), stop)
    });
    let service = Arc::clone(&core.service);
    supervise(&tracker, "audit counts", stop.clone(), move |stop| audit_counts(Arc::clone(&service), stop));
    let (metrics, store) = (Arc::clone(&core.metrics), core.store.clone());
    supervise(&tracker, "count rows", stop, move |stop| count_rows(Arc::clone(&metrics), store.clone(), stop));
    Loops(tracker)
}

/// Runs a loop until `stop`, and restarts it if it ends or panics earlier. Without its follower, a replica would only
/// become stale.
pub fn supervise<F>(
    tracker: &TaskTracker,
    name: &'static str,
    stop: CancellationToken,
    make: impl Fn(CancellationToken) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send,
{
    tracker.spawn(async move {
        while !stop.is_cancelled() {
            let outcome = std::panic::AssertUnwindSafe(make(stop.clone())).catch_unwind().await;
            if stop.is_cancelled() {
                return;
            }
            match outcome {
                Ok(()) => tracing::error!(task = name, "a background loop ended; it is started again"),
                Err(_) => tracing::error!(task = name, "a background loop panicked; it is started again"),
            }
            pause(RESTART_AFTER, &stop).await;
        }
    });
}

/// Fills the gauges at each scrape. Reads only memory. The metrics own this closure, so it holds only a weak reference
/// to the service. A reference cycle would keep the service and its store's connections open forever.
pub fn fill_gauges(metrics: &Metrics, service: &Arc<Service>, logger: &Logger) {
    let (service, logger) = (Arc::downgrade(service), logger.clone());
    metrics.at_scrape(move |gauges| {
        let Some(service) = service.upgrade() else { return };
        let status = service.status.status();
        for kind in RevocationKind::ALL {
            gauges.revocations_live.of(kind).set(as_i64(service.status.revocations(kind)));
        }
        for (check, passes) in Readiness::CHECKS.iter().zip(status.readiness.passed()) {
            gauges.set_ready(check, passes);
        }
        for (table, rows) in service.status.unreadable_rows() {
            gauges.set_unreadable_rows(table, rows);
        }
        gauges.view_age_seconds.set(status.view_age.as_secs_f64());
        gauges.clock_offset_seconds.set(status.clock_offset_millis as f64 / 1000.0);
        gauges.verified_cache_entries.set(as_i64(status.cached_tokens));
        gauges.password_queue_depth.set(as_i64(status.password_queue));
        gauges.feed_readers.set(as_i64(service.feed.readers()));
        let pool = service.status.pool_status();
        gauges.database_pool_in_use.set(as_i64(pool.in_use));
        gauges.database_pool_idle.set(as_i64(pool.idle));
        gauges.database_pool_waiting.set(as_i64(pool.waiting));
        let keys = service.keys.key_infos();
        let signing = keys.iter().filter(|key| key.phase == KeyPhase::Signing);
        gauges.set_signing_keys(signing.map(|key| (&key.kid, key.algorithm, service.status.signs_for_seconds(key))));
        gauges.set_log_lines_dropped(logger.dropped_lines());
    });
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

async fn maintain_keys(service: Arc<Service>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = service.keys.maintain_keys().await {
            tracing::error!(%error, "the signing keys could not be maintained; the present key goes on signing");
        }
        pause(MAINTAIN_KEYS_EVERY, &stop).await;
    }
}

async fn learn_password_schemes(service: Arc<Service>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        pause(LEARN_SCHEMES_EVERY, &stop).await;
        if let Err(error) = service.passwords.learn_password_schemes().await {
            tracing::debug!(%error, "the schemes of stored passwords could not be read");
        }
    }
}

/// Frees this replica's memory, and deletes rows unless another replica does.
async fn sweep(service: Arc<Service>, store: Store, retention: Duration, stop: CancellationToken) {
    const NAME: &str = "expired rows";
    while !stop.is_cancelled() {
        let mut next = SWEEP_EVERY;
        if let Some(now) = service.status.time_to_forget() {
            service.status.sweep_view(now);
            if let Some(cursor) = taken(&store, NAME, now).await {
                let swept = store.sweep(Some(retention), now).await;
                for (table, error) in swept.failed {
                    tracing::warn!(table, %error, "a table could not be swept");
                }
                next = if swept.has_more { STEP_EVERY } else { SWEEP_EVERY };
                returned(&store, NAME, &cursor, now.plus(next)).await;
            }
        }
        pause(next, &stop).await;
    }
}

async fn sweep_rounds(round: Round, service: Arc<Service>, store: Store, stop: CancellationToken) {
    let name = match round {
        Round::Sessions => "sessions",
        Round::LoginAttempts => "login attempts",
    };
    while !stop.is_cancelled() {
        let began = service.status.time_to_forget();
        if let Some(began) = began
            && let Some(mut cursor) = taken(&store, name, began).await
        {
            let mut last = began;
            let mut look = SweepStep::Deleted(0);
            while let Some(now) = service.status.time_to_forget().filter(|now| now.since(began) < SWEEP_FOR) {
                last = now;
                look = store.sweep_round(round, &mut cursor, now).await.unwrap_or_else(|error| {
                    tracing::warn!(?round, %error, "a table could not be swept");
                    SweepStep::RoundOver
                });
                if look == SweepStep::RoundOver || stop.is_cancelled() {
                    break;
                }
                pause(until_next_step(look), &stop).await;
            }
            let is_over = look == SweepStep::RoundOver;
            returned(&store, name, &cursor, if is_over { last.plus(SWEEP_EVERY) } else { last }).await;
            pause(until_next_step(look), &stop).await;
        } else {
            pause(SWEEP_EVERY, &stop).await;
        }
    }
}

/// The position of a sweep that this replica took.
async fn taken(store: &Store, name: &'static str, now: Timestamp) -> Option<SweepCursor> {
    store.take_sweep(name, now.plus(2 * SWEEP_FOR), now).await.unwrap_or_else(|error| {
        tracing::warn!(sweep = name, %error, "a sweep could not be taken");
        None
    })
}

/// If this fails, another replica continues when the sweep's time is over.
async fn returned(store: &Store, name: &'static str, cursor: &SweepCursor, next_at: Timestamp) {
    if let Err(error) = store.return_sweep(name, cursor, next_at).await {
        tracing::debug!(sweep = name, %error, "a sweep could not be returned");
    }
}

const fn until_next_step(look: SweepStep) -> Duration {
    match look {
        SweepStep::RoundOver => SWEEP_EVERY,
        SweepStep::Deleted(0) => STEP_EVERY,
        SweepStep::Deleted(_) => STEP_AFTER_DELETING,
    }
}

/// Writes once more after the stop, so that an orderly end loses no counted events.
async fn audit_counts(service: Arc<Service>, stop: CancellationToken) {
    loop {
        pause(AUDIT_COUNTS_EVERY, &stop).await;
        if let Err(error) = service.introspection.audit_denials().await {
            tracing::warn!(%error, "denied introspections could not be written into the audit trail yet");
        }
        if let Err(error) = service.passwords.audit_failed_logins().await {
            tracing::warn!(%error, "failed logins could not be written into the audit trail yet");
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

async fn count_rows(metrics: Arc<Metrics>, store: Store, stop: CancellationToken) {
    let mut was_large = false;
    while !stop.is_cancelled() {
        let wal = store.wal_bytes().await.unwrap_or(0);
        metrics.gauges().sqlite_wal_bytes.set(i64::try_from(wal).unwrap_or(i64::MAX));
        let is_large = wal > LARGE_WAL;
        if is_large && !was_large {
            tracing::warn!(
                bytes = wal,
                "the write-ahead log of SQLite grows: another process holds a read transaction open"
            );
        }
        was_large = is_large;
        match store.row_counts().await {
            Ok(counts) => {
                for (table, rows) in counts {
                    metrics.gauges().set_rows(&table, u64::try_from(rows).unwrap_or(0));
                }
            }
            Err(error) => tracing::debug!(%error, "the rows could not be counted"),
        }
        pause(COUNT_ROWS_EVERY, &stop).await;
    }
}

/// Waits, but not beyond `stop`.
async fn pause(duration: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(duration) => {}
        () = stop.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SWEEP_BATCH;

    #[test]
    fn d7_a_round_through_ten_million_rows_takes_hours_and_not_days() {
        let round = |look| until_next_step(look) * (10_000_000 / SWEEP_BATCH);
        assert!(round(SweepStep::Deleted(0)) < Duration::from_secs(3 * 3600), "where nothing has expired");
        assert!(round(SweepStep::Deleted(1)) < Duration::from_secs(3600), "where something expired in each batch");
    }
}
