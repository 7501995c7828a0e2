//! Signing and verification with ring, as jsonwebtoken's [`JwtSigner`] and [`JwtVerifier`]. There are four
//! algorithms, none of them symmetric (security.md T1).

use jsonwebtoken::crypto::{JwtSigner, JwtVerifier};
use jsonwebtoken::signature::{Error, Signer, Verifier};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
    UnparsedPublicKey,
};

use crate::domain::Algorithm;

/// A parsed private key. ring does not wipe the parsed form when it is dropped.
pub(super) enum RingSigner {
    /// ECDSA on P-256; signatures in the raw form of RFC 7518 §3.4.
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(RsaKeyPair),
    Ps256(RsaKeyPair),
}

/// A public key in ring's form. ring stores public keys as bytes and decodes them in every verification. For P-256,
/// decoding checks that the point is on the curve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RingVerifier {
    /// The uncompressed point: 4, x, y.
    Es256([u8; 65]),
    /// The encoded point.
    EdDsa([u8; 32]),
    Rs256(RsaPublic),
    Ps256(RsaPublic),
}

/// An RSA public key: modulus and exponent, big endian without leading zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RsaPublic {
    pub(super) n: Vec<u8>,
    pub(super) e: Vec<u8>,
}

/// The generator that ring requires for ECDSA keys and nonces and for RSA blinding. It cannot be seeded.
#[expect(
    clippy::disallowed_methods,
    reason = "ring accepts no other generator for signatures; no test depends on their bytes"
)]
pub(super) fn ring_random() -> SystemRandom {
    SystemRandom::new()
}

/// Reads a P-256 private key. ring checks that it matches the public key in the document.
pub(super) fn es256_from_pkcs8(der: &[u8]) -> Result<EcdsaKeyPair, ring::error::KeyRejected> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &ring_random())
}

impl RingSigner {
    pub(super) const fn domain_algorithm(&self) -> Algorithm {
        match self {
            Self::Es256(_) => Algorithm::Es256,
            Self::EdDsa(_) => Algorithm::EdDsa,
            Self::Rs256(_) => Algorithm::Rs256,
            Self::Ps256(_) => Algorithm::Ps256,
        }
    }

    pub(super) fn verifier(&self) -> Result<RingVerifier, Error> {
        let rsa = |pair: &RsaKeyPair| {
            let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(pair.public());
            RsaPublic { n, e }
        };
        Ok(match self {
            Self::Es256(pair) => RingVerifier::Es256(pair.public_key().as_ref().try_into().map_err(|_| Error::new())?),
            Self::EdDsa(pair) => RingVerifier::EdDsa(pair.public_key().as_ref().try_into().map_err(|_| Error::new())?),
            Self::Rs256(pair) => RingVerifier::Rs256(rsa(pair)),
            Self::Ps256(pair) => RingVerifier::Ps256(rsa(pair)),
        })
    }
}

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let rsa = |pair: &RsaKeyPair, padding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; pair.public().modulus_len()];
            pair.sign(padding, &ring_random(), message, &mut signature).map(|()| signature)
        };
        match self {
            Self::Es256(pair) => pair.sign(&ring_random(), message).map(|signature| signature.as_ref().to_vec()),
            Self::EdDsa(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Self::Rs256(pair) => rsa(pair, &RSA_PKCS1_SHA256),
            Self::Ps256(pair) => rsa(pair, &RSA_PSS_SHA256),
        }
        .map_err(Error::from_source)
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> jsonwebtoken::Algorithm {
        library_name(self.domain_algorithm())
    }
}

impl RingVerifier {
    pub(super) const fn domain_algorithm(&self) -> Algorithm {
        match self {
            Self::Es256(_) => Algorithm::Es256,
            Self::EdDsa(_) => Algorithm::EdDsa,
            Self::Rs256(_) => Algorithm::Rs256,
            Self::Ps256(_) => Algorithm::Ps256,
        }
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), Error> {
        let rsa = |key: &RsaPublic, parameters| {
            PublicKeyComponents { n: &key.n, e: &key.e }.verify(parameters, message, signature)
        };
        match self {
            Self::Es256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature),
            Self::EdDsa(point) => UnparsedPublicKey::new(&ED25519, point).verify(message, signature),
            Self::Rs256(key) => rsa(key, &RSA_PKCS1_2048_8192_SHA256),
            Self::Ps256(key) => rsa(key, &RSA_PSS_2048_8192_SHA256),
        }
        .map_err(Error::from_source)
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> jsonwebtoken::Algorithm {
        library_name(self.domain_algorithm())
    }
}

/// The name of an algorithm in jsonwebtoken.
pub(super) const fn library_name(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::Ps256 => jsonwebtoken::Algorithm::PS256,
    }
}
