//! `private_key_jwt`: a client proves itself with a JWT that it signed (RFC 7523 §2.2 and §3, RFC 7521 §4.2).
//!
//! The same strict layers as for access tokens; what differs is whose key it is and what the claims must say. That a `jti` is
//! used once is for the caller to see to, until [`Assertion::expires_at`].

use std::time::Duration;

use serde::Deserialize;

use super::claims::{AudienceClaim, ClaimsRefusal, Dates, FUTURE_SKEW, NumericDate};
use super::jwk_set::PublicKeySet;
use super::jws::{JwsRefusal, UnverifiedJws};
use super::strict_json::{self, present};
use crate::domain::{ClientId, Jti, Timestamp};

/// How far ahead `exp` may lie. Libraries use one to ten minutes; used assertions are remembered that long.
pub const MAX_ASSERTION_LIFE: Duration = Duration::from_secs(10 * 60);

/// The types that an assertion may bear: none, `JWT`, or the explicit one of RFC 7523's revision.
const TYPES: [&str; 2] = ["jwt", "client-authentication+jwt"];

/// An assertion whose signature was not checked: it can name the client whose keys are to be tried, and be verified.
#[derive(Debug)]
pub struct UnverifiedAssertion<'a> {
    jws: UnverifiedJws<'a>,
    client: ClientId,
}

/// A client proved itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// To be accepted once.
    pub jti: Jti,
    /// Until when the `jti` is to be remembered.
    pub expires_at: Timestamp,
}

/// Why an assertion proves nothing. For the operator: the caller gets `invalid_client`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssertionRefusal {
    /// Form, header or signature.
    #[error(transparent)]
    Jws(#[from] JwsRefusal),
    /// `kid` is not one of the client's, or is missing although the client has several keys.
    #[error("the assertion names no key of the client")]
    UnknownKey,
    /// `typ` is that of another kind of token.
    #[error("the assertion's `typ` is that of another kind of token")]
    WrongType,
    /// `iss` and `sub` are not both the client.
    #[error("`iss` and `sub` of the assertion are not both the client's id")]
    WrongClient,
    /// Somebody else's name stands among the audiences.
    #[error("the assertion's `aud` is not this service alone")]
    WrongAudience,
    /// Any other claim.
    #[error(transparent)]
    Claims(#[from] ClaimsRefusal),
}

impl<'a> UnverifiedAssertion<'a> {
    /// Reads the header, and of the claims `sub` alone.
    pub fn parse(jwt: &'a str) -> Result<Self, AssertionRefusal> {
        #[derive(Deserialize)]
        struct Subject {
            sub: String,
        }
        let jws = UnverifiedJws::parse_jwt(jwt)?;
        let payload = jws.unverified_payload()?;
        let subject: Subject = strict_json::from_slice(&payload).map_err(ClaimsRefusal::Json)?;
        let client = ClientId::parse(&subject.sub).map_err(|_| AssertionRefusal::WrongClient)?;
        Ok(Self { jws, client })
    }

    /// The client that this claims to be from.
    pub const fn client(&self) -> &ClientId {
        &self.client
    }

    /// Checks it with the client's keys. `audiences` are the names of this service that are accepted: its issuer and the URL
    /// of its token endpoint.
    pub fn verify(
        self,
        keys: &PublicKeySet,
        audiences: &[&str],
        now: Timestamp,
    ) -> Result<Assertion, AssertionRefusal> {
        let key = match self.jws.kid() {
            Some(kid) => keys.by_kid(kid),
            None => keys.only(),
        };
        let verified = self.jws.verify(key.ok_or(AssertionRefusal::UnknownKey)?)?;
        if !verified.typ.as_deref().is_none_or(is_assertion_type) {
            return Err(AssertionRefusal::WrongType);
        }
        let claims: RawAssertion = strict_json::from_slice(&verified.payload).map_err(ClaimsRefusal::Json)?;
        claims.checked(&self.client, audiences, now)
    }
}

/// Verifies an assertion that must be from `client`.
pub fn verify_client_assertion(
    jwt: &str,
    keys: &PublicKeySet,
    client: &ClientId,
    audiences: &[&str],
    now: Timestamp,
) -> Result<Assertion, AssertionRefusal> {
    let assertion = UnverifiedAssertion::parse(jwt)?;
    if assertion.client() != client {
        return Err(AssertionRefusal::WrongClient);
    }
    assertion.verify(keys, audiences, now)
}

fn is_assertion_type(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    TYPES.contains(&typ.strip_prefix("application/").unwrap_or(&typ))
}

#[derive(Deserialize)]
struct RawAssertion {
    iss: String,
    sub: String,
    aud: AudienceClaim,
    exp: NumericDate,
    #[serde(default, deserialize_with = "present")]
    iat: Option<NumericDate>,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<NumericDate>,
    jti: String,
}

impl RawAssertion {
    fn checked(self, client: &ClientId, audiences: &[&str], now: Timestamp) -> Result<Assertion, AssertionRefusal> {
        if self.iss != client.as_str() || self.sub != client.as_str() {
            return Err(AssertionRefusal::WrongClient);
        }
        // Every audience, not any: an assertion that is good elsewhere too could have been handed on from there.
        if !self.aud.0.iter().all(|audience| audiences.contains(&audience.as_str())) {
            return Err(AssertionRefusal::WrongAudience);
        }
        let expires_at = self.exp.0;
        if expires_at > now.plus(MAX_ASSERTION_LIFE).plus(FUTURE_SKEW) {
            return Err(ClaimsRefusal::LivesTooLong.into());
        }
        // `iat` and `nbf` may be absent (RFC 7523 §3); the earliest instant that passes stands in for them.
        let issued_at = self.iat.map_or(expires_at.minus(MAX_ASSERTION_LIFE), |NumericDate(at)| at);
        let not_before = self.nbf.map_or(issued_at, |NumericDate(at)| at);
        Dates { expires_at, issued_at, not_before }.check(now, MAX_ASSERTION_LIFE)?;
        let jti = Jti::parse(&self.jti)
            .map_err(|_| ClaimsRefusal::Claim("jti", "is not 1 to 128 visible ASCII characters"))?;
        Ok(Assertion { jti, expires_at })
    }
}
