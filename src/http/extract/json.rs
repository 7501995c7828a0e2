//! The JSON extractor of the REST API.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::body::{self, BodyError, RETRY_AFTER};
use super::json_path;
use super::json_strict::{self, JsonFault};
use crate::http::error::{ApiError, ProblemCode};

/// Default maximum size of a JSON body in bytes (security.md H5).
pub const MAX_JSON_BYTES: usize = 16 * 1024;

const JSON: &str = "application/json";

/// A JSON body of at most `LIMIT` bytes. Every endpoint applies the same strict checks: `application/json`, valid
/// UTF-8, one document with nothing after it, no repeated member names, no NUL, bounded depth. `T` then denies unknown
/// fields (security.md H2). Errors name the field and never contain a value.
pub struct Json<T, const LIMIT: usize = MAX_JSON_BYTES>(pub T);

impl<T: DeserializeOwned, S: Sync, const LIMIT: usize> FromRequest<S> for Json<T, LIMIT> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        JsonText::<LIMIT>::from_request(request, state).await?.parse().map(Self)
    }
}

/// An optional JSON body. An empty body is `None`; its content type is not checked.
pub struct OptionalJson<T>(pub Option<T>);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (head, body) = request.into_parts();
        let is_json = body::has_content_type(&head.headers, JSON);
        let body = match body::read(body, if is_json { MAX_JSON_BYTES } else { 0 }).await {
            Ok(body) if body.is_empty() => return Ok(Self(None)),
            Ok(body) => Body::from(body),
            Err(BodyError::TooLarge) if !is_json => Body::empty(),
            Err(error) => return Err(error.into()),
        };
        Json::<T>::from_request(Request::from_parts(head, body), state).await.map(|Json(value)| Self(Some(value)))
    }
}

/// An unparsed JSON body, for a `T` that borrows from it.
pub struct JsonText<const LIMIT: usize = MAX_JSON_BYTES>(Bytes);

impl<const LIMIT: usize> JsonText<LIMIT> {
    /// Parses the document as a `T`.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        parse(&self.0)
    }

    /// Parses in one pass instead of two, for a large document and a flat `T`: its members hold no objects, and it
    /// denies unknown fields. For such a `T`, serde_json alone makes all strict checks except the one for U+0000.
    pub fn parse_flat<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        if is_object(&self.0)
            && memmem::find(&self.0, br"\u0000").is_none()
            && let Ok(value) = serde_json::from_slice(&self.0)
        {
            return Ok(value);
        }
        self.parse()
    }
}

impl<S: Sync, const LIMIT: usize> FromRequest<S> for JsonText<LIMIT> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        if !body::has_content_type(request.headers(), JSON) {
            return Err(ApiError::new(ProblemCode::UnsupportedMediaType).detail("Send application/json in UTF-8."));
        }
        Ok(Self(body::read(request.into_body(), LIMIT).await?))
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::new(ProblemCode::PayloadTooLarge),
            BodyError::TimedOut => Self::new(ProblemCode::RequestTimeout),
            BodyError::Crowded => Self::new(ProblemCode::Busy).retry_after(RETRY_AFTER).because(body::CROWDED),
            BodyError::Unreadable => Self::new(ProblemCode::InvalidRequest).detail("The body could not be read."),
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ApiError> {
    let malformed = |detail| ApiError::new(ProblemCode::MalformedJson).detail(detail);
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("The body is not valid UTF-8."))?;
    json_strict::check(text).map_err(|fault| match fault {
        JsonFault::Malformed => malformed("The body is not one JSON document."),
        JsonFault::TooDeep => malformed("The document is nested too deeply."),
        JsonFault::RepeatedName => malformed("An object contains a member name twice."),
        JsonFault::Nul => malformed("A string contains U+0000."),
    })?;
    if !is_object(bytes) {
        return Err(ApiError::new(ProblemCode::InvalidRequest).detail(NOT_THE_FORM));
    }
    serde_json::from_str(text).map_err(|error| field_error(text, &error))
}

/// Whether a document is an object. serde would also accept an array of the fields in declaration order.
fn is_object(document: &[u8]) -> bool {
    document.iter().find(|byte| !b" \t\r\n".contains(byte)) == Some(&b'{')
}

const NOT_THE_FORM: &str = "The body does not have the form that this endpoint expects.";

/// Names the field at fault and the reason. serde's own message is not used, because it quotes the input.
fn field_error(text: &str, error: &serde_json::Error) -> ApiError {
    let message = error.to_string();
    let quoted = || message.split('`').nth(1).unwrap_or_default();
    let path = json_path::at(text, error.line(), error.column());
    let (name, detail) = if message.starts_with("unknown field `") {
        (path.and_then(|path| path.sibling(quoted())), "is not a field of this request")
    } else if message.starts_with("missing field `") {
        (path.and_then(|path| path.sibling(quoted())), "is missing")
    } else {
        (path.and_then(|path| path.name()), "has the wrong type or a value that is not allowed")
    };
    let error = ApiError::new(ProblemCode::InvalidRequest);
    match name {
        Some(name) => error.field(name, detail),
        None => error.detail(NOT_THE_FORM),
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::http::error::Failure;

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
        let response = error.into_response();
        let failure = response.extensions().get::<Failure>().unwrap();
        serde_json::from_slice(&failure.problem.as_ref().unwrap().render("r")).unwrap()
    }

    fn refusal(body: &str) -> (String, String, String) {
        let problem = problem(parse::<Login>(body.as_bytes()).unwrap_err());
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
        assert_eq!(problem(parse::<Login>(b"{\"username\":\"\xff\"}").unwrap_err())["code"], "malformed_json");
    }

    #[test]
    fn h1_an_array_is_not_accepted_in_place_of_an_object() {
        for body in [r#"["a",3,["b"],null]"#, r#" ["a",3,["b"],{"name":"n"}]"#, r#""a""#, "3", "null"] {
            assert_eq!(refusal(body).0, "invalid_request", "{body}");
        }
        assert!(parse::<Login>(b" \t\r\n{\"username\":\"a\"}").is_ok());
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Flat {
        names: Vec<String>,
    }

    fn both_ways(body: &[u8]) -> [Result<Flat, String>; 2] {
        let text = JsonText::<{ usize::MAX }>(Bytes::copy_from_slice(body));
        [text.parse(), text.parse_flat()].map(|result| result.map_err(|error| problem(error).to_string()))
    }

    #[test]
    fn h1_one_pass_and_two_agree_on_a_flat_document() {
        for body in [
            r#"{"names":["a","\u0041"]}"#,
            r#"{"names":[]}"#,
            r#"{"names":["a\u0000"]}"#,
            r#"{"names":["a"],"names":["b"]}"#,
            r#"{"names":["a"],"n\u0061mes":["b"]}"#,
            r#"{"names":["a"],"x":1}"#,
            r#"{"names":["a"]} x"#,
            r#"{"names":[["a"]]}"#,
            r#"[["a"]]"#,
            r#"{"names":["\ud800"]}"#,
            "{\"names\":[\"\u{1}\"]}",
            "\u{feff}{\"names\":[]}",
        ] {
            let [two, one] = both_ways(body.as_bytes());
            assert_eq!(two, one, "{body}");
        }
        assert!(both_ways(b"{\"names\":[\"\xff\"]}").iter().all(Result::is_err));
    }

    #[test]
    fn s1_errors_never_contain_a_value_of_the_request() {
        for body in [r#"{"username":{"hunter2":"hunter2"}}"#, r#"{"username":"a","ttl":"hunter2"}"#, r#"["hunter2"]"#] {
            let text = problem(parse::<Login>(body.as_bytes()).unwrap_err()).to_string();
            assert!(!text.contains("hunter2"), "{text}");
        }
        let odd_name = problem(parse::<Login>(br#"{"hunter2 <script>":1,"username":"a"}"#).unwrap_err());
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
            let _ = parse::<Login>(&body);
        }

        #[test]
        fn h1_parse_never_panics_on_text_similar_to_json(body in r#"[\[\]{}:,"\\ua0-9e.+\n -]{0,40}"#) {
            let _ = parse::<Login>(body.as_bytes());
        }
    }
}
