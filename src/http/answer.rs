//! JSON answers of the REST API.

use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Serialize;

/// A JSON answer with `Cache-Control: no-store`: it concerns one bearer, and may contain a secret.
pub struct JsonBody<T>(pub T);

impl<T: Serialize> IntoResponse for JsonBody<T> {
    fn into_response(self) -> Response {
        // Serializing the types of this crate with string keys cannot fail.
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        (headers, body).into_response()
    }
}
