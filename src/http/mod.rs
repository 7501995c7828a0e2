//! HTTP: the listeners, the middleware and the endpoints. This page lists every route.

mod admin;
mod answer;
mod attempts;
mod bearer;
mod caller;
pub mod direct;
pub mod error;
pub mod extract;
pub mod forward_auth;
mod health;
mod introspection_body;
pub mod listener;
pub mod middleware;
mod oauth;
mod observer;
pub mod openapi;
mod page;
mod requester;
mod state;
mod time;
mod token_answer;
mod v1;
mod well_known;

use std::sync::Arc;

use axum::Router;
use axum::routing::{any, delete, get, patch, post, put};

pub use admin::{AuditItem, ClientItem, KeyItem, UserItem};
pub use direct::{Direct, Routes};
pub use forward_auth::ForwardAuthHeaders;
pub use observer::Observer;
pub use state::{HttpSettings, Shared};
pub use time::rfc3339;
pub use well_known::MetadataDocument;

/// Routes of the public listener. If the issuer has a path, the same routes also answer below it, and metadata is
/// served at both locations that clients use (RFC 8414 §3.1). `middleware/cors.rs` decides by path which origins may
/// call a route.
pub fn public(shared: Arc<Shared>, issuer_path: &str) -> Router {
    let api = || people().merge(tokens()).merge(machines());
    let mut router = api();
    if !issuer_path.is_empty() {
        router = router
            .nest(issuer_path, api())
            .route(&format!("/.well-known/oauth-authorization-server{issuer_path}"), get(well_known::metadata::oauth))
            .route(&format!("/.well-known/openid-configuration{issuer_path}"), get(well_known::metadata::openid));
    }
    router.with_state(shared)
}

/// Tokens for users, and their accounts.
fn people() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/login", post(v1::login::login))
        .route("/v1/refresh", post(v1::refresh::refresh))
        .route("/v1/logout", post(v1::logout::logout))
        .route("/v1/me", get(v1::me::me))
        .route("/v1/me/password", put(v1::me::change_password))
        .route("/v1/me/sessions", get(v1::me::sessions).delete(v1::me::end_all_sessions))
        .route("/v1/me/sessions/{sid}", delete(v1::me::end_session))
}

/// Tokens for clients. Public clients call these routes from browsers.
fn tokens() -> Router<Arc<Shared>> {
    Router::new().route("/oauth2/token", post(oauth::token::token)).route("/oauth2/revoke", post(oauth::revoke::revoke))
}

/// Judging tokens, and public documents.
fn machines() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/verify", any(v1::verify::verify))
        .route("/v1/verify/", any(v1::verify::verify))
        .route("/v1/verify/{*path}", any(v1::verify::verify))
        .route("/v1/introspect", post(v1::introspect_batch::introspect_batch))
        .route("/v1/revocations", get(v1::revocations::revocations))
        .route("/v1/revocations/events", get(v1::revocations::events))
        .route("/oauth2/introspect", post(oauth::introspect::introspect))
        .route("/oauth2/authorize", get(oauth::authorize::authorize))
        .route("/.well-known/jwks.json", get(well_known::jwks::jwks))
        .route("/.well-known/oauth-authorization-server", get(well_known::metadata::oauth))
        .route("/.well-known/openid-configuration", get(well_known::metadata::openid))
        .route("/openapi.json", get(openapi::json))
        .route("/", get(openapi::root))
        .route("/docs", get(openapi::page))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
}

/// Routes of the operations listener: administration, metrics, health.
pub fn operations(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/admin/v1/users", get(admin::users::list).post(admin::users::create))
        .route("/admin/v1/users/import", post(admin::users::import))
        .route(
            "/admin/v1/users/{id}",
            get(admin::users::read).merge(patch(admin::users::change)).delete(admin::users::delete),
        )
        .route("/admin/v1/users/{id}/password", put(admin::users::set_password))
        .route("/admin/v1/clients", get(admin::clients::list).post(admin::clients::create))
        .route(
            "/admin/v1/clients/{client_id}",
            get(admin::clients::read).merge(patch(admin::clients::change)).delete(admin::clients::delete),
        )
        .route("/admin/v1/clients/{client_id}/secret", post(admin::clients::new_secret))
        .route("/admin/v1/sessions", get(admin::sessions::list))
        .route("/admin/v1/sessions/{sid}", delete(admin::sessions::end))
        .route("/admin/v1/revocations", get(admin::revocations::list).post(admin::revocations::revoke))
        .route("/admin/v1/keys", get(admin::keys::list).post(admin::keys::import))
        .route("/admin/v1/keys/rotate", post(admin::keys::rotate))
        .route("/admin/v1/keys/{kid}/withdraw", post(admin::keys::withdraw))
        .route("/admin/v1/audit", get(admin::audit::list))
        .route("/admin/v1/status", get(admin::status::status))
        .route("/metrics", get(health::metrics))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz_with_details))
        .with_state(shared)
}
