//! `POST /oauth2/introspect` (RFC 7662), and its signed form (RFC 9701).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, StatusCode};

use crate::domain::Subject;
use crate::http::error::{ApiError, ProblemCode};
use crate::http::extract::{FormParams, Params, prefers};
use crate::http::introspection_body::{self, IntrospectionAnswer};
use crate::http::listener::RequestBody;
use crate::http::middleware::{self, RequestFacts};
use crate::http::oauth::OAuthProblems;
use crate::http::state::Shared;
use crate::http::{bearer, caller};
use crate::service::{Caller, Introspected, Introspection, IntrospectionError};
use crate::telemetry::CacheUse;
use crate::telemetry::metrics::IntrospectionResult;

/// The media type of a signed answer (RFC 9701 §4).
const SIGNED: &str = "application/token-introspection+jwt";

/// Parameters of an introspection; others are ignored.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the form in the API document; the form itself is read parameter by parameter")]
pub struct IntrospectionRequest {
    /// The token.
    token: String,
    /// Ignored: the format of a token shows its type.
    token_type_hint: Option<String>,
    /// The client, unless it authenticates in the `Authorization` header.
    client_id: Option<String>,
    /// `client_secret_post`.
    client_secret: Option<String>,
}

/// Introspects a token. Answered from memory.
#[utoipa::path(
    post, path = "/oauth2/introspect", tag = "judging",
    request_body(content = IntrospectionRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Active with its claims, or exactly `{\"active\":false}`",
         content((IntrospectionAnswer = "application/json"), (String = "application/token-introspection+jwt"))),
        OAuthProblems,
    ),
    security(("client" = []))
)]
pub async fn introspect(
    shared: Arc<Shared>,
    request: Request<RequestBody>,
    address: IpAddr,
) -> (RequestFacts, Response) {
    let (head, body) = request.into_parts();
    let answer = match FormParams::read(&head.headers, body).await {
        Ok(FormParams(form)) => introspection(&shared, &head.headers, address, &form).await,
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| (RequestFacts::default(), error.into_response()))
}

async fn introspection(
    shared: &Shared,
    headers: &HeaderMap,
    address: IpAddr,
    form: &Params,
) -> Result<(RequestFacts, Response), ApiError> {
    let started = shared.clock.elapsed();
    let judged = introspect_for_caller(shared, headers, address, form).await;
    count(shared, &judged, started);
    let (caller, introspected) = judged?;
    let facts = facts_of(&caller, &introspected);
    let response = if prefers(headers, SIGNED, "application/json") {
        signed(shared, &caller, &introspected)?
    } else {
        introspection_body::respond(&introspected, shared.service.issuer(), shared.settings.introspection_max_age)
    };
    Ok((facts, response))
}

/// Authenticates the caller before reading the token.
async fn introspect_for_caller(
    shared: &Shared,
    headers: &HeaderMap,
    address: IpAddr,
    form: &Params,
) -> Result<(Caller, Introspected), ApiError> {
    let caller = caller::of_form(shared, headers, address, form).await?;
    if !caller.authenticated {
        // RFC 7662 §2.1: the endpoint is protected, and a public client cannot authenticate.
        return Err(ApiError::new(ProblemCode::InvalidClient));
    }
    // No limit: text longer than any token is judged inactive.
    let token = form.required("token", usize::MAX)?;
    let introspected = shared.service.introspection.introspect(&caller.client, token).await?;
    Ok((caller, introspected))
}

fn count(shared: &Shared, judged: &Result<(Caller, Introspected), ApiError>, started: Duration) {
    let (result, cache, ended) = match judged {
        Ok((_, introspected)) => {
            let cache = introspection_body::cache_use(introspected.signature);
            (introspection_body::label_of(introspected), cache, introspected.checked_at)
        }
        Err(error) => (result_of(error), None, shared.clock.elapsed()),
    };
    shared.metrics.introspection(result, cache, ended.saturating_sub(started));
}

/// The metric label of a refused request.
fn result_of(error: &ApiError) -> IntrospectionResult {
    match error.code().status() {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => IntrospectionResult::Unavailable,
        _ => IntrospectionResult::Refused,
    }
}

/// The caller is a client; the subject is that of the token.
fn facts_of(caller: &Caller, introspected: &Introspected) -> RequestFacts {
    let (subject, outcome) = match &introspected.result {
        Introspection::Access(token) => (Some(token.claims.subject.clone()), "active"),
        Introspection::Refresh(session) => (Some(Subject::User(session.user)), "active"),
        Introspection::Inactive if introspected.is_hidden => (None, "denied"),
        Introspection::Inactive => (None, "inactive"),
        Introspection::Undecided => (None, "unavailable"),
    };
    RequestFacts {
        caller: Some(middleware::Principal::Client(Arc::clone(&caller.client))),
        subject,
        cache_hit: introspection_body::cache_use(introspected.signature).map(|cache| cache == CacheUse::Hit),
        outcome: Some(outcome),
        ..RequestFacts::default()
    }
}

/// The answer as a JWT for the calling client (RFC 9701 §5). The rules of visibility were already applied (security.md
/// I8).
fn signed(shared: &Shared, caller: &Caller, introspected: &Introspected) -> Result<Response, ApiError> {
    let body = introspection_body::body_of(&introspected.result, shared.service.issuer());
    let claims = serde_json::value::RawValue::from_string(String::from_utf8_lossy(&body).into_owned())
        .map_err(ApiError::internal)?;
    let jwt = shared.service.introspection.sign_introspection(&caller.client, &claims, introspected.at)?;
    Ok(([(CONTENT_TYPE, SIGNED)], jwt).into_response())
}

impl From<IntrospectionError> for ApiError {
    fn from(error: IntrospectionError) -> Self {
        match error {
            IntrospectionError::Unavailable(reason) => bearer::unavailable(reason),
            IntrospectionError::TooManyForged { retry_after } => Self::new(ProblemCode::TooManyAttempts)
                .detail("This client sent too many tokens with an invalid signature.")
                .retry_after(retry_after),
            IntrospectionError::Failed(failure) => failure.into(),
        }
    }
}
