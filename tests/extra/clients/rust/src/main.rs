//! The `openidconnect` crate against the service: discovery, client_credentials, refresh, introspection, revocation, and
//! verification with the discovered keys.

use std::env::var;
use std::error::Error;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::core::{CoreClient, CoreJwsSigningAlgorithm, CoreProviderMetadata, CoreRevocableToken};
use openidconnect::{
    AdditionalProviderMetadata, ClientId, ClientSecret, IntrospectionUrl, IssuerUrl, JsonWebKey, OAuth2TokenResponse,
    ProviderMetadata, RefreshToken, RevocationUrl, TokenIntrospectionResponse,
};
use reqwest::blocking::Client;
use serde_json::{Value, json};

type Outcome = Result<(), Box<dyn Error>>;

/// Metadata members that OpenID Connect does not define.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
struct Endpoints {
    introspection_endpoint: IntrospectionUrl,
    revocation_endpoint: RevocationUrl,
}
impl AdditionalProviderMetadata for Endpoints {}

type Metadata = ProviderMetadata<
    Endpoints,
    openidconnect::core::CoreAuthDisplay,
    openidconnect::core::CoreClientAuthMethod,
    openidconnect::core::CoreClaimName,
    openidconnect::core::CoreClaimType,
    openidconnect::core::CoreGrantType,
    openidconnect::core::CoreJweContentEncryptionAlgorithm,
    openidconnect::core::CoreJweKeyManagementAlgorithm,
    openidconnect::core::CoreJsonWebKey,
    openidconnect::core::CoreResponseMode,
    openidconnect::core::CoreResponseType,
    openidconnect::core::CoreSubjectIdentifierType,
>;

fn main() -> Outcome {
    let authority = reqwest::Certificate::from_pem(&std::fs::read(var("SSL_CERT_FILE")?)?)?;
    let http = Client::builder().add_root_certificate(authority).redirect(reqwest::redirect::Policy::none()).build()?;
    let issuer = IssuerUrl::new(var("ISSUER")?)?;
    check("discovery", || CoreProviderMetadata::discover(&issuer, &http).map(|_| ()).map_err(Into::into));
    let metadata = Metadata::discover(&issuer, &http)?;
    let client = |id: &str| -> Result<_, Box<dyn Error>> {
        let secret = ClientSecret::new(secret(id)?);
        let client = CoreClient::from_provider_metadata(metadata.clone(), ClientId::new(id.to_owned()), Some(secret));
        let endpoints = metadata.additional_metadata();
        Ok(client
            .set_introspection_url(endpoints.introspection_endpoint.clone())
            .set_revocation_url(endpoints.revocation_endpoint.clone()))
    };
    for (algorithm, name) in [
        (CoreJwsSigningAlgorithm::EcdsaP256Sha256, "es256"),
        (CoreJwsSigningAlgorithm::EdDsa, "eddsa"),
        (CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256, "rs256"),
        (CoreJwsSigningAlgorithm::RsaSsaPssSha256, "ps256"),
    ] {
        check(&format!("client_credentials and verification with {name}"), || {
            let client = client(&format!("robot-{name}"))?;
            let request = client.exchange_client_credentials()?.add_extra_param("audience", var("AUDIENCE")?);
            let token = request.request(&http)?;
            verify(&metadata, &algorithm, token.access_token().secret())
        });
    }
    check("refresh, introspection and revocation", || {
        let app = client("webapp")?;
        let refresh = RefreshToken::new(login(&http)?);
        let tokens = app.exchange_refresh_token(&refresh)?.request(&http)?;
        let gateway = client("gateway")?;
        let is_active = || -> Result<bool, Box<dyn Error>> {
            Ok(gateway.introspect(tokens.access_token()).request(&http)?.active())
        };
        demand(is_active()?, "active")?;
        let successor = tokens.refresh_token().ok_or("no refresh token")?;
        app.revoke_token(CoreRevocableToken::from(successor))?.request(&http)?;
        demand(!is_active()?, "inactive once revoked")
    });
    Ok(())
}

/// Checks a signature with the key named by the token; the crate verifies only ID tokens.
fn verify(metadata: &Metadata, algorithm: &CoreJwsSigningAlgorithm, token: &str) -> Outcome {
    let (input, signature) = token.rsplit_once('.').ok_or("not a JWS")?;
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(input.split('.').next().unwrap_or_default())?)?;
    let key = metadata.jwks().keys().iter().find(|key| key.key_id().is_some_and(|id| header["kid"] == id.as_str()));
    let key = key.ok_or("the key is not published")?;
    let signature = URL_SAFE_NO_PAD.decode(signature)?;
    key.verify_signature(algorithm, input.as_bytes(), &signature)?;
    let forged = key.verify_signature(algorithm, format!("{input}x").as_bytes(), &signature);
    demand(forged.is_err(), "a forged token was accepted")
}

/// A user's refresh token: a REST call, not part of the crate.
fn login(http: &Client) -> Result<String, Box<dyn Error>> {
    let body = json!({"username": "ada", "password": var("PASSWORD")?, "client_id": "webapp", "audience": var("AUDIENCE")?});
    let request = http.post(format!("{}/v1/login", var("ISSUER")?)).basic_auth("webapp", Some(secret("webapp")?));
    let answer: Value = request.json(&body).send()?.error_for_status()?.json()?;
    Ok(answer["refresh_token"].as_str().ok_or("no refresh token")?.to_owned())
}

fn secret(client: &str) -> Result<String, std::env::VarError> {
    var(format!("SECRET_{}", client.to_uppercase().replace('-', "_")))
}

fn demand(condition: bool, text: &str) -> Outcome {
    if condition { Ok(()) } else { Err(text.into()) }
}

fn check(name: &str, body: impl FnOnce() -> Outcome) {
    match body() {
        Ok(()) => println!("ok {name}"),
        Err(error) => println!("FAILED {name}: {error}"),
    }
}
