//! jsonwebtoken with ring as its back end, for tests only. The tests compare the service's own signing and
//! verification with the whole library. The service uses the library's traits without its `encode` and `decode`.
//! security.md lists what those two accept (section 1, point 1, and the requirements T).

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, Result, new_error};
use jsonwebtoken::jwk::{EllipticCurve, ThumbprintHash};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::digest;
use ring::rsa::PublicKeyComponents;
use ring::signature::{Ed25519KeyPair, KeyPair, RsaKeyPair};

use super::der::{Reader, SEQUENCE};
use super::signature::{RingSigner, RingVerifier, RsaPublic, es256_from_pkcs8};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: rsa_components_of_private,
        rsa_pub_components_from_public_key: rsa_components_of_public,
        ec_pub_components_from_private_key: ec_components,
        ed_pub_components_from_private_key: ed_component,
        compute_digest,
    },
};

/// Installs ring as the back end of jsonwebtoken in this process. Idempotent.
pub(super) fn install_provider() {
    // An error means that this function already installed the provider.
    let _ = PROVIDER.install_default();
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    check_family(*algorithm, key.family())?;
    let der = key.as_bytes();
    let signer = match algorithm {
        Algorithm::ES256 => RingSigner::Es256(es256_from_pkcs8(der).map_err(rejected)?),
        Algorithm::EdDSA => RingSigner::EdDsa(ed25519(der)?),
        Algorithm::RS256 => RingSigner::Rs256(RsaKeyPair::from_der(der).map_err(rejected)?),
        Algorithm::PS256 => RingSigner::Ps256(RsaKeyPair::from_der(der).map_err(rejected)?),
        _ => return Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    };
    Ok(Box::new(signer))
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    check_family(*algorithm, key.family())?;
    let verifier = match algorithm {
        Algorithm::ES256 => RingVerifier::Es256(point(key)?),
        Algorithm::EdDSA => RingVerifier::EdDsa(point(key)?),
        Algorithm::RS256 => RingVerifier::Rs256(rsa_public(key)?),
        Algorithm::PS256 => RingVerifier::Ps256(rsa_public(key)?),
        _ => return Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    };
    Ok(Box::new(verifier))
}

fn check_family(algorithm: Algorithm, family: AlgorithmFamily) -> Result<()> {
    if algorithm.family() == family { Ok(()) } else { Err(new_error(ErrorKind::InvalidKeyFormat)) }
}

fn rejected(error: ring::error::KeyRejected) -> Error {
    new_error(ErrorKind::Provider(error.to_string()))
}

fn ed25519(der: &[u8]) -> Result<Ed25519KeyPair> {
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(rejected)
}

fn point<const N: usize>(key: &DecodingKey) -> Result<[u8; N]> {
    key.try_get_as_bytes()?.try_into().map_err(|_| new_error(ErrorKind::InvalidKeyFormat))
}

fn rsa_public(key: &DecodingKey) -> Result<RsaPublic> {
    match key.kind() {
        DecodingKeyKind::SecretOrDer(der) => rsa_components_of_public(der).map(|(n, e)| RsaPublic { n, e }),
        DecodingKeyKind::RsaModulusExponent { n, e } => Ok(RsaPublic { n: n.clone(), e: e.clone() }),
    }
}

fn rsa_components_of_private(der: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let pair = RsaKeyPair::from_der(der).map_err(rejected)?;
    let PublicKeyComponents { n, e } = PublicKeyComponents::from(pair.public());
    Ok((n, e))
}

/// `RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }` (RFC 8017 appendix A.1.1).
fn rsa_components_of_public(der: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let read = || {
        let mut outer = Reader::new(der);
        let mut key = Reader::new(outer.read(SEQUENCE)?);
        let components = (key.unsigned()?.to_vec(), key.unsigned()?.to_vec());
        key.end()?;
        outer.end().map(|()| components)
    };
    read().map_err(|_| new_error(ErrorKind::InvalidKeyFormat))
}

fn ec_components(der: &[u8], algorithm: Algorithm) -> Result<(EllipticCurve, Vec<u8>, Vec<u8>)> {
    if algorithm != Algorithm::ES256 {
        return Err(new_error(ErrorKind::UnsupportedAlgorithm));
    }
    let pair = es256_from_pkcs8(der).map_err(rejected)?;
    match pair.public_key().as_ref().split_first() {
        Some((4, coordinates)) if coordinates.len() == 64 => {
            let (x, y) = coordinates.split_at(32);
            Ok((EllipticCurve::P256, x.to_vec(), y.to_vec()))
        }
        _ => Err(new_error(ErrorKind::InvalidEcdsaKey)),
    }
}

fn ed_component(der: &[u8], curve: &EllipticCurve) -> Result<Vec<u8>> {
    match curve {
        EllipticCurve::Ed25519 => Ok(ed25519(der)?.public_key().as_ref().to_vec()),
        _ => Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    }
}

fn compute_digest(data: &[u8], hash: ThumbprintHash) -> Result<Vec<u8>> {
    let algorithm = match hash {
        ThumbprintHash::SHA256 => &digest::SHA256,
        ThumbprintHash::SHA384 => &digest::SHA384,
        ThumbprintHash::SHA512 => &digest::SHA512,
        _ => return Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    };
    Ok(digest::digest(algorithm, data).as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::jwk::Jwk;
    use jsonwebtoken::signature::{Signer, Verifier};
    use jsonwebtoken::{Header, Validation};
    use serde_json::{Value, json};

    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::crypto::SigningKey;
    use crate::crypto::fixtures::{ISSUER, all_keys, user_claims};
    use crate::domain::TokenType;

    /// The library's key for an entry of our JWKS.
    fn published(key: &SigningKey) -> DecodingKey {
        let jwk: Jwk = serde_json::from_value(serde_json::to_value(key.public()).unwrap()).unwrap();
        DecodingKey::from_jwk(&jwk).unwrap()
    }

    #[test]
    fn the_library_verifies_our_tokens_with_our_published_keys() {
        install_provider();
        install_provider();
        for key in all_keys() {
            let token = key.sign_access_token(&user_claims(), TokenType::AtJwt).unwrap();
            let mut validation = Validation::new(key.algorithm().as_str().parse().unwrap());
            validation.set_issuer(&[ISSUER]);
            validation.set_audience(&["https://api.example.com"]);
            let read = jsonwebtoken::decode::<Value>(token.expose(), &published(&key), &validation).unwrap();
            assert_eq!(read.claims["client_id"], "web");
            assert_eq!(read.header.kid.as_deref(), Some(key.kid().as_str()));
        }
    }

    #[test]
    fn t1_every_other_algorithm_is_an_error_and_no_call_panics() {
        install_provider();
        let secret = EncodingKey::from_secret(b"0123456789abcdef0123456789abcdef");
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512, Algorithm::ES256, Algorithm::RS256] {
            assert!(jsonwebtoken::encode(&Header::new(algorithm), &json!({}), &secret).is_err(), "{algorithm:?}");
        }
        let unsupported = [Algorithm::ES384, Algorithm::RS384, Algorithm::RS512, Algorithm::PS384, Algorithm::PS512];
        for key in all_keys() {
            for algorithm in unsupported.into_iter().filter(|other| other.family() == published(&key).family()) {
                assert!(verifier(&algorithm, &published(&key)).is_err(), "{algorithm:?}");
            }
        }
        for garbage in [&b""[..], b"0", b"\x30\x82", &[0x30; 200]] {
            let key_utils = &PROVIDER.key_utils;
            assert!((key_utils.rsa_pub_components_from_private_key)(garbage).is_err());
            assert!((key_utils.rsa_pub_components_from_public_key)(garbage).is_err());
            assert!((key_utils.ec_pub_components_from_private_key)(garbage, Algorithm::ES256).is_err());
            assert!((key_utils.ed_pub_components_from_private_key)(garbage, &EllipticCurve::Ed25519).is_err());
            for key in [
                EncodingKey::from_ec_der(garbage),
                EncodingKey::from_ed_der(garbage),
                EncodingKey::from_rsa_der(garbage),
            ] {
                assert!(key.family().algorithms().iter().all(|algorithm| signer(algorithm, &key).is_err()));
            }
        }
    }

    #[test]
    fn the_library_signs_and_verifies_with_every_offered_algorithm() {
        install_provider();
        for key in all_keys() {
            let algorithm: Algorithm = key.algorithm().as_str().parse().unwrap();
            let encoding = match algorithm.family() {
                AlgorithmFamily::Ec => EncodingKey::from_ec_der(key.pkcs8()),
                AlgorithmFamily::Ed => EncodingKey::from_ed_der(key.pkcs8()),
                // The library expects RSA keys without the PKCS#8 wrapper.
                _ => EncodingKey::from_rsa_der(&key.pkcs8()[26..]),
            };
            let token =
                jsonwebtoken::encode(&Header::new(algorithm), &json!({"exp": 4_000_000_000_u32}), &encoding).unwrap();
            jsonwebtoken::decode::<Value>(&token, &published(&key), &Validation::new(algorithm)).unwrap();
            assert!(Jwk::from_encoding_key(&encoding, algorithm).is_ok());
        }
    }

    /// Compares the library's functions, which parse the key for each token, with its traits on a parsed key:
    /// `cargo test --release --lib -- --ignored --nocapture crate_functions`.
    #[test]
    #[ignore = "a measurement for docs/performance.md"]
    fn crate_functions_take_longer_to_sign_than_the_traits_and_as_long_to_verify() {
        fn ratio(mut functions: impl FnMut(), mut traits: impl FnMut()) -> f64 {
            let clock = SystemClock::default();
            let time = |job: &mut dyn FnMut()| {
                let began = clock.elapsed();
                (0..50).for_each(|_| job());
                clock.elapsed() - began
            };
            let mut ratios: Vec<f64> =
                (0..61).map(|_| time(&mut functions).as_secs_f64() / time(&mut traits).as_secs_f64()).collect();
            ratios.sort_by(f64::total_cmp);
            ratios[30]
        }
        install_provider();
        let message = "x".repeat(560);
        for key in all_keys() {
            let (algorithm, pkcs8) = (key.algorithm().as_str().parse().unwrap(), key.pkcs8());
            let (private, signer) = match algorithm {
                Algorithm::ES256 => {
                    (EncodingKey::from_ec_der(pkcs8), RingSigner::Es256(es256_from_pkcs8(pkcs8).unwrap()))
                }
                Algorithm::EdDSA => (EncodingKey::from_ed_der(pkcs8), RingSigner::EdDsa(ed25519(pkcs8).unwrap())),
                Algorithm::RS256 => {
                    (EncodingKey::from_rsa_der(&pkcs8[26..]), RingSigner::Rs256(RsaKeyPair::from_pkcs8(pkcs8).unwrap()))
                }
                _ => {
                    (EncodingKey::from_rsa_der(&pkcs8[26..]), RingSigner::Ps256(RsaKeyPair::from_pkcs8(pkcs8).unwrap()))
                }
            };
            let (public, verifier) = (published(&key), signer.verifier().unwrap());
            let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &private, algorithm).unwrap();
            let sign = ratio(
                || drop(jsonwebtoken::crypto::sign(message.as_bytes(), &private, algorithm).unwrap()),
                || drop(URL_SAFE_NO_PAD.encode(signer.try_sign(message.as_bytes()).unwrap())),
            );
            let verify = ratio(
                || assert!(jsonwebtoken::crypto::verify(&signature, message.as_bytes(), &public, algorithm).unwrap()),
                || verifier.verify(message.as_bytes(), &URL_SAFE_NO_PAD.decode(&signature).unwrap()).unwrap(),
            );
            eprintln!("{:?}: sign {sign:.2}, verify {verify:.2}", key.algorithm());
        }
    }
}
