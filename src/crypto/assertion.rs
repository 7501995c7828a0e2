//! `private_key_jwt`: a client proves itself with a JWT that it signed (RFC 7523 §2.2 and §3, RFC 7521 §4.2).
//!
//! The same strict layers as for access tokens; what differs is whose key it is and what the claims must say. That a `jti` is
//! used once is for the caller to see to, until [`Assertion::expires_at`].

use std::time::Duration;

use serde::Deserialize;

use super::claims::{AudienceClaim, ClaimsRefusal, Dates, NumericDate};
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

fn is_assertion_type(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    TYPES.contains(&typ.strip_prefix("application/").unwrap_or(&typ))
}

#[derive(Deserialize)]
struct RawAssertion {
    iss: String,
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
        // `sub` is the client by construction: it was read from these same bytes.
        if self.iss != client.as_str() {
            return Err(AssertionRefusal::WrongClient);
        }
        // Every audience, not any: an assertion that is good elsewhere too could have been handed on from there.
        if !self.aud.0.iter().all(|audience| audiences.contains(&audience.as_str())) {
            return Err(AssertionRefusal::WrongAudience);
        }
        let expires_at = self.exp.0;
        // `iat` and `nbf` may be absent (RFC 7523 §3); the earliest instant that passes stands in for them, so that in either
        // case `exp` lies no further ahead than the longest life.
        let issued_at = self.iat.map_or(expires_at.minus(MAX_ASSERTION_LIFE), |NumericDate(at)| at);
        let not_before = self.nbf.map_or(issued_at, |NumericDate(at)| at);
        Dates { expires_at, issued_at, not_before }.check(now, MAX_ASSERTION_LIFE)?;
        let jti = Jti::parse(&self.jti)
            .map_err(|_| ClaimsRefusal::Claim("jti", "is not 1 to 128 visible ASCII characters"))?;
        Ok(Assertion { jti, expires_at })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::crypto::SigningKey;
    use crate::crypto::fixtures::{ISSUER, NOW, eddsa_key, es256_key, user_claims};
    use crate::crypto::jwk::jwks_json;
    use crate::domain::TokenType;

    const ENDPOINT: &str = "https://auth.example.com/oauth2/token";

    fn client() -> ClientId {
        ClientId::parse("batch").unwrap()
    }

    fn set_of(keys: &[&SigningKey]) -> PublicKeySet {
        let keys: Vec<_> = keys.iter().map(|key| key.public()).collect();
        PublicKeySet::parse(&jwks_json(&keys)).unwrap()
    }

    fn claims() -> Value {
        let now = NOW.seconds();
        json!({"iss": "batch", "sub": "batch", "aud": ENDPOINT, "exp": now + 60, "iat": now, "jti": "assertion-1"})
    }

    fn judge(claims: &Value) -> Result<Assertion, AssertionRefusal> {
        let key = es256_key();
        judge_token(&key.sign_jwt("JWT", claims).unwrap(), &set_of(&[&key]))
    }

    fn judge_token(token: &str, keys: &PublicKeySet) -> Result<Assertion, AssertionRefusal> {
        UnverifiedAssertion::parse(token)?.verify(keys, &[ISSUER, ENDPOINT], NOW)
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[name] = value;
        claims
    }

    #[test]
    fn an_honest_assertion_proves_the_client_and_names_what_is_used_once() {
        let expected = Assertion {
            jti: Jti::parse("assertion-1").unwrap(),
            expires_at: Timestamp::from_seconds(NOW.seconds() + 60),
        };
        for aud in [json!(ENDPOINT), json!(ISSUER), json!([ISSUER]), json!([ISSUER, ENDPOINT])] {
            assert_eq!(judge(&with("aud", aud)), Ok(expected.clone()));
        }
        let mut minimal = claims();
        minimal.as_object_mut().unwrap().remove("iat");
        assert_eq!(judge(&minimal), Ok(expected));
    }

    #[test]
    fn iss_and_sub_must_be_the_client() {
        for name in ["iss", "sub"] {
            for value in [json!("other"), json!("Batch"), json!(""), json!(["batch"]), json!(null), json!(1)] {
                assert!(judge(&with(name, value.clone())).is_err(), "{name} {value}");
            }
        }
        assert_eq!(judge(&with("sub", json!("other"))), Err(AssertionRefusal::WrongClient));
    }

    #[test]
    fn an_assertion_that_is_meant_for_somebody_else_too_is_refused() {
        let foreign = "https://other.example/token";
        for aud in [json!(foreign), json!([ISSUER, foreign]), json!(format!("{ISSUER}/"))] {
            assert_eq!(judge(&with("aud", aud)), Err(AssertionRefusal::WrongAudience));
        }
        for aud in [json!([]), json!(""), json!(null), json!(7)] {
            assert!(judge(&with("aud", aud)).is_err());
        }
    }

    #[test]
    fn t8_its_life_is_bounded_to_the_second() {
        let now = NOW.seconds();
        let lives = |exp: i64, iat: Option<i64>| {
            let mut claims = with("exp", json!(exp));
            match iat {
                Some(iat) => claims["iat"] = json!(iat),
                None => drop(claims.as_object_mut().unwrap().remove("iat")),
            }
            judge(&claims).is_ok()
        };
        assert!(lives(now + 1, Some(now)) && !lives(now, Some(now - 1)));
        assert!(lives(now + 600, Some(now)) && !lives(now + 601, Some(now)));
        assert!(lives(now + 605, Some(now + 5)) && !lives(now + 606, Some(now + 6)));
        assert!(lives(now + 600, None) && lives(now + 605, None) && !lives(now + 606, None));
        assert!(!lives(now + 60, Some(now + 6)));
        for name in ["exp", "jti"] {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(name);
            assert!(judge(&claims).is_err(), "{name} absent");
        }
        assert!(judge(&with("nbf", json!(now + 6))).is_err() && judge(&with("nbf", json!(now + 5))).is_ok());
        assert!(judge(&with("exp", json!(now as f64 + 60.0))).is_err());
        assert!(judge(&with("jti", json!(""))).is_err());
    }

    #[test]
    fn the_key_is_one_of_the_clients_and_is_named_unless_there_is_one() {
        let (mine, other) = (es256_key(), eddsa_key());
        let token = mine.sign_jwt("JWT", &claims()).unwrap();
        assert_eq!(judge_token(&token, &set_of(&[&other])), Err(AssertionRefusal::UnknownKey));
        assert!(judge_token(&token, &set_of(&[&other, &mine])).is_ok());
        let nameless = mine.sign_parts(b"{\"alg\":\"ES256\"}", claims().to_string().as_bytes()).unwrap();
        assert!(judge_token(&nameless, &set_of(&[&mine])).is_ok());
        assert_eq!(judge_token(&nameless, &set_of(&[&mine, &other])), Err(AssertionRefusal::UnknownKey));
        assert!(judge_token(&nameless, &set_of(&[&other])).is_err());
    }

    #[test]
    fn t16_other_kinds_of_tokens_are_no_assertions() {
        let key = es256_key();
        for typ in ["JWT", "jwt", "client-authentication+jwt", "application/client-authentication+jwt"] {
            assert!(judge_token(&key.sign_jwt(typ, &claims()).unwrap(), &set_of(&[&key])).is_ok(), "{typ}");
        }
        for typ in ["at+jwt", "application/at+jwt", "token-introspection+jwt", "dpop+jwt", ""] {
            let token = key.sign_jwt(typ, &claims()).unwrap();
            assert_eq!(judge_token(&token, &set_of(&[&key])), Err(AssertionRefusal::WrongType), "{typ}");
        }
        let access = key.sign_access_token(&user_claims(), TokenType::Jwt).unwrap();
        assert!(judge_token(access.expose(), &set_of(&[&key])).is_err());
    }

    #[test]
    fn t3_t10_it_passes_through_the_same_strict_layers() {
        let key = es256_key();
        let sign = |header: &str, payload: &str| key.sign_parts(header.as_bytes(), payload.as_bytes()).unwrap();
        let payload = claims().to_string();
        let twice = payload.replacen('{', "{\"x\":1,\"\\u0078\":2,", 1);
        for (header, payload) in [
            (r#"{"alg":"ES256","crit":[]}"#, &payload),
            (r#"{"alg":"none"}"#, &payload),
            (r#"{"alg":"ES256","alg":"ES256"}"#, &payload),
            (r#"{"alg":"ES256","jwk":{}}"#, &payload),
            (r#"{"alg":"ES256"}"#, &twice),
        ] {
            assert!(judge_token(&sign(header, payload), &set_of(&[&key])).is_err(), "{header}");
        }
    }

    #[test]
    fn an_unverified_assertion_names_the_client_and_nothing_else() {
        let token = es256_key().sign_jwt("JWT", &claims()).unwrap();
        assert_eq!(UnverifiedAssertion::parse(&token).unwrap().client(), &client());
        assert!(UnverifiedAssertion::parse("a.b.c").is_err());
    }
}
