//! The answer with tokens, for every endpoint that issues them (RFC 6749 §5.1).

use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::middleware::{Principal, RequestFacts};
use super::{JsonBody, introspection_body};
use crate::service::IssuedTokens;

/// Tokens and their lifetimes in seconds. Without a session, the members of a session are omitted.
#[derive(Serialize, utoipa::ToSchema)]
pub struct TokenAnswer<'a> {
    /// The access token.
    access_token: &'a str,
    /// Always `Bearer`.
    token_type: &'static str,
    /// Seconds until the access token expires.
    expires_in: u64,
    /// The refresh token; it replaces the previous one.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    /// Seconds until the refresh token expires if it is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_expires_in: Option<u64>,
    /// The scopes of the access token, separated by spaces; omitted if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    /// Id of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
}

/// Builds the answer.
pub fn respond(tokens: &IssuedTokens, caller: Option<Principal>, outcome: &'static str) -> (RequestFacts, Response) {
    let refresh = tokens.refresh.as_ref();
    let answer = TokenAnswer {
        access_token: tokens.access_token.expose(),
        token_type: "Bearer",
        expires_in: tokens.expires_in.as_secs(),
        refresh_token: refresh.map(|refresh| refresh.token.expose()),
        refresh_expires_in: refresh.map(|refresh| refresh.expires_in.as_secs()),
        scope: introspection_body::words(&tokens.scope),
        session_id: refresh.map(|refresh| refresh.session.to_string()),
    };
    let facts = RequestFacts {
        caller,
        subject: Some(tokens.subject.clone()),
        outcome: Some(outcome),
        ..RequestFacts::default()
    };
    (facts, JsonBody(answer).into_response())
}
