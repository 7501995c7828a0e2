//! Helpers for the tests of token verification.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::domain::{Audience, ClientSettings, IntrospectRight};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use ring::signature;
use serde_json::{Value, json};

use super::app::{PASSWORD, TestApp, Tokens, USER, tokens};

/// Longer than `revocation.max_lag`.
pub const TOO_LONG: Duration = Duration::from_millis(3_001);
/// The whole of an inactive answer.
pub const INACTIVE: &str = "{\"active\":false}";
/// The media type of a signed answer.
pub const SIGNED: &str = "application/token-introspection+jwt";

/// A client with its credentials.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub id: String,
    pub secret: String,
}

/// The formats of forward-auth and introspection requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Batch,
    Signed,
}

impl Format {
    pub const ALL: [Self; 3] = [Self::Json, Self::Batch, Self::Signed];
}

impl TestApp {
    /// Creates a confidential client.
    pub async fn confidential(&self, id: &str, settings: ClientSettings) -> Credentials {
        Credentials { id: id.to_owned(), secret: self.client(id, settings).await.unwrap() }
    }

    /// The fixture that may introspect every token.
    pub fn gateway(&self) -> Credentials {
        Credentials { id: super::app::GATEWAY.to_owned(), secret: self.gateway_secret.clone() }
    }

    /// An access token of a client for itself.
    pub async fn token_of(&self, client: &Credentials) -> Tokens {
        tokens(self.token_request(client, &[]).await).await
    }

    /// Returns the token endpoint's answer to `client_credentials`.
    pub async fn token_request(&self, client: &Credentials, more: &[(&str, &str)]) -> Response {
        let form = [&[("grant_type", "client_credentials")], more].concat();
        let request = self.post_form("/oauth2/token", &form);
        request.basic_auth(&client.id, Some(&client.secret)).send().await.unwrap()
    }

    /// Logs [`USER`] in on `client`.
    pub async fn log_in_on(&self, client: &str) -> Tokens {
        let login = json!({"username": USER, "password": PASSWORD, "client_id": client});
        tokens(self.post_json("/v1/login", &login).send().await.unwrap()).await
    }

    /// A request of `caller` about `token`.
    /// A session on a confidential client.
    pub async fn log_in_on_confidential(&self, client: &Credentials) -> Tokens {
        let login = json!({"username": USER, "password": PASSWORD, "client_id": client.id});
        let request = self.post_json("/v1/login", &login).basic_auth(&client.id, Some(&client.secret));
        tokens(request.send().await.unwrap()).await
    }

    pub fn ask(&self, caller: &Credentials, token: &str) -> RequestBuilder {
        self.post_form("/oauth2/introspect", &[("token", token)]).basic_auth(&caller.id, Some(&caller.secret))
    }

    /// Introspects `token` as `caller` in any format and returns the equivalent JSON object.
    pub async fn asked(&self, caller: &Credentials, token: &str, format: Format) -> Value {
        let answer = match format {
            Format::Json => self.ask(caller, token).send().await.unwrap(),
            Format::Signed => self.ask(caller, token).header("accept", SIGNED).send().await.unwrap(),
            Format::Batch => self.batch(caller, &[token]).await,
        };
        assert_eq!(answer.status(), StatusCode::OK);
        match format {
            Format::Json => answer.json().await.unwrap(),
            Format::Batch => answer.json::<Value>().await.unwrap()["results"][0].take(),
            Format::Signed => claims_of(&answer.text().await.unwrap())["token_introspection"].take(),
        }
    }

    /// A batch of tokens for `caller`.
    pub async fn batch(&self, caller: &Credentials, tokens: &[&str]) -> Response {
        let request = self.post_json("/v1/introspect", &json!({"tokens": tokens}));
        request.basic_auth(&caller.id, Some(&caller.secret)).send().await.unwrap()
    }

    /// A forward-auth request with a token.
    pub fn verify(&self, path_and_query: &str, token: &str) -> RequestBuilder {
        self.get(&format!("/v1/verify{path_and_query}")).bearer_auth(token)
    }

    /// The JWK set.
    pub async fn jwks(&self) -> Value {
        self.get("/.well-known/jwks.json").send().await.unwrap().json().await.unwrap()
    }

    /// The kids that are published.
    pub async fn published(&self) -> Vec<String> {
        let jwks = self.jwks().await;
        let kids = jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned());
        kids.collect()
    }

    /// Revokes one thing as an administrator.
    pub async fn revoke(&self, kind: &str, id: &str) {
        let answer = self.admin(Method::POST, "/admin/v1/revocations").json(&json!({kind: id})).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT, "{}", answer.text().await.unwrap());
    }

    /// Calls an endpoint of the administration, which must succeed.
    pub async fn administer(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let request = self.admin(method, path);
        let request =
            body.map_or_else(|| request.try_clone().unwrap(), |body| request.try_clone().unwrap().json(&body));
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path} {status} {text}");
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
    }

    /// The value of a metric in `/metrics`, named with its labels as printed there; 0 when it is absent.
    pub async fn figure(&self, name_and_labels: &str) -> f64 {
        let text = self.metrics().await;
        let line = text.lines().find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' '));
        line.map_or(0.0, |number| number.parse().unwrap())
    }

    /// All metrics.
    pub async fn metrics(&self) -> String {
        let request = self.http.get(format!("http://{}/metrics", self.operations));
        request.send().await.unwrap().text().await.unwrap()
    }
}

/// A resource server that owns these audiences.
pub fn resource_server(audiences: &[&str], right: IntrospectRight) -> ClientSettings {
    ClientSettings {
        audiences: audiences.iter().map(|audience| Audience::parse(audience).unwrap()).collect(),
        introspect: right,
        ..ClientSettings::new(countersign::domain::ClientKind::Confidential)
    }
}

/// The id of a token in the revocation feed.
pub fn id_in_feed(token: &str) -> String {
    let claims = claims_of(token);
    let digest = ring::digest::digest(&ring::digest::SHA256, claims["jti"].as_str().unwrap().as_bytes());
    URL_SAFE_NO_PAD.encode(&digest.as_ref()[..16])
}

/// The claims of a JWT, unverified.
pub fn claims_of(token: &str) -> Value {
    part(token, 1)
}

/// The header of a JWT.
pub fn header_of(token: &str) -> Value {
    part(token, 0)
}

fn part(token: &str, index: usize) -> Value {
    let encoded = token.split('.').nth(index).unwrap_or_else(|| panic!("not a JWT: {token}"));
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap()
}

/// The claims of a JWT whose signature is valid under the key of `jwks` that it names. Independent of the service's own
/// verifier.
pub fn verified_claims(token: &str, jwks: &Value) -> Option<Value> {
    let header = header_of(token);
    let key = jwks["keys"].as_array()?.iter().find(|key| key["kid"] == header["kid"])?;
    assert_eq!((&key["alg"], &key["use"]), (&header["alg"], &json!("sig")));
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let (signed, signature) = token.rsplit_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let verified = match header["alg"].as_str()? {
        "ES256" => {
            let point = [vec![4], bytes("x"), bytes("y")].concat();
            let key = signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
            key.verify(signed.as_bytes(), &signature)
        }
        "EdDSA" => {
            signature::UnparsedPublicKey::new(&signature::ED25519, bytes("x")).verify(signed.as_bytes(), &signature)
        }
        name => {
            let rsa = signature::RsaPublicKeyComponents { n: bytes("n"), e: bytes("e") };
            let parameters = match name {
                "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                other => panic!("{other}"),
            };
            rsa.verify(parameters, signed.as_bytes(), &signature)
        }
    };
    verified.ok().map(|()| claims_of(token))
}

/// One header as text; empty when it is absent.
pub fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// Every header on a line of its own, sorted, without values that differ each time.
pub fn header_lines(headers: &HeaderMap) -> Vec<String> {
    let line = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| match name.as_str() {
        "date" | "etag" | "x-request-id" => format!("{name}: (varies)"),
        _ => format!("{name}: {}", value.to_str().unwrap()),
    };
    let mut lines: Vec<_> = headers.iter().map(line).collect();
    lines.sort();
    lines
}
