//! Public keys that verify signatures. Each has exactly one algorithm (security.md T1).

use std::fmt;

use jsonwebtoken::signature::Verifier;

use super::jwk::PublicJwk;
use super::jws::SignatureKey;
use super::signature::RingVerifier;
use crate::domain::Algorithm;

#[derive(Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    kid: Box<str>,
    verifier: RingVerifier,
}

impl VerifyingKey {
    /// `kid` is the thumbprint for our own keys, and the id chosen by the owner for a client's keys.
    pub(super) fn new(kid: &str, verifier: RingVerifier) -> Self {
        Self { kid: kid.into(), verifier }
    }

    /// The `kid` of tokens signed with this key.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    pub const fn algorithm(&self) -> Algorithm {
        self.verifier.domain_algorithm()
    }

    /// The key in the form of a JWKS.
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
