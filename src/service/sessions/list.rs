//! Lists of live sessions.

use crate::domain::{ClientId, Session, SessionId, UserId};
use crate::service::{Failure, Sessions};
use crate::store::{Rows, SessionDetail};

/// A page of a user's or client's sessions.
#[derive(Debug)]
pub struct SessionPage {
    /// Ordered by id.
    pub sessions: Vec<Session>,
    /// Why rows of the page cannot be read.
    pub unreadable: Vec<String>,
    /// The id after which the next page begins; `None` on the last page.
    pub next: Option<SessionId>,
}

impl Sessions {
    /// A page of a user's live sessions, ordered by id.
    pub async fn sessions_of_user(
        &self,
        user: UserId,
        after: Option<SessionId>,
        limit: u32,
    ) -> Result<SessionPage, Failure> {
        let page = self.replica.store.sessions().of_user(user, after, limit, self.replica.clock.now()).await?;
        Ok(SessionPage::new(page, limit))
    }

    /// How many sessions have neither ended nor expired: of a user, of a client, or of all.
    pub async fn count_sessions(&self, user: Option<UserId>, client: Option<&ClientId>) -> Result<i64, Failure> {
        Ok(self.replica.store.sessions().count(user, client, self.replica.clock.now()).await?)
    }

    /// A page of a client's live sessions, ordered by id.
    pub async fn sessions_of_client(
        &self,
        client: &ClientId,
        after: Option<SessionId>,
        limit: u32,
    ) -> Result<SessionPage, Failure> {
        let page = self.replica.store.sessions().of_client(client, after, limit, self.replica.clock.now()).await?;
        Ok(SessionPage::new(page, limit))
    }
}

impl SessionPage {
    /// Only a full page can have a next page.
    fn new(rows: Rows<SessionDetail, SessionId>, limit: u32) -> Self {
        let is_full = rows.count() == usize::try_from(limit).unwrap_or(usize::MAX);
        let next = if is_full { rows.last(|last| last.session.id) } else { None };
        let unreadable = rows.problems();
        for problem in &unreadable {
            tracing::error!(problem, "a session cannot be read");
        }
        Self { sessions: rows.readable.into_iter().map(|detail| detail.session).collect(), unreadable, next }
    }
}
