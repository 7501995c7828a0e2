//! Cross-origin requests of pages (security.md H11), decided here for every answer. This includes answers without a
//! route (404, 431, 503 at the deadline): without these headers a page sees a network error and no status.
//!
//! No answer allows credentials. Cookies are not read, and the page itself puts the token in a header or body.

use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::clock::Clock;
use crate::telemetry::OncePerMinute;

/// `*` includes every header except `Authorization`. The others are listed for browsers that do not support `*` (Safari
/// before 15.4).
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, x-request-id, traceparent, tracestate, baggage, sentry-trace, *",
);
/// Methods of the routes that pages may call.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE");
/// Methods of the documents that every origin may read.
const READING: HeaderValue = HeaderValue::from_static("GET, HEAD");
/// Response headers that a page may read, in addition to those of the Fetch standard (§2.2.2).
const EXPOSED: HeaderValue = HeaderValue::from_static("x-request-id, retry-after, www-authenticate");
/// Seconds for which a browser may cache a preflight answer. Chrome limits it to two hours.
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("600");
/// Maximum bytes of a refused origin in the log.
const LOGGED_ORIGIN_BYTES: usize = 200;

/// `cors.allowed_origins`. Origins are compared byte for byte.
#[derive(Debug, Default)]
pub struct Cors {
    origins: Vec<HeaderValue>,
    refusals: OncePerMinute,
}

/// The origins whose pages may read the answers of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readers {
    /// Any origin: public documents.
    Anyone,
    /// The configured origins: routes for users and public clients, and unknown paths.
    Listed,
    /// No origin: routes for gateways and other servers.
    None,
}

impl Readers {
    /// The readers of a path. `path` does not include the issuer's path.
    fn of(path: &str) -> Self {
        match path {
            "/openapi.json" => Self::Anyone,
            "/oauth2/introspect" | "/v1/introspect" | "/v1/verify" => Self::None,
            _ if path.starts_with("/v1/verify/") => Self::None,
            _ if path.starts_with("/.well-known/") => Self::Anyone,
            _ => Self::Listed,
        }
    }
}

/// The headers that CORS adds to one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Grant {
    /// No headers.
    Nothing,
    /// Every origin may read the answer.
    Anyone,
    /// The answer depends on the origin. Contains the request's origin if it is allowed.
    Listed(Option<HeaderValue>),
}

impl Cors {
    pub fn new(origins: Vec<HeaderValue>) -> Self {
        Self { origins, refusals: OncePerMinute::default() }
    }

    /// The headers for the answer to a request. `path` does not include the issuer's path.
    pub(super) fn grant(&self, method: &Method, path: &str, headers: &HeaderMap, clock: &dyn Clock) -> Grant {
        match Readers::of(path) {
            Readers::None => Grant::Nothing,
            Readers::Anyone => Grant::Anyone,
            Readers::Listed => {
                let origin = headers.get(ORIGIN);
                let allowed = origin.filter(|origin| self.origins.contains(origin)).cloned();
                if let (None, Some(refused)) = (&allowed, origin)
                    && is_cross_origin(method, headers)
                    && self.refusals.is_due(clock.elapsed())
                {
                    log_refusal(refused);
                }
                if self.origins.is_empty() { Grant::Nothing } else { Grant::Listed(allowed) }
            }
        }
    }
}

impl Grant {
    /// The answer to a preflight request.
    pub(super) fn preflight(&self) -> Response {
        let methods = match self {
            Self::Nothing | Self::Listed(None) => return StatusCode::NO_CONTENT.into_response(),
            Self::Anyone => READING,
            Self::Listed(Some(_)) => METHODS,
        };
        let headers = [
            (ACCESS_CONTROL_ALLOW_METHODS, methods),
            (ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
            (ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE),
        ];
        (StatusCode::NO_CONTENT, headers).into_response()
    }

    /// Adds the headers to an answer.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Self::Nothing => {}
            Self::Anyone => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            Self::Listed(origin) => {
                headers.append(VARY, HeaderValue::from_static("origin"));
                if let Some(origin) = origin {
                    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
                }
            }
        }
    }
}

/// Whether this is a CORS preflight request (Fetch §4.8). The headers alone do not decide, because any request can
/// contain them.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Whether the browser reports a page of another origin. A page of the same origin also sends `Origin` with a POST.
fn is_cross_origin(method: &Method, headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    is_preflight(method, headers) || matches!(site, Some(b"cross-site" | b"same-site"))
}

fn log_refusal(origin: &HeaderValue) {
    let bytes = origin.as_bytes();
    let origin = String::from_utf8_lossy(&bytes[..bytes.len().min(LOGGED_ORIGIN_BYTES)]);
    tracing::warn!(%origin, "the browser blocks this answer: the origin of the page is not in cors.allowed_origins");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::domain::Timestamp;

    #[test]
    fn h11_an_origin_that_is_not_listed_is_never_reflected() {
        let cors = Cors::new(vec![HeaderValue::from_static("https://app.example")]);
        let clock = ManualClock::starting_at(Timestamp::from_millis(0));
        let grant = |origin: &'static str, path: &str| {
            let headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))]);
            cors.grant(&Method::GET, path, &headers, &clock)
        };
        let listed = Grant::Listed(Some(HeaderValue::from_static("https://app.example")));
        assert_eq!(grant("https://app.example", "/v1/me"), listed);
        for other in ["https://evil.example", "https://app.example.evil.example", "null", "http://app.example", "*"] {
            assert_eq!(grant(other, "/v1/me"), Grant::Listed(None), "{other}");
            assert_eq!(grant(other, "/.well-known/jwks.json"), Grant::Anyone);
        }
        for path in ["/v1/verify", "/v1/verify/app", "/v1/introspect", "/oauth2/introspect"] {
            assert_eq!(grant("https://app.example", path), Grant::Nothing, "{path}");
        }
    }
}
