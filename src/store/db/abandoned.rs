//! Statements that were given up, and may still run on the server.
//!
//! PostgreSQL ends a statement that takes too long, but not a commit: one that waits for a lost synchronous standby or for a
//! hanging disk keeps its server process, also after its client is gone. If each made room for another, the writes of a
//! minute would take every connection that the server has, and the feed would go with the writes. So the place of a
//! statement that got no answer stays taken until the server says that its process has nothing to do any more: a pool has
//! no more of them than its size, unless the server could not be asked in between.
//!
//! They are not cancelled. The driver has no way to, and PostgreSQL answers the cancellation of a commit that waits for its
//! standby by showing what it wrote to everybody before it is safe. What is left to PostgreSQL: to notice that the client has
//! gone (`client_connection_check_interval`, TCP keep-alive), and to bound connections that never got as far as a statement
//! (`authentication_timeout`).

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::fault::{Failure, Fault};
use super::pool::{Place, Pool};

/// How long after the first the server is asked; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause: each question costs the server a connection.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The places of such statements.
#[derive(Default)]
pub(super) struct Abandoned(Mutex<Vec<(i32, Place)>>);

impl Abandoned {
    /// Keeps the place of a statement for as long as the server process works on it.
    pub(super) fn keep(&self, pool: &Arc<Pool>, backend: i32, place: Place) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push((backend, place));
        if kept.len() == 1 {
            tracing::warn!(
                backend,
                "a statement got no answer; its connection counts as taken until PostgreSQL has ended it"
            );
            tokio::spawn(watch(Arc::downgrade(pool)));
        }
    }

    fn backends(&self) -> Vec<i32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(backend, _)| *backend).collect()
    }

    /// Lets the places of those go that were asked about and do not work any more; whether others are left.
    fn release(&self, asked: &[i32], working: &[i32]) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(backend, _)| working.contains(backend) || !asked.contains(backend));
        !kept.is_empty()
    }
}

/// Asks the server, over a connection made for it, until no place is kept.
async fn watch(pool: Weak<Pool>) {
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        let Some(pool) = pool.upgrade() else { return };
        let Some(abandoned) = pool.abandoned() else { return };
        let asked = abandoned.backends();
        let working = match pool.still_working(&asked).await {
            Ok(working) => working,
            // Nobody else reaches the server either: whoever gets the place opens nothing there.
            Err(Failure { fault: Fault::Connection, .. }) => Vec::new(),
            // It has too many connections already.
            Err(_) => asked.clone(),
        };
        if !abandoned.release(&asked, &working) {
            return;
        }
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}
