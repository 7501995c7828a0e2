//! Reading the audit trail.

use crate::store::{AuditFilter, AuditRecord, LiveRevocation};

use super::{Failure, Service};

/// Some of a long list, and where the rest begins.
#[derive(Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// To be handed in for the next page; none on the last.
    pub next: Option<i64>,
}

impl<T> Page<T> {
    /// A full page may have a next one.
    fn new(items: Vec<T>, limit: u32, place: impl Fn(&T) -> i64) -> Self {
        let is_full = items.len() == usize::try_from(limit).unwrap_or(usize::MAX);
        let next = items.last().filter(|_| is_full).map(place);
        Self { items, next }
    }
}

impl Service {
    /// The newest events that pass `filter`, from before `before` on.
    pub async fn audit(
        &self,
        filter: AuditFilter,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Page<AuditRecord>, Failure> {
        let records = self.store.audit().page(filter, before, limit).await?;
        Ok(Page::new(records, limit, |record| record.seq))
    }

    /// Revocations that still matter, oldest first, from after `after` on.
    pub async fn live_revocations(&self, after: Option<i64>, limit: u32) -> Result<Page<LiveRevocation>, Failure> {
        let live = self.store.feed().live_revocations(None, after, limit, self.clock.now()).await?;
        Ok(Page::new(live, limit, |revocation| revocation.seq))
    }
}
