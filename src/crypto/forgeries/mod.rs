//! Forgeries: tokens that differ from a valid token in one respect, most of them with a valid signature. All are
//! refused (security.md group T). The test names cite the requirements.

mod claims;
mod form;
mod header;

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::fixtures::{ISSUER, NOW, all_keys, eddsa_key, keys_of, user_claims};
use super::{SigningKey, TokenRefusal, VerifiedToken, VerifyingKey, verify_access_token};
use crate::domain::{Kid, Timestamp, TokenType};

/// A key, the key set that holds it, and tokens made with the key.
struct Forge {
    key: SigningKey,
    keys: HashMap<Kid, VerifyingKey>,
}

impl Forge {
    fn new(key: SigningKey) -> Self {
        let keys = keys_of(&[&key]);
        Self { key, keys }
    }

    fn verify(&self, token: &str) -> Result<VerifiedToken, TokenRefusal> {
        self.verify_at(token, NOW)
    }

    fn verify_at(&self, token: &str, now: Timestamp) -> Result<VerifiedToken, TokenRefusal> {
        verify_access_token(token, &self.keys, ISSUER, now)
    }

    fn header(&self) -> Value {
        json!({"alg": self.key.algorithm().as_str(), "kid": self.key.kid().as_str(), "typ": "at+jwt"})
    }

    /// The valid header with one member changed or added.
    fn header_with(&self, name: &str, value: Value) -> String {
        let mut header = self.header();
        header[name] = value;
        header.to_string()
    }

    fn sign(&self, header: &str, payload: &str) -> String {
        self.key.sign_parts(header.as_bytes(), payload.as_bytes()).unwrap()
    }

    fn sign_header(&self, header: &str) -> String {
        self.sign(header, &claims().to_string())
    }

    fn sign_claims(&self, payload: &str) -> String {
        self.sign(&self.header().to_string(), payload)
    }

    fn verify_claims(&self, payload: &Value) -> Result<VerifiedToken, TokenRefusal> {
        self.verify(&self.sign_claims(&payload.to_string()))
    }
}

/// The valid claims as JSON.
fn claims() -> Value {
    let token = eddsa_key().sign_access_token(&user_claims(), TokenType::AtJwt).unwrap();
    let payload = token.expose().split('.').nth(1).unwrap().to_owned();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn claims_without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name).unwrap();
    claims
}

fn forge() -> Forge {
    Forge::new(eddsa_key())
}

/// The JSON text of `object` with `member` added at the front. A text can have duplicates and unusual spellings.
fn with_member(object: &Value, member: &str) -> String {
    format!("{{{member},{}", &object.to_string()[1..])
}

#[test]
fn a_valid_token_is_accepted_so_that_each_refusal_is_due_to_its_change() {
    for key in all_keys() {
        let forge = Forge::new(key);
        forge.verify(&forge.sign_header(&forge.header().to_string())).unwrap();
    }
}
