//! Reading the audit trail.

use tokio::sync::Semaphore;

use crate::domain::Timestamp;
use crate::service::{Administration, Failure};
use crate::store::{AuditFilter, AuditRecord, LiveRevocation, Rows};

/// A page of a list.
#[derive(Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Why rows of the page cannot be read.
    pub unreadable: Vec<String>,
    /// Position of the next page; `None` on the last page.
    pub next: Option<i64>,
}

impl<T> Page<T> {
    /// Only a full page can have a next page.
    fn new(rows: Rows<T, i64>, limit: u32, place: impl Fn(&T) -> i64) -> Self {
        let is_full = rows.count() == usize::try_from(limit).unwrap_or(usize::MAX);
        let next = if is_full { rows.last(place) } else { None };
        Self { unreadable: rows.problems(), items: rows.readable, next }
    }
}

/// A part of an export.
#[derive(Debug)]
pub struct ExportPage {
    pub events: Vec<AuditRecord>,
    /// Why events cannot be read.
    pub unreadable: Vec<String>,
    /// The time and position after which the next part begins; `None` on the last.
    pub next: Option<(Timestamp, i64)>,
}

/// Events that are read at once for an export.
const EXPORTED_AT_ONCE: u32 = 1000;

/// Maximum number of steps of one search: up to 200,000 index entries, about a quarter of a second.
const SEARCH_STEPS: u32 = 20;

/// Concurrent searches per replica. Further searches wait, because they use the connections of requests.
const SEARCHES: usize = 2;

/// The permits for searches.
#[derive(Debug)]
pub struct AuditSearches(Semaphore);

impl Default for AuditSearches {
    fn default() -> Self {
        Self(Semaphore::new(SEARCHES))
    }
}

impl Administration {
    /// The newest events before `before` that match `filter`. Each call reads a bounded part of the trail. A search for a rare
    /// combination of common values may therefore return fewer than `limit` events and the position of the next page.
    pub async fn audit(
        &self,
        filter: AuditFilter,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Page<AuditRecord>, Failure> {
        let _turn = if filter == AuditFilter::default() { None } else { self.audit_searches.0.acquire().await.ok() };
        let mut page = Page { items: Vec::new(), unreadable: Vec::new(), next: before };
        for _ in 0..SEARCH_STEPS {
            let found = page.items.len() + page.unreadable.len();
            let wanted = limit.saturating_sub(u32::try_from(found).unwrap_or(u32::MAX));
            let step = self.replica.store.audit().step(&filter, page.next, wanted).await?;
            page.items.extend(step.records);
            page.unreadable.extend(step.unreadable.iter().map(ToString::to_string));
            page.next = step.next;
            let found = page.items.len() + page.unreadable.len();
            if page.next.is_none() || found >= usize::try_from(limit).unwrap_or(usize::MAX) {
                break;
            }
        }
        Ok(page)
    }

    /// The events before `before`, oldest first.
    pub async fn export_audit(
        &self,
        after: Option<(Timestamp, i64)>,
        before: Timestamp,
    ) -> Result<ExportPage, Failure> {
        let rows = self.replica.store.audit().export(after, before, EXPORTED_AT_ONCE).await?;
        let is_full = rows.count() == usize::try_from(EXPORTED_AT_ONCE).unwrap_or(usize::MAX);
        let next = if is_full { rows.last(|last| (last.at, last.seq)) } else { None };
        Ok(ExportPage { unreadable: rows.problems(), events: rows.readable, next })
    }

    /// Revocations after `after` that have not expired, oldest first.
    pub async fn live_revocations(&self, after: Option<i64>, limit: u32) -> Result<Page<LiveRevocation>, Failure> {
        let live = self.replica.store.feed().live_revocations(None, after, limit, self.replica.clock.now()).await?;
        Ok(Page::new(live, limit, |revocation| revocation.seq))
    }
}
