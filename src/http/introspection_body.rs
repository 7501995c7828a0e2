//! The body of an introspection answer (RFC 7662 §2.2), shared by single, batch and signed answers.

use std::sync::OnceLock;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue};
use serde::Serialize;

use crate::domain::{AccessClaims, Role, ScopeSet, Session, Timestamp};
use crate::service::{Introspected, Introspection, Signature};
use crate::telemetry::CacheUse;
use crate::telemetry::metrics::IntrospectionResult;

/// The complete inactive answer, byte-identical for every reason (security.md I3).
pub const INACTIVE: &[u8] = b"{\"active\":false}";

/// A token of a batch without a verdict. It has no `active`, because it is neither active nor inactive.
const UNDECIDED: &[u8] = b"{\"error\":\"temporarily_unavailable\"}";

/// Capacity for the headers of an answer, including those added by the middleware.
const EXPECTED_HEADERS: usize = 5;

/// Cache lifetime of an inactive answer: long enough to limit a flood of requests with one inactive token.
const INACTIVE_CACHE: HeaderValue = HeaderValue::from_static("max-age=1");

/// The answer depends on the caller, and on whether it requests the signed form.
const BY_CALLER_AND_FORM: HeaderValue = HeaderValue::from_static("accept, authorization");

/// Times in an answer: `NumericDate` (RFC 7519 §2).
type Seconds = i64;

/// Claims of an active token. Members that do not apply or would be empty are omitted.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ActiveToken<'a> {
    /// Always true.
    pub active: bool,
    /// Issuer.
    pub iss: &'a str,
    /// Subject: a user or a client.
    pub sub: String,
    /// Audience: a string, or an array of several.
    pub aud: OneOrMany<'a>,
    /// Expiry; the token is inactive from then on.
    pub exp: Seconds,
    /// Time of issue.
    pub iat: Seconds,
    /// Start of validity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<Seconds>,
    /// Id of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<&'a str>,
    /// Client to which the token was issued.
    pub client_id: &'a str,
    /// Scopes, separated by spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// `Bearer`, or `refresh_token` for a refresh token.
    pub token_type: &'static str,
    /// Session, if a user logged in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// Name of the user, if a user logged in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<&'a str>,
    /// Roles of the user, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<&'a str>>,
    /// Time of the user's authentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<Seconds>,
    /// Methods of authentication (RFC 8176).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amr: Option<&'a [String]>,
}

/// Answer of an introspection (RFC 7662 §2.2).
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, clippy::large_enum_variant, reason = "describes what `body_of` writes; never constructed")]
pub enum IntrospectionAnswer<'a> {
    /// The token is active and visible to the caller.
    Active(ActiveToken<'a>),
    /// The token is inactive or not visible to the caller.
    Inactive(InactiveToken),
}

/// A result of a batch.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, clippy::large_enum_variant, reason = "describes what `body_of` writes; never constructed")]
pub enum BatchResult<'a> {
    /// As from `/oauth2/introspect`.
    Judged(IntrospectionAnswer<'a>),
    /// The token could not be judged, because a stored row cannot be read. Treat it as a 503 for this token.
    Undecided(UndecidedToken),
}

/// Exactly `{"error":"temporarily_unavailable"}`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UndecidedToken {
    /// Always `temporarily_unavailable`.
    error: &'static str,
}

/// Exactly `{"active":false}`, for every reason.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InactiveToken {
    /// Always false.
    active: bool,
}

/// An `aud` claim (RFC 7519 §4.1.3).
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum OneOrMany<'a> {
    /// A single audience.
    One(&'a str),
    /// Several audiences.
    Many(Vec<&'a str>),
}

impl<'a> OneOrMany<'a> {
    fn new(audience: &'a [crate::domain::Audience]) -> Self {
        match audience {
            [only] => Self::One(only.as_str()),
            several => Self::Many(several.iter().map(crate::domain::Audience::as_str).collect()),
        }
    }
}

impl<'a> ActiveToken<'a> {
    /// The claims of an access token.
    pub fn access(claims: &'a AccessClaims) -> Self {
        let login = claims.login.as_ref();
        Self {
            active: true,
            iss: &claims.issuer,
            sub: claims.subject.to_string(),
            aud: OneOrMany::new(&claims.audience),
            exp: claims.expires_at.seconds(),
            iat: claims.issued_at.seconds(),
            nbf: Some(claims.not_before.seconds()),
            jti: Some(claims.jti.as_str()),
            client_id: claims.client.as_str(),
            scope: words(&claims.scope),
            token_type: "Bearer",
            sid: login.map(|login| login.session.to_string()),
            username: login.map(|login| login.username.as_str()),
            roles: login
                .filter(|login| !login.roles.is_empty())
                .map(|login| login.roles.iter().map(Role::as_str).collect()),
            auth_time: login.map(|login| login.authenticated_at.seconds()),
            amr: login.map(|login| login.methods.as_slice()),
        }
    }

    /// The claims of a refresh token; only its own client sees them.
    pub fn refresh(session: &'a Session, issuer: &'a str) -> Self {
        Self {
            active: true,
            iss: issuer,
            sub: session.user.to_string(),
            aud: OneOrMany::new(&session.audience),
            exp: session.idle_expires_at.min(session.absolute_expires_at).seconds(),
            iat: session.rotated_at.seconds(),
            nbf: None,
            jti: None,
            client_id: session.client.as_str(),
            scope: words(&session.scope),
            token_type: "refresh_token",
            sid: Some(session.id.to_string()),
            username: None,
            roles: None,
            auth_time: Some(session.authenticated_at.seconds()),
            amr: None,
        }
    }

    /// Serializes the claims as JSON.
    pub fn to_bytes(&self) -> Bytes {
        // Serializing text and numbers with string keys cannot fail.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// The responses for a token, rendered once and kept with it in the verified-token cache.
#[derive(Debug, Default)]
pub struct Rendered {
    introspection: OnceLock<Bytes>,
    /// Headers of forward-auth.
    pub forward_auth: OnceLock<HeaderMap>,
}

/// The `scope` member; RFC 6749 §3.3 does not allow an empty one.
pub fn words(scope: &ScopeSet) -> Option<String> {
    (!scope.is_empty()).then(|| scope.to_string())
}

/// The JSON of a result. The JSON of an access token is cached with the token.
pub fn body_of(result: &Introspection, issuer: &str) -> Bytes {
    match result {
        Introspection::Access(token) => {
            let write = || ActiveToken::access(&token.claims).to_bytes();
            token.derived::<Rendered>().map_or_else(write, |rendered| rendered.introspection.get_or_init(write).clone())
        }
        Introspection::Refresh(session) => ActiveToken::refresh(session, issuer).to_bytes(),
        Introspection::Inactive => Bytes::from_static(INACTIVE),
        Introspection::Undecided => Bytes::from_static(UNDECIDED),
    }
}

/// The answer, with a cache lifetime that ends with the token.
pub fn respond(introspected: &Introspected, issuer: &str, max_age: Duration) -> Response {
    let cache = match &introspected.result {
        Introspection::Access(token) => cache_control(max_age, token.claims.expires_at, introspected.at),
        Introspection::Refresh(_) | Introspection::Undecided => HeaderValue::from_static("no-store"),
        Introspection::Inactive => INACTIVE_CACHE,
    };
    let mut headers = HeaderMap::with_capacity(EXPECTED_HEADERS);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, cache);
    headers.insert(VARY, BY_CALLER_AND_FORM);
    let mut response = Response::new(Body::from(body_of(&introspected.result, issuer)));
    *response.headers_mut() = headers;
    response
}

/// The metric label of an introspection.
pub fn label_of(introspected: &Introspected) -> IntrospectionResult {
    match introspected.result {
        Introspection::Access(_) | Introspection::Refresh(_) => IntrospectionResult::Active,
        Introspection::Inactive => IntrospectionResult::Inactive,
        Introspection::Undecided => IntrospectionResult::Unavailable,
    }
}

/// Whether the verified-token cache made a signature check unnecessary. `None` for a text that is not an access token of
/// this installation.
pub const fn cache_use(signature: Signature) -> Option<CacheUse> {
    match signature {
        Signature::Remembered => Some(CacheUse::Hit),
        Signature::Verified => Some(CacheUse::Miss),
        Signature::Foreign => None,
    }
}

/// `max-age=N` with N = min(configured, `exp` − now) in whole seconds, rounded down, so that a cached answer never
/// outlives the token. Without `private`, which would prevent caching by nginx.
pub fn cache_control(max_age: Duration, expires_at: Timestamp, now: Timestamp) -> HeaderValue {
    let seconds = max_age.min(expires_at.since(now)).as_secs();
    match seconds {
        0 => HeaderValue::from_static("no-store"),
        1 => INACTIVE_CACHE,
        5 => HeaderValue::from_static("max-age=5"),
        _ => HeaderValue::try_from(format!("max-age={seconds}")).unwrap_or(HeaderValue::from_static("no-store")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i7_a_cached_answer_never_outlives_the_token() {
        let now = Timestamp::from_seconds(100);
        let header = |max_age, left_millis| {
            let expires_at = Timestamp::from_millis(now.millis() + left_millis);
            cache_control(Duration::from_secs(max_age), expires_at, now)
        };
        assert_eq!(header(5, 60_000), "max-age=5");
        assert_eq!(header(5, 4_999), "max-age=4");
        assert_eq!(header(60, 30_000), "max-age=30");
        assert_eq!(header(5, 999), "no-store");
        assert_eq!(header(0, 60_000), "no-store");
    }
}
