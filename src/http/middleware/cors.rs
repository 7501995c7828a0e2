//! Cross-origin requests of browsers: off unless an operator lists origins (security.md H11).

use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Method};
use tower_http::cors::CorsLayer;
use url::{Origin, Url};

use super::X_REQUEST_ID;
use crate::domain::ParseError;

/// How long a browser may keep the answer to a preflight.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

/// One origin that may call the REST API from a browser; compared exactly, never reflected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin(HeaderValue);

impl AllowedOrigin {
    /// Reads `scheme://host[:port]`, exactly as a browser writes it (RFC 6454 §6.2); no `*`, no `null`, no path.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        const ERROR: ParseError =
            ParseError("an origin is `https://host` or `https://host:port` as a browser sends it");
        let origin = Url::parse(text).map_err(|_| ERROR)?.origin();
        let is_exact = matches!(origin, Origin::Tuple(..)) && origin.ascii_serialization() == text;
        if !is_exact || text.contains('*') || !(text.starts_with("https://") || text.starts_with("http://")) {
            return Err(ERROR);
        }
        HeaderValue::from_str(text).map(Self).map_err(|_| ERROR)
    }
}

/// The layer for what browsers call: the REST routes, and the token and revocation endpoints; none when no origin is listed.
/// Introspection and forward-auth never get it: its `Vary` would split the caches of gateways.
pub fn cors(origins: &[AllowedOrigin]) -> Option<CorsLayer> {
    (!origins.is_empty()).then(|| {
        CorsLayer::new()
            .allow_origin(origins.iter().map(|origin| origin.0.clone()).collect::<Vec<_>>())
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers([AUTHORIZATION, CONTENT_TYPE, X_REQUEST_ID])
            .expose_headers([X_REQUEST_ID, RETRY_AFTER, WWW_AUTHENTICATE])
            .max_age(PREFLIGHT_MAX_AGE)
    })
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use http::Request;
    use tower::ServiceExt;

    use super::*;

    #[test]
    fn h11_only_exact_origins_are_taken() {
        for good in ["https://app.example", "https://app.example:8443", "http://localhost:3000"] {
            assert!(AllowedOrigin::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "*",
            "null",
            "https://app.example/",
            "https://*.example",
            "app.example",
            "https://APP.example",
            "file:///x",
            "https://app.example:443",
            "https://user@app.example",
            "",
        ] {
            assert!(AllowedOrigin::parse(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn h11_an_origin_that_is_not_listed_is_never_reflected() {
        let origins = [AllowedOrigin::parse("https://app.example").unwrap()];
        let router = Router::new().route("/", get(|| async {})).layer(cors(&origins).unwrap());
        let allowed = async |origin: &str| {
            let request = Request::get("/").header("origin", origin).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            response.headers().get("access-control-allow-origin").cloned()
        };
        assert_eq!(allowed("https://app.example").await.unwrap(), "https://app.example");
        for other in ["https://evil.example", "https://app.example.evil.example", "null", "http://app.example"] {
            assert_eq!(allowed(other).await, None, "{other}");
        }
        assert!(cors(&[]).is_none());
    }
}
