//! Public keys as the JWKS shows them (RFC 7517), and the thumbprint that names them (RFC 7638).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::digest::sha256;
use super::signature::RingVerifier;
use crate::domain::Kid;

/// A public JSON Web Key. There is no field that could hold a private member (security.md K1).
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

    /// The key's id.
    pub fn kid(&self) -> &str {
        &self.kid
    }
}

/// The document that is served as the JWKS, keys in the given order.
pub fn jwks_json(keys: &[PublicJwk]) -> String {
    #[derive(Serialize)]
    struct Set<'a> {
        keys: &'a [PublicJwk],
    }
    // Strings and fixed names always serialise; an empty set is the safe answer if that should ever change.
    serde_json::to_string(&Set { keys }).unwrap_or_else(|_| r#"{"keys":[]}"#.to_owned())
}

/// SHA-256 over the required members in lexicographic order, base64url (RFC 7638 §3).
pub(super) fn thumbprint(key: &RingVerifier) -> Kid {
    let Members { kty, crv, x, y, n, e } = Members::of(key);
    // serde_json writes members in the order of the fields; base64url and these names need no escaping.
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
