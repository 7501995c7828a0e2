//! The parts that all kinds of JWT share: dates, audiences, and the checks of dates.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use crate::domain::Timestamp;
use crate::json::JsonError;

/// Clock skew tolerated for `iat` and `nbf`.
pub(super) const FUTURE_SKEW: Duration = Duration::from_secs(5);

/// Why the claims of a token with a valid signature are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsRefusal {
    /// Not a JSON object, a claim is missing, or a claim has the wrong JSON type.
    #[error("the token's claims: {0}")]
    Json(JsonError),
    /// A claim has an invalid value.
    #[error("the claim `{0}` {1}")]
    Claim(&'static str, &'static str),
    #[error("the token is from another issuer")]
    WrongIssuer,
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` is in the future: the clock of the issuer or of this machine is wrong.
    #[error("the token's `{0}` is in the future")]
    NotYetValid(&'static str),
    /// `exp - iat` is above the maximum lifetime.
    #[error("the token's lifetime is longer than allowed")]
    LivesTooLong,
}

/// A `NumericDate` (RFC 7519 §2) in whole seconds from 0 to 2^53. Fractions, exponents and strings are rejected
/// (security.md T8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NumericDate(pub(super) Timestamp);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = u64::deserialize(deserializer)?;
        match i64::try_from(seconds) {
            Ok(seconds @ 0..=0x20_0000_0000_0000) => Ok(Self(Timestamp::from_seconds(seconds))),
            _ => Err(D::Error::custom("a date is out of range")),
        }
    }
}

/// `aud`: one string or several (RFC 7519 §4.1.3). The reader of the claims checks the strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AudienceClaim(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for AudienceClaim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Vec<String>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings as `aud`")
            }

            fn visit_str<E: Error>(self, audience: &str) -> Result<Vec<String>, E> {
                Ok(vec![audience.to_owned()])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<String>, A::Error> {
                let mut audiences = Vec::new();
                while let Some(audience) = items.next_element()? {
                    audiences.push(audience);
                }
                Ok(audiences)
            }
        }

        let audiences = deserializer.deserialize_any(OneOrMany)?;
        if audiences.is_empty() {
            return Err(D::Error::custom("`aud` is empty"));
        }
        Ok(Self(audiences))
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Dates {
    pub(super) expires_at: Timestamp,
    pub(super) issued_at: Timestamp,
    pub(super) not_before: Timestamp,
}

impl Dates {
    /// The token has expired at `exp`, without leeway. `iat` and `nbf` may be [`FUTURE_SKEW`] ahead.
    pub(super) fn check(&self, now: Timestamp, longest_life: Duration) -> Result<(), ClaimsRefusal> {
        if self.expires_at <= self.issued_at {
            return Err(ClaimsRefusal::Claim("exp", "is not after `iat`"));
        }
        if self.expires_at.since(self.issued_at) > longest_life {
            return Err(ClaimsRefusal::LivesTooLong);
        }
        if self.issued_at > now.plus(FUTURE_SKEW) {
            return Err(ClaimsRefusal::NotYetValid("iat"));
        }
        if self.not_before > now.plus(FUTURE_SKEW) {
            return Err(ClaimsRefusal::NotYetValid("nbf"));
        }
        if now >= self.expires_at { Err(ClaimsRefusal::Expired) } else { Ok(()) }
    }
}
