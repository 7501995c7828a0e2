//! Signatures, sealing, digests and password hashes: the only module that imports jsonwebtoken, ring and argon2.
//!
//! - [`verify_access_token`] verifies access tokens: `verifier` → `jws` → `json`, `signature` → `access_claims`.
//! - [`SigningKey::sign_access_token`] signs them.
//! - [`RefreshCodec`] encodes refresh tokens, and [`Sealer`] seals private keys. Both derive their keys from the
//!   [`MasterKey`].

mod access_claims;
mod assertion;
mod claims;
mod der;
mod digest;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod forgeries;
mod import;
mod inspect;
mod jwk;
mod jwk_set;
mod jws;
mod master_key;
mod password;
mod points;
#[cfg(test)]
mod provider;
mod random;
mod raw_jwk;
mod refresh;
mod rsa_checks;
mod seal;
mod signature;
mod signing_key;
mod verifier;
mod verifying_key;

pub use access_claims::MAX_ACCESS_TOKEN_LIFE;
pub use assertion::{Assertion, AssertionRefusal, MAX_ASSERTION_LIFE, UnverifiedAssertion};
pub use claims::ClaimsRefusal;
pub use digest::{constant_time_eq, id128, random_secret, sha256};
pub use import::{ImportError, import_private_key};
pub use inspect::UnverifiedToken;
pub use jwk::{PublicJwk, jwks_json};
pub use jwk_set::{JwkSetError, PublicKeySet};
pub use jws::{JwsRefusal, MAX_TOKEN_BYTES, SignatureKey, UnverifiedJws, VerifiedJws};
pub use master_key::{MasterKey, MasterKeyError, MasterKeyId};
pub use password::{
    HashObserver, HashRefusal, HashSettings, HashingError, PasswordHash, PasswordHasher, Pbkdf2Digest, Priority,
    Scheme, SettingsError, Verdict,
};
pub use random::{Random, SeededRandom, SystemRandom};
pub use raw_jwk::JwkError;
pub use refresh::{FamilyDigest, FamilySecret, NotOurs, RefreshCodec, RefreshToken, looks_like_refresh_token};
pub use rsa_checks::WeakRsaKey;
pub use seal::{Opened, SealError, Sealer};
pub use signing_key::{KeyError, SigningError, SigningKey};
pub use verifier::{KeySource, TokenRefusal, VerifiedToken, unverified_issue_time, verify_access_token};
pub use verifying_key::VerifyingKey;
