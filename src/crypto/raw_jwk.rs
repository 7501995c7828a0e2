//! A public key as sent by its owner (RFC 7517, RFC 7518 §6), and its checks.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::points::{has_small_order, is_on_p256};
use super::rsa_checks::{WeakRsaKey, check_rsa};
use super::signature::{RingVerifier, RsaPublic};
use super::verifying_key::VerifyingKey;
use crate::domain::Algorithm;
use crate::json::present;

/// Why a key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    /// A private or secret member: the sender disclosed its private key.
    #[error("it contains the private member `{0}`; send the public key only, and replace this one")]
    Private(&'static str),
    /// `oct`, or unknown.
    #[error("its `kty` is not EC, OKP or RSA; symmetric keys are not accepted")]
    KeyType,
    #[error("its `crv` is not P-256 (EC) or Ed25519 (OKP)")]
    Curve,
    /// The key type and curve do not fit `alg`.
    #[error("its `alg` is not one that this key can have: ES256 for P-256, EdDSA for Ed25519, RS256 or PS256 for RSA")]
    Algorithm,
    /// Only `alg` says which padding an RSA key uses.
    #[error("it has no `alg`; an RSA key must say RS256 or PS256")]
    NoAlgorithm,
    /// The key is for encryption.
    #[error("its `use` is not `sig`, or its `key_ops` do not include `verify`")]
    Use,
    /// Missing, or not 1 to 128 visible ASCII characters.
    #[error("its `kid` is missing or not 1 to 128 visible ASCII characters")]
    Kid,
    /// A required member is missing, not strict base64url, or of the wrong length.
    #[error("its `{0}` is missing or not base64url of the right length")]
    Member(&'static str),
    /// Not a point of the curve, or a point of small order.
    #[error("its coordinates are not a usable point of the curve")]
    Point,
    #[error(transparent)]
    Weak(WeakRsaKey),
}

/// A key as sent. Unknown members are ignored (RFC 7517 §4); private members are not.
#[derive(Deserialize)]
pub(super) struct RawJwk {
    kty: String,
    #[serde(default, deserialize_with = "present")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    alg: Option<String>,
    #[serde(default, rename = "use", deserialize_with = "present")]
    usage: Option<String>,
    #[serde(default, deserialize_with = "present")]
    key_ops: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    crv: Option<String>,
    #[serde(default, deserialize_with = "present")]
    x: Option<String>,
    #[serde(default, deserialize_with = "present")]
    y: Option<String>,
    #[serde(default, deserialize_with = "present")]
    n: Option<String>,
    #[serde(default, deserialize_with = "present")]
    e: Option<String>,
    #[serde(default, deserialize_with = "present")]
    d: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    p: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    q: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    dp: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    dq: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    qi: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    oth: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    k: Option<IgnoredAny>,
}

impl RawJwk {
    pub(super) fn checked(&self) -> Result<VerifyingKey, JwkError> {
        let private = [
            ("d", &self.d),
            ("p", &self.p),
            ("q", &self.q),
            ("dp", &self.dp),
            ("dq", &self.dq),
            ("qi", &self.qi),
            ("oth", &self.oth),
            ("k", &self.k),
        ];
        if let Some((name, _)) = private.into_iter().find(|(_, member)| member.is_some()) {
            return Err(JwkError::Private(name));
        }
        let for_signatures = self.usage.as_deref().is_none_or(|usage| usage == "sig");
        let may_verify = self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !for_signatures || !may_verify {
            return Err(JwkError::Use);
        }
        let kid = self.kid.as_deref().filter(|kid| is_kid(kid)).ok_or(JwkError::Kid)?;
        let verifier = match self.kty.as_str() {
            "EC" => self.p256()?,
            "OKP" => self.ed25519()?,
            "RSA" => self.rsa()?,
            _ => return Err(JwkError::KeyType),
        };
        match self.alg.as_deref() {
            Some(alg) if alg != verifier.domain_algorithm().as_str() => Err(JwkError::Algorithm),
            _ => Ok(VerifyingKey::new(kid, verifier)),
        }
    }

    fn p256(&self) -> Result<RingVerifier, JwkError> {
        self.check_curve("P-256")?;
        let mut point = [4; 65];
        point[1..33].copy_from_slice(&coordinate("x", self.x.as_deref())?);
        point[33..].copy_from_slice(&coordinate("y", self.y.as_deref())?);
        if is_on_p256(&point) { Ok(RingVerifier::Es256(point)) } else { Err(JwkError::Point) }
    }

    fn ed25519(&self) -> Result<RingVerifier, JwkError> {
        self.check_curve("Ed25519")?;
        let point = coordinate("x", self.x.as_deref())?;
        if has_small_order(&point) { Err(JwkError::Point) } else { Ok(RingVerifier::EdDsa(point)) }
    }

    fn rsa(&self) -> Result<RingVerifier, JwkError> {
        let n = member("n", self.n.as_deref())?;
        let e = member("e", self.e.as_deref())?;
        check_rsa(&n, &e).map_err(JwkError::Weak)?;
        let key = RsaPublic { n, e };
        match self.alg.as_deref().map(Algorithm::parse) {
            Some(Ok(Algorithm::Rs256)) => Ok(RingVerifier::Rs256(key)),
            Some(Ok(Algorithm::Ps256)) => Ok(RingVerifier::Ps256(key)),
            Some(_) => Err(JwkError::Algorithm),
            None => Err(JwkError::NoAlgorithm),
        }
    }

    fn check_curve(&self, curve: &str) -> Result<(), JwkError> {
        if self.crv.as_deref() == Some(curve) { Ok(()) } else { Err(JwkError::Curve) }
    }
}

fn is_kid(kid: &str) -> bool {
    (1..=128).contains(&kid.len()) && kid.bytes().all(|byte| byte.is_ascii_graphic())
}

fn member(name: &'static str, value: Option<&str>) -> Result<Vec<u8>, JwkError> {
    value.and_then(|value| URL_SAFE_NO_PAD.decode(value).ok()).ok_or(JwkError::Member(name))
}

/// RFC 7518 §6.2.1.2: a coordinate has its full length, including leading zeros.
fn coordinate(name: &'static str, value: Option<&str>) -> Result<[u8; 32], JwkError> {
    member(name, value)?.try_into().map_err(|_| JwkError::Member(name))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::signature::Verifier;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::crypto::fixtures::{all_keys, es256_key, rs256_key};
    use crate::crypto::points::SMALL_ORDER;
    use crate::crypto::{JwkSetError, PublicKeySet, SigningKey};

    fn jwk(key: &SigningKey) -> Value {
        serde_json::to_value(key.public()).unwrap()
    }

    fn parse(keys: &[Value]) -> Result<PublicKeySet, JwkSetError> {
        PublicKeySet::parse(&json!({ "keys": keys }).to_string())
    }

    fn refusal(key: Value) -> JwkError {
        match parse(&[key]) {
            Err(JwkSetError::Key { index: 0, cause }) => cause,
            other => panic!("{other:?}"),
        }
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    fn without(mut key: Value, name: &str) -> Value {
        key.as_object_mut().unwrap().remove(name);
        key
    }

    #[test]
    fn optional_members_may_be_missing_and_unknown_ones_are_ignored() {
        let es256 = jwk(&es256_key());
        for name in ["use", "alg"] {
            assert!(parse(&[without(es256.clone(), name)]).is_ok(), "{name}");
        }
        assert!(parse(&[with(es256.clone(), "key_ops", json!(["verify"]))]).is_ok());
        assert!(parse(&[with(es256.clone(), "x5t", json!("ignored"))]).is_ok());
        assert!(parse(&[with(es256, "kid", json!("any/visible=text:1"))]).is_ok());
    }

    #[test]
    fn k1_private_and_symmetric_keys_are_refused_by_name() {
        for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            for value in [json!("AQAB"), json!(null), json!([])] {
                assert_eq!(refusal(with(jwk(&es256_key()), name, value)), JwkError::Private(name));
            }
        }
        let symmetric = json!({"kty": "oct", "kid": "k", "alg": "HS256", "use": "sig"});
        assert_eq!(refusal(symmetric.clone()), JwkError::KeyType);
        assert_eq!(refusal(with(symmetric, "k", json!("AAECAwQFBgcICQoLDA0ODw"))), JwkError::Private("k"));
        assert!(parse(&[jwk(&es256_key()), json!({"kty": "oct", "kid": "k"})]).is_err());
    }

    #[test]
    fn k2_wrong_uses_curves_types_algorithms_and_ids_are_refused() {
        let (ec, rsa) = (jwk(&es256_key()), jwk(&rs256_key()));
        let cases = [
            (with(ec.clone(), "use", json!("enc")), JwkError::Use),
            (with(ec.clone(), "use", json!("")), JwkError::Use),
            (with(ec.clone(), "key_ops", json!(["sign"])), JwkError::Use),
            (with(ec.clone(), "key_ops", json!([])), JwkError::Use),
            (with(ec.clone(), "crv", json!("P-384")), JwkError::Curve),
            (with(ec.clone(), "crv", json!("p-256")), JwkError::Curve),
            (without(ec.clone(), "crv"), JwkError::Curve),
            (with(ec.clone(), "kty", json!("RSA")), JwkError::Member("n")),
            (with(ec.clone(), "kty", json!("OKP")), JwkError::Curve),
            (with(ec.clone(), "kty", json!("ec")), JwkError::KeyType),
            (with(ec.clone(), "alg", json!("ES384")), JwkError::Algorithm),
            (with(ec.clone(), "alg", json!("es256")), JwkError::Algorithm),
            (with(ec.clone(), "alg", json!("none")), JwkError::Algorithm),
            (with(rsa.clone(), "alg", json!("RS512")), JwkError::Algorithm),
            (with(rsa.clone(), "alg", json!("ES256")), JwkError::Algorithm),
            (without(rsa, "alg"), JwkError::NoAlgorithm),
            (without(ec.clone(), "kid"), JwkError::Kid),
            (with(ec.clone(), "kid", json!("")), JwkError::Kid),
            (with(ec.clone(), "kid", json!("with space")), JwkError::Kid),
            (with(ec.clone(), "kid", json!("x".repeat(129))), JwkError::Kid),
            (without(ec.clone(), "y"), JwkError::Member("y")),
            (with(ec.clone(), "x", json!("AAAA")), JwkError::Member("x")),
            (with(ec.clone(), "x", json!(format!("{}=", ec["x"].as_str().unwrap()))), JwkError::Member("x")),
        ];
        for (key, expected) in cases {
            assert_eq!(refusal(key.clone()), expected, "{key}");
        }
    }

    #[test]
    fn k7_points_off_the_curve_and_weak_moduli_are_refused() {
        let (ec, rsa) = (jwk(&es256_key()), jwk(&rs256_key()));
        assert_eq!(refusal(with(ec.clone(), "x", ec["y"].clone())), JwkError::Point);
        let zero = json!(URL_SAFE_NO_PAD.encode([0; 32]));
        assert_eq!(refusal(with(with(ec, "x", zero.clone()), "y", zero)), JwkError::Point);
        assert_eq!(refusal(with(rsa.clone(), "e", json!("Aw"))), JwkError::Weak(WeakRsaKey::Exponent));
        assert_eq!(refusal(with(rsa, "n", json!("AQAB"))), JwkError::Weak(WeakRsaKey::Size(17)));
    }

    #[test]
    fn k7_ed25519_keys_of_small_order_are_refused() {
        for point in SMALL_ORDER {
            for sign in [0, 0x80] {
                let mut point = point;
                point[31] |= sign;
                let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": URL_SAFE_NO_PAD.encode(point)});
                assert_eq!(refusal(key), JwkError::Point);
            }
        }
        // With S = 0, the signature verifies if the key's multiple is the neutral element. For these keys, that is at
        // least one message in eight. The test proves it for the points that ring decodes.
        let mut neutral = vec![0; 64];
        neutral[0] = 1;
        let forged = |point: &[u8; 32]| {
            let key = RingVerifier::EdDsa(*point);
            (0..200_u32).any(|message| key.verify(&message.to_be_bytes(), &neutral).is_ok())
        };
        assert!(SMALL_ORDER[..5].iter().all(forged));
        let sound = URL_SAFE_NO_PAD.decode(jwk(&all_keys()[0])["x"].as_str().unwrap()).unwrap();
        assert!(!forged(&sound.try_into().unwrap()));
    }

    proptest! {
        #[test]
        fn t20_no_text_makes_the_reader_panic(text in "\\PC{0,80}", member in "[a-z]{1,3}", value in "[A-Za-z0-9_-]{0,60}") {
            let _ = PublicKeySet::parse(&text);
            let _ = parse(&[with(jwk(&es256_key()), &member, json!(value))]);
        }
    }
}
