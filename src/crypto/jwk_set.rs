//! Reads public key sets from outside (RFC 7517): a client's keys for `private_key_jwt`, or a JWKS to verify tokens
//! with. One invalid key makes the whole set invalid (security.md K2, K7).

use serde::Deserialize;

use super::raw_jwk::{JwkError, RawJwk};
use super::verifier::KeySource;
use super::verifying_key::VerifyingKey;
use crate::domain::Kid;
use crate::json::{self, JsonError};

/// Every key takes memory on every replica.
const MAX_KEYS: usize = 16;
const MAX_SET_BYTES: usize = 64 * 1024;

/// Public keys with unique ids, each with one algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKeySet(Vec<VerifyingKey>);

/// Why a set is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwkSetError {
    #[error("the key set is larger than {MAX_SET_BYTES} bytes")]
    TooLarge,
    /// Not a JSON object with an array `keys` of objects.
    #[error("the key set: {0}")]
    Json(JsonError),
    #[error("the key set holds {0} keys; 1 to {MAX_KEYS} are accepted")]
    Count(usize),
    /// With a shared id, a token would not say which of the two keys it means.
    #[error("two keys of the set have the same `kid`")]
    DuplicateKid,
    /// One invalid key makes the set invalid.
    #[error("key {} of the set: {cause}", .index + 1)]
    Key {
        /// Position, counted from 0.
        index: usize,
        cause: JwkError,
    },
}

impl PublicKeySet {
    /// Reads `{"keys": [ … ]}`.
    pub fn parse(json: &str) -> Result<Self, JwkSetError> {
        if json.len() > MAX_SET_BYTES {
            return Err(JwkSetError::TooLarge);
        }
        let raw: RawSet = json::from_slice(json.as_bytes()).map_err(JwkSetError::Json)?;
        if !(1..=MAX_KEYS).contains(&raw.keys.len()) {
            return Err(JwkSetError::Count(raw.keys.len()));
        }
        let mut keys: Vec<VerifyingKey> = Vec::with_capacity(raw.keys.len());
        for (index, jwk) in raw.keys.iter().enumerate() {
            let key = jwk.checked().map_err(|cause| JwkSetError::Key { index, cause })?;
            if keys.iter().any(|other| other.kid() == key.kid()) {
                return Err(JwkSetError::DuplicateKid);
            }
            keys.push(key);
        }
        Ok(Self(keys))
    }

    pub fn by_kid(&self, kid: &str) -> Option<&VerifyingKey> {
        self.0.iter().find(|key| key.kid() == kid)
    }

    /// The key of a set with a single key. A token for such a set needs no `kid`.
    pub fn only(&self) -> Option<&VerifyingKey> {
        match self.0.as_slice() {
            [key] => Some(key),
            _ => None,
        }
    }
}

impl KeySource for PublicKeySet {
    fn find(&self, kid: &Kid) -> Option<&VerifyingKey> {
        self.by_kid(kid.as_str())
    }
}

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<RawJwk>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::crypto::SigningKey;
    use crate::crypto::fixtures::all_keys;

    fn jwk(key: &SigningKey) -> Value {
        serde_json::to_value(key.public()).unwrap()
    }

    fn parse(keys: &[Value]) -> Result<PublicKeySet, JwkSetError> {
        PublicKeySet::parse(&json!({ "keys": keys }).to_string())
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    #[test]
    fn keys_of_every_kind_are_read_and_found_by_exact_id() {
        let keys = all_keys();
        let set = parse(&keys.each_ref().map(jwk)).unwrap();
        for key in &keys {
            assert_eq!(set.by_kid(key.kid().as_str()), Some(key.verifying_key()));
            assert_eq!(set.find(key.kid()), Some(key.verifying_key()));
        }
        assert_eq!(set.by_kid("unknown"), None);
        assert_eq!(set.only(), None);
        assert!(parse(&[jwk(&keys[0])]).unwrap().only().is_some());
    }

    #[test]
    fn k2_duplicate_ids_empty_and_overlong_sets_are_refused() {
        let keys = all_keys();
        let twin = with(jwk(&keys[1]), "kid", json!(keys[0].kid().as_str()));
        assert_eq!(parse(&[jwk(&keys[0]), twin]), Err(JwkSetError::DuplicateKid));
        assert_eq!(parse(&[]), Err(JwkSetError::Count(0)));
        let many: Vec<_> = (0..17).map(|index| with(jwk(&keys[0]), "kid", json!(format!("k{index}")))).collect();
        assert_eq!(parse(&many), Err(JwkSetError::Count(17)));
        assert!(parse(&many[..16]).is_ok());
        assert_eq!(PublicKeySet::parse(&" ".repeat(MAX_SET_BYTES + 1)), Err(JwkSetError::TooLarge));
        for text in ["", "[]", "null", "{}", "{\"keys\":{}}", "{\"keys\":[1]}", "{\"keys\":[],\"keys\":[]}"] {
            assert!(PublicKeySet::parse(text).is_err(), "{text}");
        }
    }
}
