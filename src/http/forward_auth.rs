//! The forward-auth decision for gateways, over HTTP (`/v1/verify`) and gRPC (`envoy.service.auth.v3`). Answers only
//! 200, 401, 403 and 503.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, RETRY_AFTER, VARY, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::error::Challenge;
use super::extract::Authorization;
use super::introspection_body::{Rendered, cache_control, cache_use};
use super::middleware::{self, RequestFacts, is_preflight};
use super::state::Shared;
use crate::domain::{AccessClaims, Role, ScopeSet};
use crate::service::{JudgedToken, Judgement, Verdict};
use crate::telemetry::CacheUse;
use crate::telemetry::metrics::IntrospectionResult;

/// Names of the identity headers of an allowed request, with the configured prefix.
#[derive(Debug, Clone)]
pub struct ForwardAuthHeaders {
    names: [HeaderName; 7],
}

impl ForwardAuthHeaders {
    /// Names with `prefix`, such as `X-Auth-Request-`; `None` if a name is not a valid header name.
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

    /// Identity headers of a token. A header without a value in the token is sent empty. Otherwise a gateway that
    /// copies headers by name could keep the caller's own header (Caddy 2.6 inserts a placeholder).
    fn of_token(&self, claims: &AccessClaims) -> HeaderMap {
        let login = claims.login.as_ref();
        let roles = login.map(|login| login.roles.iter().map(Role::as_str).collect::<Vec<_>>().join(","));
        let values = [
            Some(claims.subject.to_string()),
            login.map(|login| login.username.clone()),
            Some(claims.client.to_string()),
            Some(claims.scope.to_string()),
            roles,
            login.map(|login| login.session.to_string()),
            Some(claims.expires_at.seconds().to_string()),
        ];
        self.with(
            values.map(|value| HeaderValue::from_maybe_shared(Bytes::from(value.unwrap_or_default())).unwrap_or(EMPTY)),
        )
    }

    /// Builds the header map with capacity for the middleware's headers, so that a cached answer costs one copy of the
    /// map.
    fn with(&self, values: [HeaderValue; 7]) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(values.len() + 4);
        headers.extend(self.names.iter().cloned().zip(values));
        headers.insert(VARY, BY_TOKEN);
        middleware::reserve_common_headers(&mut headers);
        headers
    }
}

/// Requirements on a token. Each one only restricts access.
pub trait Demands {
    /// Every required value of `name` (`aud`, `scope` or `role`). `None` is a value that no token satisfies.
    fn values(&self, name: &str) -> impl Iterator<Item = Option<impl AsRef<str>>>;
}

/// The answer to a gateway.
pub struct ForwardAuth {
    /// One of 200, 401, 403 and 503.
    pub status: StatusCode,
    /// Additional headers: `WWW-Authenticate`, `Cache-Control`, `Retry-After`.
    pub extra: [Option<(HeaderName, HeaderValue)>; 2],
    /// Facts for the request log.
    pub facts: RequestFacts,
    token: Option<Arc<JudgedToken>>,
}

impl ForwardAuth {
    /// The headers of an HTTP answer. An allowed request has every identity header. A header without a value in the token
    /// is empty, as is each header for a preflight request, so that it replaces the caller's own header of that name.
    pub fn headers(&self, names: &ForwardAuthHeaders) -> HeaderMap {
        let mut headers = self.identity(names).into_owned();
        for (name, value) in self.extra.iter().flatten() {
            headers.insert(name.clone(), value.clone());
        }
        headers
    }

    /// Only the identity headers.
    pub fn identity_pairs(&self, names: &ForwardAuthHeaders) -> Vec<(HeaderName, HeaderValue)> {
        let headers = self.identity(names);
        let pair = |name: &HeaderName| headers.get(name).map(|value| (name.clone(), value.clone()));
        names.names.iter().filter_map(pair).collect()
    }

    fn identity(&self, names: &ForwardAuthHeaders) -> Cow<'_, HeaderMap> {
        match &self.token {
            Some(token) => {
                let write = || names.of_token(&token.claims);
                match token.derived::<Rendered>() {
                    Some(rendered) => Cow::Borrowed(rendered.forward_auth.get_or_init(write)),
                    None => Cow::Owned(write()),
                }
            }
            None if self.status == StatusCode::OK => Cow::Owned(names.with([EMPTY; 7])),
            None => Cow::Owned(HeaderMap::from_iter([(VARY, BY_TOKEN)])),
        }
    }

    fn new(status: StatusCode, extra: [Option<(HeaderName, HeaderValue)>; 2], facts: RequestFacts) -> Self {
        Self { status, extra, facts, token: None }
    }

    fn allowed(token: Arc<JudgedToken>, cache: HeaderValue, facts: RequestFacts) -> Self {
        let extra = [Some((CACHE_CONTROL, cache)), None];
        Self { status: StatusCode::OK, extra, facts, token: Some(token) }
    }

    fn refused(status: StatusCode, challenge: &Challenge, cache: HeaderValue, facts: RequestFacts) -> Self {
        Self::new(status, [Some((WWW_AUTHENTICATE, challenge.value())), Some((CACHE_CONTROL, cache))], facts)
    }

    fn unavailable(facts: RequestFacts) -> Self {
        let retry_after = HeaderValue::from_static("1");
        let extra = [Some((RETRY_AFTER, retry_after)), Some((CACHE_CONTROL, NO_STORE))];
        Self::new(StatusCode::SERVICE_UNAVAILABLE, extra, facts)
    }
}

const EMPTY: HeaderValue = HeaderValue::from_static("");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// The answer depends on the token. A gateway that caches without it would give one user's identity to other callers.
const BY_TOKEN: HeaderValue = HeaderValue::from_static("authorization");
/// Long enough to limit a flood of requests with one inactive token.
const FOR_A_SECOND: HeaderValue = HeaderValue::from_static("max-age=1");

/// Judges the bearer token of a request at a gateway.
pub async fn decide(shared: &Shared, method: &Method, headers: &HeaderMap, demands: impl Demands) -> ForwardAuth {
    if shared.settings.allow_preflight && is_preflight(method, headers) {
        return ForwardAuth::new(StatusCode::OK, [Some((CACHE_CONTROL, NO_STORE)), None], RequestFacts::default());
    }
    let token = match bearer_token(headers) {
        Ok(token) => token,
        Err(challenge) => {
            return ForwardAuth::refused(StatusCode::UNAUTHORIZED, &challenge, NO_STORE, RequestFacts::default());
        }
    };
    let started = shared.clock.elapsed();
    let judgement = shared.service.judge.judge(token).await;
    count(shared, &judgement, started);
    let mut facts = RequestFacts {
        cache_hit: cache_use(judgement.signature).map(|cache| cache == CacheUse::Hit),
        ..RequestFacts::default()
    };
    let token = match judgement.verdict {
        Verdict::Active(token) => token,
        Verdict::Inactive(reason) => {
            tracing::debug!(%reason, "forward-auth refused");
            facts.outcome = Some("inactive");
            let challenge = Challenge::BearerInvalidToken;
            return ForwardAuth::refused(StatusCode::UNAUTHORIZED, &challenge, FOR_A_SECOND, facts);
        }
        Verdict::Unavailable(reason) => {
            tracing::debug!(%reason, "forward-auth unavailable");
            facts.outcome = Some("unavailable");
            return ForwardAuth::unavailable(facts);
        }
    };
    facts.subject = Some(token.claims.subject.clone());
    if let Some(missing) = missing(&token.claims, &demands) {
        facts.outcome = Some("denied");
        let challenge = Challenge::BearerInsufficientScope(missing);
        return ForwardAuth::refused(StatusCode::FORBIDDEN, &challenge, FOR_A_SECOND, facts);
    }
    facts.outcome = Some("active");
    let cache = cache_control(shared.settings.introspection_max_age, token.claims.expires_at, judgement.at);
    ForwardAuth::allowed(token, cache, facts)
}

fn count(shared: &Shared, judgement: &Judgement, started: Duration) {
    let result = match judgement.verdict {
        Verdict::Active(_) => IntrospectionResult::Active,
        Verdict::Inactive(_) => IntrospectionResult::Inactive,
        Verdict::Unavailable(_) => IntrospectionResult::Unavailable,
    };
    shared.metrics.introspection(result, cache_use(judgement.signature), judgement.checked_at.saturating_sub(started));
}

/// The token, or the challenge for a missing or malformed header. A malformed header is answered 401 too.
fn bearer_token(headers: &HeaderMap) -> Result<&str, Challenge> {
    match Authorization::of(headers) {
        Authorization::Bearer(Some(token)) => Ok(token),
        Authorization::Bearer(None) | Authorization::Repeated => Err(Challenge::BearerInvalidToken),
        Authorization::Absent | Authorization::Basic(_) | Authorization::Other => Err(Challenge::Bearer),
    }
}

/// The required scopes if the token lacks a scope, audience or role; `None` if it satisfies all demands. Every
/// occurrence of a parameter is applied, including those appended by a proxy: they only restrict access.
fn missing(claims: &AccessClaims, demands: &impl Demands) -> Option<ScopeSet> {
    let mut required_scopes = ScopeSet::default();
    let mut is_missing = false;
    for audience in demands.values("aud") {
        is_missing |= !audience.is_some_and(|text| claims.audience.iter().any(|own| own.as_str() == text.as_ref()));
    }
    for scope in demands.values("scope") {
        match scope.and_then(|text| ScopeSet::parse(text.as_ref()).ok()) {
            Some(scopes) if scopes.is_subset_of(&claims.scope) => {}
            Some(scopes) => {
                is_missing = true;
                required_scopes = scopes;
            }
            None => is_missing = true,
        }
    }
    for role in demands.values("role") {
        let roles = claims.login.iter().flat_map(|login| &login.roles);
        is_missing |= !role.is_some_and(|text| roles.into_iter().any(|own| own.as_str() == text.as_ref()));
    }
    is_missing.then_some(required_scopes)
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

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
