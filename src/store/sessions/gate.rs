//! Keeps requests for one session from delaying requests for others.

use std::sync::Arc;
use std::time::Duration;

use super::end::{EndKey, EndOutcome};
use super::rotate::{Found, RotateKey, RotateOutcome};
use crate::domain::{SessionId, SessionState, Timestamp};
use crate::store::db::{Lane, Written};
use crate::store::{StoreError, Turns};

/// How long an ended session is refused without a statement. The time is short, because a restored backup may make the
/// session live again.
const REMEMBERED_FOR: Duration = Duration::from_secs(30);

/// Maximum number of ended sessions in memory: about 400 bytes each.
const MAX_REMEMBERED: u64 = 10_000;

/// A session that expired this long ago has expired by the clock of every replica (security.md C7).
const EXPIRED_EVERYWHERE: Duration = Duration::from_secs(60);

type Outcomes<K, T> = Arc<Turns<SessionId, K, Result<T, StoreError>>>;

/// One queue per session and kind of operation, and the sessions known to have ended.
pub(in crate::store) struct SessionGate {
    pub(super) rotations: Outcomes<RotateKey, Written<RotateOutcome>>,
    pub(super) looks: Outcomes<Lane, Option<Arc<Found>>>,
    pub(super) ends: Outcomes<EndKey, Written<EndOutcome>>,
    over: moka::sync::Cache<SessionId, Over>,
}

/// A session that no refresh token can rotate any more.
#[derive(Clone)]
struct Over {
    /// When the end became known, by the monotonic clock.
    known_since: Duration,
    /// None: the row was deleted.
    row: Option<Arc<Found>>,
}

impl Default for SessionGate {
    fn default() -> Self {
        Self {
            rotations: Arc::default(),
            looks: Arc::default(),
            ends: Arc::default(),
            over: moka::sync::Cache::new(MAX_REMEMBERED),
        }
    }
}

impl SessionGate {
    /// The row of a session known to have ended; the inner None if it was deleted. None for any other session.
    pub(super) fn over(&self, session: SessionId, elapsed: Duration) -> Option<Option<Arc<Found>>> {
        let over = self.over.get(&session)?;
        (elapsed.saturating_sub(over.known_since) < REMEMBERED_FOR).then_some(over.row)
    }

    /// Remembers the session if it has ended permanently.
    pub(super) fn remember(&self, session: SessionId, found: Option<&Found>, now: Timestamp, elapsed: Duration) {
        if found.is_none_or(|found| is_over(found, now)) {
            let row = found.map(|found| Arc::new(found.without_texts()));
            self.over.insert(session, Over { known_since: elapsed, row });
        }
    }
}

/// An ended session is never revived, and epochs only rise. A new session has a new id.
fn is_over(found: &Found, now: Timestamp) -> bool {
    let session = &found.detail.session;
    let expired_at = session.idle_expires_at.min(session.absolute_expires_at);
    session.state != SessionState::Live || !found.is_current || now.since(expired_at) > EXPIRED_EVERYWHERE
}
