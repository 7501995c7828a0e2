//! Verification of access tokens (security.md group T). Every access token passes through [`verify_access_token`].
//!
//! The order matters. Form and header come first and cost little. Next is the key, which the header only names, and
//! the signature. Claims are read last (T14). Revocations are checked by the caller.

use std::collections::HashMap;
use std::hash::BuildHasher;

use super::access_claims;
use super::claims::ClaimsRefusal;
use super::jws::{JwsRefusal, UnverifiedJws};
use super::verifying_key::VerifyingKey;
use crate::domain::{AccessClaims, Kid, Timestamp, TokenType};

/// Finds verifying keys in memory (security.md T5).
pub trait KeySource {
    /// The key with exactly this id, if its tokens are accepted.
    fn find(&self, kid: &Kid) -> Option<&VerifyingKey>;
}

impl<S: BuildHasher> KeySource for HashMap<Kid, VerifyingKey, S> {
    fn find(&self, kid: &Kid) -> Option<&VerifyingKey> {
        self.get(kid)
    }
}

/// An access token with a verified signature, valid claims, and `exp` in the future.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedToken {
    pub claims: AccessClaims,
    pub kid: Kid,
    /// The token's `typ`. The caller checks whether the client's tokens may have the type `JWT`.
    pub token_type: TokenType,
}

/// Why a token is refused. For operators; callers get the same response for every reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// Form, header or signature.
    #[error(transparent)]
    Jws(#[from] JwsRefusal),
    /// The header has no `kid`, or an invalid one.
    #[error("the token's header has no usable `kid`")]
    NoKid,
    /// No key has this id. Another replica may have just created it, so one reload of the keys is worthwhile
    /// (security.md K4).
    #[error("the key {0} is unknown")]
    UnknownKey(Kid),
    /// `typ` is missing or of another kind of token (security.md T2, T16).
    #[error("the token's `typ` is missing, or it is not that of an access token")]
    WrongType,
    #[error(transparent)]
    Claims(#[from] ClaimsRefusal),
}

impl TokenRefusal {
    /// The label in metrics and logs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Jws(JwsRefusal::BadSignature) => "bad_signature",
            Self::Jws(JwsRefusal::WrongAlgorithm | JwsRefusal::WrongKey) => "wrong_algorithm",
            Self::Jws(_) | Self::NoKid => "malformed",
            Self::UnknownKey(_) => "unknown_key",
            Self::WrongType => "wrong_type",
            Self::Claims(ClaimsRefusal::Expired) => "expired",
            Self::Claims(ClaimsRefusal::NotYetValid(_)) => "not_yet_valid",
            Self::Claims(ClaimsRefusal::WrongIssuer) => "wrong_issuer",
            Self::Claims(_) => "bad_claims",
        }
    }
}

/// Verifies `token` with the key that its header names. Its issuer must be `issuer`, and it must not have expired at
/// `now`.
pub fn verify_access_token(
    token: &str,
    keys: &impl KeySource,
    issuer: &str,
    now: Timestamp,
) -> Result<VerifiedToken, TokenRefusal> {
    let jws = UnverifiedJws::parse_jwt(token)?;
    let kid = jws.kid().and_then(|kid| Kid::parse(kid).ok()).ok_or(TokenRefusal::NoKid)?;
    let Some(key) = keys.find(&kid) else {
        return Err(TokenRefusal::UnknownKey(kid));
    };
    let verified = jws.verify(key)?;
    let token_type = verified.typ.as_deref().and_then(access_token_type).ok_or(TokenRefusal::WrongType)?;
    let claims = access_claims::read(&verified.payload, issuer, now)?;
    Ok(VerifiedToken { claims, kid, token_type })
}

/// `iat` of a token whose claims would pass verification; otherwise `None`. The signature is not verified. Only for
/// deciding how long to wait for the token's key.
pub fn unverified_issue_time(token: &str, issuer: &str, now: Timestamp) -> Option<Timestamp> {
    let payload = UnverifiedJws::parse_jwt(token).ok()?.unverified_payload().ok()?;
    access_claims::read(&payload, issuer, now).ok().map(|claims| claims.issued_at)
}

fn access_token_type(typ: &str) -> Option<TokenType> {
    [TokenType::AtJwt, TokenType::Jwt].into_iter().find(|token_type| token_type.admits(typ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::fixtures::{ISSUER, NOW, client_claims, eddsa_key, es256_key, keys_of, user_claims};

    #[test]
    fn a_signed_token_verifies_and_its_claims_round_trip() {
        for key in [eddsa_key(), es256_key()] {
            for claims in [user_claims(), client_claims()] {
                for token_type in [TokenType::AtJwt, TokenType::Jwt] {
                    let token = key.sign_access_token(&claims, token_type).unwrap();
                    let verified = verify_access_token(token.expose(), &keys_of(&[&key]), ISSUER, NOW).unwrap();
                    assert_eq!(verified, VerifiedToken { claims: claims.clone(), kid: key.kid().clone(), token_type });
                }
            }
        }
    }

    #[test]
    fn k4_only_a_token_with_valid_claims_has_an_unverified_issue_time() {
        let claims = user_claims();
        let token = es256_key().sign_access_token(&claims, TokenType::AtJwt).unwrap();
        assert_eq!(unverified_issue_time(token.expose(), ISSUER, NOW), Some(claims.issued_at));
        assert_eq!(unverified_issue_time(token.expose(), "https://other.example", NOW), None);
        assert_eq!(unverified_issue_time(token.expose(), ISSUER, claims.expires_at), None);
        for garbage in ["", "a.b.c", "e30.e30.e30"] {
            assert_eq!(unverified_issue_time(garbage, ISSUER, NOW), None);
        }
    }

    #[test]
    fn k4_an_unknown_key_has_its_own_refusal() {
        let (ours, other) = (eddsa_key(), es256_key());
        let token = other.sign_access_token(&user_claims(), TokenType::AtJwt).unwrap();
        let refusal = verify_access_token(token.expose(), &keys_of(&[&ours]), ISSUER, NOW).unwrap_err();
        assert_eq!(refusal, TokenRefusal::UnknownKey(other.kid().clone()));
        assert_eq!(refusal.as_str(), "unknown_key");
    }
}
