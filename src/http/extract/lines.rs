//! Bodies of JSON lines.

use axum::extract::Request;
use bytes::Bytes;

use super::body;
use crate::http::error::{ApiError, ProblemCode};

/// Reads a body of `application/jsonl` or `application/x-ndjson` of at most `limit` bytes. The lines are not parsed.
pub async fn lines(request: Request, limit: usize) -> Result<Bytes, ApiError> {
    let headers = request.headers();
    if !body::has_content_type(headers, "application/jsonl") && !body::has_content_type(headers, "application/x-ndjson")
    {
        return Err(ApiError::new(ProblemCode::UnsupportedMediaType).detail("Send application/jsonl in UTF-8."));
    }
    body::read(request.into_body(), limit).await.map_err(|error| match error.code() {
        ProblemCode::PayloadTooLarge => {
            error.detail("Send at most 1 MiB at a time, or use `countersign users import`.")
        }
        _ => error,
    })
}
