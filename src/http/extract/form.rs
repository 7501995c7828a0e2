//! The form extractor of the OAuth endpoints (security.md H1).

use std::error::Error;

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;

use super::body;
use super::params::Params;
use crate::http::error::ApiError;

/// Maximum size of a form body in bytes (security.md H5).
pub const MAX_FORM_BYTES: usize = 16 * 1024;

/// The parameters of a form body. Unknown parameters and the query string are ignored (security.md H2).
pub struct FormParams(pub Params);

impl FormParams {
    /// Reads the body of a request with these `headers`.
    pub async fn read<B>(headers: &HeaderMap, body: B) -> Result<Self, ApiError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        if !body::has_content_type(headers, "application/x-www-form-urlencoded") {
            return Err(ApiError::invalid_form("the body must be application/x-www-form-urlencoded in UTF-8"));
        }
        Params::parse(&body::read(body, MAX_FORM_BYTES).await?).map(Self)
    }
}

impl<S: Sync> FromRequest<S> for FormParams {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (head, body) = request.into_parts();
        Self::read(&head.headers, body).await
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::response::IntoResponse;

    use super::*;

    async fn status_of(content_type: &str, body: Vec<u8>) -> u16 {
        let request = Request::post("/oauth2/introspect?token=from-the-query")
            .header("content-type", content_type)
            .body(Body::from(body))
            .unwrap();
        match FormParams::from_request(request, &()).await {
            Ok(_) => 200,
            Err(error) => error.into_response().status().as_u16(),
        }
    }

    #[tokio::test]
    async fn h1_every_failure_is_400_or_413_and_never_422() {
        const FORM: &str = "application/x-www-form-urlencoded";
        assert_eq!(status_of(FORM, b"token=abc".to_vec()).await, 200);
        for (content_type, body) in [
            ("application/json", &b"{}"[..]),
            (FORM, b"token=%zz"),
            (FORM, b"token=%ff"),
            (FORM, b"token=1&token=2"),
            (FORM, b"a=%00"),
        ] {
            assert_eq!(status_of(content_type, body.to_vec()).await, 400, "{body:?}");
        }
    }

    #[tokio::test]
    async fn h5_a_form_of_16_kib_is_the_largest() {
        let body = |length: usize| [&b"token="[..], &vec![b'a'; length - 6]].concat();
        let form = "application/x-www-form-urlencoded";
        assert_eq!(status_of(form, body(MAX_FORM_BYTES)).await, 200);
        assert_eq!(status_of(form, body(MAX_FORM_BYTES + 1)).await, 413);
    }

    #[tokio::test]
    async fn h2_parameters_in_the_query_string_are_not_parameters() {
        let request = Request::post("/oauth2/introspect?token=from-the-query")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from("other=1"))
            .unwrap();
        let FormParams(form) = FormParams::from_request(request, &()).await.ok().unwrap();
        assert!(form.required("token", 10).is_err());
    }
}
