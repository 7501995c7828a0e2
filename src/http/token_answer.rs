//! The answer with tokens, for every endpoint that issues them (RFC 6749 §5.1).

use axum::body::Body;
use axum::response::Response;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Serialize;

use super::introspection_body;
use super::middleware::{Caller, RequestFacts};
use crate::service::IssuedTokens;

/// Capacity in bytes for an answer without its access token.
const REST_BYTES: usize = 512;
/// Capacity for the headers of an answer, including those added by the middleware.
const EXPECTED_HEADERS: usize = 4;

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

/// Builds the answer with `Cache-Control: no-store`.
pub fn respond(tokens: &IssuedTokens, caller: Option<Caller>, outcome: &'static str) -> (RequestFacts, Response) {
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
    let mut body = Vec::with_capacity(answer.access_token.len() + REST_BYTES);
    // Serializing text and numbers into memory cannot fail.
    let _ = serde_json::to_writer(&mut body, &answer);
    let facts = RequestFacts {
        caller,
        subject: Some(tokens.subject.clone()),
        outcome: Some(outcome),
        ..RequestFacts::default()
    };
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.reserve(EXPECTED_HEADERS);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (facts, response)
}
