//! The form extractor of the OAuth endpoints (security.md H1).

use std::error::Error;

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Body;

use super::body::{self, BodyError, RETRY_AFTER};
use super::params::{Params, ParamsError};
use crate::http::error::{OAuthDescription, OAuthError};

/// Maximum size of a form body in bytes (security.md H5).
pub const MAX_FORM_BYTES: usize = 16 * 1024;

/// The parameters of a form body. Every failure is an RFC 6749 error. Unknown parameters and the query string are
/// ignored (security.md H2). It may contain secrets, so it has no `Debug`.
pub struct FormParams(Params);

impl FormParams {
    /// Reads the body of a request with these `headers`.
    pub async fn read<B>(headers: &HeaderMap, body: B) -> Result<Self, OAuthError>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Error + 'static,
    {
        if !body::has_content_type(headers, "application/x-www-form-urlencoded") {
            return Err(OAuthError::invalid_request(OAuthDescription::NotAForm));
        }
        let encoded = body::read(body, MAX_FORM_BYTES).await.map_err(|error| match error {
            BodyError::TooLarge => {
                OAuthError::invalid_request(OAuthDescription::BodyTooLarge).status(StatusCode::PAYLOAD_TOO_LARGE)
            }
            BodyError::TimedOut => {
                OAuthError::invalid_request(OAuthDescription::BodyTimeout).status(StatusCode::REQUEST_TIMEOUT)
            }
            BodyError::Crowded => OAuthError::unavailable(RETRY_AFTER).because(body::CROWDED),
            BodyError::Unreadable => OAuthError::invalid_request(OAuthDescription::BodyUnreadable),
        })?;
        Self::parse(encoded)
    }

    /// Parses an encoded form.
    pub fn parse(encoded: Bytes) -> Result<Self, OAuthError> {
        Params::parse(encoded).map(Self).map_err(|error| {
            OAuthError::invalid_request(match error {
                ParamsError::Malformed => OAuthDescription::MalformedForm,
                ParamsError::Repeated => OAuthDescription::RepeatedParameter,
                ParamsError::TooMany => OAuthDescription::TooManyParameters,
            })
        })
    }

    /// The value of a parameter of at most `max_bytes` bytes; `None` if it is absent or empty.
    pub fn optional(&self, name: &'static str, max_bytes: usize) -> Result<Option<&str>, OAuthError> {
        match self.0.find(name) {
            Some(value) if value.len() > max_bytes => Err(OAuthError::invalid_request(OAuthDescription::TooLong(name))),
            found => Ok(found),
        }
    }

    /// The values of a repeatable parameter, each of at most `max_bytes` bytes. Empty values are skipped.
    pub fn all(&self, name: &'static str, max_bytes: usize) -> Result<Vec<&str>, OAuthError> {
        let values: Vec<_> = self.0.find_all(name).collect();
        match values.iter().all(|value| value.len() <= max_bytes) {
            true => Ok(values),
            false => Err(OAuthError::invalid_request(OAuthDescription::TooLong(name))),
        }
    }

    /// The value of a parameter that must be present and not empty.
    pub fn required(&self, name: &'static str, max_bytes: usize) -> Result<&str, OAuthError> {
        self.optional(name, max_bytes)?.ok_or_else(|| OAuthError::invalid_request(OAuthDescription::Missing(name)))
    }
}

impl<S: Sync> FromRequest<S> for FormParams {
    type Rejection = OAuthError;

    async fn from_request(request: Request, _: &S) -> Result<Self, OAuthError> {
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
        let form = FormParams::from_request(request, &()).await.ok().unwrap();
        assert!(form.required("token", 10).is_err());
    }

    #[test]
    fn the_length_of_a_parameter_is_limited_per_call() {
        let form = FormParams::parse(Bytes::from_static(b"token=12345")).ok().unwrap();
        assert_eq!(form.required("token", 5).ok(), Some("12345"));
        assert!(form.required("token", 4).is_err() && form.optional("token", 4).is_err());
        assert_eq!(form.optional("scope", 4).ok(), Some(None));
    }
}
