//! Checks that every answer of the suite is in the API document. The metrics of each service that was started list the
//! statuses of its routes.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use countersign::http::openapi::document;
use serde_json::Value;

/// Statuses by path and method.
static DOCUMENTED: LazyLock<HashMap<(String, String), BTreeSet<String>>> = LazyLock::new(|| {
    let api: Value = serde_json::from_str(document()).unwrap();
    let mut documented = HashMap::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if let Some(answers) = operation["responses"].as_object() {
                documented.insert((path.clone(), method.to_uppercase()), answers.keys().cloned().collect());
            }
        }
    }
    documented
});

/// Compares the statuses in `figures` (metrics in the Prometheus text format) with the document.
pub fn are_documented(figures: &str) {
    for line in figures.lines().filter(|line| line.starts_with("countersign_http_requests_total{")) {
        let label = |name: &str| line.split_once(&format!("{name}=\"")).unwrap().1.split('"').next().unwrap();
        let (route, method, status) = (label("route").replace("{*path}", "{path}"), label("method"), label("status"));
        // HEAD is answered as GET; a caller that disconnected got no answer.
        let method = if method == "HEAD" && !route.contains("/v1/verify") { "GET" } else { method };
        let is_known = |(path, known): &&(String, String)| known == method && names(&route, path);
        if let Some(operation) = DOCUMENTED.keys().find(is_known)
            && status != "499"
        {
            assert!(
                DOCUMENTED[operation].contains(status),
                "{method} {route} answered {status}, which is not documented"
            );
        }
    }
}

/// Whether a route is the documented path, or that path below an issuer's.
fn names(route: &str, path: &str) -> bool {
    let path = if path == "/v1/verify/{path}" && route.ends_with("/v1/verify/") { "/v1/verify/" } else { path };
    route.strip_suffix(path).is_some_and(|base| !base.contains("/.well-known") && !base.contains("/v1"))
}

#[test]
fn an_undocumented_answer_is_detected() {
    let line = |route: &str, method: &str, status: u16| {
        format!("countersign_http_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}} 1\n")
    };
    are_documented(&line("/livez", "GET", 200));
    are_documented(&line("/elsewhere", "GET", 418));
    for (route, method) in [
        ("/livez", "HEAD"),
        ("/base/oauth2/token", "POST"),
        ("/v1/verify", "POST"),
        ("/v1/verify/", "HEAD"),
        ("/base/v1/verify/{*path}", "TRACE"),
        ("/admin/v1/clients/{client_id}", "PATCH"),
    ] {
        let figures = line(route, method, 418);
        assert!(std::panic::catch_unwind(|| are_documented(&figures)).is_err(), "{method} {route}");
    }
}
