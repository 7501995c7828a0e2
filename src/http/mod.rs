//! HTTP: the listeners, the middleware and the endpoints. This page lists every route.

mod admin;
mod attempts;
mod bearer;
mod caller;
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
mod routes;
mod state;
mod token_answer;
mod v1;
mod well_known;

use std::sync::Arc;

use axum::Json as JsonBody;
use axum::Router;
use axum::routing::{delete, get, patch, post, put};
use tower_http::compression::CompressionLayer;

pub use admin::{AuditItem, ClientItem, KeyItem, UserItem};
pub use forward_auth::ForwardAuthHeaders;
pub use observer::Observer;
pub use routes::Routes;
use routes::{Handler, HotRoute};
pub use state::{HttpSettings, Shared};
pub use well_known::MetadataDocument;

/// Routes of the public listener. If the issuer has a path, the same routes also answer below it, and metadata is
/// served at both locations that clients use (RFC 8414 §3.1). `middleware/cors.rs` decides by path which origins may
/// call a route.
pub fn public(shared: Arc<Shared>, issuer_path: &str) -> Routes {
    let api = || people().merge(machines());
    let has_path = !issuer_path.is_empty();
    let router = if has_path { api().nest(issuer_path, api()) } else { api() };
    let rows = hot_routes().map(|row| (row, false)).into_iter().chain(metadata_routes().map(|row| (row, true)));
    let mut hot = Vec::new();
    for ((allow, path, handler), is_metadata) in rows {
        let below = has_path.then(|| format!("{issuer_path}{path}"));
        let beside = (has_path && is_metadata).then(|| format!("{path}{issuer_path}"));
        for template in [Some(path.to_owned()), below, beside].into_iter().flatten() {
            hot.push(HotRoute { allow, template: template.into(), handler, shared: Arc::clone(&shared) });
        }
    }
    Routes::new(hot, router.with_state(shared))
}

/// The hot routes, which are served before the router: methods, path and handler.
fn hot_routes() -> [(&'static str, &'static str, Handler); 6] {
    [
        ("POST", "/oauth2/introspect", |shared, request, context| {
            Box::pin(oauth::introspect::introspect(shared, request, context.client.ip()))
        }),
        ("POST", "/oauth2/token", |shared, request, context| {
            Box::pin(oauth::token::token(shared, request, context.clone()))
        }),
        ("", "/v1/verify", |shared, request, _| Box::pin(v1::verify::verify(shared, request))),
        ("", "/v1/verify/", |shared, request, _| Box::pin(v1::verify::verify(shared, request))),
        ("", "/v1/verify/{*path}", |shared, request, _| Box::pin(v1::verify::verify(shared, request))),
        ("GET,HEAD", "/.well-known/jwks.json", |shared, request, _| Box::pin(well_known::jwks::jwks(shared, request))),
    ]
}

/// The metadata, served like the hot routes.
fn metadata_routes() -> [(&'static str, &'static str, Handler); 2] {
    [
        ("GET,HEAD", "/.well-known/oauth-authorization-server", |shared, _, _| {
            Box::pin(well_known::metadata::oauth(shared))
        }),
        ("GET,HEAD", "/.well-known/openid-configuration", |shared, _, _| {
            Box::pin(well_known::metadata::openid(shared))
        }),
    ]
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

/// Judging tokens, and public documents.
fn machines() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/introspect", post(v1::introspect_batch::introspect_batch))
        .route("/v1/revocations", get(v1::revocations::revocations))
        .route("/v1/revocations/events", get(v1::revocations::events))
        .route("/oauth2/revoke", post(oauth::revoke::revoke))
        .route("/oauth2/authorize", get(oauth::authorize::authorize))
        .route("/openapi.json", get(openapi::json).layer(CompressionLayer::new()))
        .route("/", get(openapi::root))
        .route("/docs", get(openapi::page).layer(CompressionLayer::new()))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
}

/// Routes of the operations listener: administration, metrics, health.
pub fn operations(shared: Arc<Shared>) -> Routes {
    let router = Router::new()
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
        .route("/metrics", get(health::metrics).layer(CompressionLayer::new()))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz_with_details));
    router.with_state(shared).into()
}
