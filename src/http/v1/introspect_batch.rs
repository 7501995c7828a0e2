//! `POST /v1/introspect`: introspection of many tokens.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, BytesMut};
use http::header::CONTENT_TYPE;
use serde::Deserialize;

use crate::http::caller;
use crate::http::error::{ApiError, BodyProblems, ProblemBody, ProblemCode};
use crate::http::extract::JsonText;
use crate::http::introspection_body::{self, BatchResult};
use crate::http::middleware::{self, RequestContext, RequestFacts};
use crate::http::state::Shared;
use crate::service::IntrospectionError;
use crate::telemetry::metrics;

/// Maximum number of tokens in a request.
const MAX_TOKENS: usize = 256;
/// Maximum size of a body in bytes: 256 tokens of 4 KiB and the JSON around them.
const MAX_BATCH_BYTES: usize = MAX_TOKENS * (4096 + 8) + 1024;

/// The tokens to introspect.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchRequest<'a> {
    /// Up to 256 tokens.
    #[serde(borrow)]
    #[schema(value_type = Vec<String>, max_items = 256)]
    tokens: Vec<Text<'a>>,
}

/// A token borrowed from the body. Only a token with escapes is copied, and tokens need none.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The results, in the order of the tokens.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub struct BatchAnswer<'a> {
    /// One result for each token.
    results: Vec<BatchResult<'a>>,
}

/// Introspects up to 256 tokens for an authenticated client.
#[utoipa::path(
    post, path = "/v1/introspect", tag = "judging", request_body = BatchRequest,
    responses(
        (status = 200, description = "A result for each token, in order", body = BatchAnswer),
        (status = 401, description = "`invalid_client`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_attempts`: too many failed authentications of this client from this address, or too many forged tokens", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "`temporarily_unavailable`: this replica has no fresh view; retry", body = ProblemBody, content_type = "application/problem+json"), BodyProblems),
    security(("client" = []))
)]
pub async fn introspect_batch(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    request: Request,
) -> Result<Response, ApiError> {
    // The caller is authenticated before the body, up to a megabyte, is read.
    let caller = caller::of_rest(&shared, request.headers(), context.client.ip(), None).await?;
    if !caller.authenticated {
        return Err(ApiError::new(ProblemCode::InvalidClient));
    }
    let text = JsonText::<MAX_BATCH_BYTES>::from_request(request, &()).await?;
    let request: BatchRequest<'_> = text.parse_flat()?;
    if request.tokens.len() > MAX_TOKENS {
        return Err(ApiError::invalid_field("tokens", "may contain at most 256 tokens"));
    }
    let tokens: Vec<&str> = request.tokens.iter().map(|Text(token)| &**token).collect();
    let all = shared.service.introspection.introspect_all(&caller.client, &tokens, context.client.ip()).await;
    if let Err(IntrospectionError::TooManyForged { .. }) = &all {
        shared.metrics.attempts_refused.count(metrics::Limit::Client);
    }
    let mut body = BytesMut::with_capacity(request.tokens.len() * 512 + 16);
    body.put_slice(b"{\"results\":[");
    for (index, (introspected, took)) in all?.into_iter().enumerate() {
        let (label, cache) =
            (introspection_body::label_of(&introspected), introspection_body::cache_use(introspected.signature));
        shared.metrics.introspection(label, cache, took);
        if index > 0 {
            body.put_u8(b',');
        }
        body.put_slice(&introspection_body::body_of(&introspected.result, shared.service.issuer()));
    }
    body.put_slice(b"]}");
    let headers = [(CONTENT_TYPE, "application/json")];
    let caller = Some(middleware::Principal::Client(Arc::clone(&caller.client)));
    Ok((RequestFacts { caller, ..RequestFacts::default() }, headers, body.freeze()).into_response())
}
