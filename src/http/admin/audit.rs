//! `/admin/v1/audit`.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;

use super::Administrator;
use crate::http::JsonBody;
use crate::http::error::{AdminProblems, ApiError};
use crate::http::extract::QueryParams;
use crate::http::page;
use crate::http::state::Shared;
use crate::service::{AuditFilter, AuditRecord};

/// Default and maximum number of events on a page.
const PAGE: (u32, u32) = (100, 1000);

/// An audit event.
#[derive(Serialize, utoipa::ToSchema)]
pub struct AuditItem {
    /// Time of the event (RFC 3339, UTC).
    at: String,
    /// Name of the event.
    event: String,
    /// The actor: a user, a client, an admin key, `cli` or `background`.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    /// The user, client, session or key concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// The client involved.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    /// The user concerned, even if the subject is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// The session concerned, even if the subject is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// Details: the client's `address`, or the `reason` why a session ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<serde_json::Value>,
    /// Id of the request that caused the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

impl From<AuditRecord> for AuditItem {
    fn from(event: AuditRecord) -> Self {
        Self {
            at: event.at.rfc3339(),
            event: event.event,
            actor: event.actor,
            subject: event.subject,
            client: event.client,
            user: event.user,
            session: event.session,
            detail: event.detail.as_deref().and_then(|text| serde_json::from_str(text).ok()),
            request_id: event.request_id,
        }
    }
}

/// A page of audit events.
#[derive(Serialize, utoipa::ToSchema)]
pub struct AuditList {
    /// Events, newest first.
    events: Vec<AuditItem>,
    /// Rows of this page that cannot be read, each with its table, column and problem.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<String>,
    /// The `cursor` of the next page; absent on the last. A page of a search can have fewer events than `limit`, even
    /// none, and still have a `next_cursor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Lists audit events, newest first.
#[utoipa::path(
    get, path = "/admin/v1/audit", tag = "administration",
    params(
        ("event" = Option<String>, Query), ("subject" = Option<String>, Query), ("actor" = Option<String>, Query), ("client" = Option<String>, Query),
        ("user" = Option<String>, Query), ("session" = Option<String>, Query),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000), ("cursor" = Option<String>, Query),
    ),
    responses((status = 200, body = AuditList), AdminProblems),
    security(("bearer" = []))
)]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    _: Administrator,
    QueryParams(query): QueryParams,
) -> Result<JsonBody<AuditList>, ApiError> {
    let query = query.only(&["event", "subject", "actor", "client", "user", "session", "limit", "cursor"])?;
    let text = |name| query.optional(name, 512).map(|value| value.map(str::to_owned));
    let filter = AuditFilter {
        event: text("event")?,
        subject: text("subject")?,
        actor: text("actor")?,
        client: text("client")?,
        user: text("user")?,
        session: text("session")?,
        ..AuditFilter::default()
    };
    let before = page::cursor(&query, page::number)?;
    let page = shared.service.administration.audit(filter, before, page::limit(&query, PAGE)?).await?;
    let events = page.items.into_iter().map(AuditItem::from).collect();
    Ok(JsonBody(AuditList {
        events,
        unreadable: page.unreadable,
        next_cursor: page.next.map(|before| before.to_string()),
    }))
}
