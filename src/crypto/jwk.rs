//! Public keys in the form of the JWKS (RFC 7517), and their thumbprints (RFC 7638).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::Value;

use super::digest::sha256;
use super::signature::RingVerifier;
use crate::domain::Kid;

/// A public JSON Web Key. No field can hold a private member (security.md K1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublicJwk {
    kty: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    kid: String,
    alg: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
}

impl PublicJwk {
    pub(super) fn new(kid: &str, key: &RingVerifier) -> Self {
        let Members { kty, crv, x, y, n, e } = Members::of(key);
        Self { kty, crv, x, y, n, e, kid: kid.to_owned(), alg: key.domain_algorithm().as_str(), usage: "sig" }
    }

    /// Whether `stored` has every member of this key. It may have more: a later release that shares the database may
    /// publish more members.
    pub fn is_described_by(&self, stored: &str) -> bool {
        let (Ok(Value::Object(own)), Ok(stored)) = (serde_json::to_value(self), serde_json::from_str::<Value>(stored))
        else {
            return false;
        };
        own.iter().all(|(name, value)| stored.get(name) == Some(value))
    }
}

/// The JWKS document, with the keys in the given order.
pub fn jwks_json(keys: &[PublicJwk]) -> String {
    #[derive(Serialize)]
    struct Set<'a> {
        keys: &'a [PublicJwk],
    }
    // Strings and fixed names always serialize. An empty set is the safe answer if that changes.
    serde_json::to_string(&Set { keys }).unwrap_or_else(|_| r#"{"keys":[]}"#.to_owned())
}

/// SHA-256 over the required members in lexicographic order (RFC 7638 §3).
pub(super) fn thumbprint(key: &RingVerifier) -> Kid {
    let Members { kty, crv, x, y, n, e } = Members::of(key);
    // Already in lexicographic order. base64url and these names need no escaping.
    let members = [("crv", crv), ("e", e.as_deref()), ("kty", Some(kty)), ("n", n.as_deref())];
    let coordinates = [("x", x.as_deref()), ("y", y.as_deref())];
    let present: Vec<_> = members
        .into_iter()
        .chain(coordinates)
        .filter_map(|(name, value)| value.map(|value| format!("\"{name}\":\"{value}\"")))
        .collect();
    Kid::from_digest(sha256(format!("{{{}}}", present.join(",")).as_bytes()))
}

struct Members {
    kty: &'static str,
    crv: Option<&'static str>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl Members {
    fn of(key: &RingVerifier) -> Self {
        let text = |bytes: &[u8]| Some(URL_SAFE_NO_PAD.encode(bytes));
        let none = Self { kty: "", crv: None, x: None, y: None, n: None, e: None };
        match key {
            RingVerifier::Es256(point) => {
                Self { kty: "EC", crv: Some("P-256"), x: text(&point[1..33]), y: text(&point[33..]), ..none }
            }
            RingVerifier::EdDsa(point) => Self { kty: "OKP", crv: Some("Ed25519"), x: text(point), ..none },
            RingVerifier::Rs256(key) | RingVerifier::Ps256(key) => {
                Self { kty: "RSA", n: text(&key.n), e: text(&key.e), ..none }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::fixtures::all_keys;
    use crate::crypto::signature::RsaPublic;
    use crate::crypto::{PublicKeySet, SigningKey};

    /// Members that a published key may have (security.md K1).
    const ALLOWED: [&str; 9] = ["kty", "crv", "x", "y", "n", "e", "kid", "alg", "use"];

    #[test]
    fn k1_a_published_key_has_public_members_only() {
        for key in all_keys() {
            let jwk = serde_json::to_value(key.public()).unwrap();
            let members = jwk.as_object().unwrap();
            assert!(members.keys().all(|name| ALLOWED.contains(&name.as_str())), "{jwk}");
            assert_eq!(jwk["use"], "sig");
            assert_eq!(jwk["alg"], key.algorithm().as_str());
            assert_eq!(jwk["kid"], key.kid().as_str());
            let types = (jwk["kty"].as_str().unwrap(), jwk["crv"].as_str());
            assert!([("EC", Some("P-256")), ("OKP", Some("Ed25519")), ("RSA", None)].contains(&types));
        }
    }

    #[test]
    fn k6_a_stored_description_must_have_every_member_of_the_key() {
        for key in all_keys() {
            let described = |change: &dyn Fn(&mut Value)| {
                let mut stored = serde_json::to_value(key.public()).unwrap();
                change(&mut stored);
                key.public().is_described_by(&stored.to_string())
            };
            assert!(described(&|_| ()));
            assert!(described(&|stored| stored["of_a_later_release"] = true.into()));
            for member in ["kty", "crv", "x", "y", "n", "e", "kid", "alg", "use"] {
                let is_there = serde_json::to_value(key.public()).unwrap().get(member).is_some();
                assert_eq!(described(&|stored| stored[member] = "other".into()), !is_there, "{member}");
            }
            assert!(!key.public().is_described_by("") && !key.public().is_described_by("[]"));
        }
    }

    #[test]
    fn k2_the_strict_reader_accepts_our_own_jwks() {
        let keys = all_keys();
        let json = jwks_json(&keys.each_ref().map(SigningKey::public));
        let set = PublicKeySet::parse(&json).unwrap();
        assert!(keys.iter().all(|key| set.by_kid(key.kid().as_str()) == Some(key.verifying_key())));
        assert_eq!(serde_json::from_str::<Value>(&jwks_json(&[])).unwrap(), serde_json::json!({"keys": []}));
    }

    #[test]
    fn thumbprints_match_the_examples_of_the_rfcs() {
        // RFC 8037 appendix A.3.
        let x = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        let key = RingVerifier::EdDsa(x.try_into().unwrap());
        assert_eq!(thumbprint(&key).as_str(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        // RFC 7638 §3.1.
        let n = URL_SAFE_NO_PAD.decode(RFC_7638_MODULUS).unwrap();
        let key = RingVerifier::Rs256(RsaPublic { n, e: vec![1, 0, 1] });
        assert_eq!(thumbprint(&key).as_str(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    const RFC_7638_MODULUS: &str = concat!(
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs",
        "tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn",
        "1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    );
}
