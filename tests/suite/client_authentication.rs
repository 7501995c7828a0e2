//! Client authentication (RFC 6749 §2.3, RFC 7523): secrets in every spelling, two secrets during a
//! replacement, and signed assertions that are valid once.

use std::sync::Arc;
use std::time::Duration;

use countersign::domain::{ClientKind, ClientSettings, Grant, Grants};
use reqwest::{Method, RequestBuilder};
use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};

use crate::support::app::{ISSUER, TestApp, application, error_of, machine};
use crate::support::database::{Engine, START, TestDatabase, on_both_engines};
use crate::support::forge::{ed25519, jwk, sign};
use crate::support::judging::*;

const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

async fn status(request: RequestBuilder) -> (u16, String) {
    let answer = request.send().await.unwrap();
    match answer.status().as_u16() {
        200 => (200, String::new()),
        _ => error_of(answer).await,
    }
}

fn refused() -> (u16, String) {
    (401, "invalid_client".to_owned())
}

fn invalid() -> (u16, String) {
    (400, "invalid_request".to_owned())
}

fn passed() -> (u16, String) {
    (200, String::new())
}

/// `Basic` with this text before base64.
fn basic(text: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
}

/// Signs assertions of a client that is known by its public keys.
struct Signer {
    key: Ed25519KeyPair,
    next: std::sync::atomic::AtomicU32,
}

impl Signer {
    async fn register(app: &TestApp, id: &str) -> Self {
        let key = ed25519("ed25519");
        let jwks = json!({"keys": [jwk(&key, "k1")]}).to_string();
        let settings = ClientSettings {
            jwks: Some(jwks),
            grants: Grants::new([Grant::ClientCredentials]),
            ..ClientSettings::new(ClientKind::Confidential)
        };
        assert!(app.client(id, settings).await.is_none(), "a client with keys gets no secret");
        Self { key, next: std::sync::atomic::AtomicU32::new(1) }
    }

    fn claims(&self, id: &str) -> Value {
        let jti = format!("assertion-{}", self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let now = START.seconds();
        json!({"iss": id, "sub": id, "aud": format!("{ISSUER}/oauth2/token"), "iat": now, "exp": now + 60, "jti": jti})
    }

    fn sign(&self, claims: &Value) -> String {
        sign(&self.key, &json!({"alg": "EdDSA", "kid": "k1"}), claims)
    }
}

fn with_assertion(app: &TestApp, path: &str, assertion: &str, more: &[(&str, &str)]) -> RequestBuilder {
    let form = [
        &[
            ("client_assertion_type", TYPE),
            ("client_assertion", assertion),
            ("grant_type", "client_credentials"),
            ("token", "x"),
        ],
        more,
    ];
    app.post_form(path, &form.concat())
}

on_both_engines! {
    async fn h4_basic_is_read_raw_and_form_decoded(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let odd = app.confidential("my.app_1", machine(&[], "")).await;
        assert!(odd.secret.len() >= 43 && odd.secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        let get = |header: String| {
            app.post_form("/oauth2/token", &[("grant_type", "client_credentials")]).header("authorization", header)
        };
        let encoded: String = odd.secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for (text, expected) in [
            (format!("my.app_1:{}", odd.secret), passed()),
            (format!("my%2Eapp%5f1:{}", odd.secret), passed()),
            (format!("my.app_1:{encoded}"), passed()),
            (format!("my%2eapp%5F1:{encoded}"), passed()),
            (format!("my.app_1 :{}", odd.secret), refused()),
            (format!("my.app+1:{}", odd.secret), refused()),
            (format!("MY.app_1:{}", odd.secret), refused()),
            (format!("my%2Eapp%5f1:{}x", odd.secret), refused()),
            (format!("my.app_1:{}", odd.secret.to_uppercase()), refused()),
        ] {
            assert_eq!(status(get(basic(&text))).await, expected, "{text}");
        }
        let gateway = app.gateway();
        let plain = basic(&format!("{}:{}", gateway.id, gateway.secret));
        let introspect = |header: String| app.post_form("/oauth2/introspect", &[("token", "x")]).header("authorization", header);
        assert_eq!(status(introspect(plain.clone())).await, passed());
        assert_eq!(status(introspect(plain.replacen("Basic", "bAsIc", 1))).await, passed(), "schemes have no case");
        assert_eq!(status(introspect(plain.trim_end_matches('=').to_owned())).await, passed(), "missing padding is forgiven");
    }

    async fn the_secret_may_be_in_the_body_or_in_both_places_if_they_agree(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let Credentials { id, secret } = app.gateway();
        let other = app.confidential("other", machine(&[], "")).await;
        let post = |form: &[(&str, &str)]| app.post_form("/oauth2/introspect", &[&[("token", "x")], form].concat());
        let both = [("client_id", id.as_str()), ("client_secret", secret.as_str())];
        assert_eq!(status(post(&both)).await, passed());
        assert_eq!(status(post(&both).basic_auth(&id, Some(&secret))).await, passed(), "lua-resty-openidc sends both");
        assert_eq!(status(post(&both[..1]).basic_auth(&id, Some(&secret))).await, passed());
        assert_eq!(status(post(&both[1..]).basic_auth(&id, Some(&secret))).await, passed());
        // H3: two different credentials are refused, even if each alone would be accepted.
        assert_eq!(status(post(&both).basic_auth(&other.id, Some(&other.secret))).await, invalid());
        assert_eq!(status(post(&[("client_id", "other")]).basic_auth(&id, Some(&secret))).await, invalid());
        assert_eq!(status(post(&[("client_secret", "wrong")]).basic_auth(&id, Some(&secret))).await, invalid());
        assert_eq!(status(post(&[("client_secret", &secret)])).await, invalid(), "a secret without an id");
        assert_eq!(status(post(&[("client_id", &id), ("client_secret", "wrong")])).await, refused());
        let twice = [("client_id", id.as_str()), ("client_id", &id), ("client_secret", &secret)];
        assert_eq!(status(post(&twice)).await, invalid());
    }

    async fn h3_two_authorization_headers_are_400_even_when_they_agree(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let Credentials { id, secret } = app.gateway();
        for path in ["/oauth2/introspect", "/oauth2/revoke", "/oauth2/token"] {
            let request = app.post_form(path, &[("token", "x"), ("grant_type", "client_credentials")]);
            assert_eq!(status(request.basic_auth(&id, Some(&secret)).basic_auth(&id, Some(&secret))).await, invalid(), "{path}");
        }
        let login = json!({"username": "ada", "password": "x"});
        let request = app.post_json("/v1/login", &login).basic_auth(&id, Some(&secret)).bearer_auth("x");
        assert_eq!(status(request).await, invalid());
        let differing = json!({"username": "ada", "password": "x", "client_id": "countersign"});
        let request = app.post_json("/v1/login", &differing).basic_auth(&id, Some(&secret));
        assert_eq!(status(request).await, invalid());
    }

    async fn h4_a_header_that_cannot_be_read_is_401_with_a_challenge(database: TestDatabase) {
        let app = TestApp::start(database).await;
        for value in ["", "Basic", "Basic ", "Basic !!!", &basic("no-colon"), &basic(":x"), &basic("gateway:\u{0}"), "Bearer abc", "Digest a=b", "gateway:x"] {
            let request = app.post_form("/oauth2/introspect", &[("token", "x")]).header("authorization", value);
            let answer = request.send().await.unwrap();
            assert_eq!(header(&answer, "www-authenticate"), "Basic realm=\"countersign\", charset=\"UTF-8\"", "{value}");
            assert_eq!(error_of(answer).await, refused());
        }
    }

    async fn forms_may_be_chunked_and_spelled_in_any_case_and_the_host_may_be_anything(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let Credentials { id, secret } = app.gateway();
        let exchange = async |head: &str, body: &str| {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut stream = tokio::net::TcpStream::connect(app.public).await.unwrap();
            let auth = basic(&format!("{id}:{secret}"));
            let request = format!("{head}Authorization: {auth}\r\nConnection: close\r\n\r\n{body}");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let form = "Content-Type: Application/X-WWW-Form-Urlencoded; charset=UTF-8\r\n";
        let chunked = format!("POST /oauth2/introspect HTTP/1.1\r\nHost: auth\r\n{form}Transfer-Encoding: chunked\r\n");
        assert!(exchange(&chunked, "4\r\ntoke\r\n3\r\nn=x\r\n0\r\n\r\n").await.ends_with("{\"active\":false}"));
        let old = format!("POST /oauth2/introspect HTTP/1.0\r\n{form}Content-Length: 7\r\n");
        assert!(exchange(&old, "token=x").await.ends_with("{\"active\":false}"));
        let json = "POST /oauth2/introspect HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n";
        assert!(exchange(json, "{}").await.starts_with("HTTP/1.1 400 "));
    }

    async fn s5_two_secrets_are_valid_during_a_rotation_and_never_three(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let first = app.confidential("batch", machine(&[], "")).await;
        let new_secret = async |grace: Option<u64>| {
            let order = grace.map_or(json!({}), |grace| json!({"grace": grace}));
            let answer = app.administer(Method::POST, "/admin/v1/clients/batch/secret", Some(order)).await;
            (Credentials { id: "batch".into(), secret: answer["client_secret"].as_str().unwrap().to_owned() }, answer)
        };
        let is_good = async |client: &Credentials| app.token_request(client, &[]).await.status().is_success();
        let count = async || app.administer(Method::GET, "/admin/v1/clients/batch", None).await["secrets"].clone();
        let (second, answer) = new_secret(Some(600)).await;
        assert_eq!(answer["former_secrets_expire_at"], "2027-01-15T08:10:00.000Z");
        assert!(is_good(&first).await && is_good(&second).await);
        assert_eq!(count().await, 2);
        let (third, _) = new_secret(None).await;
        assert!(!is_good(&first).await && is_good(&second).await && is_good(&third).await, "two, and never three");
        app.advance(Duration::from_secs(86_400) - Duration::from_millis(1)).await;
        assert!(is_good(&second).await, "a day is the default");
        app.advance(Duration::from_millis(1)).await;
        assert!(!is_good(&second).await && is_good(&third).await);
        assert_eq!(count().await, 1, "what has expired is not counted");
        let (fourth, _) = new_secret(Some(0)).await;
        assert!(!is_good(&third).await && is_good(&fourth).await, "0 ends the former ones at once");
        let long = app.admin(Method::POST, "/admin/v1/clients/batch/secret").json(&json!({"grace": 7_776_001}));
        assert_eq!(status(long).await, invalid());
        app.client("web", application("")).await;
        let public = app.admin(Method::POST, "/admin/v1/clients/web/secret").json(&json!({}));
        assert_eq!(status(public).await, invalid(), "a public client has none");
        let unknown = app.admin(Method::POST, "/admin/v1/clients/nobody/secret").json(&json!({}));
        assert_eq!(status(unknown).await, (404, "not_found".into()));
    }

    async fn a_new_secret_is_valid_on_every_replica_after_its_next_sync(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let other = TestApp::replica(Arc::clone(&app.database), Arc::clone(&app.clock), 2, "").await;
        let first = app.confidential("batch", machine(&[], "")).await;
        other.sync().await;
        assert!(other.token_request(&first, &[]).await.status().is_success());
        let answer = app.administer(Method::POST, "/admin/v1/clients/batch/secret", Some(json!({"grace": 0}))).await;
        let second = Credentials { id: "batch".into(), secret: answer["client_secret"].as_str().unwrap().to_owned() };
        other.sync().await;
        assert!(!other.token_request(&first, &[]).await.status().is_success());
        assert!(other.token_request(&second, &[]).await.status().is_success());
    }

    async fn c6_a_cached_authorization_header_is_refused_once_its_client_is_disabled(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let other = TestApp::replica(Arc::clone(&app.database), Arc::clone(&app.clock), 2, "").await;
        let batch = app.confidential("batch", machine(&[], "")).await;
        other.sync().await;
        let asks = async |app: &TestApp| app.token_request(&batch, &[]).await.status().as_u16();
        for _ in 0..3 {
            assert_eq!((asks(&app).await, asks(&other).await), (200, 200));
            app.administer(Method::PATCH, "/admin/v1/clients/batch", Some(json!({"enabled": false}))).await;
            assert_eq!(asks(&app).await, 401, "at once on the replica that was told");
            other.sync().await;
            assert_eq!(asks(&other).await, 401);
            app.administer(Method::PATCH, "/admin/v1/clients/batch", Some(json!({"enabled": true}))).await;
            other.sync().await;
        }
        app.administer(Method::DELETE, "/admin/v1/clients/batch", None).await;
        other.sync().await;
        assert_eq!((asks(&app).await, asks(&other).await), (401, 401));
    }

    async fn s5_a_cached_authorization_header_expires_with_its_secret_even_after_another_expired(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let first = app.confidential("batch", machine(&[], "")).await;
        let is_good = async |client: &Credentials| app.token_request(client, &[]).await.status().is_success();
        let renewed = async |grace: u64| {
            let order = Some(json!({"grace": grace}));
            let answer = app.administer(Method::POST, "/admin/v1/clients/batch/secret", order).await;
            Credentials { id: "batch".into(), secret: answer["client_secret"].as_str().unwrap().to_owned() }
        };
        let second = renewed(60).await;
        app.advance(Duration::from_secs(60)).await;
        assert!(!is_good(&first).await, "ended, and never remembered again");
        let third = renewed(60).await;
        for _ in 0..3 {
            assert!(is_good(&second).await && is_good(&third).await, "remembered from here on");
        }
        app.advance(Duration::from_millis(59_999)).await;
        assert!(is_good(&second).await);
        app.advance(Duration::from_millis(1)).await;
        assert!(!is_good(&second).await && is_good(&third).await, "on the millisecond");
    }

    async fn an_assertion_authenticates_its_client_on_every_form_endpoint(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let signer = Signer::register(&app, "signed").await;
        for path in ["/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"] {
            for audience in [json!(format!("{ISSUER}{path}")), json!(ISSUER), json!([format!("{ISSUER}/oauth2/token"), ISSUER])] {
                let mut claims = signer.claims("signed");
                claims["aud"] = audience.clone();
                assert_eq!(status(with_assertion(&app, path, &signer.sign(&claims), &[])).await, passed(), "{path} {audience}");
            }
            let named = [("client_id", "signed")];
            assert_eq!(status(with_assertion(&app, path, &signer.sign(&signer.claims("signed")), &named)).await, passed());
        }
    }

    async fn an_assertion_is_accepted_once_across_all_replicas(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let signer = Signer::register(&app, "signed").await;
        let other = TestApp::replica(Arc::clone(&app.database), Arc::clone(&app.clock), 2, "").await;
        let claims = signer.claims("signed");
        let assertion = signer.sign(&claims);
        assert_eq!(status(with_assertion(&app, "/oauth2/token", &assertion, &[])).await, passed());
        for replica in [&app, &other, &app] {
            assert_eq!(status(with_assertion(replica, "/oauth2/token", &assertion, &[])).await, refused());
        }
        // The same jti in another assertion is a replay as well. Of ten concurrent requests, one passes.
        let mut again = claims.clone();
        again["exp"] = json!(START.seconds() + 61);
        assert_eq!(status(with_assertion(&other, "/oauth2/introspect", &signer.sign(&again), &[])).await, refused());
        let fresh = signer.sign(&signer.claims("signed"));
        let attempts = (0..10).map(|attempt| with_assertion([&app, &other][attempt % 2], "/oauth2/token", &fresh, &[]));
        let attempts: Vec<_> = attempts.map(|request| tokio::spawn(status(request))).collect();
        let mut good = 0;
        for attempt in attempts {
            good += usize::from(attempt.await.unwrap() == passed());
        }
        assert_eq!(good, 1);
        // Another client may use the same jti.
        let jwks = json!({"keys": [jwk(&signer.key, "k1")]});
        let order = json!({"client_id": "twin", "type": "confidential", "grants": ["client_credentials"], "jwks": jwks});
        app.administer(Method::POST, "/admin/v1/clients", Some(order)).await;
        let mut theirs = claims;
        (theirs["iss"], theirs["sub"]) = (json!("twin"), json!("twin"));
        assert_eq!(status(with_assertion(&app, "/oauth2/token", &signer.sign(&theirs), &[])).await, passed());
    }

    async fn an_assertion_with_any_single_fault_is_refused(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let signer = Signer::register(&app, "signed").await;
        app.confidential("other", machine(&[], "")).await;
        let now = START.seconds();
        let mut wrong = Vec::new();
        for (name, value) in [
            ("iss", json!("other")),
            ("iss", json!(ISSUER)),
            ("iss", Value::Null),
            ("sub", json!("other")),
            ("sub", json!("nobody")),
            ("sub", Value::Null),
            ("aud", json!("https://elsewhere.example/token")),
            ("aud", json!([ISSUER, "https://elsewhere.example"])),
            ("aud", json!(format!("{ISSUER}/"))),
            ("aud", json!([])),
            ("aud", Value::Null),
            ("exp", json!(now)),
            ("exp", json!(now - 1)),
            ("exp", json!(now + 601)),
            ("exp", json!((now + 60).to_string())),
            ("exp", Value::Null),
            ("iat", json!(now + 6)),
            ("nbf", json!(now + 6)),
            ("jti", Value::Null),
            ("jti", json!("")),
        ] {
            let mut claims = signer.claims("signed");
            if value.is_null() { claims.as_object_mut().unwrap().remove(name); } else { claims[name] = value.clone(); }
            wrong.push((format!("{name} {value}"), signer.sign(&claims)));
        }
        let claims = signer.claims("signed");
        for header in [
            json!({"alg": "none", "kid": "k1"}),
            json!({"alg": "HS256", "kid": "k1"}),
            json!({"alg": "ES256", "kid": "k1"}),
            json!({"alg": "EdDSA", "kid": "k2"}),
            json!({"alg": "EdDSA", "kid": "k1", "typ": "at+jwt"}),
            json!({"alg": "EdDSA", "kid": "k1", "crit": []}),
            json!({"alg": "EdDSA", "kid": "k1", "jku": "https://attacker.example"}),
        ] {
            wrong.push((header.to_string(), sign(&signer.key, &header, &claims)));
        }
        let honest = signer.sign(&claims);
        wrong.push(("no signature".to_owned(), format!("{}.", honest.rsplit_once('.').unwrap().0)));
        wrong.push(("not a JWT".to_owned(), "x".to_owned()));
        for (what, assertion) in &wrong {
            assert_eq!(status(with_assertion(&app, "/oauth2/token", assertion, &[])).await, refused(), "{what}");
        }
        assert_eq!(status(with_assertion(&app, "/oauth2/token", &honest, &[("client_id", "other")])).await, refused());
        // A refusal does not consume the jti. Two kinds of credentials cannot be combined.
        let secret = [("client_secret", "x")];
        assert_eq!(status(with_assertion(&app, "/oauth2/token", &honest, &secret)).await, invalid());
        assert_eq!(status(with_assertion(&app, "/oauth2/token", &honest, &[]).basic_auth("signed", Some("x"))).await, invalid());
        let form = |kind: &str| [("client_assertion_type".to_owned(), kind.to_owned()), ("client_assertion".to_owned(), honest.clone()), ("grant_type".to_owned(), "client_credentials".to_owned())];
        for kind in ["", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer", "jwt-bearer"] {
            assert_eq!(status(app.request(Method::POST, "/oauth2/token").form(&form(kind))).await, invalid(), "{kind}");
        }
        assert_eq!(status(app.post_form("/oauth2/token", &[("client_assertion_type", TYPE), ("grant_type", "client_credentials")])).await, invalid());
        assert_eq!(status(with_assertion(&app, "/oauth2/token", &honest, &[])).await, passed());
    }

    async fn a_client_with_keys_only_accepts_no_secret(database: TestDatabase) {
        let app = TestApp::start(database).await;
        Signer::register(&app, "signed").await;
        for secret in ["", "x"] {
            let client = Credentials { id: "signed".into(), secret: secret.into() };
            assert_eq!(error_of(app.token_request(&client, &[]).await).await, refused());
        }
        let secret_client = app.confidential("batch", machine(&[], "")).await;
        let key = ed25519("ed25519");
        let now = START.seconds();
        let claims = json!({"iss": "batch", "sub": "batch", "aud": ISSUER, "exp": now + 60, "jti": "a"});
        let assertion = sign(&key, &json!({"alg": "EdDSA", "kid": "k1"}), &claims);
        assert_eq!(status(with_assertion(&app, "/oauth2/token", &assertion, &[])).await, refused(), "it has no keys");
        assert!(app.token_request(&secret_client, &[]).await.status().is_success());
    }

    async fn registering_a_weak_or_private_client_key_is_refused(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let good = jwk(&ed25519("ed25519"), "k1");
        let with = |name: &str, value: Value| {
            let mut key = good.clone();
            key[name] = value;
            json!({"keys": [key]})
        };
        for bad in [
            json!({"keys": []}),
            json!({}),
            json!([]),
            json!({"keys": [good, good]}),
            with("d", json!("AAAA")),
            with("alg", json!("HS256")),
            with("use", json!("enc")),
            with("kty", json!("oct")),
            with("x", json!("AAAA")),
            json!({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "k", "alg": "HS256"}]}),
        ] {
            let order = json!({"client_id": "signed", "type": "confidential", "jwks": bad});
            assert_eq!(status(app.admin(Method::POST, "/admin/v1/clients").json(&order)).await, invalid(), "{bad}");
        }
    }
}
