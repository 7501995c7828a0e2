//! The REST endpoints answer unexpected bodies with a clear 4xx problem with a stable code, and never with a server
//! error (security.md H1, H2, H5, D11).

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{TestApp, Tokens};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::judging::header;
use crate::support::sessions::*;

const JSON: &str = "application/json";

/// Method, path, whether it takes a bearer token, the name of a text field, and the limit of the body in bytes.
type Endpoint = (&'static str, &'static str, bool, &'static str, usize);

/// Every endpoint for users that reads a body.
const ENDPOINTS: [Endpoint; 4] = [
    ("POST", "/v1/login", false, "username", 8 * 1024),
    ("POST", "/v1/refresh", false, "refresh_token", 16 * 1024),
    ("POST", "/v1/logout", false, "refresh_token", 16 * 1024),
    ("PUT", "/v1/me/password", true, "current_password", 16 * 1024),
];

/// Bodies that every endpoint refuses, each with its answer. `FIELD` is replaced by a field that the endpoint reads.
fn refused() -> Vec<(&'static str, Vec<u8>, u16, &'static str)> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        (JSON, text(""), 400, "malformed_json"),
        (JSON, text("{"), 400, "malformed_json"),
        (JSON, text("{\"FIELD\":\"a\"} {}"), 400, "malformed_json"),
        (JSON, text("{\"FIELD\":\"a\",\"FIELD\":\"b\"}"), 400, "malformed_json"),
        (JSON, text("{\"FIELD\":\"a\",\"\\u0046IELD\":\"b\",\"FIELD\":1}"), 400, "malformed_json"),
        (JSON, text("{\"FIELD\":\"a\\u0000b\"}"), 400, "malformed_json"),
        (JSON, text("{\"FIELD\":\"\\ud800\"}"), 400, "malformed_json"),
        (JSON, text("\u{feff}{\"FIELD\":\"a\"}"), 400, "malformed_json"),
        (JSON, b"{\"FIELD\":\"\xff\"}".to_vec(), 400, "malformed_json"),
        (JSON, b"\xff\xfe{\x00}\x00".to_vec(), 400, "malformed_json"),
        (JSON, format!("{}{}", "[".repeat(17), "]".repeat(17)).into_bytes(), 400, "malformed_json"),
        (JSON, "[".repeat(8000).into_bytes(), 400, "malformed_json"),
        (JSON, text("{\"FIELD\":\"a\",\"admin\":true}"), 400, "invalid_request"),
        (JSON, text("{\"FIELD\":7}"), 400, "invalid_request"),
        (JSON, text("{\"FIELD\":null}"), 400, "invalid_request"),
        (JSON, text("{\"FIELD\":[\"a\"]}"), 400, "invalid_request"),
        (JSON, text("{}"), 400, "invalid_request"),
        (JSON, text("[]"), 400, "invalid_request"),
        (JSON, text("null"), 400, "invalid_request"),
        (JSON, text("\"text\""), 400, "invalid_request"),
        ("", text("{\"FIELD\":\"a\"}"), 415, "unsupported_media_type"),
        ("text/plain", text("{\"FIELD\":\"a\"}"), 415, "unsupported_media_type"),
        ("application/x-www-form-urlencoded", text("FIELD=a"), 415, "unsupported_media_type"),
        ("application/json; charset=latin1", text("{\"FIELD\":\"a\"}"), 415, "unsupported_media_type"),
    ]
}

fn named(body: Vec<u8>, field: &str) -> Vec<u8> {
    match String::from_utf8(body) {
        Ok(text) => text.replace("FIELD", field).into_bytes(),
        Err(error) => {
            // The part that is not UTF-8 stays unchanged.
            let bytes = error.into_bytes();
            let place = bytes.windows(5).position(|window| window == b"FIELD");
            place.map_or(bytes.clone(), |place| [&bytes[..place], field.as_bytes(), &bytes[place + 5..]].concat())
        }
    }
}

async fn send(
    app: &TestApp,
    bearer: &Tokens,
    endpoint: &Endpoint,
    content_type: &str,
    body: Vec<u8>,
) -> reqwest::Response {
    let (method, path, takes_bearer, ..) = *endpoint;
    let mut request = app.request(method.parse().unwrap(), path).body(body);
    if takes_bearer {
        request = request.bearer_auth(&bearer.access_token);
    }
    if !content_type.is_empty() {
        request = request.header("content-type", content_type);
    }
    request.send().await.unwrap()
}

on_both_engines! {
    async fn h1_every_malformed_body_is_a_4xx_problem(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let bearer = app.log_in().await;
        let hashed = app.hashed().await;
        for endpoint in &ENDPOINTS {
            let (_, path, _, field, _) = *endpoint;
            for (content_type, body, status, code) in refused() {
                let body = named(body, field);
                if body.is_empty() && path == "/v1/logout" {
                    // A logout may go without a body: see its own tests.
                    continue;
                }
                let shown = format!("{} {content_type} {}", path, String::from_utf8_lossy(&body[..body.len().min(60)]));
                let answer = send(&app, &bearer, endpoint, content_type, body).await;
                is_private(&answer);
                let id = header(&answer, "x-request-id").to_owned();
                let problem: Value = answer.json().await.unwrap();
                assert_eq!((problem["status"].as_u64(), problem["code"].as_str()), (Some(status.into()), Some(code)), "{shown}");
                assert_eq!(problem["request_id"], json!(id));
                assert_eq!(problem["type"], json!(format!("urn:countersign:problem:{code}")));
            }
        }
        assert_eq!(app.hashed().await, hashed);
        assert!(app.is_active(&bearer.access_token).await);
    }

    async fn h5_a_body_above_its_limit_is_413(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let bearer = app.log_in().await;
        for endpoint in &ENDPOINTS {
            let (_, path, _, field, limit) = *endpoint;
            let body = |length: usize| {
                let frame = format!("{{\"{field}\":\"\"}}").len();
                format!("{{\"{field}\":\"{}\"}}", "a".repeat(length - frame)).into_bytes()
            };
            let within = send(&app, &bearer, endpoint, JSON, body(limit)).await;
            assert_ne!(within.status(), 413, "{path}");
            let beyond = send(&app, &bearer, endpoint, JSON, body(limit + 1)).await;
            is_private(&beyond);
            let problem: Value = beyond.json().await.unwrap();
            assert_eq!(problem["code"], "payload_too_large", "{path}");
        }
    }

    async fn h7_other_methods_are_405_with_allow_and_other_paths_404(database: TestDatabase) {
        let app = TestApp::start(database).await;
        for (path, method, allow) in [
            ("/v1/login", Method::GET, "POST"),
            ("/v1/refresh", Method::PUT, "POST"),
            ("/v1/logout", Method::DELETE, "POST"),
            ("/v1/me", Method::POST, "GET,HEAD"),
            ("/v1/me/password", Method::POST, "PUT"),
            ("/v1/me/sessions", Method::PUT, "GET,HEAD,DELETE"),
            ("/oauth2/token", Method::GET, "POST"),
        ] {
            let answer = app.request(method, path).send().await.unwrap();
            assert_eq!((answer.status().as_u16(), header(&answer, "allow"), header(&answer, "cache-control")), (405, allow, "no-store"), "{path}");
            assert!(!header(&answer, "x-request-id").is_empty());
        }
        let answer = app.get("/v1/nothing").send().await.unwrap();
        is_private(&answer);
        assert_eq!(answer.status(), 404);
    }

    async fn a_request_id_that_is_well_formed_is_kept_and_any_other_replaced(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let answer = async |id: &str| {
            let request = app.post_json("/v1/login", &json!({})).header("x-request-id", id);
            header(&request.send().await.unwrap(), "x-request-id").to_owned()
        };
        assert_eq!(answer("req-1.A_b").await, "req-1.A_b");
        for odd in ["", "a b", "a\tb", &"x".repeat(500), "<script>"] {
            assert_ne!(answer(odd).await, odd);
        }
    }
}
