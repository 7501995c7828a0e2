//! `POST /oauth2/introspect` (RFC 7662), and its signed form (RFC 9701).

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use crate::http::caller::{self, RETRY_AFTER};
use crate::http::error::OAuthError;
use crate::http::extract::FormParams;
use crate::http::introspection_body::{self, ActiveToken};
use crate::http::oauth::OAuthErrorBody;
use crate::http::state::Shared;
use crate::service::{Caller, CannotIntrospect, Introspected, Introspection};

/// The media type of a signed answer (RFC 9701 §4).
const SIGNED: &str = "application/token-introspection+jwt";

/// What the endpoint reads; everything else in the form is ignored.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the form in the API document; the form itself is read parameter by parameter")]
pub struct IntrospectionRequest {
    /// The token.
    token: String,
    /// Ignored: the kinds of token cannot be mistaken for each other.
    token_type_hint: Option<String>,
    /// Where the client does not authenticate by header.
    client_id: Option<String>,
    /// `client_secret_post`.
    client_secret: Option<String>,
}

/// Says whether a token is active. Answered from memory.
#[utoipa::path(
    post, path = "/oauth2/introspect", tag = "judging",
    request_body(content = IntrospectionRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Active with its claims, or exactly `{\"active\":false}`",
         content((ActiveToken = "application/json"), (String = "application/token-introspection+jwt"))),
        (status = 400, description = "RFC 6749 §5.2", body = OAuthErrorBody),
        (status = 401, description = "`invalid_client`", body = OAuthErrorBody),
        (status = 413, description = "The form is too large", body = OAuthErrorBody),
        (status = 503, description = "This replica cannot judge now: ask again, or another replica", body = OAuthErrorBody),
    ),
    security(("client" = []))
)]
pub async fn introspect(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    form: FormParams,
) -> Result<Response, OAuthError> {
    let caller = caller::of_form(&shared.service, &headers, &form).await?;
    if !caller.authenticated {
        // RFC 7662 §2.1: the endpoint is protected; a public client cannot prove that it may scan.
        return Err(OAuthError::invalid_client());
    }
    // Longer than any token is judged like any other token that is not ours.
    let token = form.required("token", usize::MAX)?;
    let introspected = shared.service.introspect(&caller.client, token).await?;
    let is_active = !matches!(introspected.result, Introspection::Inactive);
    shared.metrics.introspections(is_active, introspected.from_cache);
    if wants_signed(&headers) {
        return signed(&shared, &caller, &introspected);
    }
    let max_age = shared.settings.introspection_max_age;
    Ok(introspection_body::respond(&introspected, shared.service.issuer(), max_age))
}

/// The same answer as a JWT for the asking client (RFC 9701 §5): the caller rules were applied before (security.md I8).
fn signed(shared: &Shared, caller: &Caller, introspected: &Introspected) -> Result<Response, OAuthError> {
    let body = introspection_body::body_of(&introspected.result, shared.service.issuer());
    let claims = serde_json::value::RawValue::from_string(String::from_utf8_lossy(&body).into_owned())
        .map_err(OAuthError::internal)?;
    let jwt =
        shared.service.sign_introspection(&caller.client, &claims, introspected.at).map_err(caller::oauth_failure)?;
    let headers =
        [(CONTENT_TYPE, HeaderValue::from_static(SIGNED)), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((headers, jwt).into_response())
}

/// Whether the caller asks for the signed form by name; wildcards mean JSON.
fn wants_signed(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| range.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(SIGNED)))
}

impl std::convert::From<CannotIntrospect> for OAuthError {
    fn from(error: CannotIntrospect) -> Self {
        match error {
            CannotIntrospect::Doubt(doubt) => {
                Self::unavailable(RETRY_AFTER).because(format!("cannot judge now: {doubt:?}"))
            }
            CannotIntrospect::Failed(failure) => caller::oauth_failure(failure),
        }
    }
}
