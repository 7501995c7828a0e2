//! The gRPC listener: Envoy's external authorization (ext_authz, `envoy.service.auth.v3`).
//!
//! The verdicts are those of forward-auth ([`crate::http::forward_auth`]). This module decodes and encodes the
//! messages. The listener exists only if `grpc.listen` is set.

mod check;
mod messages;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::http::Shared;
use crate::http::error::{ApiError, ProblemCode};
use crate::http::middleware::RequestFacts;
use crate::telemetry::OncePerMinute;
use messages::{CheckRequest, CheckResponse};

/// The only procedure of the service.
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Maximum message size in bytes. Envoy accepts header blocks of 60 KiB, and sends every header unless
/// `allowed_headers` selects some.
const MAX_MESSAGE_BYTES: usize = 96 * 1024;
/// From the header block to the answer, including the arrival of the message (security.md H6).
const TIMEOUT: Duration = Duration::from_secs(10);

struct Checks {
    shared: Arc<Shared>,
    /// Limits how often an unknown key in `context_extensions` is logged.
    unknown_keys: OncePerMinute,
}

pub fn routes(shared: Arc<Shared>) -> Router {
    let checks = Arc::new(Checks { shared, unknown_keys: OncePerMinute::default() });
    Router::new().route(CHECK, post(check)).fallback(unimplemented).with_state(checks)
}

async fn check(State(checks): State<Arc<Checks>>, request: Request) -> Response {
    let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !content_type.is_some_and(|content_type| content_type.starts_with(b"application/grpc")) {
        return ApiError::new(ProblemCode::UnsupportedMediaType).into_response();
    }
    let codec = ProstCodec::<CheckResponse, CheckRequest>::default();
    let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let checking = service_fn(|request: tonic::Request<CheckRequest>| {
        let checks = Arc::clone(&checks);
        async move { Ok(check::check(&checks, request.into_inner()).await) }
    });
    match tokio::time::timeout(TIMEOUT, grpc.unary(checking, request)).await {
        Ok(response) => recorded(response.map(Body::new)),
        Err(_) => recorded(failed(&Status::deadline_exceeded("the message did not arrive in time"))),
    }
}

async fn unimplemented() -> Response {
    recorded(failed(&Status::unimplemented("there is no such procedure")))
}

fn failed(status: &Status) -> Response {
    status.clone().into_http::<Body>()
}

/// Records a failed call with the corresponding HTTP status.
fn recorded(mut response: Response) -> Response {
    let Some(status) = Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok) else {
        return response;
    };
    let (status, outcome) = match status.code() {
        Code::DeadlineExceeded => (408, "timeout"),
        Code::OutOfRange | Code::ResourceExhausted => (413, "too large"),
        Code::Unimplemented => (404, "unimplemented"),
        _ => (400, "malformed"),
    };
    response.extensions_mut().insert(RequestFacts {
        status: Some(status),
        outcome: Some(outcome),
        ..RequestFacts::default()
    });
    response
}
