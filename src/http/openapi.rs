//! The OpenAPI 3.1 document, and the page that shows it.

use std::sync::OnceLock;

use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

use super::{admin, health, oauth, v1, well_known};

/// The documentation page: one file, nothing loaded from elsewhere.
const PAGE: &str = include_str!("docs.html");

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Countersign",
        description = "Short-lived access tokens, rotating refresh tokens, and introspection from memory.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    servers((url = "/", description = "The public listener"), (url = "http://localhost:9090", description = "The operations listener: `/admin/v1`, `/metrics`")),
    paths(
        v1::login::login, v1::refresh::refresh, v1::logout::logout,
        v1::me::me, v1::me::change_password, v1::me::sessions, v1::me::end_session, v1::me::end_all_sessions,
        v1::verify::verify, v1::introspect_batch::introspect_batch,
        oauth::token::token, oauth::introspect::introspect, oauth::revoke::revoke, oauth::authorize::authorize,
        well_known::jwks::jwks, well_known::metadata::oauth, well_known::metadata::openid,
        health::livez, health::readyz, health::metrics,
        admin::users::list, admin::users::create, admin::users::read, admin::users::change, admin::users::set_password,
        admin::users::delete, admin::users::import,
        admin::clients::list, admin::clients::create, admin::clients::read, admin::clients::change,
        admin::clients::new_secret, admin::clients::delete,
        admin::sessions::list, admin::sessions::end,
        admin::revocations::list, admin::revocations::revoke,
        admin::keys::list, admin::keys::rotate, admin::keys::withdraw, admin::keys::import,
        admin::audit::list, admin::status::status,
    ),
    tags(
        (name = "sessions", description = "Tokens for people"),
        (name = "account", description = "What users do with their own account"),
        (name = "oauth", description = "Tokens for clients (RFC 6749, RFC 7009)"),
        (name = "judging", description = "Is this token good? (RFC 7662, forward-auth)"),
        (name = "discovery", description = "Keys and metadata (RFC 7517, RFC 8414)"),
        (name = "operations", description = "Health and figures"),
        (name = "administration", description = "On the operations listener"),
    ),
    components(schemas(super::error::ProblemBody)),
    modifiers(&Credentials)
)]
struct Document;

/// How requests are authenticated.
struct Credentials;

impl utoipa::Modify for Credentials {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        components.add_security_scheme("client", SecurityScheme::Http(Http::new(HttpAuthScheme::Basic)));
    }
}

/// The document, as it is checked in.
pub fn document() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| Document::openapi().to_pretty_json().unwrap_or_default() + "\n")
}

/// `GET /openapi.json`.
pub async fn json() -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=300")),
        (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    ];
    (headers, document()).into_response()
}

/// `GET /docs`.
pub async fn page() -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=300")),
        (
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                 base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            ),
        ),
    ];
    (headers, PAGE).into_response()
}
