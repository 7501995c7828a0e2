//! Forged tokens, signed with a key that the service publishes. The signature is valid: each token has only the defect
//! under test.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Method;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::app::TestApp;
use super::judging::claims_of;

/// The PEM file `tests/data/keys/NAME.pem`.
pub fn pem(name: &str) -> String {
    let path = format!("{}/tests/data/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

/// An Ed25519 key of the tests.
pub fn ed25519(name: &str) -> Ed25519KeyPair {
    let der: String = pem(name).lines().filter(|line| !line.starts_with('-')).collect();
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&STANDARD.decode(der).unwrap()).unwrap()
}

/// Signs any content with an Ed25519 key that was imported into the service.
pub struct Forge {
    key: Ed25519KeyPair,
    pub kid: String,
    /// Valid claims to start from.
    honest: Value,
}

impl Forge {
    /// Imports the key; `honest` is a token of the service that supplies the valid claims.
    pub async fn import(app: &TestApp, honest: &str) -> Self {
        let order = json!({"pem": pem("ed25519")});
        let answer = app.administer(Method::POST, "/admin/v1/keys", Some(order)).await;
        let kid = answer["kid"].as_str().unwrap().to_owned();
        Self { key: ed25519("ed25519"), kid, honest: claims_of(honest) }
    }

    /// The valid claims.
    pub fn claims(&self) -> Value {
        self.honest.clone()
    }

    /// The valid claims with one changed; `null` removes it.
    pub fn claims_with(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value;
        }
        claims
    }

    /// The valid header.
    pub fn header(&self) -> Value {
        json!({"alg": "EdDSA", "kid": self.kid, "typ": "at+jwt"})
    }

    /// The valid header with one member changed or added.
    pub fn header_with(&self, name: &str, value: Value) -> Value {
        let mut header = self.header();
        header[name] = value;
        header
    }

    /// A validly signed token of any header and payload.
    pub fn sign(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// The valid claims under another header.
    pub fn under(&self, header: &Value) -> String {
        self.sign(&header.to_string(), &self.claims().to_string())
    }

    /// Other claims under the valid header.
    pub fn saying(&self, claims: &Value) -> String {
        self.sign(&self.header().to_string(), &claims.to_string())
    }
}

/// The public half of an Ed25519 key as a JWK.
pub fn jwk(key: &Ed25519KeyPair, kid: &str) -> Value {
    let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
    json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "alg": "EdDSA", "use": "sig"})
}

/// A compact JWS signed with an Ed25519 key.
pub fn sign(key: &Ed25519KeyPair, header: &Value, claims: &Value) -> String {
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// The same ES256 token with the other of its two valid signatures: `s` becomes `n - s`.
pub fn es256_twin(token: &str) -> String {
    /// The order of P-256 (FIPS 186-4, D.1.2.3).
    const N: [u8; 32] = [
        0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xBC, 0xE6,
        0xFA, 0xAD, 0xA7, 0x17, 0x9E, 0x84, 0xF3, 0xB9, 0xCA, 0xC2, 0xFC, 0x63, 0x25, 0x51,
    ];
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = 0;
    for index in (0..32).rev() {
        let difference = i16::from(N[index]) - i16::from(signature[32 + index]) - borrow;
        borrow = i16::from(difference < 0);
        signature[32 + index] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
