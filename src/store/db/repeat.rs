//! Runs a job on PostgreSQL until it commits or fails permanently.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::fault::Fault;
use super::pool::{Lease, Pool, Share};
use super::postgres::PostgresConnector;
use super::tx::{Tx, Written};
use crate::store::StoreError;

/// Maximum number of runs of a transaction after conflicts. The pause between two runs is at least [`PAUSE`].
pub(super) const MAX_RUNS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);
/// The longest pause, as a multiple of the shortest.
const LONGEST_PAUSE: u32 = 10;

/// Runs `job` in a transaction and commits it. Also returns whether to wake the followers of the feed. A transaction
/// that lost a conflict is run again. One whose connection died before the commit was sent is run once more.
pub(super) async fn run_until_committed<I, T, F>(
    pool: &Arc<Pool>,
    connector: &PostgresConnector,
    patience: Duration,
    input: &I,
    job: &F,
) -> Result<(Written<T>, bool), StoreError>
where
    F: for<'a> Fn(&'a mut Tx, &'a I) -> BoxFuture<'a, Result<T, StoreError>>,
{
    let mut runs = 0;
    loop {
        runs += 1;
        let Lease { connection, slot } = pool.acquire(Share::Rest).await.map_err(|failure| failure.error)?;
        let mut tx = Tx::new(connection, patience);
        let mut is_committing = false;
        let outcome = run_and_commit(&mut tx, connector, input, job, &mut is_committing).await;
        let error = match outcome {
            Ok(written) => {
                let has_changes = tx.has_changes();
                slot.give_back(tx.into_connection());
                return Ok((written, has_changes));
            }
            Err(error) => error,
        };
        let fault = tx.fault();
        if fault.is_some_and(Fault::is_of_connection) {
            slot.give_up(tx.into_connection());
            if is_committing {
                return Err(error.after_commit_was_sent());
            }
            // Before the commit was sent, a dead connection means that no change was made.
            if runs > 1 {
                return Err(error);
            }
            continue;
        }
        match tx.control("ROLLBACK").await {
            Ok(()) => slot.give_back(tx.into_connection()),
            Err(_) => slot.give_up(tx.into_connection()),
        }
        if fault != Some(Fault::Contention) || runs >= MAX_RUNS {
            return Err(error);
        }
        pause(runs).await;
    }
}

/// Lets the winning transaction finish. The pause grows with the number of attempts; returns its length.
pub(in crate::store) async fn pause(runs: u32) -> Duration {
    let pause = PAUSE.saturating_mul(runs.min(LONGEST_PAUSE));
    tokio::time::sleep(pause).await;
    pause
}

async fn run_and_commit<I, T, F>(
    tx: &mut Tx,
    connector: &PostgresConnector,
    input: &I,
    job: &F,
    is_committing: &mut bool,
) -> Result<Written<T>, StoreError>
where
    F: for<'a> Fn(&'a mut Tx, &'a I) -> BoxFuture<'a, Result<T, StoreError>>,
{
    tx.control(connector.begin()).await.map_err(|failure| failure.error)?;
    let value = job(tx, input).await?;
    let value = tx.unless_failed(value)?;
    *is_committing = true;
    tx.control("COMMIT").await.map_err(|failure| failure.error)?;
    Ok(Written { value, changes: tx.take_changes() })
}
