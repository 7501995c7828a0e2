//! `/v1/verify` and `/v1/verify/*`: forward-auth for gateways (contract.md §4).
//!
//! Answers 200, 401, 403 or 503 and nothing else: nginx turns anything else into 500, Envoy passes only 200. Method, path
//! suffix, body, and conditional, range and encoding headers are not looked at.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CACHE_CONTROL, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::domain::{AccessClaims, Role, ScopeSet};
use crate::http::error::Challenge;
use crate::http::extract::LenientQuery;
use crate::http::introspection_body::cache_control;
use crate::http::middleware::RequestFacts;
use crate::http::state::Shared;
use crate::service::{Judgement, Verdict};
use crate::telemetry::CacheUse;
use crate::telemetry::metrics::IntrospectionResult;

/// The headers of an answer that lets a request pass, with those that every answer bears.
const EXPECTED_HEADERS: usize = 12;

/// The identity headers of an allowed request, under the configured prefix.
#[derive(Debug, Clone)]
pub struct ForwardAuthHeaders {
    names: [HeaderName; 7],
}

impl ForwardAuthHeaders {
    /// Names under `prefix`, such as `X-Auth-Request-`; none if the prefix makes no header name.
    pub fn new(prefix: &str) -> Option<Self> {
        let name = |suffix: &str| HeaderName::try_from(format!("{prefix}{suffix}")).ok();
        let names = [
            name("User")?,
            name("Preferred-Username")?,
            name("Client-Id")?,
            name("Scopes")?,
            name("Roles")?,
            name("Session")?,
            name("Expires")?,
        ];
        Some(Self { names })
    }

    /// The values in the order of the names; empty where the token says nothing. An empty one is sent as well: a gateway
    /// that copies by name would else leave the caller's own header in its place (Caddy 2.6 puts a placeholder there).
    fn values(claims: &AccessClaims) -> Vec<Bytes> {
        let login = claims.login.as_ref();
        let roles = login.map(|login| login.roles.iter().map(Role::as_str).collect::<Vec<_>>().join(","));
        [
            Some(claims.subject.to_string()),
            login.map(|login| login.username.clone()),
            Some(claims.client.to_string()),
            Some(claims.scope.to_string()),
            roles,
            login.map(|login| login.session.to_string()),
            Some(claims.expires_at.seconds().to_string()),
        ]
        .into_iter()
        .map(|value| Bytes::from(value.unwrap_or_default()))
        .collect()
    }
}

/// Judges the bearer token of a request that a gateway holds back.
#[utoipa::path(
    method(get, head, post, put, patch, delete, options, trace), path = "/v1/verify", tag = "judging",
    params(
        ("aud" = Option<String>, Query, description = "An audience that the token must have"),
        ("scope" = Option<String>, Query, description = "Scopes that the token must all have"),
        ("role" = Option<String>, Query, description = "A role that the user must have"),
    ),
    responses(
        (status = 200, description = "Let it pass; who it is stands in the `X-Auth-Request-*` headers"),
        (status = 401, description = "No token, or one that is not active"),
        (status = 403, description = "The token lacks an audience, scope or role that was asked for"),
        (status = 414, description = "The request target is longer than `public.max_uri_bytes`: a gateway appended its caller's own"),
        (status = 503, description = "This replica cannot judge now"),
    ),
    security(("bearer" = []))
)]
pub async fn verify(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    answer(&shared, &parts).await.into_response()
}

/// The answer to a request with this head: nothing else of it is looked at.
pub async fn answer(shared: &Shared, request: &Parts) -> (RequestFacts, Response) {
    let mut facts = RequestFacts::default();
    if shared.settings.allow_preflight && is_preflight(request) {
        let headers = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
        return (facts, (StatusCode::OK, headers).into_response());
    }
    let token = match bearer_token(&request.headers) {
        Ok(token) => token,
        Err(challenge) => return (facts, refuse(StatusCode::UNAUTHORIZED, &challenge, 0)),
    };
    let started = shared.clock.elapsed();
    let judgement = shared.service.judge().judge(token).await;
    count(shared, &judgement, started);
    facts.cache_hit = Some(judgement.from_cache);
    let token = match judgement.verdict {
        Verdict::Active(token) => token,
        Verdict::Inactive(reason) => {
            tracing::debug!(?reason, "forward-auth refused");
            facts.outcome = Some("inactive");
            return (facts, refuse(StatusCode::UNAUTHORIZED, &Challenge::BearerInvalidToken, 1));
        }
        Verdict::CannotJudge(doubt) => {
            tracing::debug!(?doubt, "forward-auth cannot judge now");
            facts.outcome = Some("unavailable");
            return (facts, unavailable());
        }
    };
    facts.subject = Some(token.claims.subject.clone());
    if let Some(missing) = missing(&token.claims, LenientQuery::new(request.uri.query())) {
        facts.outcome = Some("denied");
        let refusal = refuse(StatusCode::FORBIDDEN, &Challenge::BearerInsufficientScope(missing), 1);
        return (facts, refusal);
    }
    facts.outcome = Some("active");
    let mut headers = HeaderMap::with_capacity(EXPECTED_HEADERS);
    for (name, value) in shared.settings.forward_auth.names.iter().zip(token.forward_auth(ForwardAuthHeaders::values)) {
        let value = HeaderValue::from_maybe_shared(value.clone()).unwrap_or(HeaderValue::from_static(""));
        headers.insert(name.clone(), value);
    }
    let max_age = shared.settings.introspection_max_age;
    headers.insert(CACHE_CONTROL, cache_control(max_age, token.claims.expires_at, judgement.at));
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = headers;
    (facts, response)
}

/// A request as the Fetch standard (§4.8) defines it. What a header says of another method is not believed: callers write
/// those as well.
fn is_preflight(request: &Parts) -> bool {
    let headers = &request.headers;
    let has_marks = headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    request.method == Method::OPTIONS && has_marks
}

fn count(shared: &Shared, judgement: &Judgement, started: Duration) {
    let result = match judgement.verdict {
        Verdict::Active(_) => IntrospectionResult::Active,
        Verdict::Inactive(_) => IntrospectionResult::Inactive,
        Verdict::CannotJudge(_) => IntrospectionResult::Unavailable,
    };
    let cache = if judgement.from_cache { CacheUse::Hit } else { CacheUse::Miss };
    shared.metrics.introspection(result, Some(cache), judgement.proven_at.saturating_sub(started));
}

/// The token, or the challenge for what came instead. A malformed header is 401 as well (contract.md §4).
fn bearer_token(headers: &HeaderMap) -> Result<&str, Challenge> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Challenge::Bearer)?;
    if values.next().is_some() {
        return Err(Challenge::BearerInvalidToken);
    }
    let text = value.to_str().map_err(|_| Challenge::BearerInvalidToken)?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => Ok(token.trim()),
        Some((scheme, _)) if !scheme.eq_ignore_ascii_case("bearer") => Err(Challenge::Bearer),
        _ => Err(Challenge::BearerInvalidToken),
    }
}

/// What was asked for and is not in the token, as the scopes that would be needed; none when nothing is missing. Every
/// parameter counts, also those that a proxy appended: they only ever restrict.
fn missing(claims: &AccessClaims, query: LenientQuery<'_>) -> Option<ScopeSet> {
    let mut wanted_scopes = ScopeSet::default();
    let mut is_missing = false;
    for audience in query.values("aud") {
        is_missing |= !audience.is_some_and(|text| claims.audience.iter().any(|own| own.as_str() == text.as_str()));
    }
    for scope in query.values("scope") {
        match scope.and_then(|text| ScopeSet::parse(text.as_str()).ok()) {
            Some(scopes) if scopes.is_subset_of(&claims.scope) => {}
            Some(scopes) => {
                is_missing = true;
                wanted_scopes = scopes;
            }
            None => is_missing = true,
        }
    }
    for role in query.values("role") {
        let roles = claims.login.iter().flat_map(|login| &login.roles);
        is_missing |= !role.is_some_and(|text| roles.into_iter().any(|own| own.as_str() == text.as_str()));
    }
    is_missing.then_some(wanted_scopes)
}

fn refuse(status: StatusCode, challenge: &Challenge, max_age: u64) -> Response {
    let cache = if max_age == 0 { HeaderValue::from_static("no-store") } else { HeaderValue::from_static("max-age=1") };
    (status, [(WWW_AUTHENTICATE, challenge.value()), (CACHE_CONTROL, cache)]).into_response()
}

fn unavailable() -> Response {
    let retry_after = HeaderValue::from(Duration::from_secs(1).as_secs());
    let headers = [(RETRY_AFTER, retry_after), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (StatusCode::SERVICE_UNAVAILABLE, headers).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_missing_header_is_a_bare_challenge_and_a_malformed_one_is_invalid() {
        assert_eq!(bearer_token(&HeaderMap::new()), Err(Challenge::Bearer));
        assert_eq!(bearer_token(&with("Basic abc")), Err(Challenge::Bearer));
        assert_eq!(bearer_token(&with("Bearer")), Err(Challenge::BearerInvalidToken));
        assert_eq!(bearer_token(&with("Bearer  ")), Err(Challenge::BearerInvalidToken));
        assert_eq!(bearer_token(&with("bearer abc")), Ok("abc"));
    }

    #[test]
    fn two_authorization_headers_are_refused() {
        let mut headers = with("Bearer a");
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert_eq!(bearer_token(&headers), Err(Challenge::BearerInvalidToken));
    }
}
