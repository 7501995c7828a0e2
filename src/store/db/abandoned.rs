//! Abandoned statements: the client gave up, but the server may still run them.
//!
//! PostgreSQL ends a statement that takes too long, but not a commit. A commit that waits for a lost synchronous
//! standby or a hanging disk keeps its server process, even after its client disconnects. If each abandoned commit
//! freed its slot in the pool, the writes of one minute would take every connection of the server. The feed would then
//! fail with the writes. So the slot of an abandoned statement stays taken until the server reports that its process is
//! idle. A pool has at most as many abandoned statements as its size, unless the server could not be queried in
//! between.
//!
//! Abandoned statements are not cancelled. The driver has no way to cancel them. PostgreSQL also answers the
//! cancellation of a commit that waits for its standby by making the commit visible before it is safe. PostgreSQL
//! itself must detect the closed connection (`client_connection_check_interval`, TCP keep-alive). It also bounds
//! connections that never reached a statement (`authentication_timeout`).

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::pool::{Place, Pool};

/// Delay before the server is first queried; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause: each query costs the server a connection.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The pool slots of abandoned statements.
#[derive(Default)]
pub(super) struct Abandoned(Mutex<Vec<(i32, Place)>>);

impl Abandoned {
    /// Keeps the slot of a statement for as long as the server process works on it.
    pub(super) fn keep(&self, pool: &Arc<Pool>, backend: i32, place: Place) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push((backend, place));
        if kept.len() == 1 {
            tracing::warn!(
                backend,
                "a statement got no answer; its slot of the pool stays taken until PostgreSQL ends the statement"
            );
            tokio::spawn(watch(Arc::downgrade(pool)));
        }
    }

    fn backends(&self) -> Vec<i32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(backend, _)| *backend).collect()
    }

    /// Frees the slots of the queried processes that are idle. Returns whether other slots are still kept.
    fn release(&self, asked: &[i32], working: &[i32]) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(backend, _)| working.contains(backend) || !asked.contains(backend));
        !kept.is_empty()
    }
}

/// Queries the server, over a connection made for it, until no slot is kept.
async fn watch(pool: Weak<Pool>) {
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        let Some(pool) = pool.upgrade() else { return };
        let Some(abandoned) = pool.abandoned() else { return };
        let asked = abandoned.backends();
        let working = match pool.still_working(&asked).await {
            Ok(working) => working,
            // Other connections cannot reach the server either, so a freed slot opens no connection there.
            Err(failure) if failure.fault.is_of_connection() => Vec::new(),
            // The server has too many connections already.
            Err(_) => asked.clone(),
        };
        if !abandoned.release(&asked, &working) {
            return;
        }
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}
