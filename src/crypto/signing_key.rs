//! The keys that sign. Each has exactly one algorithm (security.md T1).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::signature::Signer;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use serde::Serialize;
use zeroize::Zeroizing;

use super::access_claims::AccessClaimsJson;
use super::jwk::{PublicJwk, thumbprint};
use super::jws::MAX_TOKEN_BYTES;
use super::rsa_checks::{WeakRsaKey, check_rsa};
use super::signature::{RingSigner, es256_from_pkcs8, ring_random};
use super::verifying_key::VerifyingKey;
use super::{Random, der};
use crate::domain::SecretText;
use crate::domain::{AccessClaims, Algorithm, Kid, TokenType};

/// A private key of the service, parsed once and ready to sign.
pub struct SigningKey {
    signer: RingSigner,
    pkcs8: Zeroizing<Vec<u8>>,
    verifying: VerifyingKey,
    kid: Kid,
}

/// Why a private key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The service makes ES256 and EdDSA keys only.
    #[error("{0} keys are not made by the service; make one with `openssl genrsa 3072` and import it")]
    NotGenerated(Algorithm),
    /// The document is not a private key for the algorithm, or its parts contradict each other.
    #[error("the document is not a usable {algorithm} private key: {reason}")]
    Rejected {
        /// What the key was to be used for.
        algorithm: Algorithm,
        /// ring's word for what is wrong.
        reason: String,
    },
    /// The key is weak.
    #[error(transparent)]
    Weak(#[from] WeakRsaKey),
    /// The private and the public half do not belong together: a signature made by one is refused by the other.
    #[error("the private key does not fit its public key; export it again from where it was made")]
    Mismatched,
}

/// Why nothing was signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The claims do not serialise.
    #[error("the claims cannot be written as JSON")]
    Claims,
    /// The key refused.
    #[error("the key could not sign")]
    Key,
    /// The token would be refused by every replica (security.md T9): too many roles, audiences or scopes.
    #[error("the token would be {0} bytes long, and tokens over {MAX_TOKEN_BYTES} bytes are refused")]
    TooLong(usize),
}

impl SigningKey {
    /// Makes an ES256 or EdDSA key.
    pub fn generate(algorithm: Algorithm, random: &dyn Random) -> Result<Self, KeyError> {
        let rejected = |reason: &dyn fmt::Display| KeyError::Rejected { algorithm, reason: reason.to_string() };
        let pkcs8 = match algorithm {
            Algorithm::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &ring_random())
                .map(|document| Zeroizing::new(document.as_ref().to_vec()))
                .map_err(|error| rejected(&error))?,
            Algorithm::EdDsa => {
                let seed = Zeroizing::new(random.bytes::<32>());
                der::pkcs8(&[der::ED25519], &der::write(der::OCTET_STRING, &[seed.as_slice()]))
            }
            Algorithm::Rs256 | Algorithm::Ps256 => return Err(KeyError::NotGenerated(algorithm)),
        };
        Self::from_pkcs8(algorithm, &pkcs8)
    }

    /// Reads an unencrypted PKCS#8 document, checks the key (security.md K7), and proves by a signature that its two halves
    /// belong together.
    pub fn from_pkcs8(algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self, KeyError> {
        let rejected = |error: ring::error::KeyRejected| KeyError::Rejected { algorithm, reason: error.to_string() };
        let rsa = || {
            let pair = RsaKeyPair::from_pkcs8(pkcs8).map_err(rejected)?;
            let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
            check_rsa(&public.n, &public.e)?;
            Ok::<_, KeyError>(pair)
        };
        let signer = match algorithm {
            Algorithm::Es256 => RingSigner::Es256(es256_from_pkcs8(pkcs8).map_err(rejected)?),
            // Version 1 documents, which openssl writes, hold no public key to compare with.
            Algorithm::EdDsa => RingSigner::EdDsa(Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(rejected)?),
            Algorithm::Rs256 => RingSigner::Rs256(rsa()?),
            Algorithm::Ps256 => RingSigner::Ps256(rsa()?),
        };
        let verifier = signer.verifier().map_err(|_| KeyError::Mismatched)?;
        // ring compares public with private halves when it reads a key, except for RSA's exponents: those it proves by
        // verifying each signature before it hands it out.
        signer.try_sign(b"countersign key check").map_err(|_| KeyError::Mismatched)?;
        let kid = thumbprint(&verifier);
        let verifying = VerifyingKey::new(kid.as_str(), verifier);
        Ok(Self { signer, pkcs8: Zeroizing::new(pkcs8.to_vec()), verifying, kid })
    }

    /// The RFC 7638 thumbprint of the public key.
    pub const fn kid(&self) -> &Kid {
        &self.kid
    }

    /// The one algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.signer.domain_algorithm()
    }

    /// The private key as [`SigningKey::from_pkcs8`] reads it, to be sealed.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public key for the JWKS.
    pub fn public(&self) -> PublicJwk {
        self.verifying.public()
    }

    /// The key that verifies what this one signs.
    pub const fn verifying_key(&self) -> &VerifyingKey {
        &self.verifying
    }

    /// Signs an access token (RFC 9068). `uep`, `cep`, `scope` and `roles` are left out when they say nothing.
    pub fn sign_access_token(&self, claims: &AccessClaims, typ: TokenType) -> Result<SecretText, SigningError> {
        let (header, claims) = self.access_token_parts(claims, typ)?;
        Ok(SecretText::new(self.sign_parts(&header, &claims)?))
    }

    /// Whether [`SigningKey::sign_access_token`] would sign this.
    pub fn check_length(&self, claims: &AccessClaims, typ: TokenType) -> Result<(), SigningError> {
        self.access_token_parts(claims, typ).map(drop)
    }

    /// Bytes that the payload of a token may have beside these claims, the names of an absent `scope` and `roles` counted.
    pub fn room_beside(&self, claims: &AccessClaims, typ: TokenType) -> Result<usize, SigningError> {
        const NAMES: usize = r#","scope":"","roles":[]"#.len();
        // Three bytes for four characters; the last group may be an incomplete one.
        const LAST_GROUP: usize = 3;
        let (header, claims) = self.parts(typ.as_str(), &AccessClaimsJson::from(claims))?;
        let free = MAX_TOKEN_BYTES.saturating_sub(self.token_length(&header, &claims));
        Ok((free / 4 * 3).saturating_sub(NAMES + LAST_GROUP))
    }

    /// Header and payload, if the token of them is not too long.
    fn access_token_parts(&self, claims: &AccessClaims, typ: TokenType) -> Result<(Vec<u8>, Vec<u8>), SigningError> {
        let (header, claims) = self.parts(typ.as_str(), &AccessClaimsJson::from(claims))?;
        let length = self.token_length(&header, &claims);
        if length > MAX_TOKEN_BYTES { Err(SigningError::TooLong(length)) } else { Ok((header, claims)) }
    }

    /// Characters of the token of this header and payload.
    fn token_length(&self, header: &[u8], payload: &[u8]) -> usize {
        let segments = [header.len(), payload.len(), self.signer.signature_len()];
        // Unpadded base64 (RFC 7515 §2), and the two dots.
        segments.iter().map(|bytes| (bytes * 4).div_ceil(3)).sum::<usize>() + 2
    }

    /// Signs any claims under an explicit type, such as the answers of RFC 9701.
    pub fn sign_jwt(&self, typ: &str, claims: &impl Serialize) -> Result<String, SigningError> {
        let (header, claims) = self.parts(typ, claims)?;
        self.sign_parts(&header, &claims)
    }

    fn parts(&self, typ: &str, claims: &impl Serialize) -> Result<(Vec<u8>, Vec<u8>), SigningError> {
        let header = Header { alg: self.algorithm().as_str(), kid: self.kid.as_str(), typ };
        let header = serde_json::to_vec(&header).map_err(|_| SigningError::Claims)?;
        let claims = serde_json::to_vec(claims).map_err(|_| SigningError::Claims)?;
        Ok((header, claims))
    }

    /// The compact JWS of any header and payload (RFC 7515 §7.1).
    pub(super) fn sign_parts(&self, header: &[u8], payload: &[u8]) -> Result<String, SigningError> {
        // Four characters for three bytes, and room for the signature of a 2048-bit key.
        let mut token = String::with_capacity((header.len() + payload.len()) / 3 * 4 + 360);
        URL_SAFE_NO_PAD.encode_string(header, &mut token);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = self.signer.try_sign(token.as_bytes()).map_err(|_| SigningError::Key)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({} {}, hidden)", self.algorithm(), self.kid)
    }
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
    typ: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::fixtures::{all_keys, pem, user_claims};
    use crate::crypto::{SeededRandom, import_private_key};

    #[test]
    fn a_key_that_was_sealed_and_opened_is_the_same_key() {
        for key in all_keys() {
            let again = SigningKey::from_pkcs8(key.algorithm(), key.pkcs8()).unwrap();
            assert_eq!((again.kid(), again.verifying_key()), (key.kid(), key.verifying_key()));
            assert_eq!(again.public(), key.public());
        }
    }

    #[test]
    fn t9_a_token_whose_claims_fill_the_room_is_signed_and_a_few_bytes_more_are_too_long() {
        let bare = AccessClaims { scope: crate::domain::ScopeSet::default(), ..user_claims() };
        for key in all_keys() {
            let room = key.room_beside(&bare, TokenType::AtJwt).unwrap();
            let filled = |bytes| {
                let mut claims = bare.clone();
                claims.login.as_mut().unwrap().username.push_str(&"u".repeat(bytes));
                claims
            };
            assert!(key.check_length(&filled(room), TokenType::AtJwt).is_ok(), "{key:?}: {room}");
            let beyond = key.check_length(&filled(room + 36), TokenType::AtJwt);
            assert!(matches!(beyond, Err(SigningError::TooLong(_))), "{key:?}: {room}");
        }
    }

    #[test]
    fn keys_are_made_for_es256_and_eddsa_and_differ_each_time() {
        let random = SeededRandom::new(1);
        for algorithm in Algorithm::ALL {
            let made = [SigningKey::generate(algorithm, &random), SigningKey::generate(algorithm, &random)];
            match made {
                [Ok(first), Ok(second)] => assert!(algorithm.is_generated() && first.kid() != second.kid()),
                [first, _] => assert_eq!(first.unwrap_err(), KeyError::NotGenerated(algorithm)),
            }
        }
    }

    #[test]
    fn k6_a_key_opened_for_another_algorithm_is_refused() {
        for key in all_keys() {
            for algorithm in Algorithm::ALL {
                let is_rsa = |algorithm| matches!(algorithm, Algorithm::Rs256 | Algorithm::Ps256);
                let fits = algorithm == key.algorithm() || (is_rsa(algorithm) && is_rsa(key.algorithm()));
                assert_eq!(SigningKey::from_pkcs8(algorithm, key.pkcs8()).is_ok(), fits, "{key:?} as {algorithm}");
            }
        }
    }

    #[test]
    fn k7_a_roca_key_is_refused_on_every_way_in() {
        let roca = pem!("rsa-roca");
        assert!(import_private_key(roca, None).unwrap_err().to_string().contains("ROCA"));
        let der: String = roca.lines().filter(|line| !line.starts_with('-')).collect();
        let der = base64::engine::general_purpose::STANDARD.decode(der).unwrap();
        let refusal = SigningKey::from_pkcs8(Algorithm::Rs256, &der).unwrap_err();
        assert_eq!(refusal, KeyError::Weak(WeakRsaKey::Roca));
    }

    #[test]
    fn s2_a_signing_key_does_not_print_its_private_half() {
        for key in all_keys() {
            assert_eq!(format!("{key:?}"), format!("SigningKey({} {}, hidden)", key.algorithm(), key.kid()));
        }
    }
}
