//! Strict reading of the compact serialization of a JWS (RFC 7515 §7.1). Every token of every kind is read here
//! (security.md T1, T3, T4, T9 to T12, T15).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::json::{self, JsonError, present};

/// Longer tokens are refused unread.
pub const MAX_TOKEN_BYTES: usize = 4096;
/// Maximum length of the encoded header. Usual headers have 80 to 300 characters. The header is parsed for
/// unauthenticated callers too.
const MAX_HEADER_CHARS: usize = 1024;

/// A key that verifies signatures: its id, and its only algorithm.
pub trait SignatureKey {
    /// The required value of a header's `kid`.
    fn kid(&self) -> &str;

    /// The required value of a header's `alg`, compared byte for byte.
    fn algorithm_name(&self) -> &str;

    /// Whether `signature` is this key's signature over `message`.
    fn accepts(&self, message: &[u8], signature: Vec<u8>) -> bool;
}

/// A well-formed token. Nothing is verified, so it only names its key and can be verified with it.
#[derive(Debug)]
pub struct UnverifiedJws<'a> {
    header: Header,
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
}

/// The content of a JWS with a verified signature.
#[derive(Debug)]
pub struct VerifiedJws {
    pub typ: Option<String>,
    pub payload: Vec<u8>,
}

/// Why a token is refused before its claims are read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwsRefusal {
    /// Longer than [`MAX_TOKEN_BYTES`], or the header is longer than a quarter of that.
    #[error("the token is longer than {MAX_TOKEN_BYTES} bytes, or its header than {MAX_HEADER_CHARS}")]
    TooLong,
    /// Not three base64url parts joined by two dots; for example a JWE or a JWS in JSON serialization.
    #[error("the token is not three parts of base64url joined by dots")]
    NotCompact,
    /// A part is not the only base64url encoding of its bytes: padding or unused bits.
    #[error("the token's {0} is not strict base64url")]
    NotBase64(&'static str),
    /// Not strict JSON, or a member has the wrong type.
    #[error("the token's header: {0}")]
    Header(JsonError),
    /// Not strict JSON, or a claim has the wrong type.
    #[error("the token's claims: {0}")]
    Payload(JsonError),
    /// A header parameter that is always refused.
    #[error("the token's header has the forbidden parameter `{0}`")]
    ForbiddenParameter(&'static str),
    /// `alg` is not the algorithm of the key.
    #[error("the token's header names an algorithm other than its key's")]
    WrongAlgorithm,
    /// `kid` is not the id of the key.
    #[error("the token's header names another key")]
    WrongKey,
    /// The signature does not verify with the key.
    #[error("the token's signature does not verify")]
    BadSignature,
}

impl<'a> UnverifiedJws<'a> {
    /// Checks length, alphabet and form, then the header. Allocates at most about the length of the token.
    pub fn parse(token: &'a str) -> Result<Self, JwsRefusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(JwsRefusal::TooLong);
        }
        if !token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
            return Err(JwsRefusal::NotCompact);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwsRefusal::NotCompact)?;
        let (header, payload) = signed.split_once('.').ok_or(JwsRefusal::NotCompact)?;
        if header.is_empty() || signature.is_empty() || payload.contains('.') {
            return Err(JwsRefusal::NotCompact);
        }
        if header.len() > MAX_HEADER_CHARS {
            return Err(JwsRefusal::TooLong);
        }
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| JwsRefusal::NotBase64("header"))?;
        let header: Header = json::from_slice(&header).map_err(JwsRefusal::Header)?;
        match header.forbidden() {
            Some(name) => Err(JwsRefusal::ForbiddenParameter(name)),
            None => Ok(Self { header, signed, payload, signature }),
        }
    }

    /// Like [`UnverifiedJws::parse`], for JWTs: no part may be empty (security.md T9).
    pub(super) fn parse_jwt(token: &'a str) -> Result<Self, JwsRefusal> {
        let jws = Self::parse(token)?;
        if jws.payload.is_empty() { Err(JwsRefusal::NotCompact) } else { Ok(jws) }
    }

    /// `kid` of the header.
    pub fn kid(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// The payload before the signature was verified; only for callers that have `unverified` in their names.
    pub(super) fn unverified_payload(&self) -> Result<Vec<u8>, JwsRefusal> {
        URL_SAFE_NO_PAD.decode(self.payload).map_err(|_| JwsRefusal::NotBase64("payload"))
    }

    /// Verifies the signature with `key`. `alg`, and `kid` if present, must be those of the key.
    pub fn verify(self, key: &impl SignatureKey) -> Result<VerifiedJws, JwsRefusal> {
        if self.kid().is_some_and(|kid| kid != key.kid()) {
            return Err(JwsRefusal::WrongKey);
        }
        if self.header.alg != key.algorithm_name() {
            return Err(JwsRefusal::WrongAlgorithm);
        }
        let signature = URL_SAFE_NO_PAD.decode(self.signature).map_err(|_| JwsRefusal::NotBase64("signature"))?;
        if !key.accepts(self.signed.as_bytes(), signature) {
            return Err(JwsRefusal::BadSignature);
        }
        let payload = self.unverified_payload()?;
        Ok(VerifiedJws { typ: self.header.typ, payload })
    }
}

/// The header parameters that are read. `x5t` and unknown parameters are ignored; they never select a key.
#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    #[serde(default, deserialize_with = "present")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    typ: Option<String>,
    // For the following parameters only their presence counts, not the value.
    #[serde(default, deserialize_with = "present")]
    crit: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    jwk: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    jku: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    x5u: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    x5c: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    b64: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    enc: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    zip: Option<IgnoredAny>,
}

impl Header {
    /// The first forbidden parameter: an extension (RFC 7515 §4.1.11, RFC 7797), a key or its location chosen by the
    /// sender (RFC 8725 §3.10), or a parameter of a JWE.
    fn forbidden(&self) -> Option<&'static str> {
        let present = [
            ("crit", &self.crit),
            ("jwk", &self.jwk),
            ("jku", &self.jku),
            ("x5u", &self.x5u),
            ("x5c", &self.x5c),
            ("b64", &self.b64),
            ("enc", &self.enc),
            ("zip", &self.zip),
        ];
        present.into_iter().find_map(|(name, value)| value.is_some().then_some(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::fixtures::{eddsa_key, es256_key};

    #[test]
    fn t5_a_key_other_than_the_one_named_by_the_header_is_not_tried() {
        let key = eddsa_key();
        let sign = |header: String| key.sign_parts(header.as_bytes(), b"{}").unwrap();
        let named = sign(format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, key.kid()));
        let other = sign(r#"{"alg":"EdDSA","kid":"other"}"#.to_owned());
        let nameless = sign(r#"{"alg":"EdDSA"}"#.to_owned());
        let verify =
            |token: &str| UnverifiedJws::parse(token).unwrap().verify(key.verifying_key()).map(|jws| jws.payload);
        assert_eq!(verify(&named), Ok(b"{}".to_vec()));
        assert_eq!(verify(&other), Err(JwsRefusal::WrongKey));
        assert_eq!(verify(&nameless), Ok(b"{}".to_vec()));
        let wrong = UnverifiedJws::parse(&nameless).unwrap().verify(es256_key().verifying_key());
        assert_eq!(wrong.unwrap_err(), JwsRefusal::WrongAlgorithm);
    }

    #[test]
    fn an_empty_payload_is_a_valid_jws_but_no_jwt() {
        let token = eddsa_key().sign_parts(br#"{"alg":"EdDSA"}"#, b"").unwrap();
        assert!(UnverifiedJws::parse(&token).is_ok());
        assert_eq!(UnverifiedJws::parse_jwt(&token).unwrap_err(), JwsRefusal::NotCompact);
    }
}
