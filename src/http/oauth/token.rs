//! `POST /oauth2/token` (RFC 6749 §3.2): `client_credentials` and `refresh_token`.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Request};

use crate::domain::{Audience, Grant, ScopeSet};
use crate::http::error::{ApiError, ProblemCode};
use crate::http::extract::{FormParams, Params};
use crate::http::listener::RequestBody;
use crate::http::middleware::{self, RequestContext, RequestFacts};
use crate::http::oauth::OAuthProblems;
use crate::http::state::Shared;
use crate::http::{caller, token_answer, v1};
use crate::service::{Caller, GrantError, Narrowing, Requester};

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
    shared: Arc<Shared>,
    request: Request<RequestBody>,
    context: RequestContext,
) -> (RequestFacts, Response) {
    let (head, body) = request.into_parts();
    let answer = match FormParams::read(&head.headers, body).await {
        Ok(FormParams(form)) => grant(&shared, &head.headers, &context, &form).await,
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| (RequestFacts::default(), error.into_response()))
}

async fn grant(
    shared: &Shared,
    headers: &HeaderMap,
    context: &RequestContext,
    form: &Params,
) -> Result<(RequestFacts, Response), ApiError> {
    let caller = caller::of_form(shared, headers, context.client.ip(), form).await?;
    match form.required("grant_type", 128)? {
        "client_credentials" => client_credentials(shared, &caller, form),
        // On the heap, so that the future of the other grant stays small.
        "refresh_token" => Box::pin(refresh_token(shared, &caller, form, &context.requester())).await,
        _ => Err(ApiError::invalid_form("the grant type is not offered").oauth("unsupported_grant_type")),
    }
}

fn client_credentials(shared: &Shared, caller: &Caller, form: &Params) -> Result<(RequestFacts, Response), ApiError> {
    let tokens = shared.service.tokens.client_credentials(caller, scope(form)?, &audience(form)?)?;
    shared.metrics.tokens_issued.count(Grant::ClientCredentials);
    Ok(token_answer::respond(&tokens, middleware::Principal::of(caller), "issued"))
}

async fn refresh_token(
    shared: &Shared,
    caller: &Caller,
    form: &Params,
    from: &Requester,
) -> Result<(RequestFacts, Response), ApiError> {
    let token = form.required("refresh_token", 4096)?;
    let narrowing = Narrowing { scope: scope(form)?, audience: audience(form)? };
    let result = shared.service.sessions.refresh(caller, token, &narrowing, from).await;
    v1::refresh::count(&shared.metrics, &result);
    Ok(v1::refresh::respond(&result?, caller))
}

/// The `scope` parameter. Without it, all scopes are granted.
fn scope(form: &Params) -> Result<Option<ScopeSet>, ApiError> {
    let text = form.optional("scope", 1024)?;
    let scope = text.map(ScopeSet::parse).transpose();
    scope.map_err(|_| ApiError::new(ProblemCode::InvalidScope).description("the parameter `scope` is malformed"))
}

/// The `audience` parameter, or each `resource` (RFC 8707 §2), which means the same. Without both, all audiences are
/// granted.
fn audience(form: &Params) -> Result<Vec<Audience>, ApiError> {
    let invalid = || ApiError::new(ProblemCode::InvalidAudience);
    let resources = form.all("resource", 1024)?;
    let named = match form.optional("audience", 1024)? {
        Some(audience) if resources.iter().any(|resource| *resource != audience) => {
            return Err(invalid());
        }
        Some(audience) => vec![audience],
        None => resources,
    };
    let audience = named.into_iter().map(Audience::parse).collect::<Result<_, _>>();
    audience.map_err(|_| invalid().description("the parameter `audience` is malformed"))
}

impl From<GrantError> for ApiError {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::ClientNotAllowed => Self::new(ProblemCode::UnauthorizedClient),
            GrantError::InvalidScope => Self::new(ProblemCode::InvalidScope),
            GrantError::InvalidAudience => Self::new(ProblemCode::InvalidAudience),
            GrantError::Failed(failure) => failure.into(),
        }
    }
}
