//! `POST /oauth2/token` (RFC 6749 §3.2): `client_credentials` and `refresh_token`.

use std::error::Error;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;

use crate::domain::{Audience, Grant, ScopeSet};
use crate::http::error::{OAuthCode, OAuthDescription, OAuthError};
use crate::http::extract::FormParams;
use crate::http::middleware::{self, RequestContext, RequestFacts};
use crate::http::oauth::OAuthProblems;
use crate::http::state::Shared;
use crate::http::{caller, requester, token_answer, v1};
use crate::service::{Caller, GrantError, Narrowing, RefreshError, Requester};

/// Parameters of a grant; others are ignored.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the form in the API document; the form itself is read parameter by parameter")]
pub struct TokenRequest {
    /// `client_credentials` or `refresh_token`.
    grant_type: String,
    /// Required by `refresh_token`.
    refresh_token: Option<String>,
    /// Scopes, separated by spaces.
    scope: Option<String>,
    /// One of the client's audiences.
    audience: Option<String>,
    /// Same as `audience` (RFC 8707). May be repeated for a token with several audiences.
    resource: Option<Vec<String>>,
    /// The client, unless it authenticates in the `Authorization` header.
    client_id: Option<String>,
    /// `client_secret_post`.
    client_secret: Option<String>,
    /// `private_key_jwt` (RFC 7523).
    client_assertion_type: Option<String>,
    /// `private_key_jwt`.
    client_assertion: Option<String>,
}

/// Issues tokens to a client.
#[utoipa::path(
    post, path = "/oauth2/token", tag = "oauth",
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Tokens", body = token_answer::TokenAnswer),
        OAuthProblems,
    ),
    security((), ("client" = []))
)]
pub async fn token(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    request: Request,
) -> (RequestFacts, Response) {
    answer(shared, request, context).await
}

/// Answers a request.
pub async fn answer<B>(
    shared: Arc<Shared>,
    request: http::Request<B>,
    context: RequestContext,
) -> (RequestFacts, Response)
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Error + 'static,
{
    let (head, body) = request.into_parts();
    let answer = match FormParams::read(&head.headers, body).await {
        Ok(form) => grant(&shared, &head.headers, &context, &form).await,
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| (RequestFacts::default(), error.into_response()))
}

async fn grant(
    shared: &Shared,
    headers: &HeaderMap,
    context: &RequestContext,
    form: &FormParams,
) -> Result<(RequestFacts, Response), OAuthError> {
    let caller = caller::of_form(shared, headers, context.client.ip(), form).await?;
    match form.required("grant_type", 128)? {
        "client_credentials" => client_credentials(shared, &caller, form),
        // On the heap, so that the future of the other grant stays small.
        "refresh_token" => Box::pin(refresh_token(shared, &caller, form, &requester::of(context))).await,
        _ => Err(OAuthError::new(OAuthCode::UnsupportedGrantType, OAuthDescription::GrantNotOffered)),
    }
}

fn client_credentials(
    shared: &Shared,
    caller: &Caller,
    form: &FormParams,
) -> Result<(RequestFacts, Response), OAuthError> {
    let tokens = shared.service.tokens.client_credentials(caller, scope(form)?, &audience(form)?)?;
    shared.metrics.tokens_issued.count(Grant::ClientCredentials);
    Ok(token_answer::respond(&tokens, middleware::Caller::of(caller), "issued"))
}

async fn refresh_token(
    shared: &Shared,
    caller: &Caller,
    form: &FormParams,
    from: &Requester,
) -> Result<(RequestFacts, Response), OAuthError> {
    let token = form.required("refresh_token", 4096)?;
    let narrowing = Narrowing { scope: scope(form)?, audience: audience(form)? };
    let result = shared.service.sessions.refresh(caller, token, &narrowing, from).await;
    v1::refresh::count(&shared.metrics, &result);
    Ok(v1::refresh::respond(&result?, caller))
}

/// The `scope` parameter. Without it, all scopes are granted.
fn scope(form: &FormParams) -> Result<Option<ScopeSet>, OAuthError> {
    let text = form.optional("scope", 1024)?;
    let scope = text.map(ScopeSet::parse).transpose();
    scope.map_err(|_| OAuthError::new(OAuthCode::InvalidScope, OAuthDescription::Malformed("scope")))
}

/// The `audience` parameter, or each `resource` (RFC 8707 §2), which means the same. Without both, all audiences are
/// granted.
fn audience(form: &FormParams) -> Result<Vec<Audience>, OAuthError> {
    let invalid = |description| OAuthError::new(OAuthCode::InvalidTarget, description);
    let resources = form.all("resource", 1024)?;
    let named = match form.optional("audience", 1024)? {
        Some(audience) if resources.iter().any(|resource| *resource != audience) => {
            return Err(invalid(OAuthDescription::AudienceNotGranted));
        }
        Some(audience) => vec![audience],
        None => resources,
    };
    let audience = named.into_iter().map(Audience::parse).collect::<Result<_, _>>();
    audience.map_err(|_| invalid(OAuthDescription::Malformed("audience")))
}

impl From<GrantError> for OAuthError {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::ClientNotAllowed => Self::new(OAuthCode::UnauthorizedClient, OAuthDescription::GrantNotAllowed),
            GrantError::InvalidScope => Self::new(OAuthCode::InvalidScope, OAuthDescription::ScopeNotGranted),
            GrantError::InvalidAudience => Self::new(OAuthCode::InvalidTarget, OAuthDescription::AudienceNotGranted),
            GrantError::Failed(failure) => caller::oauth_failure(failure),
        }
    }
}

impl From<RefreshError> for OAuthError {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::Refused(_) => Self::new(OAuthCode::InvalidGrant, OAuthDescription::GrantNotValid),
            RefreshError::ClientNotAllowed => {
                Self::new(OAuthCode::UnauthorizedClient, OAuthDescription::GrantNotAllowed)
            }
            RefreshError::InvalidScope => Self::new(OAuthCode::InvalidScope, OAuthDescription::ScopeNotGranted),
            RefreshError::InvalidAudience => Self::new(OAuthCode::InvalidTarget, OAuthDescription::AudienceNotGranted),
            RefreshError::Failed(failure) => caller::oauth_failure(failure),
        }
    }
}
