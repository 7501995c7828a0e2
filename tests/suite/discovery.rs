//! Metadata (RFC 8414, and the shape of OpenID Connect Discovery), the absent authorization endpoint, and the
//! documentation page.

use serde_json::{Value, json};

use crate::support::app::{TestApp, error_of, machine};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::judging::*;

const OAUTH: &str = "/.well-known/oauth-authorization-server";
const OPENID: &str = "/.well-known/openid-configuration";

async fn document(app: &TestApp, path: &str) -> Value {
    let answer = app.get(path).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (200, "application/json"), "{path}");
    assert_eq!(header(&answer, "cache-control"), "public, max-age=300");
    assert_eq!(header(&answer, "access-control-allow-origin"), "*");
    answer.json().await.unwrap()
}

on_both_engines! {
    async fn the_oauth_metadata_lists_only_what_is_supported(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let published = document(&app, OAUTH).await;
        insta::allow_duplicates! { insta::assert_json_snapshot!(published, @r#"
        {
          "authorization_endpoint": "http://localhost:8080/oauth2/authorize",
          "grant_types_supported": [
            "client_credentials",
            "refresh_token"
          ],
          "introspection_endpoint": "http://localhost:8080/oauth2/introspect",
          "introspection_endpoint_auth_methods_supported": [
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt"
          ],
          "introspection_endpoint_auth_signing_alg_values_supported": [
            "ES256",
            "EdDSA",
            "RS256",
            "PS256"
          ],
          "introspection_signing_alg_values_supported": [
            "ES256",
            "EdDSA",
            "RS256",
            "PS256"
          ],
          "issuer": "http://localhost:8080",
          "jwks_uri": "http://localhost:8080/.well-known/jwks.json",
          "response_types_supported": [
            "none"
          ],
          "revocation_endpoint": "http://localhost:8080/oauth2/revoke",
          "revocation_endpoint_auth_methods_supported": [
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt",
            "none"
          ],
          "revocation_endpoint_auth_signing_alg_values_supported": [
            "ES256",
            "EdDSA",
            "RS256",
            "PS256"
          ],
          "service_documentation": "http://localhost:8080/docs",
          "token_endpoint": "http://localhost:8080/oauth2/token",
          "token_endpoint_auth_methods_supported": [
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt",
            "none"
          ],
          "token_endpoint_auth_signing_alg_values_supported": [
            "ES256",
            "EdDSA",
            "RS256",
            "PS256"
          ]
        }
        "#); }
    }

    async fn the_openid_metadata_adds_what_strict_libraries_require(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let (oauth, openid) = (document(&app, OAUTH).await, document(&app, OPENID).await);
        for (name, value) in oauth.as_object().unwrap() {
            assert_eq!(&openid[name], value);
        }
        assert_eq!(openid["subject_types_supported"], json!(["public"]));
        assert_eq!(openid["response_types_supported"], json!(["none"]));
        assert!(openid["id_token_signing_alg_values_supported"].as_array().unwrap().contains(&json!("RS256")));
        assert_eq!(openid.as_object().unwrap().len(), oauth.as_object().unwrap().len() + 2);
    }

    async fn p11_no_password_grant_is_advertised_or_offered(database: TestDatabase) {
        let app = TestApp::start(database).await;
        assert_eq!(document(&app, OAUTH).await["grant_types_supported"], json!(["client_credentials", "refresh_token"]));
        for grant in ["password", "authorization_code", "implicit", "urn:ietf:params:oauth:grant-type:jwt-bearer"] {
            let form = [("grant_type", grant), ("username", "ada"), ("password", crate::support::app::PASSWORD)];
            let gateway = app.gateway();
            let answer = app.post_form("/oauth2/token", &form).basic_auth(&gateway.id, Some(&gateway.secret)).send().await;
            assert_eq!(error_of(answer.unwrap()).await, (400, "unsupported_grant_type".into()));
        }
    }

    async fn every_endpoint_in_the_metadata_exists(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let document = document(&app, OPENID).await;
        for (name, url) in document.as_object().unwrap() {
            let Some(url) = url.as_str().filter(|_| name != "issuer") else { continue };
            let path = url.strip_prefix("http://localhost:8080").unwrap_or_else(|| panic!("{name}: {url}"));
            assert_ne!(app.get(path).send().await.unwrap().status(), 404, "{name}");
        }
    }

    async fn h12_urls_come_from_the_issuer_and_never_from_the_request(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        for path in [OAUTH, OPENID, "/docs", "/openapi.json", "/oauth2/authorize", "/.well-known/jwks.json"] {
            let plain = app.get(path).send().await.unwrap().text().await.unwrap();
            for (name, value) in [
                ("host", "evil.example"),
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-proto", "ftp"),
                ("x-forwarded-prefix", "/evil.example"),
                ("x-forwarded-for", "evil.example"),
                ("forwarded", "host=evil.example;proto=ftp"),
                ("x-original-host", "evil.example"),
                ("origin", "https://evil.example"),
            ] {
                let answer = app.get(path).header(name, value).send().await.unwrap();
                assert!(answer.headers().values().all(|value| !value.as_bytes().windows(4).any(|part| part == b"evil")));
                assert_eq!(answer.text().await.unwrap(), plain, "{path} {name}");
            }
        }
        let form = [("grant_type", "client_credentials")];
        let request = app.post_form("/oauth2/token", &form).header("host", "evil.example");
        let tokens = crate::support::app::tokens(request.basic_auth(&batch.id, Some(&batch.secret)).send().await.unwrap()).await;
        assert_eq!(claims_of(&tokens.access_token)["iss"], "http://localhost:8080");
    }

    async fn the_metadata_of_an_issuer_with_a_path_is_served_at_both_well_known_paths(database: TestDatabase) {
        let app = TestApp::start_with(database, "issuer = \"https://example.com/auth/v2\"").await;
        let issuer = "https://example.com/auth/v2";
        for path in [
            "/.well-known/oauth-authorization-server/auth/v2",
            "/auth/v2/.well-known/oauth-authorization-server",
            "/.well-known/oauth-authorization-server",
            "/.well-known/openid-configuration/auth/v2",
            "/auth/v2/.well-known/openid-configuration",
            "/.well-known/openid-configuration",
        ] {
            let document = document(&app, path).await;
            assert_eq!(document["issuer"], issuer, "{path}");
            assert_eq!(document["jwks_uri"], format!("{issuer}/.well-known/jwks.json"));
            assert_eq!(document["token_endpoint"], format!("{issuer}/oauth2/token"));
        }
        let batch = app.confidential("batch", machine(&[], "")).await;
        let form = [("grant_type", "client_credentials")];
        let request = app.post_form("/auth/v2/oauth2/token", &form).basic_auth(&batch.id, Some(&batch.secret));
        let token = crate::support::app::tokens(request.send().await.unwrap()).await.access_token;
        assert_eq!(claims_of(&token)["iss"], issuer);
        let jwks = app.get("/auth/v2/.well-known/jwks.json").send().await.unwrap().json().await.unwrap();
        assert!(verified_claims(&token, &jwks).is_some());
        for path in ["/auth/v2/v1/verify", "/auth/v2/v1/verify/", "/auth/v2/v1/verify/app", "/v1/verify"] {
            assert_eq!(app.get(path).bearer_auth(&token).send().await.unwrap().status(), 200, "{path}");
        }
        for path in ["/auth/v2/livez", "/auth/v2/readyz", "/auth/v2/docs", "/auth/v2/openapi.json"] {
            assert_eq!(app.get(path).send().await.unwrap().status(), 200, "{path}");
        }
        // The framework's errors also have the endpoint's format there.
        let answer = app.get("/auth/v2/oauth2/token").send().await.unwrap();
        assert_eq!((header(&answer, "content-type"), header(&answer, "allow")), ("application/json", "POST"));
        assert_eq!(error_of(answer).await, (405, "invalid_request".into()));
        assert_eq!(app.get("/auth/v2/admin/v1/status").send().await.unwrap().status(), 404);
        assert_eq!(app.get("/auth").send().await.unwrap().status(), 404);
    }

    async fn the_authorization_endpoint_answers_with_an_error_and_never_redirects(database: TestDatabase) {
        let app = TestApp::start(database).await;
        for query in ["", "?response_type=code&client_id=web&redirect_uri=https://evil.example/&state=x", "?response_type=none"] {
            let answer = app.get(&format!("/oauth2/authorize{query}")).send().await.unwrap();
            assert_eq!((header(&answer, "location"), header(&answer, "cache-control")), ("", "no-store"));
            assert_eq!(error_of(answer).await, (400, "unsupported_response_type".into()), "{query}");
        }
    }

    async fn h14_the_documentation_page_loads_nothing_from_another_origin(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let answer = app.get("/docs").send().await.unwrap();
        assert_eq!(header(&answer, "content-type"), "text/html; charset=utf-8");
        let policy = header(&answer, "content-security-policy").to_owned();
        for directive in ["default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"] {
            assert!(policy.split(';').any(|part| part.trim() == directive), "{policy}");
        }
        assert!(!policy.contains("http") && !policy.contains('*'));
        let page = answer.text().await.unwrap();
        for elsewhere in ["http://", "https://", "src=", "<link", "@import", "url(", "import(", "//cdn", "<iframe", "<img"] {
            assert!(!page.contains(elsewhere), "{elsewhere}");
        }
        // No part of the document can become markup.
        for dangerous in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!page.contains(dangerous), "{dangerous}");
        }
        // Below an issuer's path, the page loads the document next to itself.
        assert!(page.contains("fetch(\"openapi.json\")"));
    }
}
