//! The keys that verify signatures. Each has exactly one algorithm (security.md T1).

use std::fmt;

use jsonwebtoken::signature::Verifier;

use super::jwk::PublicJwk;
use super::jws::SignatureKey;
use super::signature::RingVerifier;
use crate::domain::Algorithm;

/// A public key with its id and its one algorithm.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    kid: Box<str>,
    verifier: RingVerifier,
}

impl VerifyingKey {
    /// `kid` is the thumbprint for keys of ours, and whatever the owner calls the key for a client's.
    pub(super) fn new(kid: &str, verifier: RingVerifier) -> Self {
        Self { kid: kid.into(), verifier }
    }

    /// The id under which a token's header names the key.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The one algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.verifier.domain_algorithm()
    }

    /// The key as a JWKS shows it.
    pub fn public(&self) -> PublicJwk {
        PublicJwk::new(&self.kid, &self.verifier)
    }
}

impl SignatureKey for VerifyingKey {
    fn kid(&self) -> &str {
        &self.kid
    }

    fn algorithm_name(&self) -> &str {
        self.algorithm().as_str()
    }

    fn accepts(&self, message: &[u8], signature: Vec<u8>) -> bool {
        self.verifier.verify(message, &signature).is_ok()
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({} {})", self.algorithm(), self.kid)
    }
}
