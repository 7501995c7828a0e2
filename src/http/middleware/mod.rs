//! The [`Edge`]: it applies the same rules to every request, in front of all routes.

mod answer;
mod client_address;
mod context;
mod cors;
mod edge;
mod forwarded;
mod record;

pub use crate::request_id::{RequestId, X_REQUEST_ID};
pub use answer::reserve_common_headers;
pub use client_address::{ClientAddress, TrustedProxies};
pub use context::RequestContext;
pub use cors::{Cors, is_preflight};
pub use edge::{Edge, EdgeFuture, RequestIdSource};
pub use record::{
    CLIENT_CLOSED_REQUEST, Principal, RequestFacts, RequestObserver, RequestRecord, note_caller, note_route,
};
