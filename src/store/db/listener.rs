//! Wakes the follower when PostgreSQL announces new entries on the feed.

use std::time::Duration;

use sqlx::Executor as _;
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions};

use super::fault::Failure;
use super::postgres::PostgresConnector;
use crate::store::StoreError;

/// The channel of `LISTEN` and `NOTIFY`.
const CHANNEL: &str = "countersign_changes";

/// Wakes every listener of every replica.
pub(super) const NOTIFY: &str = "SELECT pg_notify('countersign_changes', '')";

/// A silent connection is tested after this time: a cut cable is silent too.
const SILENCE: Duration = Duration::from_secs(5);

/// Time limit for connecting, and for the answer to that test.
const PATIENCE: Duration = Duration::from_secs(2);

/// Wakes a follower of the feed. Notifications only shorten the delay (security.md C5): the follower polls in any case,
/// and requests a new listener when this one fails.
pub struct ChangeListener(PgListener);

impl ChangeListener {
    pub(super) async fn connect(connector: &PostgresConnector) -> Result<Self, StoreError> {
        let lost = |error: sqlx::Error| {
            let failure = Failure::from(error);
            if matches!(failure.error, StoreError::Misconfigured(_)) {
                // The next attempt uses the address that was read.
                let _ = connector.read_options_again();
            }
            failure.into_outage().error
        };
        let pool: PgPool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(PATIENCE)
            .connect_lazy_with(connector.options());
        let mut listener = PgListener::connect_with(&pool).await.map_err(lost)?;
        // A lost connection is reported, because its notifications are lost too.
        listener.eager_reconnect(false);
        let listening = tokio::time::timeout(PATIENCE, listener.listen(CHANNEL)).await;
        listening.map_err(|_| Failure::no_answer(PATIENCE).error)?.map_err(lost)?;
        Ok(Self(listener))
    }

    /// Waits for new entries. Cancel-safe. An error ends this listener.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        loop {
            match tokio::time::timeout(SILENCE, self.0.try_recv()).await {
                Ok(Ok(Some(_))) => {
                    // Several commits may have been announced together; one poll of the feed reads them all.
                    while self.0.next_buffered().is_some() {}
                    return Ok(());
                }
                Ok(Ok(None)) => return Err(StoreError::Unavailable("the listening connection was lost".to_owned())),
                Ok(Err(error)) => return Err(Failure::from(error).error),
                Err(_) => self.prove_alive().await?,
            }
        }
    }

    async fn prove_alive(&mut self) -> Result<(), StoreError> {
        let answer = tokio::time::timeout(PATIENCE, self.0.execute("SELECT 1")).await;
        answer.map_err(|_| Failure::no_answer(PATIENCE).error)?.map_err(|error| Failure::from(error).error)?;
        Ok(())
    }
}
