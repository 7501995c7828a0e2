//! Denied introspections: the token is active, but its verdict is not visible to the caller. The caller gets
//! `{"active":false}`, as for an inactive token. The audit trail shows the operator which client scans (security.md I15, S4).
//!
//! Denials are counted in memory and written periodically, one event per caller, because introspection never writes (I14).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::ClientId;
use crate::service::{Failure, Introspections, Requester};

/// Number of denials since the last write, by caller. Bounded by the number of clients.
#[derive(Debug, Default)]
pub struct Denials(Mutex<HashMap<ClientId, u64>>);

impl Denials {
    pub(crate) fn count(&self, caller: &ClientId, denials: u64) {
        *self.lock().entry(caller.clone()).or_default() += denials;
    }

    fn take(&self) -> HashMap<ClientId, u64> {
        std::mem::take(&mut *self.lock())
    }

    /// No code under the lock can panic, so a poisoned lock is still consistent.
    fn lock(&self) -> MutexGuard<'_, HashMap<ClientId, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Introspections {
    /// Writes the denials since the last call to the audit trail. If that fails, the next call writes them.
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
        let written = self.replica.store.audit().append(events, self.replica.clock.now()).await;
        if written.is_err() {
            denials.iter().for_each(|(caller, count)| self.denials.count(caller, *count));
        }
        Ok(written?)
    }
}
