//! Completes every answer.

use axum::body::Body;
use axum::response::Response;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::cors::Grant;
use super::{RequestFacts, RequestId, X_REQUEST_ID};
use crate::http::error::{ApiError, ErrorShape, Failure, ProblemCode};

/// A complete answer, and the facts for its record.
pub(super) struct Finished {
    pub(super) response: Response,
    pub(super) facts: RequestFacts,
    pub(super) failure: Option<Failure>,
}

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Inserts the headers of every answer into a map that is copied for many answers. Setting them later then needs no
/// allocation.
pub fn reserve_common_headers(headers: &mut HeaderMap) {
    headers.insert(X_REQUEST_ID, HeaderValue::from_static("-"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(CACHE_CONTROL, NO_STORE);
}

/// Writes the body of a problem, sets the headers of every answer, and takes the facts for the record.
pub(super) fn complete(
    mut response: Response,
    facts: Option<RequestFacts>,
    shape: ErrorShape,
    request_id: &RequestId,
    grant: &Grant,
) -> Finished {
    let facts = facts.or_else(|| response.extensions_mut().remove::<RequestFacts>()).unwrap_or_default();
    let mut failure = response.extensions_mut().remove::<Failure>();
    if failure.is_none() && is_bare(&response) {
        response = in_shape(&response, shape);
        failure = response.extensions_mut().remove::<Failure>();
    }
    if let Some(problem) = failure.as_mut().and_then(|failure| failure.problem.take()) {
        *response.body_mut() = Body::from(problem.render(request_id.as_str()));
    }
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, request_id.header_value());
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.entry(CACHE_CONTROL).or_insert(NO_STORE);
    grant.apply(headers);
    Finished { response, facts, failure }
}

/// Whether this is an error of the router or of an axum extractor: no body, or plain text.
fn is_bare(response: &Response) -> bool {
    let content_type = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    match response.status() {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED if content_type.is_none() => true,
        status if status.is_client_error() || status.is_server_error() => {
            content_type.is_some_and(|content_type| content_type.starts_with(b"text/plain"))
        }
        _ => false,
    }
}

/// Converts the error to the format of its API.
fn in_shape(bare: &Response, shape: ErrorShape) -> Response {
    let code = match bare.status() {
        StatusCode::NOT_FOUND => ProblemCode::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => ProblemCode::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => ProblemCode::PayloadTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ProblemCode::UnsupportedMediaType,
        status if status.is_client_error() => ProblemCode::InvalidRequest,
        _ => ProblemCode::Internal,
    };
    let mut response = shape.answer(ApiError::new(code));
    if let Some(allow) = bare.headers().get(ALLOW) {
        response.headers_mut().insert(ALLOW, allow.clone());
    }
    response
}
