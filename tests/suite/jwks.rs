//! `GET /.well-known/jwks.json`: the public keys, for any caller and in any state of the database.

use std::time::Duration;

use reqwest::header::IF_NONE_MATCH;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::app::{TestApp, machine};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::forge::pem;
use crate::support::judging::*;
use crate::support::outage;

const JWKS: &str = "/.well-known/jwks.json";
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// One key of each algorithm.
async fn import_all(app: &TestApp) {
    for (file, algorithm) in [("rsa-3072", Some("PS256")), ("rsa-2048", Some("RS256")), ("ed25519", None)] {
        let order = json!({"pem": pem(file), "algorithm": algorithm});
        app.administer(Method::POST, "/admin/v1/keys", Some(order)).await;
    }
}

on_both_engines! {
    async fn k1_k2_a_jwk_has_exactly_its_public_members_kid_use_and_alg(database: TestDatabase) {
        let app = TestApp::start(database).await;
        import_all(&app).await;
        let jwks = app.jwks().await;
        assert_eq!(jwks.as_object().unwrap().len(), 1);
        let keys = jwks["keys"].as_array().unwrap();
        let mut kids = std::collections::BTreeSet::new();
        let mut algorithms = Vec::new();
        for key in keys {
            let members: Vec<&str> = key.as_object().unwrap().keys().map(String::as_str).collect();
            let allowed: &[&str] = match key["kty"].as_str().unwrap() {
                "EC" => &["alg", "crv", "kid", "kty", "use", "x", "y"],
                "OKP" => &["alg", "crv", "kid", "kty", "use", "x"],
                "RSA" => &["alg", "e", "kid", "kty", "n", "use"],
                other => panic!("{other}"),
            };
            let mut members = members;
            members.sort_unstable();
            assert_eq!(members, allowed);
            assert_eq!((&key["use"], thumbprint(key)), (&json!("sig"), key["kid"].as_str().unwrap().to_owned()));
            if key["kty"] == "RSA" {
                assert_eq!(key["e"], "AQAB");
            }
            kids.insert(key["kid"].as_str().unwrap().to_owned());
            algorithms.push(key["alg"].as_str().unwrap());
        }
        algorithms.sort_unstable();
        assert_eq!((kids.len(), algorithms), (4, vec!["ES256", "EdDSA", "PS256", "RS256"]));
    }

    async fn k9_the_media_type_and_max_age_are_as_documented(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let answer = app.get(JWKS).send().await.unwrap();
        assert_eq!(header(&answer, "content-type"), "application/jwk-set+json");
        assert_eq!(header(&answer, "cache-control"), "public, max-age=300");
        assert_eq!(header(&answer, "access-control-allow-origin"), "*");
        let etag = header(&answer, "etag");
        assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 20, "{etag}");
    }

    async fn a_matching_etag_is_answered_with_304_and_no_body(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let first = app.get(JWKS).send().await.unwrap();
        let etag = header(&first, "etag").to_owned();
        for holds in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".to_owned()] {
            let answer = app.get(JWKS).header(IF_NONE_MATCH, &holds).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::NOT_MODIFIED, "{holds}");
            assert_eq!((header(&answer, "etag"), header(&answer, "cache-control")), (etag.as_str(), "public, max-age=300"));
            assert_eq!(answer.bytes().await.unwrap().len(), 0);
        }
        for other in ["\"other\"", "", &etag[1..], &etag.to_uppercase()] {
            let answer = app.get(JWKS).header(IF_NONE_MATCH, other).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{other}");
        }
        import_all(&app).await;
        let answer = app.get(JWKS).header(IF_NONE_MATCH, &etag).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "the set has changed");
        assert_ne!(header(&answer, "etag"), etag);
    }

    async fn k9_max_age_ends_before_the_next_change_of_keys(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let max_age = async || {
            let answer = app.get(JWKS).send().await.unwrap();
            header(&answer, "cache-control").strip_prefix("public, max-age=").unwrap().parse::<u64>().unwrap()
        };
        // The successor is announced 30 days less an hour after the first key began to sign.
        app.advance(30 * DAY - HOUR - Duration::from_secs(301)).await;
        app.service.keys.maintain_keys().await.unwrap();
        assert_eq!((max_age().await, app.published().await.len()), (300, 1));
        app.advance(Duration::from_millis(1_500)).await;
        assert_eq!(max_age().await, 299);
        app.advance(Duration::from_secs(298)).await;
        assert_eq!(max_age().await, 1);
        app.advance(Duration::from_secs(2)).await;
        app.service.keys.maintain_keys().await.unwrap();
        assert_eq!((max_age().await, app.published().await.len()), (300, 2));
        // Two hours after it has stopped signing, the first key leaves the set.
        app.advance(3 * HOUR - Duration::from_secs(100)).await;
        assert_eq!((max_age().await, app.published().await.len()), (100, 2));
        app.advance(Duration::from_secs(100)).await;
        assert_eq!((max_age().await, app.published().await.len()), (300, 1));
    }

    async fn k9_the_keys_are_served_while_the_database_is_unreachable(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let before = app.jwks().await;
        outage::take_tables_away(&app.database).await;
        app.clock.advance(HOUR);
        let answer = app.get(JWKS).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.json::<serde_json::Value>().await.unwrap(), before);
        for document in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"] {
            assert_eq!(app.get(document).send().await.unwrap().status(), StatusCode::OK);
        }
    }

    async fn k1_no_private_half_of_a_key_is_in_any_answer_or_log_line(database: TestDatabase) {
        let app = TestApp::start(database).await;
        import_all(&app).await;
        let mut seen = String::new();
        for path in [JWKS, "/.well-known/openid-configuration", "/openapi.json"] {
            seen.push_str(&app.get(path).send().await.unwrap().text().await.unwrap());
        }
        for path in ["/admin/v1/keys", "/admin/v1/status", "/admin/v1/audit"] {
            seen.push_str(&app.administer(Method::GET, path, None).await.to_string());
        }
        let bad = json!({"pem": pem("rsa-1024")});
        seen.push_str(&app.admin(Method::POST, "/admin/v1/keys").json(&bad).send().await.unwrap().text().await.unwrap());
        seen.push_str(&app.metrics().await);
        seen.push_str(&app.logged());
        for name in ["rsa-3072", "rsa-2048", "ed25519", "rsa-1024"] {
            let text = pem(name);
            let lines = text.lines().filter(|line| line.len() >= 40 && !line.starts_with('-'));
            // The first lines of an RSA file hold the modulus, which is public; what follows the middle is private.
            let lines: Vec<_> = lines.collect();
            for line in &lines[lines.len() / 2..] {
                assert!(!seen.contains(line), "{name}");
            }
        }
    }

    async fn tokens_verify_with_the_published_keys(database: TestDatabase) {
        let app = TestApp::start(database).await;
        import_all(&app).await;
        for algorithm in ["ES256", "EdDSA", "RS256", "PS256"] {
            let id = format!("batch-{algorithm}");
            let client = app.confidential(&id, machine(&[], "")).await;
            app.administer(Method::PATCH, &format!("/admin/v1/clients/{id}"), Some(json!({"algorithm": algorithm}))).await;
            let token = app.token_of(&client).await.access_token;
            assert_eq!(header_of(&token)["alg"], algorithm);
            assert!(verified_claims(&token, &app.jwks().await).is_some());
            assert!(app.is_active(&token).await);
        }
    }
}

/// RFC 7638: the required members in order, without spaces, under SHA-256.
fn thumbprint(key: &serde_json::Value) -> String {
    use base64::Engine as _;
    let members: &[&str] = match key["kty"].as_str().unwrap() {
        "EC" => &["crv", "kty", "x", "y"],
        "OKP" => &["crv", "kty", "x"],
        _ => &["e", "kty", "n"],
    };
    let text: Vec<_> = members.iter().map(|name| format!("\"{name}\":{}", key[*name])).collect();
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("{{{}}}", text.join(",")).as_bytes());
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest)
}
