//! The routes of a listener.

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::middleware::map_request;
use axum::response::Response;
use http::{Method, Request};

use super::listener::RequestBody;
use super::middleware::{RequestContext, RequestFacts, note_route};
use super::state::Shared;

/// The routes of a listener: a table of hot routes, then the router. The router costs an introspection a fifth of its time
/// (docs/performance.md): a copy of the route's service, its captures, the extensions, and a boxed future at each layer.
pub struct Routes {
    /// The hot routes. Their paths are not in the router.
    pub hot: Vec<HotRoute>,
    /// All other routes.
    pub router: Router,
}

impl Routes {
    pub fn new(hot: Vec<HotRoute>, router: Router) -> Self {
        Self { hot, router: router.layer(map_request(note_route)) }
    }
}

impl From<Router> for Routes {
    fn from(router: Router) -> Self {
        Self::new(Vec::new(), router)
    }
}

/// The future of an answer and the facts about its request.
pub type Answer = Pin<Box<dyn Future<Output = (RequestFacts, Response)> + Send>>;

/// Starts answering a request.
pub type Handler = fn(Arc<Shared>, Request<RequestBody>, &RequestContext) -> Answer;

/// A route that is looked up before the router.
pub struct HotRoute {
    /// The value of `Allow`: the methods of the route. Empty for every method.
    pub allow: &'static str,
    /// The path. A last segment `{*path}` matches every suffix that is not empty.
    pub template: Box<str>,
    pub handler: Handler,
    pub shared: Arc<Shared>,
}

impl HotRoute {
    pub fn matches(&self, path: &str) -> bool {
        match self.template.strip_suffix("{*path}") {
            Some(prefix) => path.len() > prefix.len() && path.starts_with(prefix),
            None => path == &*self.template,
        }
    }

    pub fn allows(&self, method: &Method) -> bool {
        self.allow.is_empty() || self.allow.split(',').any(|allowed| allowed == method.as_str())
    }
}
