//! The API document: checked in, complete, and consistent with the service's answers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;

use countersign::http::openapi::{Servers, document, document_of};
use serde_json::Value;

use crate::support::app::TestApp;
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::judging::header;

fn api() -> Value {
    serde_json::from_str(document()).unwrap()
}

/// Every operation as method, path and object.
fn operations(api: &Value) -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation.is_object() {
                found.push((method.to_uppercase(), path.clone(), operation.clone()));
            }
        }
    }
    found
}

#[test]
fn the_checked_in_document_equals_the_served_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/openapi.json");
    if std::env::var_os("COUNTERSIGN_REWRITE").is_some() {
        std::fs::write(&path, document()).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(checked_in == document(), "the API has changed: look at it, then run with COUNTERSIGN_REWRITE=1");
}

#[tokio::test]
async fn the_openapi_document_has_its_media_type() {
    let app = TestApp::start(TestDatabase::fresh(Engine::Sqlite).await).await;
    let answer = app.get("/openapi.json").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (200, "application/json"));
    assert_eq!(header(&answer, "access-control-allow-origin"), "*");
    let servers = Servers { base_path: "", operations_scheme: "http", operations_port: app.operations.port() };
    assert_eq!(answer.text().await.unwrap(), document_of(&servers));
}

#[tokio::test]
async fn h17_a_browser_at_the_root_is_redirected_to_the_docs() {
    for (issuer, page) in [("http://localhost:8080", "/docs"), ("https://example.com/auth/a", "/auth/a/docs")] {
        let app =
            TestApp::start_with(TestDatabase::fresh(Engine::Sqlite).await, &format!("issuer = \"{issuer}\"")).await;
        let root = page.strip_suffix("/docs").filter(|root| !root.is_empty()).unwrap_or("/");
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let answer = app.get(root).header("accept", browser).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), header(&answer, "location")), (303, page));
        assert_eq!(header(&answer, "vary"), "accept");
        assert_eq!(app.get(page).send().await.unwrap().status(), 200);
        let api: Value = app.get("/openapi.json").send().await.unwrap().json().await.unwrap();
        assert_eq!(api["servers"][0]["url"], root);
        for other in ["*/*", "application/json", "text/html;q=0"] {
            assert_eq!(app.get(root).header("accept", other).send().await.unwrap().status(), 404, "{other}");
        }
    }
}

on_both_engines! {
    async fn large_documents_are_compressed_for_a_client_that_accepts_gzip(database: TestDatabase) {
        let app = TestApp::start(database).await;
        for path in ["/openapi.json", "/docs"] {
            let plain = app.get(path).send().await.unwrap();
            assert!(!plain.headers().contains_key("content-encoding"), "{path}");
            let plain = plain.bytes().await.unwrap();
            let answer = app.get(path).header("accept-encoding", "gzip").send().await.unwrap();
            assert_eq!((&answer.headers()["content-encoding"], &answer.headers()["vary"]), (&"gzip".parse().unwrap(), &"accept-encoding".parse().unwrap()));
            let packed = answer.bytes().await.unwrap();
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut text).unwrap();
            assert!(text == plain && packed.len() < plain.len() / 2, "{path}: {} of {}", packed.len(), plain.len());
        }
        let metrics = app.http.get(format!("http://{}/metrics", app.operations)).header("accept-encoding", "gzip");
        assert_eq!(metrics.send().await.unwrap().headers()["content-encoding"], "gzip");
    }
}

/// Reads the route table as text: it is the one file that lists every route.
#[test]
fn the_document_lists_exactly_the_routes_and_methods() {
    let table = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/mod.rs")).unwrap();
    let mut routes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for route in table.split(".route(").skip(1) {
        let mut parts = route.trim_start().strip_prefix('"').into_iter().flat_map(|rest| rest.splitn(2, '"'));
        let (Some(path), Some(rest)) = (parts.next(), parts.next()) else { continue };
        let path = path.to_owned();
        let handlers = rest.split("\n        .").next().unwrap();
        let methods = routes.entry(path).or_default();
        for method in ["get", "post", "put", "patch", "delete"] {
            if handlers.contains(&format!("{method}(")) {
                methods.insert(method.to_uppercase());
            }
        }
    }
    // A hot route is a row: its methods, empty for all of them, and its path.
    for row in table.split("        (\"").skip(1) {
        let [methods, _, path, ..] = row.split('"').collect::<Vec<_>>()[..] else { continue };
        let path = path.replace("{*path}", "{path}");
        let methods = if methods.is_empty() { "GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS,TRACE" } else { methods };
        // HEAD belongs to GET.
        let methods = methods.strip_suffix(",HEAD").unwrap_or(methods).split(',').map(str::to_owned);
        let path = if path == "/v1/verify/" { "/v1/verify/{path}".into() } else { path };
        routes.entry(path).or_default().extend(methods);
    }
    assert!(routes.len() > 30, "the route table was not found");
    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (method, path, _) in operations(&api()) {
        documented.entry(path).or_default().insert(method);
    }
    assert_eq!(routes, documented);
}

#[test]
fn every_operation_has_a_unique_id_a_tag_a_summary_and_described_responses() {
    let api = api();
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1"));
    let tags: BTreeSet<_> = api["tags"].as_array().unwrap().iter().map(|tag| tag["name"].clone().to_string()).collect();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&api) {
        let name = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{name}");
        assert!(tags.contains(&operation["tags"][0].to_string()), "{name}");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
        for (status, answer) in operation["responses"].as_object().unwrap() {
            assert!(answer["description"].as_str().is_some_and(|text| !text.is_empty()), "{name} {status}");
        }
        // Every parameter in the path is declared.
        for segment in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
            let declared = operation["parameters"].as_array().into_iter().flatten();
            assert!(declared.into_iter().any(|one| one["name"] == segment && one["in"] == "path"), "{name}");
        }
    }
}

#[test]
fn operations_with_credentials_document_them_and_their_401() {
    for (method, path, operation) in operations(&api()) {
        let (name, statuses) = (format!("{method} {path}"), operation["responses"].as_object().unwrap());
        let security: Vec<_> = operation["security"].as_array().into_iter().flatten().collect();
        let needs_some = !security.is_empty() && security.iter().all(|one| !one.as_object().unwrap().is_empty());
        if needs_some {
            assert!(statuses.contains_key("401") && statuses.contains_key("503"), "{name}");
        }
        if path.starts_with("/admin/") {
            assert!(needs_some && statuses.contains_key("403"), "{name}");
        }
        if operation["requestBody"].is_object() && !path.starts_with("/oauth2/") {
            for status in ["400", "408", "413", "415"] {
                assert!(statuses.contains_key(status), "{name} {status}");
            }
        }
        for (status, answer) in statuses {
            let is_error = status.as_str() >= "400" && !path.starts_with("/v1/verify") && path != "/readyz";
            if is_error {
                let media = if path.starts_with("/oauth2/") { "application/json" } else { "application/problem+json" };
                assert!(answer["content"][media].is_object(), "{name} {status}");
            }
        }
    }
}
