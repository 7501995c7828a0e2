//! Completes every answer.

use std::sync::Arc;

use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::cors::Grant;
use super::{RequestId, X_REQUEST_ID};
use crate::http::error::{ApiError, ErrorContent, ErrorShape, ProblemCode};

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Inserts the headers of every answer into a map that is copied for many answers. Setting them later then needs no
/// allocation.
pub fn reserve_common_headers(headers: &mut HeaderMap) {
    headers.insert(X_REQUEST_ID, HeaderValue::from_static("-"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(CACHE_CONTROL, NO_STORE);
}

/// Writes an error in the format `shape`, and sets the headers of every answer. Returns the error with its stable code.
pub(super) fn complete(
    response: &mut Response,
    shape: ErrorShape,
    request_id: &RequestId,
    grant: &Grant,
) -> Option<(&'static str, Arc<ErrorContent>)> {
    if let Some(code) = code_of_bare(response) {
        response.extensions_mut().insert(ApiError::new(code).into_content());
    }
    let failure = response.extensions_mut().remove::<Arc<ErrorContent>>();
    let failure = failure.map(|failure| (failure.write(shape, request_id.as_str(), response), failure));
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, request_id.header_value());
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.entry(CACHE_CONTROL).or_insert(NO_STORE);
    grant.apply(headers);
    failure
}

/// The code of an error of the router or of an axum extractor: it has no body, or plain text.
fn code_of_bare(response: &Response) -> Option<ProblemCode> {
    let status = response.status();
    let is_bare = match response.headers().get(CONTENT_TYPE) {
        Some(content_type) => status.as_u16() >= 400 && content_type.as_bytes().starts_with(b"text/plain"),
        None => matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED),
    };
    if !is_bare || response.extensions().get::<Arc<ErrorContent>>().is_some() {
        return None;
    }
    Some(match status {
        StatusCode::NOT_FOUND => ProblemCode::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => ProblemCode::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => ProblemCode::PayloadTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ProblemCode::UnsupportedMediaType,
        status if status.is_client_error() => ProblemCode::InvalidRequest,
        _ => ProblemCode::Internal,
    })
}
