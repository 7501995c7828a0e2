//! `POST /oauth2/token` (RFC 6749 §3.2): `client_credentials` and `refresh_token`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;

use crate::domain::{Audience, Grant, ScopeSet};
use crate::http::error::{OAuthCode, OAuthDescription, OAuthError};
use crate::http::extract::FormParams;
use crate::http::oauth::OAuthProblems;
use crate::http::requester::{Address, From};
use crate::http::state::Shared;
use crate::http::{caller, middleware, token_answer, v1};
use crate::service::{Caller, GrantError, RefreshError, Requester};

/// What the endpoint reads; everything else in the form is ignored.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the form in the API document; the form itself is read parameter by parameter")]
pub struct TokenRequest {
    /// `client_credentials` or `refresh_token`.
    grant_type: String,
    /// With `refresh_token`.
    refresh_token: Option<String>,
    /// Scopes, separated by spaces.
    scope: Option<String>,
    /// One of the client's audiences; `resource` (RFC 8707) means the same.
    audience: Option<String>,
    /// Where the client does not authenticate by header.
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
    headers: HeaderMap,
    Address(address): Address,
    From(from): From,
    form: FormParams,
) -> Result<Response, OAuthError> {
    let caller = caller::of_form(&shared, &headers, address, &form).await?;
    match form.required("grant_type", 128)? {
        "client_credentials" => client_credentials(&shared, &caller, &form),
        // On the heap: the future of the other grant stays small.
        "refresh_token" => Box::pin(refresh_token(&shared, &caller, &form, &from)).await,
        _ => Err(OAuthError::new(OAuthCode::UnsupportedGrantType, OAuthDescription::GrantNotOffered)),
    }
}

fn client_credentials(shared: &Shared, caller: &Caller, form: &FormParams) -> Result<Response, OAuthError> {
    let audience = match (form.optional("audience", 1024)?, form.optional("resource", 1024)?) {
        (Some(audience), Some(resource)) if audience != resource => {
            return Err(OAuthError::new(OAuthCode::InvalidTarget, OAuthDescription::AudienceNotGranted));
        }
        (audience, resource) => audience.or(resource),
    };
    let audience = audience.map(Audience::parse).transpose();
    let audience =
        audience.map_err(|_| OAuthError::new(OAuthCode::InvalidTarget, OAuthDescription::Malformed("audience")))?;
    let tokens = shared.service.client_credentials(caller, scope(form)?, audience)?;
    shared.metrics.tokens_issued.count(Grant::ClientCredentials);
    Ok(token_answer::respond(&tokens, middleware::Caller::of(caller), "issued"))
}

async fn refresh_token(
    shared: &Shared,
    caller: &Caller,
    form: &FormParams,
    from: &Requester,
) -> Result<Response, OAuthError> {
    let token = form.required("refresh_token", 4096)?;
    let result = shared.service.refresh(caller, token, scope(form)?, from).await;
    v1::refresh::count(&shared.metrics, &result);
    Ok(v1::refresh::respond(&result?, caller))
}

/// The `scope` parameter; none when it is absent, which means all.
fn scope(form: &FormParams) -> Result<Option<ScopeSet>, OAuthError> {
    let text = form.optional("scope", 1024)?;
    let scope = text.map(ScopeSet::parse).transpose();
    scope.map_err(|_| OAuthError::new(OAuthCode::InvalidScope, OAuthDescription::Malformed("scope")))
}

impl std::convert::From<GrantError> for OAuthError {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::ClientNotAllowed => Self::new(OAuthCode::UnauthorizedClient, OAuthDescription::GrantNotAllowed),
            GrantError::InvalidScope => Self::new(OAuthCode::InvalidScope, OAuthDescription::ScopeNotGranted),
            GrantError::InvalidAudience => Self::new(OAuthCode::InvalidTarget, OAuthDescription::AudienceNotGranted),
            GrantError::Failed(failure) => caller::oauth_failure(failure),
        }
    }
}

impl std::convert::From<RefreshError> for OAuthError {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::Refused(_) => Self::new(OAuthCode::InvalidGrant, OAuthDescription::GrantNotValid),
            RefreshError::ClientNotAllowed => {
                Self::new(OAuthCode::UnauthorizedClient, OAuthDescription::GrantNotAllowed)
            }
            RefreshError::InvalidScope => Self::new(OAuthCode::InvalidScope, OAuthDescription::ScopeNotGranted),
            RefreshError::Failed(failure) => caller::oauth_failure(failure),
        }
    }
}
