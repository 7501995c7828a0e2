//! `/.well-known/oauth-authorization-server` (RFC 8414) and `/.well-known/openid-configuration`.
//!
//! Every URL is built from the configured issuer, never from the request (security.md H12). The OIDC document has
//! additional members that strict discovery clients require.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Serialize;

use crate::domain::Algorithm;
use crate::http::middleware::RequestFacts;
use crate::http::state::Shared;

const AUTH_METHODS: [&str; 3] = ["client_secret_basic", "client_secret_post", "private_key_jwt"];

/// The members of both documents.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    introspection_endpoint: String,
    revocation_endpoint: String,
    service_documentation: String,
    response_types_supported: [&'static str; 1],
    grant_types_supported: [&'static str; 2],
    token_endpoint_auth_methods_supported: Vec<&'static str>,
    token_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    introspection_endpoint_auth_methods_supported: [&'static str; 3],
    introspection_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    introspection_signing_alg_values_supported: Vec<&'static str>,
    revocation_endpoint_auth_methods_supported: Vec<&'static str>,
    revocation_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    /// Only in the OIDC document.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject_types_supported: Option<[&'static str; 1]>,
    /// Only in the OIDC document.
    #[serde(skip_serializing_if = "Option::is_none")]
    id_token_signing_alg_values_supported: Option<Vec<&'static str>>,
}

impl Metadata {
    fn new(issuer: &str) -> Self {
        let base = issuer.trim_end_matches('/');
        let algorithms: Vec<_> = Algorithm::ALL.iter().map(|algorithm| algorithm.as_str()).collect();
        let with_none = || AUTH_METHODS.into_iter().chain(["none"]).collect();
        Self {
            issuer: issuer.to_owned(),
            authorization_endpoint: format!("{base}/oauth2/authorize"),
            token_endpoint: format!("{base}/oauth2/token"),
            jwks_uri: format!("{base}/.well-known/jwks.json"),
            introspection_endpoint: format!("{base}/oauth2/introspect"),
            revocation_endpoint: format!("{base}/oauth2/revoke"),
            service_documentation: format!("{base}/docs"),
            response_types_supported: ["none"],
            grant_types_supported: ["client_credentials", "refresh_token"],
            token_endpoint_auth_methods_supported: with_none(),
            token_endpoint_auth_signing_alg_values_supported: algorithms.clone(),
            introspection_endpoint_auth_methods_supported: AUTH_METHODS,
            introspection_endpoint_auth_signing_alg_values_supported: algorithms.clone(),
            introspection_signing_alg_values_supported: algorithms.clone(),
            revocation_endpoint_auth_methods_supported: with_none(),
            revocation_endpoint_auth_signing_alg_values_supported: algorithms,
            subject_types_supported: None,
            id_token_signing_alg_values_supported: None,
        }
    }

    fn openid(issuer: &str) -> Self {
        let algorithms = Algorithm::ALL.iter().map(|algorithm| algorithm.as_str()).collect();
        Self {
            subject_types_supported: Some(["public"]),
            id_token_signing_alg_values_supported: Some(algorithms),
            ..Self::new(issuer)
        }
    }
}

/// Both documents, serialized once.
#[derive(Debug)]
pub struct MetadataDocument {
    oauth: Bytes,
    openid: Bytes,
}

impl MetadataDocument {
    /// Builds the documents of `issuer`.
    pub fn new(issuer: &str) -> Self {
        // Serializing text with string keys cannot fail.
        let write = |metadata: &Metadata| Bytes::from(serde_json::to_vec(metadata).unwrap_or_default());
        Self { oauth: write(&Metadata::new(issuer)), openid: write(&Metadata::openid(issuer)) }
    }
}

/// Authorization server metadata (RFC 8414).
#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server", tag = "discovery",
    responses((status = 200, body = Metadata))
)]
pub async fn oauth(shared: Arc<Shared>) -> (RequestFacts, Response) {
    respond(shared.metadata.oauth.clone())
}

/// The same metadata in the format of OpenID Connect Discovery 1.0, for clients that support only that.
#[utoipa::path(
    get, path = "/.well-known/openid-configuration", tag = "discovery",
    responses((status = 200, body = Metadata))
)]
pub async fn openid(shared: Arc<Shared>) -> (RequestFacts, Response) {
    respond(shared.metadata.openid.clone())
}

fn respond(body: Bytes) -> (RequestFacts, Response) {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "public, max-age=300")];
    (RequestFacts::default(), (headers, body).into_response())
}
