//! The JSON extractor of the REST API.

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::body;
use crate::http::error::{ApiError, ProblemCode};
use crate::json::{self, JsonError};

/// Default maximum size of a JSON body in bytes (security.md H5).
pub const MAX_JSON_BYTES: usize = 16 * 1024;

const JSON: &str = "application/json";

/// A JSON body of at most `LIMIT` bytes, read by [`json::from_slice`]. `T` denies unknown fields (security.md H2).
/// Errors name the field and never contain a value.
pub struct Json<T, const LIMIT: usize = MAX_JSON_BYTES>(pub T);

impl<T: DeserializeOwned, S: Sync, const LIMIT: usize> FromRequest<S> for Json<T, LIMIT> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let body = JsonText::<LIMIT>::from_request(request, state).await?.0;
        Ok(Self(json::from_slice(&body)?))
    }
}

/// An optional JSON body. An empty body is `None`; its content type is not checked.
pub struct OptionalJson<T>(pub Option<T>);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (head, body) = request.into_parts();
        let is_json = body::has_content_type(&head.headers, JSON);
        let body = body::read(body, if is_json { MAX_JSON_BYTES } else { 0 }).await;
        match body {
            Ok(body) if body.is_empty() => Ok(Self(None)),
            Ok(body) => Ok(Self(Some(json::from_slice(&body)?))),
            Err(error) if error.code() == ProblemCode::PayloadTooLarge && !is_json => Err(unsupported()),
            Err(error) => Err(error),
        }
    }
}

/// An unparsed JSON body, for a type that borrows from it.
pub struct JsonText<const LIMIT: usize = MAX_JSON_BYTES>(Bytes);

impl<const LIMIT: usize> JsonText<LIMIT> {
    /// Parses the document as a flat `T`, see [`json::from_flat_slice`].
    pub fn parse_flat<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        Ok(json::from_flat_slice(&self.0)?)
    }
}

impl<S: Sync, const LIMIT: usize> FromRequest<S> for JsonText<LIMIT> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        if !body::has_content_type(request.headers(), JSON) {
            return Err(unsupported());
        }
        Ok(Self(body::read(request.into_body(), LIMIT).await?))
    }
}

fn unsupported() -> ApiError {
    ApiError::new(ProblemCode::UnsupportedMediaType).detail("Send application/json in UTF-8.")
}

impl From<JsonError> for ApiError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Member { member: Some(member), problem } => Self::invalid_field(member, problem),
            JsonError::Member { member: None, .. } | JsonError::NotAnObject => Self::new(ProblemCode::InvalidRequest)
                .detail("The body does not have the form that this endpoint expects."),
            _ => Self::new(ProblemCode::MalformedJson).detail(format!("The body is refused: {error}.")),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::response::IntoResponse;
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Login {
        #[expect(dead_code, reason = "only parsed")]
        username: String,
        #[expect(dead_code, reason = "only parsed")]
        ttl: Option<u32>,
        #[expect(dead_code, reason = "only parsed")]
        #[serde(default)]
        audience: Vec<String>,
        #[expect(dead_code, reason = "only parsed")]
        device: Option<Device>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Device {
        #[expect(dead_code, reason = "only parsed")]
        name: String,
    }

    fn problem(error: ApiError) -> serde_json::Value {
        serde_json::from_slice(&error.content().problem("r")).unwrap()
    }

    fn parse(body: &[u8]) -> Result<Login, ApiError> {
        Ok(json::from_slice(body)?)
    }

    fn refusal(body: &str) -> (String, String, String) {
        let problem = problem(parse(body.as_bytes()).unwrap_err());
        let error = &problem["errors"][0];
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        (text(&problem["code"]), text(&error["field"]), text(&error["detail"]))
    }

    #[test]
    fn h2_the_field_at_fault_is_named() {
        for (body, field, detail) in [
            (r#"{"username":"a","admin":true}"#, "admin", "is not a field of this request"),
            (r#"{"ttl":3}"#, "username", "is missing"),
            (r#"{}"#, "username", "is missing"),
            (r#"{"username":7}"#, "username", "has the wrong type or a value that is not allowed"),
            (r#"{"username":"a","ttl":-1}"#, "ttl", "has the wrong type or a value that is not allowed"),
            (
                r#"{"audience":["x",{}],"username":"a"}"#,
                "audience[1]",
                "has the wrong type or a value that is not allowed",
            ),
            (r#"{"username":"a","device":{"name":"n","os":"o"}}"#, "device.os", "is not a field of this request"),
            (r#"{"username":"a", "device": { }}"#, "device.name", "is missing"),
            (
                "{\n \"username\" : \"a\",\n \"ttl\" : \"soon\"\n}",
                "ttl",
                "has the wrong type or a value that is not allowed",
            ),
        ] {
            assert_eq!(refusal(body), ("invalid_request".into(), field.into(), detail.into()), "{body}");
        }
    }

    #[test]
    fn h1_a_body_that_is_not_one_strict_document_is_malformed_json() {
        for body in [
            "",
            "{",
            r#"{"username":"a"} x"#,
            r#"{"username":"a"}{}"#,
            r#"{"username":"a","username":"b"}"#,
            r#"{"username":"a","user\u006eame":"b"}"#,
            r#"{"username":"a\u0000"}"#,
            "\u{feff}{\"username\":\"a\"}",
            r#"{"username":"\ud800"}"#,
            r#"{'username':'a'}"#,
            "{\"username\":\"a\",}",
            "NaN",
        ] {
            assert_eq!(refusal(body).0, "malformed_json", "{body}");
        }
        assert_eq!(problem(parse(b"{\"username\":\"\xff\"}").unwrap_err())["code"], "malformed_json");
    }

    #[test]
    fn h1_an_array_is_not_accepted_in_place_of_an_object() {
        for body in [r#"["a",3,["b"],null]"#, r#" ["a",3,["b"],{"name":"n"}]"#, r#""a""#, "3", "null"] {
            assert_eq!(refusal(body).0, "invalid_request", "{body}");
        }
        assert!(parse(b" \t\r\n{\"username\":\"a\"}").is_ok());
    }

    #[test]
    fn s1_errors_never_contain_a_value_of_the_request() {
        for body in [r#"{"username":{"hunter2":"hunter2"}}"#, r#"{"username":"a","ttl":"hunter2"}"#, r#"["hunter2"]"#] {
            let text = problem(parse(body.as_bytes()).unwrap_err()).to_string();
            assert!(!text.contains("hunter2"), "{text}");
        }
        let odd_name = problem(parse(br#"{"hunter2 <script>":1,"username":"a"}"#).unwrap_err());
        assert!(!odd_name.to_string().contains("hunter2"), "h13 {odd_name}");
    }

    #[tokio::test]
    async fn h1_a_wrong_type_is_415_and_a_large_body_413() {
        async fn status_of(content_type: &str, body: String) -> u16 {
            let request =
                Request::post("/v1/login").header("content-type", content_type).body(Body::from(body)).unwrap();
            match Json::<Login, 64>::from_request(request, &()).await {
                Ok(_) => 200,
                Err(error) => error.into_response().status().as_u16(),
            }
        }
        let body = |length: usize| format!(r#"{{"username":"{}"}}"#, "a".repeat(length - 15));
        assert_eq!(status_of("application/json", body(64)).await, 200);
        assert_eq!(status_of("Application/JSON; charset=utf-8", body(64)).await, 200);
        assert_eq!(status_of("application/json", body(65)).await, 413);
        assert_eq!(status_of("text/plain", body(64)).await, 415);
        assert_eq!(status_of("application/x-www-form-urlencoded", body(64)).await, 415);
    }

    proptest! {
        #[test]
        fn h1_parse_never_panics(body: Vec<u8>) {
            let _ = parse(&body);
        }

        #[test]
        fn h1_parse_never_panics_on_text_similar_to_json(body in r#"[\[\]{}:,"\\ua0-9e.+\n -]{0,40}"#) {
            let _ = parse(body.as_bytes());
        }
    }
}
