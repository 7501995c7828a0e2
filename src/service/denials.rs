//! Introspections that were denied: a good token, and a caller who may not see it. The caller hears `{"active":false}` as for any
//! other and learns nothing by asking on; the audit trail tells the operator who scans (security.md I15, S4).
//!
//! Counted in memory and written down by and by, one event for each caller: introspection writes nothing itself (I14).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::ClientId;

use super::{Failure, Requester, Service};

/// Denials since they were last written down, by caller. There are no more callers than clients.
#[derive(Debug, Default)]
pub struct Denials(Mutex<HashMap<ClientId, u64>>);

impl Denials {
    /// Counts denials of one caller.
    pub(super) fn count(&self, caller: &ClientId, denials: u64) {
        *self.lock().entry(caller.clone()).or_default() += denials;
    }

    fn take(&self) -> HashMap<ClientId, u64> {
        std::mem::take(&mut *self.lock())
    }

    /// Nothing that panics runs under the lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<ClientId, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    /// Writes the denials since the last call into the audit trail; those that cannot be written are kept for the next.
    pub async fn audit_denials(&self) -> Result<(), Failure> {
        let denials = self.denials.take();
        if denials.is_empty() {
            return Ok(());
        }
        let event = |(caller, count): (&ClientId, &u64)| {
            let from = Requester::background().acting(caller);
            from.event("token.introspection_denied").on(caller).noting("tokens", *count)
        };
        let events = denials.iter().map(event).collect();
        let written = self.store.audit().append(events, self.clock.now()).await;
        if written.is_err() {
            denials.iter().for_each(|(caller, count)| self.denials.count(caller, *count));
        }
        Ok(written?)
    }
}
