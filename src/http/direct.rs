//! Hot routes, served before the router. The router costs a request more than a token lookup: a copy of the route's
//! service, its captures, the extensions, and a boxed future at each layer. The listener therefore checks these routes
//! first. They share their handlers with the router, and the [`Edge`] with every route.

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use http::{Method, Request};

use super::listener::{Arrival, RequestBody};
use super::middleware::{Edge, EdgeFuture, RequestFacts};
use super::state::Shared;
use super::{oauth, v1, well_known};

/// The routes of a listener.
pub struct Routes {
    /// All routes.
    pub router: Router,
    /// The hot routes.
    pub direct: Option<Direct>,
}

impl From<Router> for Routes {
    fn from(router: Router) -> Self {
        Self { router, direct: None }
    }
}

/// The future of an answer and the facts about its request.
pub type Answer = Pin<Box<dyn Future<Output = (RequestFacts, Response)> + Send>>;

/// The hot routes and the edge around them.
pub struct Direct {
    shared: Arc<Shared>,
    edge: Edge,
}

/// A hot route.
#[derive(Clone, Copy)]
pub enum Endpoint {
    /// `POST /oauth2/introspect`.
    Introspection,
    /// `POST /oauth2/token`.
    Token,
    /// `/v1/verify` and every path below it, with the template of the route. HEAD is left to the router, which handles
    /// it for all routes.
    ForwardAuth(&'static str),
    /// `GET /.well-known/jwks.json`.
    Jwks,
    /// `GET /.well-known/oauth-authorization-server`.
    OauthMetadata,
    /// `GET /.well-known/openid-configuration`.
    OpenidMetadata,
}

impl Endpoint {
    /// The hot route of a request; `None` for other routes.
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/oauth2/introspect") => Some(Self::Introspection),
            (&Method::POST, "/oauth2/token") => Some(Self::Token),
            (&Method::HEAD, _) => None,
            (_, "/v1/verify") => Some(Self::ForwardAuth("/v1/verify")),
            (&Method::GET, "/.well-known/jwks.json") => Some(Self::Jwks),
            (&Method::GET, "/.well-known/oauth-authorization-server") => Some(Self::OauthMetadata),
            (&Method::GET, "/.well-known/openid-configuration") => Some(Self::OpenidMetadata),
            (_, path) if path.strip_prefix("/v1/verify/").is_some_and(|suffix| !suffix.is_empty()) => {
                Some(Self::ForwardAuth("/v1/verify/{*path}"))
            }
            _ => None,
        }
    }

    /// The path template that the router uses for the route.
    const fn template(self) -> &'static str {
        match self {
            Self::Introspection => "/oauth2/introspect",
            Self::Token => "/oauth2/token",
            Self::ForwardAuth(template) => template,
            Self::Jwks => "/.well-known/jwks.json",
            Self::OauthMetadata => "/.well-known/oauth-authorization-server",
            Self::OpenidMetadata => "/.well-known/openid-configuration",
        }
    }
}

impl Direct {
    /// Hot routes behind `edge`.
    pub const fn new(shared: Arc<Shared>, edge: Edge) -> Self {
        Self { shared, edge }
    }

    /// Starts answering a request for `endpoint`.
    pub fn answer(&self, endpoint: Endpoint, request: Request<RequestBody>, arrival: &Arrival) -> EdgeFuture<Answer> {
        let shared = Arc::clone(&self.shared);
        self.edge.pass(endpoint.template(), request, arrival, |request, context| -> Answer {
            match endpoint {
                Endpoint::Introspection => Box::pin(oauth::introspect::answer(shared, request, context.client.ip())),
                Endpoint::Token => Box::pin(oauth::token::answer(shared, request, context.clone())),
                Endpoint::ForwardAuth(_) => {
                    let (head, _) = request.into_parts();
                    Box::pin(async move { v1::verify::answer(&shared, &head).await })
                }
                // Inside the future, so that a panic is caught.
                Endpoint::Jwks => {
                    Box::pin(
                        async move { (RequestFacts::default(), well_known::jwks::answer(&shared, request.headers())) },
                    )
                }
                Endpoint::OauthMetadata => Box::pin(async move { (RequestFacts::default(), shared.metadata.oauth()) }),
                Endpoint::OpenidMetadata => {
                    Box::pin(async move { (RequestFacts::default(), shared.metadata.openid()) })
                }
            }
        })
    }
}
